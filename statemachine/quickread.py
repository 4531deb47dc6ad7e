"""Reading plain data into classes: strictly, and in one go over the fields that are there.

A replay reads millions of payloads, most of them with a third of their fields, and every answer
about disks reads records. So this goes over the data once, and fills the `__dict__` of the new
value where its class lets it. It knows the kinds of fields that events and records have, and no
others. Nothing is converted: a field of another type is refused; one that is unknown is left out.

Pure; may be imported by everything above. `codec` is the way back.
"""

from __future__ import annotations

import enum
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import attrs

from statemachine.units import Bytes

T = TypeVar("T")
ReadField = Callable[[Any], Any]

_PLAIN: Final = {str: "text", int: "a whole number", bool: "true or false"}
"""What JSON has as it is, and nothing has to be made of; in words for an error."""
_TEXT: Final = frozenset({str})


def structure(data: Mapping[str, Any], kind: type[T]) -> T:
    """Return plain data as an instance of a class; raises ValueError when it does not fit."""
    try:
        made: T = _reader(kind)(data)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        msg = f"{kind.__name__}: {error!r}"
        raise ValueError(msg) from error
    return made


def _made_reader(kind: type[Any]) -> ReadField:
    attrs.resolve_types(kind)
    fields = attrs.fields(kind)
    count = len(fields)
    defaults = {each.name: each.default for each in fields if each.default is not attrs.NOTHING}
    plain = {each.name: known for each in fields if (known := _present(each.type)) in _PLAIN}
    readers = {each.name: _field_reader(each.type) for each in fields}
    make = functools.partial(_filled if is_filled(kind) else _called, kind)

    def read(data: Mapping[str, Any]) -> Any:  # noqa: ANN401 - an instance of `kind`
        values = {**defaults, **data}
        for name, value in data.items():
            if plain.get(name) is type(value):
                continue
            if name in readers:
                values[name] = readers[name](value)
            else:
                del values[name]
        if len(values) < count:
            missing = sorted(each.name for each in fields if each.name not in values)
            msg = f"there is no {', '.join(missing)}"
            raise ValueError(msg)
        return make(values)

    return read


_reader: Final[Callable[[type[Any]], ReadField]] = functools.cache(_made_reader)  # type: ignore[assignment] # mypy: a class can be hashed


def is_filled(kind: type[Any]) -> bool:
    """Tell whether values of a class may be made by filling their `__dict__`."""
    return "__slots__" not in kind.__dict__ and all(map(_is_simple, attrs.fields(kind)))


def _is_simple(field: attrs.Attribute[Any]) -> bool:
    is_made = isinstance(field.default, attrs.Factory)  # type: ignore[arg-type] # it is a class
    return field.validator is None and field.converter is None and not is_made


def _filled(kind: type[Any], values: dict[str, Any]) -> object:
    made: object = object.__new__(kind)
    made.__dict__.update(values)
    return made


def _called(kind: type[Any], values: dict[str, Any]) -> object:
    return kind(**values)


def _present(kind: Any) -> Any:  # noqa: ANN401 - any annotation
    """Return the type of a field that is there: of `X | None` that is X."""
    parts = [part for part in typing.get_args(kind) if part is not type(None)]
    return parts[0] if isinstance(kind, types.UnionType) and len(parts) == 1 else kind


def _field_reader(kind: Any) -> ReadField:  # noqa: ANN401 - any annotation
    present = _present(kind)
    if present is not kind:
        return functools.partial(_read_if_any, _field_reader(present))
    if kind in _READERS:
        return _READERS[kind]
    if typing.get_origin(kind) is tuple:
        return functools.partial(_several, typing.get_args(kind)[0])
    if issubclass(kind, enum.StrEnum):
        return {member.value: member for member in kind}.__getitem__
    assert attrs.has(kind), f"how to read a {kind} is not known"
    return functools.partial(_read_as, kind)


def _read_if_any(read: ReadField, value: object) -> object:
    return None if value is None else read(value)


def _read_as(kind: type[Any], value: Mapping[str, Any]) -> object:
    """Read a field that is a value itself; its class is looked at when there is one."""
    return _reader(kind)(value)


def _several(kind: type[Any], value: object) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise _misfit("a list", value)
    return tuple(map(_reader(kind), value))


def _texts(value: object) -> tuple[str, ...]:
    """Read a whole list at once: these and the tables are most of what a replay reads."""
    if not isinstance(value, list | tuple) or not _TEXT.issuperset(map(type, value)):
        raise _misfit("a list of texts", value)
    return tuple(value)


def _table_of_texts(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not _TEXT.issuperset(map(type, value.values())):
        raise _misfit("a table of texts", value)
    return value


def _refuse(wanted: str, value: object) -> object:
    raise _misfit(wanted, value)


def _misfit(wanted: str, value: object) -> ValueError:
    return ValueError(f"expected {wanted}, found {value!r:.80}")


_READERS: Final[dict[Any, ReadField]] = {
    # What fits is taken without asking, so only what does not comes here.
    **{kind: functools.partial(_refuse, wanted) for kind, wanted in _PLAIN.items()},
    tuple[str, ...]: _texts,
    dict[str, str]: _table_of_texts,
    # Most files of a root are of a few sizes. `typed`, as True is no size and equal to one.
    Bytes: functools.lru_cache(maxsize=1024, typed=True)(Bytes),
}

"""Reading plain data into a class in one go over the fields that are there.

A replay reads millions of payloads, most of them with a third of their fields. What cattrs makes
for a class asks for each field by name and sets each by itself; this goes over the data once and
fills the `__dict__` of the new value. It is for attrs classes without slots, validators and
factories, and as strict: a field of another type is read by the converter's own hook, which takes
it or raises. Pure; may be imported by codec only.
"""

from __future__ import annotations

import enum
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import cattrs

Read = Callable[[Any, Any], Any]
PLAIN: Final = frozenset({str, int, bool})
"""What JSON has as it is, and nothing has to be made of."""


def is_quick(kind: object) -> bool:
    """Tell whether values of a class can be made so."""
    return (
        isinstance(kind, type)
        and attrs.has(kind)
        and "__slots__" not in kind.__dict__
        and all(map(_is_simple, attrs.fields(kind)))
    )


def _is_simple(field: attrs.Attribute[Any]) -> bool:
    is_made = isinstance(field.default, attrs.Factory)  # type: ignore[arg-type] # it is a class
    return field.validator is None and field.converter is None and not is_made


def reader(kind: type[Any], converter: cattrs.Converter) -> Read:
    """Return what makes a value of a class of plain data.

    It raises KeyError, TypeError or ValueError when the data does not fit.
    """
    attrs.resolve_types(kind)
    fields = attrs.fields(kind)
    count = len(fields)
    defaults = {each.name: each.default for each in fields if each.default is not attrs.NOTHING}
    plain = {each.name: known for each in fields if (known := _present(each.type)) in PLAIN}
    readers = {each.name: _field_reader(each.type, converter) for each in fields}

    def read(data: Mapping[str, Any], _: object) -> Any:  # noqa: ANN401 - an instance of `kind`
        values = dict(defaults)
        for name, value in data.items():
            if plain.get(name) is type(value):
                values[name] = value
            elif name in readers:
                values[name] = readers[name](value)
        if len(values) < count:
            missing = sorted(each.name for each in fields if each.name not in values)
            msg = f"there is no {', '.join(missing)}"
            raise ValueError(msg)
        made = object.__new__(kind)
        made.__dict__.update(values)
        return made

    return read


def _present(kind: Any) -> Any:  # noqa: ANN401 - any annotation
    """Return the type of a field that is there: of `X | None` that is X."""
    parts = [part for part in typing.get_args(kind) if part is not type(None)]
    return parts[0] if isinstance(kind, types.UnionType) and len(parts) == 1 else kind


def _field_reader(kind: Any, converter: cattrs.Converter) -> Callable[[Any], Any]:  # noqa: ANN401 - any annotation
    if isinstance(kind, type) and issubclass(kind, enum.StrEnum):
        return {member.value: member for member in kind}.__getitem__
    return functools.partial(_by_hook, converter.get_structure_hook(kind), kind)


def _by_hook(hook: Read, kind: object, value: object) -> object:
    return hook(value, kind)

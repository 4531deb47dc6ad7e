"""The codec between values and plain data: strict, so that nothing is read as what it is not.

Sizes are numbers, paths texts; what is at its default is left out. A value of
the wrong kind raises ValueError. Pure; may be imported by payloads and record.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import cattrs

from statemachine import quickread
from statemachine.units import Bytes, Sectors

T = TypeVar("T")


def to_data(value: object) -> dict[str, Any]:
    """Return a payload or a record as plain data, leaving out what is at its default."""
    plain: dict[str, Any] = CONVERTER.unstructure(value)
    return plain


def structure(data: Mapping[str, Any], kind: type[T]) -> T:
    """Return plain data as an instance of a class; raises ValueError when it does not fit."""
    try:
        made: T = _hook(kind)(data, kind)  # type: ignore[arg-type] # mypy: a class can be hashed
    # cattrs asks for the items of what should be a table, whatever it is.
    except (
        AttributeError,
        cattrs.BaseValidationError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:
        msg = f"{kind.__name__}: {error!r}"
        raise ValueError(msg) from error
    return made


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(omit_if_default=True, detailed_validation=False)
    for unit in (Bytes, Sectors):
        converter.register_unstructure_hook(unit, int)
        converter.register_structure_hook(unit, lambda count, kind: kind(count))
    converter.register_unstructure_hook_func(_is_path, str)
    converter.register_structure_hook_func(_is_path, lambda text, _: Path(text))
    converter.register_unstructure_hook_func(_is_enum, lambda member: member.value)
    # By class: for these a hook by predicate comes after cattrs' own, which converts.
    converter.register_structure_hook(int, _strict_int)
    converter.register_structure_hook(bool, _strict_truth)
    converter.register_structure_hook(str, _strict_text)
    converter.register_structure_hook(enum.StrEnum, lambda text, kind: kind(text))
    # Whole lists and tables of texts at once: they are most of what a replay reads.
    converter.register_structure_hook_func(lambda kind: kind == tuple[str, ...], _texts)
    converter.register_structure_hook_func(lambda kind: kind == dict[str, str], _table_of_texts)
    converter.register_structure_hook_factory(
        quickread.is_quick, lambda kind: quickread.reader(kind, converter)
    )
    return converter


def _is_path(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Path)


def _is_enum(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.StrEnum)


def _strict_int(value: object, _: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"expected a whole number, found {value!r:.80}"
        raise ValueError(msg)  # noqa: TRY004 - one error for all that does not fit
    return value


def _strict_truth(value: object, _: object) -> bool:
    if not isinstance(value, bool):
        msg = f"expected true or false, found {value!r:.80}"
        raise ValueError(msg)  # noqa: TRY004 - one error for all that does not fit
    return value


def _strict_text(value: object, kind: type[str]) -> str:
    """Read a text or a member of an enumeration of texts, which is a kind of `str` to cattrs."""
    if not isinstance(value, str):
        msg = f"expected text, found {value!r:.80}"
        raise ValueError(msg)  # noqa: TRY004 - one error for all that does not fit
    return kind(value)


_TEXT: Final = frozenset({str})


def _texts(value: object, _: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not _TEXT.issuperset(map(type, value)):
        msg = f"expected a list of texts, found {value!r:.80}"
        raise ValueError(msg)
    return tuple(value)


def _table_of_texts(value: object, _: object) -> dict[str, str]:
    if not isinstance(value, dict):
        msg = f"expected a table of texts, found {value!r:.80}"
        raise ValueError(msg)  # noqa: TRY004 - one error for all that does not fit
    if not _TEXT.issuperset(map(type, value.values())):
        msg = f"expected a table of texts, found {value!r:.80}"
        raise ValueError(msg)
    return value


CONVERTER: Final = _converter()


@functools.cache
def _hook(kind: type[Any]) -> Callable[[Mapping[str, Any], type[Any]], Any]:
    return CONVERTER.get_structure_hook(kind)

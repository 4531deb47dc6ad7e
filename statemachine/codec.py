"""The codec from values to plain data; `quickread` is the way back.

Sizes are numbers; what is at its default is left out. Pure; may be imported by payloads, record
and basetable.
"""

from __future__ import annotations

import enum
import functools
from typing import TYPE_CHECKING, Any

from statemachine.units import Bytes, Sectors

if TYPE_CHECKING:
    import cattrs


def to_data(value: object) -> dict[str, Any]:
    """Return a payload or a record as plain data, leaving out what is at its default."""
    plain: dict[str, Any] = _converter().unstructure(value)
    return plain


@functools.cache
def _converter() -> cattrs.Converter:
    import cattrs  # noqa: PLC0415 - slow to import, and who only reads records writes none

    converter = cattrs.Converter(omit_if_default=True, detailed_validation=False)
    for unit in (Bytes, Sectors):
        converter.register_unstructure_hook(unit, int)
    converter.register_unstructure_hook_func(_is_enum, lambda member: member.value)
    return converter


def _is_enum(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.StrEnum)

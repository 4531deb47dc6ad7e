"""The eyes and the hands: what is wanted, what the kernel shows, what to do next, and doing it.

    from reconciler import Byre

`Byre` is the Python API; see `reconciler.api`. It is imported on first use, so that the command
line's quick questions do not pay for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reconciler.api import Byre
    from reconciler.outcome import Waited

__all__ = ["Byre", "Waited"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from reconciler import api  # noqa: PLC0415 - see the module docstring

        return getattr(api, name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)

"""The rules file that keeps udev from looking into the disks of sandboxes.

May be imported by checkup and cli.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

NAME: Final = "05-byre.rules"
"""It sorts before the rules that probe: 13-dm-disk.rules and 60-persistent-storage.rules."""


def rules() -> str:
    """Return the text of the rules file."""
    return resources.files(__name__).joinpath(NAME).read_text(encoding="utf-8")

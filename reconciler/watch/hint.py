"""What a watcher says, and what a watcher is.

What this module does not do: it maps no device to a disk; that takes the record and is done above.
Pure; may be imported by everything in `reconciler.watch` and above it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol

import attrs

NAME_LENGTH_MAX = 4096  # PATH_MAX: a link is named by its whole path


class HintKind(enum.StrEnum):
    """What the name in a hint is the name of."""

    DEVICE = "device"
    """A kernel device name: "dm-3", "loop7"."""
    MAPPER = "mapper"
    """An entry of /dev/mapper, which is the name of a dm device."""
    SPEC = "spec"
    """A file with specs, or one in the folder of specs."""
    LINK = "link"
    """The path of a link, or of the folder that links were in."""
    DISK = "disk"
    """A disk, by its own name."""
    LOG = "log"
    """The event log may have more events; the name is that of the file that says so."""
    ALL = "all"
    """Notices were lost, or a place came back: look at everything, specs and log included."""


@attrs.frozen(kw_only=True)
class Hint:
    """Look there. `source` is the watcher's name, for people; equal hints mean one look."""

    source: str
    kind: HintKind = attrs.field(converter=HintKind)
    name: str = attrs.field(default="", validator=attrs.validators.max_len(NAME_LENGTH_MAX))


Wake = Callable[[Hint], None]
"""Takes a hint; called from a watcher's thread, must return soon and must not raise."""


Hold = Callable[[], float]
"""How many seconds to leave unread what there is, as most of it tells of what is being done just
now; 0 for not at all. What comes meanwhile is read with it."""


def at_once() -> float:
    """Read what there is at once, always."""
    return 0.0


class Watcher(Protocol):
    """One pair of eyes. It works or says why not; it never raises into the daemon."""

    @property
    def name(self) -> str:
        """What kind of watcher it is, the `source` of its hints."""
        ...

    @property
    def unavailable(self) -> str:
        """Why it sees nothing, or not everything, just now; "" when all is well."""
        ...

    def start(self, wake: Wake, hold_s: Hold = at_once) -> None:
        """Begin to watch; whatever happens after the return leads to a hint.

        Called once. If it cannot work here it returns as well, and `unavailable` has the reason.

        Args:
            wake: takes the hints.
            hold_s: asked when there is something to read, by a watcher of devices and links.
        """
        ...

    def stop(self) -> None:
        """End the watching and give everything back; ends within `thread.STOP_S`. Idempotent."""
        ...

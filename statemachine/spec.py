"""What somebody wants: one disk's spec, and what the log keeps of it.

`specreader` checks what a person or a program wrote and makes specs of it.

Pure; may be imported by specreader, events, projection and everything above.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from statemachine.jail import Jail
from statemachine.lifetime import Lifetime
from statemachine.machine import Desired
from statemachine.names import DiskName, disk_name
from statemachine.units import DEFAULT_CHUNK, Bytes

BUSY_TIMEOUT_S: Final = 60.0


_FLAGS: Final = {"persistent": True, "direct_io": False, "discard": False, "sparsify": False}
"""What is true or false, and which of these if nothing is said."""


class DriverChoice(enum.StrEnum):
    """Which driver builds a disk; `auto` picks by what the kernel can do, and says so."""

    AUTO = "auto"
    DM_SNAPSHOT = "dm-snapshot"
    CLONE = "clone"


class OnBusy(enum.StrEnum):
    """What becomes of a pause or a removal when somebody still has the disk open too long."""

    WAIT = "wait"
    """Go on waiting for the last holder, however long it takes."""
    FAIL = "fail"
    """Give up and leave the disk as it is, until somebody asks again."""


# Called once for each of thousands of disks, which are on a few bases and in a few states.
_base_path: Final = functools.lru_cache(maxsize=256)(Path)
_state: Final = functools.cache(Desired)
_driver: Final = functools.cache(DriverChoice)


@attrs.frozen(kw_only=True, slots=False)  # made in two thirds of the time
class DiskSpec:
    """One wanted disk. Paths are absolute."""

    name: DiskName
    base: Path
    """Until it is declared this may be "base:NAME" or "sha256:DIGEST"; never in the log."""
    state: Desired = Desired.LIVE
    link: Path | None = None
    jail: Jail | None = None
    driver: DriverChoice = DriverChoice.AUTO
    size: Bytes | None = None
    """How large the disk is, if larger than its base: zeros follow."""
    cow_size: Bytes | None = None
    """How large the CoW file begins; None for one that a full rewrite never overflows."""
    cow_max: Bytes | None = None
    """How far it may be grown; None for as far as a full rewrite needs."""
    chunk_size: Bytes = DEFAULT_CHUNK
    """What dm-snapshot copies at a time, and what the CoW file is counted in."""
    persistent: bool = True
    """Whether its data outlives its device; a throwaway disk's does not, and it is never paused."""
    direct_io: bool = False
    """Whether the loop of the disk's own file goes past the host's page cache."""
    discard: bool = False
    """Whether what a guest discards of what it wrote goes back to the host at once."""
    sparsify: bool = False
    """Whether each pause takes out of the CoW file what is equal to the base, or zeros."""
    on_busy: OnBusy = OnBusy.WAIT
    busy_timeout_s: float = BUSY_TIMEOUT_S
    """After so many seconds in use `on_busy` decides."""
    lifetime: Lifetime = attrs.field(factory=Lifetime)
    """How long the disk is wanted."""

    def to_data(self) -> dict[str, str]:
        """Return plain data that `from_data` reads back; what the log keeps."""
        data = {
            "name": str(self.name),
            "base": str(self.base),
            "state": self.state.value,
            "driver": self.driver.value,
        }
        if self.link is not None:
            data["link"] = str(self.link)
        if self.jail is not None:
            data |= self.jail.to_data()
        for field in ("size", "cow_size", "cow_max"):
            size: Bytes | None = getattr(self, field)
            if size is not None:
                data[field] = str(size.count)
        if self.chunk_size != DEFAULT_CHUNK:
            data["chunk_size"] = str(self.chunk_size.count)
        for flag, default in _FLAGS.items():
            if getattr(self, flag) is not default:
                data[flag] = str(not default).lower()
        if self.on_busy is not OnBusy.WAIT:
            data["on_busy"] = self.on_busy.value
        if self.busy_timeout_s != BUSY_TIMEOUT_S:
            data["busy_timeout_s"] = repr(self.busy_timeout_s)
        return data | self.lifetime.to_data()

    @property
    def places(self) -> tuple[tuple[str, Path], ...]:
        """The paths that a live disk has to itself, each with its field."""
        link = (("link", self.link),) if self.link is not None else ()
        return (*link, ("jail", self.jail.path)) if self.jail is not None else link

    @classmethod
    def from_data(cls, data: Mapping[str, str]) -> DiskSpec:
        """Read back what `to_data` wrote; raises KeyError or ValueError on anything else."""
        return cls(
            name=disk_name(data["name"]),
            base=_base_path(data["base"]),
            state=_state(data["state"]),
            link=Path(data["link"]) if "link" in data else None,
            jail=Jail.from_data(data),
            driver=_driver(data["driver"]),
            size=Bytes(int(data["size"])) if "size" in data else None,
            cow_size=Bytes(int(data["cow_size"])) if "cow_size" in data else None,
            cow_max=Bytes(int(data["cow_max"])) if "cow_max" in data else None,
            chunk_size=Bytes(int(data["chunk_size"])) if "chunk_size" in data else DEFAULT_CHUNK,
            persistent=data.get("persistent") != "false",
            direct_io=data.get("direct_io") == "true",
            discard=data.get("discard") == "true",
            sparsify=data.get("sparsify") == "true",
            on_busy=OnBusy(data["on_busy"]) if "on_busy" in data else OnBusy.WAIT,
            busy_timeout_s=float(data.get("busy_timeout_s", BUSY_TIMEOUT_S)),
            lifetime=Lifetime.from_data(data),
        )

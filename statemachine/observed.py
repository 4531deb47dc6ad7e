"""What the kernel shows, as values: files, loop devices, dm devices, links, and one disk's whole.

These are facts at one moment, without judgement: `reconciler.drift` judges them.
Pure; made by `reconciler.kernel` and `reconciler.observe`, read by drivers, drift and plan. May be
imported by payloads, projection and everything in `reconciler`.
"""

from __future__ import annotations

import enum
from typing import Self

import attrs

from statemachine.fileidentity import FileIdentity
from statemachine.units import CHUNK_SECTORS, Sectors


@attrs.frozen
class DeviceNumber:
    """A block device's (major, minor)."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "7:12"; raises ValueError when it is not two whole numbers."""
        major, _, minor = text.strip().partition(":")
        return cls(int(major), int(minor))

    def __str__(self) -> str:
        """Print as dm tables and sysfs write it: "7:12"."""
        return f"{self.major}:{self.minor}"


@attrs.frozen(kw_only=True)
class Loop:
    """A bound loop device. `backing` is (st_dev, inode) of the file behind it."""

    number: int
    device: DeviceNumber
    backing_device: int
    backing_inode: int
    backing_path: str
    marker: str
    """`lo_file_name`: ours says whose it is; foreign ones hold anything."""
    size: Sectors
    read_only: bool
    autoclear: bool
    direct_io: bool = False

    @property
    def path(self) -> str:
        """The device node."""
        return f"/dev/loop{self.number}"

    def backs(self, file: FileIdentity) -> bool:
        """Tell whether this loop is on that file."""
        return (self.backing_device, self.backing_inode) == (file.device, file.inode)


class SnapshotHealth(enum.StrEnum):
    """How the snapshot target says it is."""

    VALID = "valid"
    INVALID = "invalid"
    """The exception store is lost for ever: a write failed."""
    OVERFLOW = "overflow"
    """The exception store is full."""
    MERGE_FAILED = "merge-failed"
    UNKNOWN = "unknown"


@attrs.frozen(kw_only=True)
class SnapshotStatus:
    """The status line of a snapshot target, in sectors of the CoW device."""

    health: SnapshotHealth
    used: Sectors = attrs.field(factory=lambda: Sectors(0))
    total: Sectors = attrs.field(factory=lambda: Sectors(0))
    metadata: Sectors = attrs.field(factory=lambda: Sectors(0))


@attrs.frozen(kw_only=True)
class SnapshotTable:
    """The table of one snapshot target over the whole device."""

    length: Sectors
    origin: DeviceNumber
    cow: DeviceNumber
    persistent: str = "P"
    chunk: Sectors = attrs.field(factory=lambda: Sectors(CHUNK_SECTORS))
    discards: bool = False
    """Whether a discard of a chunk that was written makes zeros of it, and a hole in the CoW."""


@attrs.frozen(kw_only=True)
class OriginTable:
    """The table of a base that is made longer: a linear target on its loop, then a zero target."""

    base: DeviceNumber
    base_length: Sectors
    length: Sectors
    """Of both together."""


@attrs.frozen(kw_only=True)
class DmDevice:
    """A dm device. `table` is None when it has no live table or not exactly one snapshot target."""

    name: str
    uuid: str
    device: DeviceNumber
    suspended: bool
    open_count: int
    live: bool
    """Whether it has a live table at all (a half-made device has none)."""
    table: SnapshotTable | None
    status: SnapshotStatus | None
    event_nr: int = 0
    origin: OriginTable | None = None
    """Its table, if it is one of a longer base."""

    @property
    def node(self) -> str:
        """The kernel's own device node."""
        return f"/dev/dm-{self.device.minor}"


class LinkKind(enum.StrEnum):
    """What is at a path where a symlink should be."""

    MISSING = "missing"
    SYMLINK = "symlink"
    DEVICE = "device"
    """A block device node; the target is then its number, "253:4"."""
    OCCUPIED = "occupied"
    """A file or a folder: somebody's, never overwritten."""


@attrs.frozen(kw_only=True)
class LinkObservation:
    """What is at a link's path."""

    kind: LinkKind
    target: str = ""
    missing_parents: tuple[str, ...] = ()
    """Parent folders that do not exist, outermost first."""
    why: str = ""
    """Why the path must not be used, when it is OCCUPIED for that; for people."""


@attrs.frozen(kw_only=True)
class NodeObservation:
    """What is at the path of a device node in a jail, and whether a node there would do."""

    kind: LinkKind
    number: str = ""
    """Major and minor, when it is a block device node."""
    uid: int = 0
    gid: int = 0
    mode: int = 0
    missing_parents: tuple[str, ...] = ()
    """Parent folders that do not exist, outermost first."""
    unsafe: str = ""
    """Why the way to it must not be used; for people."""
    flaw: str = ""
    """Why a node there could not be made, or not be opened; for people."""


@attrs.frozen(kw_only=True)
class Holder:
    """Who keeps a device open."""

    kind: str
    """"process", "mount", "swap", "loop" or "dm"."""
    name: str
    pid: int | None = None

    def __str__(self) -> str:
        """Print for people: "process qemu-system-x86 (pid 41)", "mount /mnt"."""
        return f"{self.kind} {self.name}" + (f" (pid {self.pid})" if self.pid else "")


@attrs.frozen(kw_only=True)
class ObservedDisk:
    """All that the kernel and the file system show of one disk at one moment."""

    base: FileIdentity | None
    cow: FileIdentity | None
    cow_header: str
    """"empty", "valid", "invalid", "foreign" or "missing"; "opaque" where the driver has none."""
    base_loop: Loop | None
    cow_loop: Loop | None
    other_cow_loops: tuple[Loop, ...] = ()
    """More loops on the CoW file than one: data would be lost if both were written."""
    dm: DmDevice | None = None
    """The device under our name, whoever's it is."""
    origin: DmDevice | None = None
    """The device under our origin's name, whoever's it is; looked for where there should be one."""
    node: LinkObservation | None = None
    """/dev/mapper/NAME."""
    device_node: LinkObservation | None = None
    """/dev/dm-N of our live device."""
    link: LinkObservation | None = None
    other_links: tuple[tuple[str, LinkObservation], ...] = ()
    """What is where an attempt began a link that is not the wanted one any more."""
    jail: NodeObservation | None = None
    """What is where the node in the disk's jail is to be."""
    other_nodes: tuple[tuple[str, LinkObservation], ...] = ()
    """What is where a node was made, or begun, that is not the wanted one any more."""

"""What udev does for each disk: events, programs, reads; with byre's rules or without them.

Which of the two is measured is up to the host: the rules are installed, or not. Steps follow each
other at once, as they do where sandboxes come and go, so that udev is still busy with the step
before. May be imported by the package only.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import PurePath
from typing import Final

from reconciler.bench import kerneltrace
from reconciler.bench.contestants import Exec
from reconciler.bench.kerneltrace import Bio, Traced
from reconciler.bench.plan import Plan
from reconciler.bench.results import Measured, Series
from reconciler.bench.tended import KEEPER, Tended
from reconciler.bench.yard import Yard
from statemachine.events import EventType

LOOP_MAJOR: Final = 7
_NETLINK_KOBJECT_UEVENT: Final = 15  # include/uapi/linux/netlink.h
_KERNEL, _UDEV = 1, 2  # the groups of that family: udev(7), libudev's device-monitor
_QUEUE_BYTES: Final = 16 << 20
_MESSAGE_BYTES: Final = 65536
_WITH_UDEV: Final = ("udev", "blkid")
"""What udevd's workers and what they start are called, in part."""


def measure(yard: Yard, plan: Plan) -> Mapping[str, Measured]:
    """Count what a life (created, paused, removed) of some disks makes udev do, a disk."""
    tended, other = Tended(yard), Exec(yard)
    tended.create(KEEPER)
    disks = [f"disk-{number}" for number in range(plan.rounds)]
    plan.tell(f"udev's work for {len(disks)} disks of byre")
    before = tended.byre.log.last_seq()
    series = _series("byre", len(disks), _counted(yard, lambda: _by_byre(tended, disks)))
    busy = sum(
        event.type == EventType.TRANSITION_FAILED and event.data.get("errno") == errno.EBUSY
        for event in tended.byre.log.events(after=before)
    )
    series.append(_of("byre: EBUSY met by a transition", busy, len(disks), "a disk"))
    tended.remove(KEEPER)
    tended.close()
    plan.tell(f"udev's work for {len(disks)} disks of programs")
    series += _series("exec", len(disks), _counted(yard, lambda: _by_programs(other, disks)))
    return {"udev": Measured(series=tuple(series), notes=("created, paused, removed, no pauses",))}


def _by_byre(tended: Tended, disks: list[str]) -> None:
    for disk in disks:
        tended.create(disk)
        tended.pause(disk)
        tended.remove(disk)


def _by_programs(other: Exec, disks: list[str]) -> None:
    for disk in disks:
        other.create(disk)
        other.remove(disk)


def _counted(yard: Yard, work: Callable[[], None]) -> tuple[Traced, Counter[str]]:
    """Do some work, and wait for udev; returns what the kernel and udev told meanwhile."""
    yard.settle()
    with _listening() as told, kerneltrace.tracing() as trace:
        work()
        yard.settle()
        return trace.read(), told()


@contextlib.contextmanager
def _listening() -> Iterator[Callable[[], Counter[str]]]:
    """Hear the events for block devices, of the kernel and of udev; gives what counts them."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_KOBJECT_UEVENT) as heard:
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE_BYTES)
        heard.setblocking(False)  # noqa: FBT003 - its only argument
        heard.bind((0, _KERNEL | _UDEV))

        def told() -> Counter[str]:
            found: Counter[str] = Counter()
            with contextlib.suppress(BlockingIOError):
                while True:
                    message = heard.recv(_MESSAGE_BYTES)
                    if b"SUBSYSTEM=block\0" in message:
                        found["udev" if message.startswith(b"libudev\0") else "kernel"] += 1
            return found

        yield told


def _series(name: str, disks: int, counted: tuple[Traced, Counter[str]]) -> list[Series]:
    traced, told = counted
    started = Counter(PurePath(path).name for path in traced.programs)
    own = {"udevadm"}  # ours: it waits for udev's rest
    others = {program: count for program, count in started.items() if program not in own}
    majors = _majors()
    looks = [bio for bio in traced.bios if is_look(bio, majors)]
    return [
        _of(f"{name}: events of the kernel", told["kernel"], disks, "a disk"),
        _of(f"{name}: events handled by udev", told["udev"], disks, "a disk"),
        *(
            _of(f"{name}: {program} started", count, disks, "a disk")
            for program, count in sorted(others.items(), key=lambda pair: -pair[1])
        ),
        _of(f"{name}: programs started", sum(others.values()), disks, "a disk"),
        _of(f"{name}: reads by udev", len(looks), disks, "a disk"),
        _of(f"{name}: sectors read by udev", sum(b.sectors for b in looks), disks, "a disk"),
    ]


def is_look(bio: Bio, majors: Collection[int]) -> bool:
    """Tell whether udev, or what it started, read a loop or dm device; others are not its own."""
    by_udev = any(word in bio.task for word in _WITH_UDEV)
    return bio.is_read and by_udev and bio.device[0] in majors


def _majors() -> frozenset[int]:
    """Return the majors of loop and dm devices; the latter's is given at boot."""
    with open("/proc/devices", encoding="ascii") as file:  # noqa: PTH123 - a line at a time
        found = {words[0] for line in file if (words := line.split())[1:] == ["device-mapper"]}
    return frozenset({LOOP_MAJOR, *map(int, found)})


def _of(name: str, count: int, disks: int, unit: str) -> Series:
    return Series(name=name, unit=unit, samples=(round(count / disks, 2),))

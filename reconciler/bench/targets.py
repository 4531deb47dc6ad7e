"""What each row of the bench is held to. Pure; may be imported by the package and tests.

All are ratios within one run on one machine, but for the share of a core, the CPU time and the
memory of a disk.
"""

from __future__ import annotations

from typing import Final

import attrs


@attrs.frozen(kw_only=True)
class Target:
    """One bound on one figure of a row."""

    key: str
    """What the measurement calls the figure."""
    words: str
    """How it is said, with {} for the number."""
    bound: float
    at_least: bool = False

    def __str__(self) -> str:
        """Return it as a person would say it: "at most 2.5 times the floor"."""
        return f"{'at least' if self.at_least else 'at most'} {self.say(self.bound)}"

    def say(self, value: float) -> str:
        """Return a figure in the words of the target."""
        return self.words.format(f"{value:.3g}" if value < 1000 else f"{value:.0f}")  # noqa: PLR2004

    def is_met(self, value: float) -> bool:
        """Tell whether a figure meets the bound."""
        return value >= self.bound if self.at_least else value <= self.bound


def _faster(bound: float, than: str = "exec") -> Target:
    return Target(key=than, words=f"{{}} times faster than {than}", bound=bound, at_least=True)


def _floor(bound: float) -> Target:
    return Target(key="floor", words="{} times the floor", bound=bound)


def _share(key: str, words: str, bound: float) -> Target:
    return Target(key=key, words=f"{{}} {words}", bound=bound, at_least=True)


_NO_BYTES: Final = Target(key="bytes", words="{} bytes written", bound=0)

TARGETS: Final[dict[str, tuple[Target, ...]]] = {
    "create": (_faster(15), _floor(2.5)),
    "pause": (_faster(4), _floor(1.5)),
    "restore": (_faster(15),),
    "heal": (Target(key="create", words="{} times a creation", bound=3),),
    "remove": (_faster(4), _floor(1.5)),
    "apply": (Target(key="exec", words="{} times the throughput of exec", bound=6, at_least=True),),
    "scale": (Target(key="few", words="{} times the cost among a tenth of them", bound=1.25),),
    "resync": (
        Target(key="programs", words="{} times `losetup -l` and `dmsetup table`", bound=1.5),
        Target(key="events", words="{} events", bound=0),
        _NO_BYTES,
    ),
    "idle": (Target(key="cpu", words="{} % of one core", bound=0.3), _NO_BYTES),
    "calls": (Target(key="processes", words="{} programs started a disk", bound=0),),
    "udev": (),  # what is measured here is udev
    "flush": (),  # the time is the disk's; what a flush ahead moves is seen by comparing
    "fork": (
        Target(key="reflink", words="{} ms by reflink, whatever the disk", bound=25),
        Target(key="data", words="{} times the time in proportion to the data", bound=1.25),
        Target(key="size", words="{} times the time of a smaller disk with the same", bound=1.5),
    ),
    "io": (),  # what IO costs is the kernel's and the disk's; byre has no hand in it
    "appends": (Target(key="share", words="{} % of the bare loop", bound=25, at_least=True),),
    "sim": (
        Target(key="transition", words="{} ms of CPU a transition", bound=1),
        Target(key="resync", words="{} µs of CPU a disk for a resync", bound=50),
        Target(key="memory", words="{} KB of memory a disk", bound=15),
    ),
    "log": (
        Target(key="last", words="{} ms for the last 100 events of a disk (p99)", bound=3),
        Target(key="bare", words="{} times the bare query", bound=2),
        Target(key="page", words="{} ms for a page by time and type (p99)", bound=20),
        Target(key="moment", words="{} ms for all disks at a random moment", bound=150),
        Target(
            key="start", words="{} times the start of the same disks with 1,000 events", bound=1.2
        ),
        _share("replay", "of the rows a second of a bare SELECT, replayed", 1 / 8),
        _share("chain", "of them, replayed and proved", 1 / 14),
        Target(key="size", words="{} bytes an event", bound=450),
        Target(key="archive", words="{} bytes an event in an archive", bound=60),
        Target(key="memory", words="{} MB of memory more than the bare program", bound=100),
    ),
    "versus": (
        _share("append", "times the appends of 64 writers", 3),
        _share("state", "times as fast to know one disk", 10),
    ),
    "get": (Target(key="imports", words="{} times the bare imports", bound=2.5),),
}
"""The targets of each row, by its name."""

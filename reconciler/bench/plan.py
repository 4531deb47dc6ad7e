"""How much is to be measured. May be imported by the package, by cli and tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

ROUNDS: Final = 20
ROUNDS_QUICK: Final = 3
EVENTS: Final = 100_000
EVENTS_QUICK: Final = 5_000


def _nobody_listens(text: str) -> None:
    del text


@attrs.frozen(kw_only=True)
class Plan:
    """One run's size: the whole of it, or a quick look that shows that everything works."""

    quick: bool = False
    rounds: int = ROUNDS
    events: int = EVENTS
    """How long the long log is."""
    rows: frozenset[str] = frozenset()
    """The rows that are wanted, so that a measurement of several can leave some out."""
    tell: Callable[[str], None] = _nobody_listens
    """Is told how far things are, for a person."""

    @property
    def at_once(self) -> int:
        """How many disks are declared in one go."""
        return 20 if self.quick else 200

    @property
    def crowd(self) -> int:
        """How many live disks are many."""
        return 100 if self.quick else 1000

    @property
    def idle_s(self) -> float:
        """For how long nothing happens."""
        return 5.0 if self.quick else 60.0

    @property
    def simulated(self) -> int:
        """How many disks the simulated host gets."""
        return 500 if self.quick else 10_000

    @property
    def writers(self) -> int:
        """How many threads append at once."""
        return 64

    @property
    def appends(self) -> int:
        """How many events each of them appends in a round."""
        return 5 if self.quick else 40

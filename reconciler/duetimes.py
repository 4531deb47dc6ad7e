"""Keys by the time they are due: each key once, the earliest time wins.

What this module does not do: it reads no clock and locks nothing; times are numbers to it.
Pure; the delayed part of `workqueue` and of `latelooks`; may be imported by these.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

_STALE_MAX: Final = 64


class DueTimes(Generic[Key]):
    """A heap of (time, key) with at most one current entry for each key.

    A dropped or replaced entry stays in the heap until it surfaces, or until there are too many.
    """

    def __init__(self) -> None:
        self._due_s: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        """Return how many keys are known."""
        return len(self._due_s)

    def __contains__(self, key: Key) -> bool:
        """Tell whether a key is known."""
        return key in self._due_s

    def put(self, key: Key, due_s: float) -> bool:
        """Keep the earlier of this time and the one known; False if that is the one known."""
        if self._due_s.get(key, float("inf")) <= due_s:
            return False
        self._due_s[key] = due_s
        heapq.heappush(self._heap, (due_s, next(self._order), key))
        if len(self._heap) > 2 * len(self._due_s) + _STALE_MAX:
            self._heap = [entry for entry in self._heap if self._current(entry)]
            heapq.heapify(self._heap)
        return True

    def drop(self, key: Key) -> bool:
        """Forget a key; False if it was not known."""
        return self._due_s.pop(key, None) is not None

    def next_due_s(self) -> float | None:
        """Return the earliest time, None when nothing is known."""
        while self._heap and not self._current(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def take_due(self, now_s: float) -> list[Key]:
        """Remove and return the keys whose time has come, by their times."""
        taken = []
        while (due_s := self.next_due_s()) is not None and due_s <= now_s:
            _, _, key = heapq.heappop(self._heap)
            del self._due_s[key]
            taken.append(key)
        return taken

    def _current(self, entry: tuple[float, int, Key]) -> bool:
        due_s, _, key = entry
        return self._due_s.get(key) == due_s

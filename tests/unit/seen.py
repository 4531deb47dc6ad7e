"""What a watcher's tests collect hints with, and how they wait for them."""

from __future__ import annotations

import threading

from reconciler.watch.hint import Hint, HintKind

GIVE_UP_S = 10.0
QUIET_S = 0.2


class Seen:
    """All hints so far; is itself the `wake` that a watcher wants."""

    def __init__(self) -> None:
        self.hints: list[Hint] = []
        self._changed = threading.Condition()

    def __call__(self, hint: Hint) -> None:
        with self._changed:
            self.hints.append(hint)
            self._changed.notify_all()

    def has(self, kind: HintKind, name: str | None = "", *, within_s: float = GIVE_UP_S) -> bool:
        """Wait until such a hint has come, of any name for None; False when it has not in time."""
        with self._changed:
            return self._changed.wait_for(
                lambda: any(hint.kind is kind and name in (None, hint.name) for hint in self.hints),
                within_s,
            )

    def kinds(self) -> set[HintKind]:
        """Return the kinds of all hints so far."""
        with self._changed:
            return {hint.kind for hint in self.hints}

    def forget(self) -> None:
        """Begin anew."""
        with self._changed:
            self.hints.clear()

"""How long to wait after a failure: exponential, capped, with full jitter.

Full jitter draws the delay evenly between zero and the ceiling instead of adding a little noise to
it; of the variants compared by its source it makes the fewest calls when many clients fail at once,
which is what happens to a host full of disks. Source: AWS Architecture Blog, Marc Brooker,
"Exponential Backoff And Jitter" (2015),
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/

Pure: randomness is handed in, nobody sleeps here, and the attempt count lives in the record.
May be imported by everything in `reconciler` above it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs
from attrs.validators import and_, ge, instance_of, le

FIRST_S_MIN: Final = 0.001
CAP_S_MAX: Final = 86_400.0
ATTEMPTS_MAX_MAX: Final = 1_000_000

# FIRST_S_MIN doubled this often is far above CAP_S_MAX, and far below where a float overflows.
_DOUBLINGS_MAX: Final = 62


@attrs.frozen(kw_only=True)
class Backoff:
    """The delays between attempts. Attempt 1 is the first one that failed.

    The ceiling is `first_s`, doubled with every attempt, up to `cap_s`.
    """

    first_s: float = attrs.field(default=0.2, validator=ge(FIRST_S_MIN))
    cap_s: float = attrs.field(default=60.0, validator=le(CAP_S_MAX))
    attempts_max: int = attrs.field(
        default=30,
        validator=and_(instance_of(int), ge(1), le(ATTEMPTS_MAX_MAX)),
    )

    def __attrs_post_init__(self) -> None:
        if not self.first_s <= self.cap_s:
            raise ValueError(f"first_s ({self.first_s}) is above cap_s ({self.cap_s})")

    def ceiling_s(self, attempt: int) -> float:
        """Return the longest delay in seconds after this many failed attempts.

        Raises:
            ValueError: `attempt` is below 1.
        """
        if attempt < 1:
            raise ValueError(f"attempts are counted from 1, not {attempt}")
        doublings = min(attempt - 1, _DOUBLINGS_MAX)
        return min(self.cap_s, self.first_s * 2.0**doublings)

    def delay_s(self, attempt: int, random: Callable[[], float]) -> float:
        """Draw the delay in seconds after this many failed attempts.

        Args:
            attempt: how many attempts have failed, from 1; any number is safe.
            random: returns a number in [0, 1), evenly spread: `random.Random(...).random`.

        Raises:
            ValueError: `attempt` is below 1, or `random` left its range.
        """
        fraction = random()
        if not 0 <= fraction < 1:
            raise ValueError(f"random() gave {fraction}, outside of [0, 1)")
        return fraction * self.ceiling_s(attempt)

    def exhausted(self, attempts: int) -> bool:
        """Tell whether this many failed attempts are all that there may be."""
        return attempts >= self.attempts_max

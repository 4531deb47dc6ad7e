"""What makes a method of the simulated kernel one step of the port.

May be imported by `kernel` only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from reconciler.kernel.sim.faults import Faults
from reconciler.kernel.sim.host import Host


class Stepping(Protocol):
    """What has such methods."""

    host: Host
    faults: Faults


_P = ParamSpec("_P")
_R = TypeVar("_R")
_S = TypeVar("_S", bound=Stepping)
_Method = Callable[Concatenate[_S, _P], _R]


def _step(*, change: bool) -> Callable[[_Method[_S, _P, _R]], _Method[_S, _P, _R]]:
    """Make a method one step of the port: misfortune around it, the lock inside."""

    def decorate(method: _Method[_S, _P, _R]) -> _Method[_S, _P, _R]:
        name = method.__name__

        @functools.wraps(method)
        def step(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
            def work() -> _R:
                with self.host.entered():
                    return method(self, *args, **kwargs)

            return self.faults.around(name, args, kwargs, change=change, work=work)

        return step

    return decorate


question = _step(change=False)
change = _step(change=True)

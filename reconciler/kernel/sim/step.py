"""What makes a method of the simulated kernel one step of the port: misfortune around, lock inside.

May be imported by `sim.kernel` only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from reconciler.kernel.sim.faults import Faults
from reconciler.kernel.sim.host import Host


class Stepping(Protocol):
    """Whoever has a host and misfortune."""

    host: Host
    faults: Faults


_S = TypeVar("_S", bound=Stepping)
_P = ParamSpec("_P")
_R = TypeVar("_R")
_Method = Callable[Concatenate[_S, _P], _R]


def question(method: _Method[_S, _P, _R]) -> _Method[_S, _P, _R]:
    """Make a step of a method that changes nothing."""
    return _step(method, change=False)


def change(method: _Method[_S, _P, _R]) -> _Method[_S, _P, _R]:
    """Make a step of a method that changes the host."""
    return _step(method, change=True)


def _step(method: _Method[_S, _P, _R], *, change: bool) -> _Method[_S, _P, _R]:
    name = method.__name__

    @functools.wraps(method)
    def step(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        host = self.host

        def work() -> _R:
            host.enter()
            try:
                return method(self, *args, **kwargs)
            finally:
                host.leave()

        return self.faults.around(name, args, kwargs, change=change, work=work)

    return step

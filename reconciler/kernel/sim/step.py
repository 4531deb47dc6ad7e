"""What makes a method of the simulated kernel one step of the port: misfortune around, lock inside.

Tests, chaos and the bench make millions of these calls, nearly all with no misfortune set: those
are counted, done and noted, and pass nothing else on the way. May be imported by `sim.kernel` only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from reconciler.kernel.sim.faults import Faults
from reconciler.kernel.sim.host import Host
from statemachine.errors import ByreError, from_oserror


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
        host, faults = self.host, self.faults
        if faults.is_scripted:
            work = functools.partial(locked, self, *args, **kwargs)
            return faults.around(name, args, kwargs, change=change, work=work)
        call = faults.begin(name, args, kwargs, change=change)
        host.enter()
        try:
            call.result = result = method(self, *args, **kwargs)
        except OSError as error:
            call.error = raised = from_oserror(error, str(call))
            raise raised from error
        except ByreError as error:
            call.error = error
            raise
        finally:
            host.leave()
            faults.end(call)
        return result

    def locked(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with self.host.entered():
            return method(self, *args, **kwargs)

    return step

"""A signal ends a command in the middle of whatever it does, of a print as well."""

from __future__ import annotations

import io
import signal
import sys

import pytest

from reconciler.cli import say
from reconciler.cli.interrupting import ended_by_signals


class Interrupted(io.RawIOBase):
    """Where a signal comes while something is written; not the second time."""

    def __init__(self) -> None:
        self.written = b""
        self._is_first = True

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        assert isinstance(data, memoryview)
        self.written += bytes(data)
        if self._is_first:
            self._is_first = False
            signal.raise_signal(signal.SIGTERM)
        return len(data)


def test_a_signal_that_comes_while_something_is_printed_ends_it_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = Interrupted()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(raw), write_through=True))
    with pytest.raises(SystemExit) as ended, ended_by_signals():
        say.person("in the middle")
    assert ended.value.code == 128 + signal.SIGTERM
    assert b"in the middle" in raw.written


def test_a_signal_says_that_it_is_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, ended_by_signals():
        signal.raise_signal(signal.SIGINT)
    assert ended.value.code == 128 + signal.SIGINT
    assert "ended by SIGINT; cleaning up" in capsys.readouterr().err

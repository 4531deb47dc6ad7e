"""Device-mapper's events: the order of the calls, the comparison, the layout. No kernel needed."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping

import pytest

from reconciler.watch import dmevents
from reconciler.watch.dmevents import (
    DmEventWatcher,
    EventSource,
    KernelEvents,
    changed_names,
    parse_event_numbers,
)
from reconciler.watch.hint import HintKind, Watcher
from tests.unit.seen import QUIET_S, Seen


class FakeEvents:
    """An event source of pipes: `happen` is the kernel's side."""

    def __init__(self, numbers: Mapping[str, int], *, refusing: int = 0) -> None:
        self.numbers = dict(numbers)
        self.calls: list[str] = []
        self._refusing = refusing
        self._read, self._write = os.pipe2(os.O_NONBLOCK)

    def happen(self, **numbers: int) -> None:
        self.numbers.update(numbers)
        os.write(self._write, b"x")

    def fileno(self) -> int:
        return self._read

    def arm(self) -> None:
        if self._refusing:
            raise OSError(self._refusing, os.strerror(self._refusing))
        self.calls.append("arm")
        if len(self.calls) > 2:
            os.read(self._read, 100)

    def event_numbers(self) -> Mapping[str, int]:
        self.calls.append("look")
        return dict(self.numbers)

    def close(self) -> None:
        self.calls.append("close")
        os.close(self._read)
        os.close(self._write)


def test_a_device_whose_event_number_moved_is_a_hint_with_its_name() -> None:
    seen, source = Seen(), FakeEvents({"sb-1": 0, "sb-2": 7})
    watcher: Watcher = DmEventWatcher(lambda: source)
    watcher.start(seen)
    source.happen(**{"sb-2": 8})
    assert seen.has(HintKind.MAPPER, "sb-2")
    assert [hint.name for hint in seen.hints] == ["sb-2"]
    assert (watcher.unavailable, seen.hints[0].source) == ("", watcher.name)
    watcher.stop()


def test_the_counter_is_armed_before_the_devices_are_looked_at() -> None:
    seen, source = Seen(), FakeEvents({})
    watcher = DmEventWatcher(lambda: source)
    watcher.start(seen)
    source.happen(new=0)
    assert seen.has(HintKind.MAPPER, "new")
    watcher.stop()
    watcher.stop()
    assert source.calls == ["arm", "look", "arm", "look", "close"]


def test_an_event_without_a_difference_is_no_hint() -> None:
    seen, source = Seen(), FakeEvents({"sb-1": 0})
    watcher = DmEventWatcher(lambda: source)
    watcher.start(seen)
    source.happen()
    assert not seen.has(HintKind.MAPPER, "sb-1", within_s=QUIET_S)
    watcher.stop()


def test_very_many_devices_at_once_are_one_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dmevents, "HINTS_MAX", 2)
    seen, source = Seen(), FakeEvents({})
    watcher = DmEventWatcher(lambda: source)
    watcher.start(seen)
    source.happen(a=0, b=0, c=0)
    assert seen.has(HintKind.ALL)
    assert len(seen.hints) == 1
    watcher.stop()


def test_without_device_mapper_the_watcher_says_why() -> None:
    def refuse() -> EventSource:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), "/dev/mapper/control")

    watcher = DmEventWatcher(refuse)
    watcher.start(Seen())
    assert "device-mapper cannot be used" in watcher.unavailable
    assert "/dev/mapper/control" in watcher.unavailable
    watcher.stop()


def test_on_a_kernel_without_the_counter_the_watcher_says_why_and_closes() -> None:
    source = FakeEvents({}, refusing=errno.ENOTTY)
    watcher = DmEventWatcher(lambda: source)
    watcher.start(Seen())
    assert "events cannot be waited for" in watcher.unavailable
    assert source.calls == ["close"]
    watcher.stop()


def test_a_missing_control_node_is_an_oserror(tmp_path: os.PathLike[str]) -> None:
    with pytest.raises(FileNotFoundError):
        KernelEvents(control=tmp_path / "control")  # type: ignore[operator]


@pytest.mark.parametrize(
    ("before", "after", "names"),
    [
        ({}, {}, []),
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1, "b": 1}, {"a": 2, "b": 1}, ["a"]),
        ({"gone": 1}, {"come": 1}, ["come", "gone"]),
    ],
)
def test_names_that_came_went_or_moved_have_changed(
    before: dict[str, int], after: dict[str, int], names: list[str]
) -> None:
    assert names == changed_names(before, after)


# --- the layout of DM_LIST_DEVICES --------------------------------------------------------------


def _answer(*records: bytes) -> bytearray:
    header = bytearray(312)
    data = b"".join(records)
    struct.pack_into("=2I", header, 12, 312 + len(data), 312)
    return header + data


def _record(name: str, number: int, *, last: bool = False, uuid: bytes = b"") -> bytes:
    head = len(name) + 1 + 12
    padded = head + -head % 8
    body = struct.pack("=II", number, 1 if uuid else 2) + (uuid + b"\0" if uuid else b"")
    size = padded + len(body) + -len(body) % 8
    raw = struct.pack("=QI", 64768, 0 if last else size) + name.encode() + b"\0"
    return (raw.ljust(padded, b"\0") + body).ljust(size, b"\0")


@pytest.mark.parametrize("name", ["a", "abc", "abcd", "abcdefgh", "x" * 127])
def test_the_event_number_stands_on_the_next_border_behind_the_name(name: str) -> None:
    buffer = _answer(_record(name, 41, uuid=b"BYRE-x-1"), _record("last", 42, last=True))
    assert {name: 41, "last": 42} == parse_event_numbers(buffer)


def test_an_empty_list_has_no_event_numbers() -> None:
    assert parse_event_numbers(_answer(bytes(16))) == {}
    assert parse_event_numbers(_answer()) == {}


@pytest.mark.parametrize("kept", [6, 13, 20])
def test_a_list_that_is_cut_short_is_an_error(kept: int) -> None:
    with pytest.raises(OSError, match="cut short") as caught:
        parse_event_numbers(_answer(_record("abcdefgh", 1, last=True)[:kept]))
    assert caught.value.errno == errno.EPROTO

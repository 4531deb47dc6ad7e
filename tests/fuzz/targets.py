"""Every target of the fuzzer, by its name: a function that takes any bytes.

A target feeds the bytes to a reader as the world would. It returns when the reader took them or
refused them with the error that the reader documents. Anything else that comes out is a finding.
What was taken must survive its round trip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.fuzz.eventlog import read_event, read_record
from tests.fuzz.kernelstructs import read_dm_reply, read_loop_info
from tests.fuzz.kerneltexts import read_mounts, read_snapshot_texts
from tests.fuzz.specs import read_specs
from tests.fuzz.store import read_store

Target = Callable[[bytes], None]

TARGETS: Final[dict[str, Target]] = {
    "dm-reply": read_dm_reply,
    "event": read_event,
    "loop-info": read_loop_info,
    "mounts": read_mounts,
    "record": read_record,
    "snapshot-text": read_snapshot_texts,
    "spec": read_specs,
    "store": read_store,
}

"""The readers of the kernel's structures against any bytes: dm_ioctl replies, loop_info64."""

from __future__ import annotations

from reconciler.kernel.dmstruct import (
    LayoutError,
    pack_request,
    read_names,
    read_reply,
    read_targets,
    read_versions,
)
from reconciler.kernel.loopinfo import LoopInfo

READERS = (read_reply, read_names, read_targets, read_versions)
LOOP_INFO_BYTES = 232
"""The size of struct loop_info64: the buffer is byre's own, so it is always this."""


def read_dm_reply(data: bytes) -> None:
    """Read a buffer as each kind of answer; a target that was read is written and read back.

    One target, as byre loads it: in a table to load `next` counts from the target itself, in an
    answer from the first one.
    """
    for read in READERS:
        try:
            read(data)
        except LayoutError:
            continue
    try:
        targets = read_targets(data)[:1]
        again = read_targets(pack_request(size_bytes=0, targets=targets))
    except LayoutError:
        return
    assert again == targets


def read_loop_info(data: bytes) -> None:
    """Read what LOOP_GET_STATUS64 wrote; what byre writes of it comes back."""
    found = LoopInfo.unpack(data[:LOOP_INFO_BYTES].ljust(LOOP_INFO_BYTES, b"\0"))
    written = LoopInfo.unpack(found.pack())
    assert (written.flags, written.marker) == (found.flags, found.marker)
    assert written.offset_bytes == found.offset_bytes
    assert written.size_limit_bytes == found.size_limit_bytes

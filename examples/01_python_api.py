"""The Python API: open a root, ensure a disk, wait until it is live, read its history, remove it.

    python examples/01_python_api.py

Works on any host: byre takes dm-snapshots where the kernel has them, copies where it has not. All
of it happens in a temporary folder.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from reconciler import Byre
from reconciler.config import Settings
from statemachine.machine import Trigger

BASE_BYTES = 8 << 20


def main() -> int:
    """Show one disk's life; 0 if it went as it should."""
    with tempfile.TemporaryDirectory(prefix="byre-example-") as name:
        return live_and_die(Path(name).resolve())


def live_and_die(folder: Path) -> int:
    """Keep a root in a folder, and one disk in it."""
    base = folder / "base.img"
    with base.open("wb") as file:
        file.write(b"what the base image begins with")
        file.truncate(BASE_BYTES)

    # A prefix of its own keeps this example's devices apart from those of a real root.
    with Byre(folder / "root", settings=Settings(device_prefix="byre-example-py-")) as byre:
        byre.ensure("sb-1", base=base, link=folder / "vm" / "rootfs.link", reason="an example")
        # No `byre run` is at work on this root, so `wait` does the work itself.
        [disk] = byre.wait(["sb-1"], timeout_s=60)
        if not disk.is_there:
            print(f"{disk.message}; {disk.hint}", file=sys.stderr)
            return disk.exit_code
        print(f"sb-1 is {disk.record.state} at {disk.record.device} ({disk.record.driver})")

        with (folder / "vm" / "rootfs.link").open("rb") as device:
            print(f"it reads: {device.read(31).decode()}")

        byre.command(["sb-1"], Trigger.REMOVE, reason="the example is over")
        [disk] = byre.wait(["sb-1"], timeout_s=60)
        for event in byre.history("sb-1"):
            print(event.seq, event.type, event.data.get("trigger", ""), event.reason)
        return disk.exit_code


if __name__ == "__main__":
    sys.exit(main())

"""One microVM: QEMU, the monitor that it is told things by (QMP), and the guest's serial line.

May be imported by run.py.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from guest import Parts

PATIENCE_S = 600.0
"""How long anything may take. Emulated inside of an emulated machine, a boot takes minutes."""
POLL_S = 0.05
MEMORY_MIB = 96
NS_PER_INSTRUCTION_LOG2 = 3


class MachineError(Exception):
    """The machine did not do what it was told; the message says what it said."""


class Machine:
    """A running machine.

    Args:
        folder: where its sockets and QEMU's own words go; must have a short path.
        parts: what it boots.
        disk: the file or device that is its root: the link of a byre disk.
        memory: a saved memory to go on from, instead of booting.
    """

    def __init__(
        self,
        folder: Path,
        parts: Parts,
        *,
        disk: Path,
        memory: Path | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._said = folder / "qemu.txt"
        monitor, serial = folder / "monitor", folder / "serial"
        for path in (monitor, serial):
            path.unlink(missing_ok=True)
        words = ["qemu-system-x86_64", "-machine", "pc", "-accel", "tcg", "-m", str(MEMORY_MIB)]
        # The guest's clock goes by its instructions: by real time, a slow host would have it do
        # little else than its timer's ticks.
        words += ["-icount", f"shift={NS_PER_INSTRUCTION_LOG2}"]
        words += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        words += ["-kernel", str(parts.kernel), "-initrd", str(parts.first_root)]
        words += ["-append", "console=ttyS0 quiet panic=-1"]
        words += ["-drive", f"file={disk},format=raw,if=none,id=root"]
        words += ["-device", "virtio-blk-pci,drive=root"]
        words += ["-qmp", f"unix:{monitor},server=on,wait=off"]
        words += ["-serial", f"unix:{serial},server=on,wait=off"]
        if memory is not None:
            words += ["-incoming", f"exec:cat {memory}"]
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=said)
        try:
            self._monitor = self._connected(monitor).makefile("rwb")
            self._serial = self._connected(serial)
            self._unread = b""
            self._monitor.readline()  # its greeting
            self.tell("qmp_capabilities")
            if memory is None:
                self._line_until("ready")
            else:
                self._until(lambda: self._status() != "inmigrate", "the memory is back")
                self.tell("cont")
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    # --- the guest ---------------------------------------------------------------------------

    def run(self, line: str) -> str:
        """Run a line of shell in the guest and return what it printed.

        Raises:
            MachineError: it failed.
        """
        self._serial.sendall(f"{line}\n".encode())
        printed: list[str] = []
        while not (answer := self._line()).startswith("exit "):
            printed.append(answer)
        text = "\n".join(printed)
        if answer != "exit 0":
            raise MachineError(f"{line}: {answer}: {text}")
        return text

    def _line_until(self, wanted: str) -> None:
        while self._line() != wanted:
            pass

    def _line(self) -> str:
        """Return the next line that the guest prints."""
        deadline = time.monotonic() + PATIENCE_S
        while b"\n" not in self._unread:
            left_s = max(0.0, deadline - time.monotonic())
            if not select.select([self._serial], [], [], left_s)[0]:
                raise MachineError(f"the guest says nothing more; last: {self._unread!r}")
            read = self._serial.recv(4096)
            if not read:
                raise MachineError(f"the machine ended: {self._said.read_text()}")
            self._unread += read
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode(errors="replace").rstrip("\r")

    # --- the machine -------------------------------------------------------------------------

    def save(self, memory: Path) -> None:
        """Stop the machine, write its memory to a file, and end it."""
        self.tell("stop")
        self.tell("migrate", uri=f"exec:cat >{memory}")
        self._until(self._is_saved, "the memory is saved")
        self.end()

    def end(self) -> None:
        """End QEMU; what the guest has not written to its disk is lost, as in a power cut."""
        self._process.terminate()
        self._process.wait(timeout=PATIENCE_S)

    def tell(self, command: str, **arguments: object) -> dict[str, object]:
        """Give QEMU a command and return its answer.

        Raises:
            MachineError: QEMU refused.
        """
        told = {"execute": command, "arguments": arguments}
        self._monitor.write(json.dumps(told).encode() + b"\n")
        self._monitor.flush()
        while line := self._monitor.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise MachineError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:  # what else comes are events
                return dict(answer["return"])
        raise MachineError(f"{command}: the machine ended: {self._said.read_text()}")

    def _status(self) -> str:
        return str(self.tell("query-status")["status"])

    def _is_saved(self) -> bool:
        answer = self.tell("query-migrate")
        if answer["status"] == "failed":
            raise MachineError(f"the memory could not be saved: {answer}")
        return answer["status"] == "completed"

    def _connected(self, path: Path) -> socket.socket:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        line.settimeout(PATIENCE_S)
        self._until(lambda: line.connect_ex(str(path)) == 0, f"QEMU listens at {path}")
        return line

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if self._process.poll() is not None:
                raise MachineError(f"QEMU ended: {self._said.read_text()}")
            if time.monotonic() > deadline:
                raise MachineError(f"after {PATIENCE_S:g} s still not so: {what}")
            time.sleep(POLL_S)

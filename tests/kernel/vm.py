"""Run one command on a kernel that has device-mapper, in a virtual machine over this very tree.

    python tests/kernel/vm.py [--timeout S] [--out DIR] [--opt QEMU_OPTS]... -- COMMAND...

The guest is a plain Debian kernel under QEMU's software emulation (no KVM needed), booted by
virtme-ng over a read-only 9p view of the live file system. COMMAND runs as root in the repository's
folder, with the virtual environment first on PATH, udevd running, and dm-snapshot and loop loaded.

- `/tmp`, `/var` and `/dev/shm` are RAM (TMPDIR is /dev/shm); what the guest writes anywhere is gone
  afterwards, but for the out folder, which has the same path inside and outside: `BYRE_VM_OUT`.
- Output is streamed to stdout. The kernel's own console goes to `console.log` in the out folder.
- The exit code is the command's own, brought back in a file, for virtme-ng's is not reliable;
  123: the caller of `run_in_vm` had QEMU killed;
  124: the deadline passed, and QEMU was killed, as in a power cut; 125: the guest could not be made
  ready, or died before the command ended.

Standard library only; no privilege needed, and nothing on the host is changed but the cache and out
folders. Does not judge which tests ran: `tests.kernel.completeness` does.
"""

import argparse
import compileall
import enum
import os
import platform
import select
import shlex
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tests.kernel.image import ImageError, ensure_kernel

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".cache" / "vm"
PACKAGES = (
    "btrfs-progs",
    "busybox-static",
    "dmsetup",
    "e2fsprogs",
    "file",
    "kmod",
    "qemu-system-x86",
    "udev",
    "util-linux",
)
MODULES = ("dm_mod", "dm_snapshot", "loop", "virtio_blk")
# virtme-ng hides these behind file systems of the guest's own.
HIDDEN_IN_GUEST = ("/dev", "/proc", "/run", "/sys", "/var/cache", "/var/log", "/var/tmp")
# virtme-ng's own 9p mount caches nothing: each start of a program reads it and its libraries anew.
# What programs are made of is mounted again, cached; none of it changes meanwhile.
CACHED_FOLDERS = (
    str(REPOSITORY),
    sysconfig.get_path("stdlib") if sys.base_prefix == "/usr" else sys.base_prefix,
    "/usr/bin",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/sbin",
)
CACHED_TAG = "byre-host"
CACHED_9P = "ro,trans=virtio,version=9p2000.L,msize=512000,access=any,cache=loose"
# What of the caller's environment the guest's command sees.
PASSED_ON = ("CI", "COVERAGE_FILE", "HYPOTHESIS_PROFILE", "PYTEST_ADDOPTS", "TERM")

# What software emulation is quick at: no fifth level of page tables, no wide registers, no checks
# of each access from the kernel to user memory. The same tests took two thirds of the time.
CPU_MODEL = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16"
# Reading the time costs the guest an instruction, and no way out to an emulated device.
KERNEL_OPTIONS = ("loglevel=4", "clocksource=tsc", "tsc=reliable")
MEMORY = "4G"
CPUS = 2
TIMEOUT_DEFAULT_S = 1800.0
UDEV_TIMEOUT_S = 120
KILL_TIMEOUT_S = 10
CUT_POLL_S = 0.05
EXIT_CUT = 123
EXIT_DEADLINE = 124
EXIT_NOT_READY = 125


class VmError(Exception):
    """The machine could not be started, or did not live; the message says what to do."""


def main() -> int:
    """Run the command given on the command line; return the exit code to leave with."""
    arguments = _parse(sys.argv[1:])
    end_guest_on_signals()
    try:
        return run_in_vm(
            arguments.command,
            out=arguments.out,
            timeout_s=arguments.timeout,
            qemu_options=[word for option in arguments.opt for word in shlex.split(option)],
        )
    except (VmError, ImageError) as error:
        print(f"vm: {error}", file=sys.stderr)
        return EXIT_NOT_READY


def run_in_vm(
    command: Sequence[str],
    *,
    out: Path,
    timeout_s: float,
    qemu_options: Sequence[str] = (),
    cut: Callable[[], bool] = lambda: False,
) -> int:
    """Boot, run `command` in the guest, stream its output to stdout, return its exit code.

    Args:
        command: program and arguments; found on PATH, run in the repository's folder.
        out: a folder that the guest may write to, under the same path; made if it is not there.
        timeout_s: seconds from start to the end of the guest; past it QEMU is killed.
        qemu_options: further words for QEMU's command line, say a drive.
        cut: asked all the time; once it says True, QEMU is killed, and `EXIT_CUT` returned.

    Raises:
        VmError: something is missing here, or the guest ended without leaving an exit code.
        ImageError: the kernel could not be had.
    """
    out = out.absolute()
    check_host()
    check_visible(REPOSITORY)
    check_visible(out)
    kernel = ensure_kernel(CACHE)
    _compile(REPOSITORY)
    out.mkdir(parents=True, exist_ok=True)
    exit_file = out / "exit-code"
    exit_file.unlink(missing_ok=True)
    with _short_paths(out) as base:
        script = base / "guest.sh"
        script.write_text(guest_script(command, out=out, share=base / "share"))
        machine = virtme_command(base, kernel, script, qemu_options)
        end = stream(machine, log=out / "console.log", base=base, timeout_s=timeout_s, cut=cut)
        if end is End.CUT:
            return EXIT_CUT
        if end is End.DEADLINE:
            print(f"vm: not done after {timeout_s:g} s; the guest was killed", file=sys.stderr)
            return EXIT_DEADLINE
    if not exit_file.exists():
        message = f"the guest ended before its command did; its console: {out / 'console.log'}"
        raise VmError(message)
    return int(exit_file.read_text())


def check_host() -> None:
    """Check that this host can start the machine.

    Raises:
        VmError: naming everything that is missing, and how to get it.
    """
    if platform.machine() != "x86_64":
        raise VmError(f"the kernel tests need an x86-64 host; this one is {platform.machine()}")
    if not Path("/etc/debian_version").exists():
        raise VmError("the kernel tests need Debian: the kernel comes from its packages")
    if missing := missing_packages():
        names = " ".join(missing)
        raise VmError(f"missing Debian packages; as root: apt-get install {names}")


def check_visible(folder: Path) -> None:
    """Check that the guest sees `folder` as it is on the host.

    Raises:
        VmError: the guest has a file system of its own over it.
    """
    if any(folder.resolve().is_relative_to(hidden) for hidden in HIDDEN_IN_GUEST):
        message = f"{folder}: the guest has a file system of its own there; use another place"
        raise VmError(message)


def missing_packages() -> list[str]:
    """Return those of `PACKAGES` that are not installed, in that order."""
    query = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *PACKAGES]
    answer = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    return [name for name in PACKAGES if f"{name} installed" not in answer.splitlines()]


def guest_script(command: Sequence[str], *, out: Path, share: Path) -> str:
    """Return the shell script that the guest runs: make ready, run, write the exit code.

    `share` is where virtme-ng mounts the out folder in the guest. It is mounted a second time at
    its path on the host, so that one path serves both sides.
    """
    return GUEST_SCRIPT.format(
        cached=shlex.join(CACHED_FOLDERS),
        cached_9p=CACHED_9P,
        command=shlex.join(command),
        environment=_exports(out),
        modules=" ".join(MODULES),
        not_ready=EXIT_NOT_READY,
        out=shlex.quote(str(out)),
        repository=shlex.quote(str(REPOSITORY)),
        share=shlex.quote(str(share)),
        tag=CACHED_TAG,
        udev_s=UDEV_TIMEOUT_S,
    )


GUEST_SCRIPT = """\
exec 2>&1
finish() {{ echo "$1" >{share}/exit-code; sync; exit "$1"; }}
fail() {{ echo "vm: in the guest: $1"; finish {not_ready}; }}
{environment}
mkdir -p /run/{tag} && mount -t 9p -o {cached_9p} {tag} /run/{tag} || fail "no cached host view"
for folder in {cached}; do
    mount --bind "/run/{tag}$folder" "$folder" || fail "no cached view of $folder"
done
mkdir -p {out} && mount --bind {share} {out} || fail "no out folder"
cd {repository} || fail "no repository"
modprobe -a {modules} || fail "no modules"
pidof systemd-udevd >/dev/null || fail "udevd is not running"
timeout {udev_s} udevadm control --ping || fail "udevd does not answer"
udevadm settle --timeout={udev_s} || fail "udevd does not come to rest"
echo "vm: guest ready after $(cut -d' ' -f1 /proc/uptime) s"
{command}
finish $?
"""


def virtme_command(
    base: Path, kernel: Path, script: Path, qemu_options: Sequence[str]
) -> list[str]:
    """Return the command line that boots the guest.

    It is what ``vng --disable-kvm --force-9p --run KERNEL --exec SCRIPT`` comes to. `vng` itself
    puts this line together as unquoted shell text and finds `virtme-run` by PATH; called directly,
    by way of `base`, it works from a folder with spaces in its name too.
    """
    repository = base / "repository"
    python = repository / Path(sys.prefix).relative_to(REPOSITORY) / "bin" / "python"
    overlays = ("/etc", "/lib", "/home", "/opt", "/srv", "/usr", "/var", "/tmp")
    command = [str(python), "-m", "virtme.commands.run"]
    command += ["--kimg", str(repository / kernel.relative_to(REPOSITORY)), "--mods", "auto"]
    command += ["--disable-kvm", "--force-9p", "--cpus", str(CPUS), "--memory", MEMORY]
    command += ["--name", "byre-vm", "--user", "root", "--rwdir", f"{base}/share={base}/out"]
    command += [word for folder in overlays for word in ("--overlay-rwdir", folder)]
    command += [word for option in KERNEL_OPTIONS for word in ("--kopt", option)]
    command += ["--show-boot-console", "--script-sh", f"sh {script}"]
    command += ["--qemu-opts"]  # takes all that follows, so it comes last
    command += ["-cpu", CPU_MODEL]  # the last one counts: virtme-run has given `max` before
    command += ["-fsdev", f"local,id={CACHED_TAG},path=/,security_model=none,readonly=on"]
    command += ["-device", f"virtio-9p-pci,fsdev={CACHED_TAG},mount_tag={CACHED_TAG}"]
    return [*command, *qemu_options]


class End(enum.Enum):
    """How the machine ended: by itself, or killed, and why."""

    ITSELF = enum.auto()
    CUT = enum.auto()
    DEADLINE = enum.auto()


def stream(
    command: Sequence[str],
    *,
    log: Path,
    base: Path,
    timeout_s: float,
    cut: Callable[[], bool],
) -> End:
    """Run `command`, copy its stdout to ours and its stderr to `log`; tell how it ended.

    However this ends, nothing that it started is left: virtme-run and QEMU share a session of
    their own, and that process group is killed.
    """
    deadline = time.monotonic() + timeout_s
    with log.open("wb") as console:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=console,
            env={**os.environ, "TMPDIR": str(base)},
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            return _copy_until(process.stdout.fileno(), deadline, cut)
        finally:
            with process.stdout:
                _kill_group(process, process.stdout.fileno())


def _copy_until(source: int, deadline: float, cut: Callable[[], bool]) -> End:
    """Copy from the pipe to stdout until its end, the deadline, or the cut."""
    while (left_s := deadline - time.monotonic()) > 0:
        if cut():
            return End.CUT
        if not select.select([source], [], [], min(left_s, CUT_POLL_S))[0]:
            continue
        chunk = os.read(source, 65536)
        if not chunk:
            return End.ITSELF
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    return End.DEADLINE


def _kill_group(process: subprocess.Popen[bytes], output: int) -> None:
    # Not reaped yet, so its id, which is the group's, cannot have been given to anyone else.
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # QEMU is not our child. It is gone, and has let go of its drives, when the pipe is at its end.
    while select.select([output], [], [], KILL_TIMEOUT_S)[0] and os.read(output, 65536):
        pass


@contextmanager
def _short_paths(out: Path) -> Iterator[Path]:
    """Give a folder in /tmp from which the repository and `out` are reached without odd letters.

    The guest's kernel command line carries paths of virtme-ng, unquoted, and its first process
    splits it at spaces. /tmp is one of the folders that the guest sees as they are on the host.
    """
    with tempfile.TemporaryDirectory(prefix="byre-vm-", dir="/tmp") as name:
        base = Path(name)
        (base / "repository").symlink_to(REPOSITORY)
        (base / "out").symlink_to(out)
        (base / "share").mkdir()  # where the guest mounts `out`
        yield base


def _exports(out: Path) -> str:
    """Return the shell lines that set the environment of the guest's command."""
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environment |= {key: value for key, value in os.environ.items() if key.startswith("BYRE_")}
    environment |= {
        "BYRE_VM_OUT": str(out),
        "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/hypothesis",
        "MPLCONFIGDIR": "/tmp/matplotlib",
        "PATH": f"{sys.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": "/dev/shm",
    }
    return "\n".join(f"export {key}={shlex.quote(value)}" for key, value in environment.items())


def _compile(repository: Path) -> None:
    # The guest cannot write byte code, and compiling there is ten times as slow.
    for package in ("statemachine", "reconciler", "tests"):
        compileall.compile_dir(repository / package, quiet=2)


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vm.py", description="Run one command in the VM.")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_DEFAULT_S, metavar="S")
    parser.add_argument("--out", type=Path, default=CACHE / "out", metavar="DIR")
    parser.add_argument("--opt", action="append", default=[], metavar="QEMU_OPTS")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    return parser.parse_args(words)


def end_guest_on_signals() -> None:
    """Have SIGTERM and SIGHUP end this process in good order, its guest first."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)


def _leave(number: int, _frame: FrameType | None) -> None:
    """Turn a signal into an orderly exit, so that the guest is ended on the way out."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())

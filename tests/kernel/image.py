"""Get the Debian kernel that the kernel tests boot, once, into the repository's cache.

The plain ``linux-image-amd64`` kernel is unpacked, not installed: nothing outside the cache folder
changes, and no privilege is needed. (The *cloud* flavour has no 9p, so it cannot see the host's
files.) Does not boot anything; `tests.kernel.vm` does, and is the only importer.
"""

import fcntl
import re
import shutil
import subprocess
from pathlib import Path

META_PACKAGE = "linux-image-amd64"
APT_TIMEOUT_S = 600


class ImageError(Exception):
    """The kernel could not be had; the message says what to do."""


def ensure_kernel(cache: Path) -> Path:
    """Return the kernel image under `cache`, fetching and unpacking it the first time.

    The result is ``<cache>/<package>/boot/vmlinuz-<version>``, with the modules of that version
    beside it in ``<cache>/<package>/lib/modules/<version>``, where virtme-ng looks for them.
    Idempotent: a kernel that is there is used as it is, without asking the network.

    Raises:
        ImageError: no such package is known to apt, or it could not be fetched or unpacked.
    """
    if image := _newest(cache):
        return image
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "fetching.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the host's tests and the VM may both be the first
        return _newest(cache) or _fetched(cache)


def _newest(cache: Path) -> Path | None:
    return max(cache.glob("linux-image-*/boot/vmlinuz-*"), default=None)


def _fetched(cache: Path) -> Path:
    package = newest_package(_run("apt-cache", "depends", META_PACKAGE))
    target, partial = cache / package, cache / "partial"
    print(f"vm: fetching {package} (about 70 MB, once)", flush=True)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _fetch(package, partial)
    _unpack(partial)
    partial.rename(target)  # only a whole kernel ever gets the name that is looked for
    return next(target.glob("boot/vmlinuz-*"))


def newest_package(apt_cache_depends: str) -> str:
    """Return the real kernel package that the meta package of the candidate version depends on.

    Raises:
        ImageError: the text names no ``linux-image-<version>-amd64``.
    """
    found = re.search(r"Depends: (linux-image-\d\S*-amd64)$", apt_cache_depends, re.MULTILINE)
    if found is None:
        message = f"apt knows no {META_PACKAGE}: run `apt-get update` as root, on Debian"
        raise ImageError(message)
    return found[1]


def _fetch(package: str, folder: Path) -> None:
    # apt drops its privileges for the download where it can; the option keeps it from
    # complaining that its own user may not write into a private folder.
    _run("apt-get", "-o", "APT::Sandbox::User=root", "-q", "download", package, cwd=folder)


def _unpack(folder: Path) -> None:
    (package,) = folder.glob("*.deb")
    _run("dpkg", "-x", str(package), str(folder))
    package.unlink()
    (version,) = (path.name for path in folder.glob("lib/modules/*"))
    _run("depmod", "-b", str(folder), version)


def _run(*command: str, cwd: Path | None = None) -> str:
    """Run a program to its end and return what it printed."""
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=APT_TIMEOUT_S, check=True
        )
    except subprocess.CalledProcessError as error:
        message = f"{' '.join(command)}: exit {error.returncode}\n{error.stderr.strip()}"
        raise ImageError(message) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImageError(f"{' '.join(command)}: {error}") from error
    return done.stdout

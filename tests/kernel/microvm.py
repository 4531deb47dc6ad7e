"""Boot the machine of examples/microvm once, on the host: the test in the VM goes on from there.

    python -m tests.kernel.microvm

Emulated on this host it boots in seconds; inside of the emulated guest it took ten minutes. What
is kept is what that example's `--template` makes. Idempotent; needs what the VM needs, and no
privilege. May be imported by tests.
"""

import hashlib
import os
import subprocess
import sys
import sysconfig

from tests.kernel import vm
from tests.kernel.image import ImageError, ensure_kernel

EXAMPLE = vm.REPOSITORY / "examples" / "microvm" / "run.py"


def _version() -> str:
    """Return a digest of the example's code."""
    digest = hashlib.sha256()
    for path in sorted(EXAMPLE.parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


TEMPLATE = vm.CACHE / f"microvm-{_version()}"
"""A saved memory fits the machine alone that it was saved of: each version of it has its own."""
TIMEOUT_S = 600


def main() -> int:
    """Make the template if it is not there; 0 if it is there now."""
    try:
        vm.check_host()
        kernel = ensure_kernel(vm.CACHE)
    except (vm.VmError, ImageError) as error:
        print(f"microvm: {error}", file=sys.stderr)
        return vm.EXIT_NOT_READY
    path = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    environment = {
        **os.environ,
        "BYRE_MICROVM_KERNEL": str(kernel),
        "PATH": path,
        "PYTHONPATH": str(vm.REPOSITORY),
    }
    command = [sys.executable, str(EXAMPLE), "--template", str(TEMPLATE), "--only-template"]
    return subprocess.run(command, env=environment, timeout=TIMEOUT_S, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

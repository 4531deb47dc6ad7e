"""The command line: words around the Python API. See docs/reference/commands.md."""

from __future__ import annotations

import atexit
import gc
import sys


def main() -> None:
    """Run the command line; the console script `byre`."""
    _refuse_other_statemachine()
    from reconciler.cli.app import run  # noqa: PLC0415 - keeps `import reconciler.cli` free

    # When Python ends, it looks for garbage among all that was ever imported. What is frozen it
    # leaves alone, and the process gives its memory back as a whole: a sixth of a short command.
    atexit.register(gc.freeze)
    run()


def _refuse_other_statemachine() -> None:
    """End with a clear error where another package has the name of ours."""
    from reconciler.clash import CLASH_REMEDY, whose_statemachine  # noqa: PLC0415 - see above

    wrong = whose_statemachine()
    if wrong:
        sys.stderr.write(f"byre: error: {wrong}\n  hint: {CLASH_REMEDY}\n")
        sys.exit(1)

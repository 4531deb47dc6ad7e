"""Whether `import statemachine` gives byre's own package.

The PyPI package python-statemachine has the same import name, so the two can't share an
environment: whichever was installed last has overwritten a part of the other.

Imports nothing of `statemachine` by name. May be imported by cli before anything else, and by
checkup.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Final

OTHER: Final = "python-statemachine"
CLASH_REMEDY: Final = (
    f"take it out of this environment (pip uninstall {OTHER}) and install byre again, "
    "or give byre an environment of its own (pipx install byre)"
)


def whose_statemachine() -> str:
    """Return what is wrong with the `statemachine` that Python finds; "" when it is ours."""
    try:
        package = importlib.import_module("statemachine")
        has_log = importlib.util.find_spec("statemachine.eventlog") is not None
    except ImportError as error:
        return f"the package `statemachine` cannot be imported: {error}"
    if has_log and not hasattr(package, "StateMachine"):
        return ""
    where = getattr(package, "__file__", None) or "an unknown place"
    return f"the package `statemachine` at {where} is not byre's; {OTHER} has the same name"

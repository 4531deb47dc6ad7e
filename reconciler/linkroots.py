"""Where links may be: below one of the folders that the settings name, or anywhere.

Asked when a link is declared and again when it is made, as a folder may have become a symlink in
between. Both sides are compared with all their symlinks resolved.

What this module does not do: it makes nothing, and it does not ask whose the folders are; making
the link does (`kernel.safepath`). May be imported by actions and declare.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reconciler.kernel.port import Kernel
from statemachine.errors import RefusedError


def is_outside(kernel: Kernel, path: Path, roots: Sequence[Path]) -> bool:
    """Tell whether a link would be in none of the roots.

    Args:
        kernel: resolves the symlinks.
        path: of the link; itself not followed.
        roots: the allowed folders; none for anywhere.
    """
    if not roots:
        return False
    parent = kernel.real_path(path.parent)
    return not any(parent.is_relative_to(kernel.real_path(root)) for root in roots)


def allowed(roots: Sequence[Path]) -> str:
    """Say where links may be."""
    return f"a path below {' or '.join(map(str, roots))}"


def refuse_outside(kernel: Kernel, path: Path, roots: Sequence[Path]) -> None:
    """Raise RefusedError for a link outside of the roots; see `is_outside`."""
    if is_outside(kernel, path, roots):
        raise _refused(path, kernel.real_path(path.parent) / path.name, roots)


def refuse_folder_outside(kernel: Kernel, path: Path, roots: Sequence[Path]) -> None:
    """Raise RefusedError for a folder that leads to no link below the roots.

    A root that does not exist yet, and a missing folder above it, may be made on the way.
    """
    if not roots:
        return
    real = kernel.real_path(path)
    places = [kernel.real_path(root) for root in roots]
    if not any(real.is_relative_to(root) or root.is_relative_to(real) for root in places):
        raise _refused(path, real, roots)


def _refused(path: Path, real: Path, roots: Sequence[Path]) -> RefusedError:
    really = "" if real == path else f", really {real},"
    msg = f"{path}{really} is outside of the link roots; allowed is {allowed(roots)}"
    return RefusedError(msg, hint="choose another link, or widen `link_roots`")

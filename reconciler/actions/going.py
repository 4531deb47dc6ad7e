"""Folders that go while a pass is at work: whoever leaves a shared one last takes it away.

A pass makes the folders that it saw missing. One that was there may be gone when the link comes to
be made in it, because another disk's pass has just removed the last link of its own. The next try
sees it missing, and makes it. May be imported by the package's other modules only.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from statemachine.errors import PermanentError, TransientError

_HINT = "the folder was there a moment ago; it is made again with the next try"


@contextlib.contextmanager
def tried_again_without_folder() -> Iterator[None]:
    """Have a change that found no folder tried again, instead of given up."""
    try:
        yield
    except PermanentError as error:
        if error.errno != errno.ENOENT:
            raise
        raise TransientError(error.message, errno=error.errno, hint=_HINT) from error

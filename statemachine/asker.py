"""Who asked for something, as events keep it.

Pure; may be imported by diskfacts, hostfacts and payloads.
"""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True, slots=False)
class Requester:
    """Who asked, as the operating system says."""

    uid: int
    user: str
    pid: int
    command: str
    login_user: str = ""
    """Who logged in, as the kernel has it from the session, when it is somebody else."""
    sudo_user: str = ""
    """Whom `sudo` named as its caller: a claim, as anybody can set a variable."""

"""Who asks: what the operating system says of this process. May be imported by cli and the API."""

from __future__ import annotations

import os
import pwd
import sys

from statemachine.payloads import Requester


def this_process() -> Requester:
    """Return uid, user name, pid and command line of this process."""
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    command = " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]])  # noqa: PTH119 - not a path
    text = command.encode(errors="replace").decode()  # an argument may be no text
    return Requester(uid=uid, user=user, pid=os.getpid(), command=text[:400])

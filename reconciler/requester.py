"""Who asks: what the operating system says of this process, and what it claims beyond that.

May be imported by declare, resolve, the API and cli.
"""

from __future__ import annotations

import functools
import os
import pwd
import secrets
import sys
from typing import Final

import attrs

from statemachine.errors import UsageError
from statemachine.events import CORRELATION_BYTES
from statemachine.payloads import Requester

CLAIM_LENGTH_MAX: Final = 200
_NOBODY_LOGGED_IN: Final = 2**32 - 1
_LOGIN_UID: Final = "/proc/self/loginuid"
_DIGITS_MAX: Final = 16


@attrs.frozen(kw_only=True)
class Request:
    """What all events of one request have in common."""

    by: Requester
    reason: str
    claim: str
    """For whom, as the caller says."""
    correlation_id: str


def request(reason: str, on_behalf_of: str, *, by: Requester | None = None) -> Request:
    """Begin a request.

    Args:
        reason: why.
        on_behalf_of: for whom, as the caller says.
        by: who asks; None for this process.

    Raises:
        UsageError: the claim is no short plain text.
    """
    return Request(
        by=by or this_process(),
        reason=as_text(reason),
        claim=checked_claim(on_behalf_of),
        correlation_id=secrets.token_hex(CORRELATION_BYTES),
    )


def this_process() -> Requester:
    """Return uid, user name, pid and command line of this process."""
    words, sudo_user = tuple(sys.argv), os.environ.get("SUDO_USER", "")
    return _requester(os.getuid(), _login_uid(), os.getpid(), words, sudo_user)


@functools.lru_cache(maxsize=16)
def _requester(
    uid: int, login_uid: int | None, pid: int, words: tuple[str, ...], sudo_user: str
) -> Requester:
    """Return the same for the same; to look names up each time takes as long as a commit."""
    command = " ".join([os.path.basename(words[0]), *words[1:]])  # noqa: PTH119 - not a path
    return Requester(
        uid=uid,
        user=_name(uid),
        pid=pid,
        command=as_text(command)[:400],
        login_user="" if login_uid in (None, uid) else _name(login_uid),
        sudo_user=as_text(sudo_user)[:CLAIM_LENGTH_MAX],
    )


def checked_claim(text: str) -> str:
    """Return for whom a caller says to act; raises UsageError when that is no plain short text."""
    if len(text) > CLAIM_LENGTH_MAX or not text.isprintable():
        shown = f"{text!r:.80}"
        allowed = f"up to {CLAIM_LENGTH_MAX} characters, none of them a control character"
        raise UsageError(f"on behalf of {shown}: allowed: {allowed}")
    return text


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _login_uid() -> int | None:
    """Return the uid that the session was begun with, which `su` and `sudo` leave as it is.

    None where nobody logged in (a service) and where the kernel does not keep it; proc(5).
    """
    try:
        descriptor = os.open(_LOGIN_UID, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        uid = int(os.read(descriptor, _DIGITS_MAX))
    except (OSError, ValueError):
        return None
    finally:
        os.close(descriptor)
    return None if uid == _NOBODY_LOGGED_IN else uid


def as_text(argument: str) -> str:
    """Return an argument or a variable as text, which it need not be."""
    return argument.encode(errors="replace").decode()

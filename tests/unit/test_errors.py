"""Errors by consequence, decided by number; exit codes as the contract has them."""

from __future__ import annotations

import errno
import os

import pytest

from statemachine import errors
from statemachine.errors import (
    ActionError,
    BlockedError,
    ByreError,
    PermanentError,
    TransientError,
    from_oserror,
)

EXIT_CODES = {
    "ByreError": 1, "UsageError": 2, "SpecError": 2, "NoSuchDisk": 3, "NoSuchOrphan": 3,
    "NoSuchBase": 3, "RefusedError": 4, "LimitReached": 4, "UnsafePath": 4,
    "IllegalTransition": 4, "IdentityMismatch": 4, "ForeignDevice": 4, "BadSignature": 4,
    "DeadlinePassed": 5, "LogDamaged": 6, "LogUnavailable": 1, "VersionConflict": 1, "RootBusy": 1,
    "ActionError": 1, "TransientError": 1, "BlockedError": 1, "PermanentError": 1,
}  # fmt: skip


def test_every_error_has_the_exit_code_of_the_contract_and_stands_in_the_tree() -> None:
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, ByreError)
    ]
    assert {kind.__name__: kind.exit_code for kind in kinds} == EXIT_CODES
    assert errors.__doc__ is not None
    assert [kind for kind in kinds if kind.__name__ not in errors.__doc__] == []


@pytest.mark.parametrize("number", sorted(errno.errorcode), ids=lambda each: errno.errorcode[each])
def test_every_errno_has_one_consequence_and_a_stable_kind(number: int) -> None:
    expected: type[ActionError] = PermanentError
    if errno.errorcode[number] in {"EAGAIN", "EBUSY", "EINTR", "ENOMEM", "ENXIO", "ETIMEDOUT",
                                   "EMFILE", "ENFILE"}:  # fmt: skip
        expected = TransientError
    if errno.errorcode[number] in {"ENOSPC", "EDQUOT", "EROFS"}:
        expected = BlockedError
    error = from_oserror(OSError(number, os.strerror(number)), "attach a loop to /x")
    assert (type(error), error.errno) == (expected, number)
    assert error.kind == errno.errorcode[number].lower()
    assert error.message == f"attach a loop to /x: {os.strerror(number)}"


def test_message_texts_decide_nothing() -> None:
    error = from_oserror(OSError(errno.EIO, "Device or resource busy"), "x")
    assert isinstance(error, PermanentError)


def test_an_error_without_a_number_is_permanent() -> None:
    error = from_oserror(OSError("strange"), "x")
    assert (type(error), error.errno, error.kind) == (PermanentError, None, "failed")

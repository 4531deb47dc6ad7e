"""Signing heads with Ed25519: keys in files, signatures over a statement's text.

Needs the package `cryptography` (`pip install 'byre[sign]'`), imported when it is asked for:
everything else works without it. The private key is a PEM file without a password, 0600, as a timer
has nobody to type one. The public one stands beside it, and is all that another machine needs
(docs/decisions/0016-heads-are-signed-with-ed25519.md).

May be imported by `reconciler.cli`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from statemachine.errors import BadSignature, ByreError, RefusedError, UsageError
from statemachine.statement import Statement

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ed25519

PUBLIC_SUFFIX: Final = ".pub"
_KEY_BYTES_MAX: Final = 16_384


def make_keys(path: Path) -> Path:
    """Make a private key, 0600, and the public key beside it; returns the public one's path.

    Raises:
        RefusedError: one of the two files is there.
        ByreError: they cannot be written, or `cryptography` is not installed.
    """
    _refuse_without_package()
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - optional
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - optional

    public = path.with_name(path.name + PUBLIC_SUFFIX)
    for taken in (path, public):
        if os.path.lexists(taken):
            msg = f"{taken} exists; a key is never overwritten"
            raise RefusedError(msg, hint="name another file, or move that one away")
    key = ed25519.Ed25519PrivateKey.generate()
    private_text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public_text = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _write_new(path, private_text, mode=0o600)
    _write_new(public, public_text, mode=0o644)
    return public


def sign(statement: Statement, key_file: Path, *, now: str) -> Statement:
    """Return a statement with a signature over its text.

    Args:
        statement: what is signed.
        key_file: the private key; nobody else may be able to read it.
        now: the time of signing, ISO 8601.

    Raises:
        UsageError: the file is no Ed25519 private key in PEM.
        RefusedError: other users can read it.
        ByreError: it cannot be read, or `cryptography` is not installed.
    """
    key = _private_key(key_file)
    signed = attrs.evolve(
        statement, signed_at=now, public_key=key.public_key().public_bytes_raw().hex()
    )
    return attrs.evolve(signed, signature=key.sign(signed.text()).hex())


def check(statement: Statement, public_file: Path, source: str) -> None:
    """Check the signature of a statement with a public key.

    Args:
        statement: as it came.
        public_file: the public key that is trusted; what the statement names is not.
        source: where the statement was, for the error.

    Raises:
        BadSignature: it is not signed, by another key, or was changed after that.
        UsageError: the file is no Ed25519 public key in PEM.
        ByreError: it cannot be read, or `cryptography` is not installed.
    """
    key = _public_key(public_file)
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - optional

    if not statement.signature:
        hint = "`byre log head --sign KEY` signs; without --public-key it is only compared"
        raise BadSignature(f"{source} is not signed", hint=hint)
    ours = key.public_bytes_raw().hex()
    if statement.public_key and statement.public_key != ours:
        theirs = statement.public_key
        msg = f"{source} was signed with another key: {theirs}; {public_file} is {ours}"
        raise BadSignature(msg, hint="is it the public key of whoever signed?")
    try:
        key.verify(bytes.fromhex(statement.signature), statement.text())
    except InvalidSignature as error:
        msg = f"{source} was changed after it was signed, or was signed with another key"
        raise BadSignature(msg, hint="believe nothing in it; get the statement anew") from error


def _private_key(path: Path) -> ed25519.Ed25519PrivateKey:
    _refuse_without_package()
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - optional
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - optional

    text, mode = _read(path)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        msg = f"{path} can be read by others (mode {stat.S_IMODE(mode):04o}); allowed is 0600"
        raise RefusedError(msg, hint=f"whoever read it can sign; else: chmod 600 {path}")
    with contextlib.suppress(ValueError, TypeError):  # a password, another kind, no PEM at all
        key = serialization.load_pem_private_key(text, password=None)
        if isinstance(key, ed25519.Ed25519PrivateKey):
            return key
    msg = f"{path} is no Ed25519 private key in PEM without a password"
    raise UsageError(msg, hint="`byre log keygen FILE` makes one")


def _public_key(path: Path) -> ed25519.Ed25519PublicKey:
    _refuse_without_package()
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - optional
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415 - optional

    text, _ = _read(path)
    with contextlib.suppress(ValueError, TypeError):
        key = serialization.load_pem_public_key(text)
        if isinstance(key, ed25519.Ed25519PublicKey):
            return key
    msg = f"{path} is no Ed25519 public key in PEM"
    raise UsageError(msg, hint=f"`byre log keygen FILE` leaves it in FILE{PUBLIC_SUFFIX}")


def _refuse_without_package() -> None:
    if importlib.util.find_spec("cryptography") is None:
        msg = "signing needs the package cryptography, which is not installed"
        raise ByreError(msg, hint="pip install 'byre[sign]'")


def _read(path: Path) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            return file.read(_KEY_BYTES_MAX), os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise ByreError(f"{path}: {error.strerror}", hint="name the file of a key") from error


def _write_new(path: Path, text: bytes, *, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ByreError(f"{path}: {error.strerror}", hint="name a file that can be made") from error

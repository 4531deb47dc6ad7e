"""The head of a log as a statement to keep elsewhere: which root, which event, which hash, signed.

A statement is a JSON object. What is signed is not that object, whose spaces may change on the way,
but the lines of `Statement.text`, which whoever checks it makes anew from the fields
(docs/reference/log-format.md).

Pure. May be imported by signing, backup and `reconciler`.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import attrs

from statemachine.errors import UsageError

KIND: Final = "byre log head"
VERSION: Final = 1
_HEX: Final = r"[0-9a-f]{64}"
_SHORT: Final = re.compile(rf"(?:(\d{{1,20}})[: ])?({_HEX})")
_ALLOWED: Final = "SEQ:HASH, a hash of 64 hex digits, or what `byre log head` gave (line or JSON)"


def _one_line(_: object, attribute: attrs.Attribute[str], value: object) -> None:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(f"{attribute.name} is not one line of text: {value!r:.80}")


@attrs.frozen(kw_only=True)
class Statement:
    """What somebody noted of a log. `seq` is None when only the hash was noted."""

    hash: str = attrs.field(validator=attrs.validators.matches_re(_HEX))
    seq: int | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(
            [attrs.validators.instance_of(int), attrs.validators.ge(0), attrs.validators.lt(2**63)]
        ),
    )
    root_id: str = attrs.field(default="", validator=_one_line)
    at: str = attrs.field(default="", validator=_one_line)
    """When that event was written."""
    signed_at: str = attrs.field(default="", validator=_one_line)
    public_key: str = attrs.field(default="", validator=_one_line)
    """The raw Ed25519 key that the signature is checked with, 64 hex digits."""
    signature: str = attrs.field(
        default="", validator=attrs.validators.matches_re(r"|[0-9a-f]{128}")
    )

    def text(self) -> bytes:
        """Return the bytes that are signed: six lines, each with its newline."""
        lines = (
            f"{KIND} v{VERSION}",
            f"root_id: {self.root_id}",
            f"seq: {self.seq}",
            f"hash: {self.hash}",
            f"at: {self.at}",
            f"signed_at: {self.signed_at}",
        )
        return "".join(f"{line}\n" for line in lines).encode()

    def line(self) -> str:
        """Return the place and the hash in one word, for people to note."""
        return f"{self.seq}:{self.hash}"

    def to_data(self) -> dict[str, Any]:
        """Return the JSON object; `parse` reads it back."""
        fields = {name: value for name, value in attrs.asdict(self).items() if value != ""}
        return {"kind": KIND, "v": VERSION, "head": self.line(), **fields}


def parse(text: str, source: str) -> Statement:
    """Read what somebody noted: SEQ:HASH, a hash alone, or a JSON statement.

    Args:
        text: what was noted.
        source: where, for the error.

    Raises:
        UsageError: it is none of these.
    """
    text = text.strip()
    short = _SHORT.fullmatch(text.lower())
    try:
        if short is not None:
            return Statement(seq=int(short[1]) if short[1] else None, hash=short[2])
        return _from_data(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        found = f"{text[:80]!r}{'…' if len(text) > 80 else ''}"  # noqa: PLR2004 - one line
        msg = f"{source} is no head of a log: {found}; allowed is {_ALLOWED}"
        raise UsageError(msg, hint=str(error) if text.startswith("{") else "") from error


def _from_data(data: object) -> Statement:
    if not isinstance(data, dict):
        raise TypeError("it is no JSON object")
    version = data.get("v", VERSION)
    if data.get("kind", KIND) != KIND or version != VERSION:
        raise ValueError(f"its kind is {data.get('kind')!r}, version {version!r}, not {KIND!r} 1")
    known = {name: data[name] for name in attrs.fields_dict(Statement) if name in data}
    return Statement(**known)

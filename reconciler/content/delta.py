"""A delta: the changed parts of a disk as one stream of compressed, checked blocks.

```text
"BYREDLT1"                                  8 bytes
length of the header, the header            u32, JSON
block: "B", start, length, packed length,   u64 u32 u32
       SHA-256 of the content, zlib data    32 bytes, ...
end:   "E", blocks, bytes of content        u64 u64
SHA-256 of all of the above                 32 bytes
```

Numbers are little-endian. Blocks are in the order of the disk and do not overlap; each begins at a
multiple of 4 KiB, and ends at one or at the end of the disk. The same in words:
docs/reference/delta-format.md.

A reader trusts nothing: every number has its bound, a block is unpacked to no more than it says,
and what was read is good only when the end was reached. Raises DeltaDamaged, and OSError.
May be imported by carrying and tests.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final

import attrs

from reconciler.kernel import extents
from statemachine import payloads
from statemachine.errors import PermanentError
from statemachine.units import LARGEST_BYTES

MAGIC: Final = b"BYREDLT1"
FORMAT: Final = 1
HEADER_BYTES_MAX: Final = 64 * 1024
BLOCK_BYTES_MAX: Final = extents.PIECE_BYTES
PACKED_BYTES_MAX: Final = BLOCK_BYTES_MAX + BLOCK_BYTES_MAX // 8
"""More than zlib makes of what it cannot compress (5 bytes for each 16 KiB, RFC 1951)."""
LEVEL: Final = 1
"""Of zlib: the fastest. Twice the time of the next buys a few percent on file systems."""

_LENGTH = struct.Struct("<I")
_BLOCK = struct.Struct("<QII32s")
_END = struct.Struct("<QQ")
_DIGEST = re.compile("[0-9a-f]{64}")


class DeltaDamaged(PermanentError):
    """A stream is no delta, or not a whole one; the message names the offset."""

    def __init__(self, found: str, *, offset: int) -> None:
        hint = "export it again, and compare the digests of both copies"
        super().__init__(
            f"damaged delta at byte {offset}: {found}", kind="delta-damaged", hint=hint
        )


@attrs.frozen(kw_only=True)
class Header:
    """What a delta is of.

    Attributes:
        disk_bytes: the size of the disk: that of its base, or more.
        base_sha256: the digest of the base, in hex.
        content_bytes_max: the blocks have no more than this.
        base: what the base was called, for people.
        disk: what the disk was called, for people.
        id: the disk's identity where it came from.
        generation: the same.
    """

    disk_bytes: int
    base_sha256: str
    content_bytes_max: int
    base: str = ""
    disk: str = ""
    id: str = ""
    generation: int = 0


@attrs.frozen(kw_only=True)
class Written:
    """What was written: the digest of the whole file, and what is in it."""

    sha256: str
    blocks: int
    content_bytes: int


class Writer:
    """Writes a delta to a file that is open for writing; `finish` is what makes it whole."""

    def __init__(self, file: BinaryIO, header: Header) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._blocks = self._bytes = 0
        text = json.dumps({"format": FORMAT, **attrs.asdict(header)}).encode()
        self._put(MAGIC + _LENGTH.pack(len(text)) + text)

    def block(self, start: int, content: bytes) -> None:
        """Add a block; later ones lie behind it."""
        packed = zlib.compress(content, LEVEL)
        digest = hashlib.sha256(content).digest()
        self._put(b"B" + _BLOCK.pack(start, len(content), len(packed), digest) + packed)
        self._blocks += 1
        self._bytes += len(content)

    def finish(self) -> Written:
        """Write the end."""
        self._put(b"E" + _END.pack(self._blocks, self._bytes))
        self._put(self._digest.digest())
        self._file.flush()
        whole = self._digest.hexdigest()
        return Written(sha256=whole, blocks=self._blocks, content_bytes=self._bytes)

    def _put(self, raw: bytes) -> None:
        self._file.write(raw)
        self._digest.update(raw)


class Reader:
    """Reads a delta from an open file, from its beginning."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._at = 0
        self.header = self._header()

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield (start, content) of each block; use nothing of it before the last has come."""
        blocks = content = end = 0
        while (mark := self._take(1)) == b"B":
            at = self._at
            start, length, packed, digest = _BLOCK.unpack(self._take(_BLOCK.size))
            self._check_place(at, start, length, packed, after=end)
            raw = self._unpacked(at, packed, length)
            if hashlib.sha256(raw).digest() != digest:
                raise DeltaDamaged("the content of a block is not what was written", offset=at)
            blocks, content, end = blocks + 1, content + length, start + length
            if content > self.header.content_bytes_max:
                allowed = f"at most {self.header.content_bytes_max}, as the header says"
                raise DeltaDamaged(f"{content} bytes of content; allowed: {allowed}", offset=at)
            yield start, raw
        if mark != b"E":
            allowed = "'B' for a block, 'E' for the end"
            raise DeltaDamaged(f"mark {mark!r}; allowed: {allowed}", offset=self._at - 1)
        self._end(blocks, content)

    def _header(self) -> Header:
        magic = self._take(len(MAGIC))
        if magic != MAGIC:
            raise DeltaDamaged(f"magic {magic!r}; allowed: {MAGIC!r}", offset=0)
        [length] = _LENGTH.unpack(self._take(_LENGTH.size))
        if length > HEADER_BYTES_MAX:
            found = f"a header of {length} bytes; allowed: at most {HEADER_BYTES_MAX}"
            raise DeltaDamaged(found, offset=len(MAGIC))
        at = self._at
        try:
            table = json.loads(self._take(length))
            header = payloads.structure(table, Header)
        except (ValueError, RecursionError) as error:
            raise DeltaDamaged("the header cannot be read", offset=at) from error
        made_as = table.get("format")
        if made_as != FORMAT:
            raise DeltaDamaged(f"format {made_as!r}; allowed: {FORMAT}", offset=at)
        _check_header(header, at)
        return header

    def _check_place(self, at: int, start: int, length: int, packed: int, *, after: int) -> None:
        """Refuse a block that lies where none can."""
        size, end = self.header.disk_bytes, start + length
        aligned = start % extents.BLOCK_BYTES == 0 and (
            end % extents.BLOCK_BYTES == 0 or end == size
        )
        fits = 0 < length <= BLOCK_BYTES_MAX and packed <= PACKED_BYTES_MAX
        if not (aligned and fits and after <= start and end <= size):
            found = f"a block of {length} bytes ({packed} packed) at {start} of the disk"
            allowed = f"whole blocks of 4 KiB in {after} to {size}, at most {BLOCK_BYTES_MAX} bytes"
            raise DeltaDamaged(f"{found}; allowed: {allowed}", offset=at)

    def _unpacked(self, at: int, packed: int, length: int) -> bytes:
        unpacker = zlib.decompressobj()
        try:
            raw = unpacker.decompress(self._take(packed), length + 1)
        except zlib.error as error:
            raise DeltaDamaged("a block cannot be unpacked", offset=at) from error
        if len(raw) != length or not unpacker.eof or unpacker.unused_data:
            raise DeltaDamaged(f"a block unpacks to other than {length} bytes", offset=at)
        return raw

    def _end(self, blocks: int, content: int) -> None:
        at = self._at
        said = _END.unpack(self._take(_END.size))
        if said != (blocks, content):
            found = f"{blocks} blocks with {content} bytes; allowed: {said[0]} with {said[1]}"
            raise DeltaDamaged(found, offset=at)
        expected = self._digest.digest()
        if self._take(len(expected)) != expected:
            raise DeltaDamaged("the digest of the whole is another", offset=self._at)
        if self._file.read(1):
            raise DeltaDamaged("something behind its end; allowed: nothing", offset=self._at)

    def _take(self, count: int) -> bytes:
        raw = self._file.read(count)
        if len(raw) < count:
            raise DeltaDamaged("it ends in the middle", offset=self._at + len(raw))
        self._at += count
        self._digest.update(raw)
        return raw


def _check_header(header: Header, at: int) -> None:
    size = header.disk_bytes
    is_hex = _DIGEST.fullmatch(header.base_sha256) is not None
    if not (0 < size <= LARGEST_BYTES and 0 <= header.content_bytes_max <= size and is_hex):
        found = (
            f"a disk of {size} bytes, of which at most {header.content_bytes_max} changed, on a "
            f"base with the digest {header.base_sha256[:80]!r}"
        )
        raise DeltaDamaged(f"{found}; allowed: sizes that can be, 64 hex digits", offset=at)

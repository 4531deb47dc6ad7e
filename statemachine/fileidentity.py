"""Which file something is, and which content it has: how bases and CoW files are known.

Pure; made by `reconciler.kernel`. May be imported by everything above.
"""

from __future__ import annotations

import attrs

from statemachine.units import Bytes


@attrs.frozen(kw_only=True, slots=False)  # so `quickread` fills it: each record has two
class FileIdentity:
    """Which file this is, and which content: (device, inode, size, mtime).

    `device` is st_dev; it may differ after a reboot for the same file, so `same_file` across
    boots goes by inode and content (docs/decisions/0006-identity-across-reboots.md).
    """

    device: int
    inode: int
    size: Bytes
    mtime_ns: int
    kind: str = "file"
    """"file", "folder", "device" or "other"."""
    sha256: str = attrs.field(default="", eq=False)
    """The digest of the content, where it is known: of a registered base."""

    def same_file(self, other: FileIdentity, *, same_boot: bool) -> bool:
        """Tell whether both are one file, whatever was written to it."""
        return self.inode == other.inode and (not same_boot or self.device == other.device)

    def same_content(self, other: FileIdentity, *, same_boot: bool) -> bool:
        """Tell whether both are one file that nobody wrote to in between."""
        return (
            self.same_file(other, same_boot=same_boot)
            and self.size == other.size
            and self.mtime_ns == other.mtime_ns
        )

    def __str__(self) -> str:
        """Print all four parts, for an error that must name both sides."""
        return (
            f"device {self.device}, inode {self.inode}, "
            f"{self.size.count} bytes, mtime {self.mtime_ns} ns"
        )

"""Files: made new and durable, removed by identity, never overwritten, their header read."""

import errno
import os
import struct
from pathlib import Path

import attrs
import pytest

from reconciler.kernel import extents, ioctl
from reconciler.kernel.linux import LinuxKernel
from reconciler.kernel.port import CloneMethod, CowHeader
from statemachine.errors import BlockedError, IdentityMismatch, PermanentError
from statemachine.fileidentity import FileIdentity
from statemachine.units import Bytes

kernel = LinuxKernel()
SIZE = Bytes(1 << 20)


def identity(path: Path) -> FileIdentity:
    found = kernel.identify(path)
    assert found is not None
    return found


def header(magic: bytes = b"SnAp", valid: int = 1, version: int = 1, chunk: int = 8) -> bytes:
    return magic + struct.pack("<3I", valid, version, chunk)


def test_a_sparse_file_has_its_size_no_blocks_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "cow"
    made = kernel.create_sparse(path, SIZE)
    assert made == identity(path)
    assert (made.size, made.kind, kernel.allocated(path)) == (SIZE, "file", Bytes(0))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.parent.parent.stat().st_mode & 0o777 == 0o700


def test_an_existing_file_is_never_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "cow"
    path.write_text("data")
    with pytest.raises(PermanentError) as caught:
        kernel.create_sparse(path, SIZE)
    assert caught.value.kind == "eexist"
    assert path.read_text() == "data"


def test_a_file_is_not_made_through_a_dangling_symlink(tmp_path: Path) -> None:
    (tmp_path / "cow").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermanentError):
        kernel.create_sparse(tmp_path / "cow", SIZE)
    assert kernel.list_folder(tmp_path) == ("cow",)


def test_a_file_that_cannot_get_its_size_is_taken_away_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(_descriptor: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "ftruncate", no_space)
    with pytest.raises(BlockedError):
        kernel.create_sparse(tmp_path / "cow", SIZE)
    assert kernel.list_folder(tmp_path) == ()


def test_only_the_expected_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "cow"
    expected = kernel.create_sparse(path, SIZE)
    other = attrs.evolve(expected, inode=expected.inode + 1)
    with pytest.raises(IdentityMismatch, match=f"inode {expected.inode} now"):
        kernel.remove_file(path, other)
    path.write_text("written to since")
    assert kernel.remove_file(path, expected) is True
    assert kernel.remove_file(path, expected) is False
    assert kernel.remove_file(tmp_path / "no" / "cow", expected) is False


def test_a_missing_file_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "x", tmp_path / "x" / "y", tmp_path / "file" / "y"):
        assert kernel.identify(path) is None
        assert kernel.cow_header(path) is CowHeader.MISSING
        assert kernel.allocated(path) == Bytes(0)
        assert kernel.readable(path) is False
    assert kernel.list_folder(tmp_path / "x") == ()


def test_a_symlink_is_followed_only_on_request(tmp_path: Path) -> None:
    made = kernel.create_sparse(tmp_path / "base", SIZE)
    link = tmp_path / "link"
    link.symlink_to("base")
    assert kernel.identify(link, follow=True) == made
    assert identity(link).kind == "other"
    link.unlink()
    link.symlink_to("nowhere")
    assert kernel.identify(link, follow=True) is None


def test_what_may_not_be_read_is_an_error_and_not_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PermanentError) as caught:
        kernel.identify(tmp_path / ("n" * 256))
    assert caught.value.kind == "enametoolong"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", CowHeader.EMPTY),
        (bytes(16), CowHeader.EMPTY),
        (bytes(4096), CowHeader.EMPTY),
        (header() + bytes(4080), CowHeader.VALID),
        (header(valid=0), CowHeader.INVALID),
        (header(valid=2), CowHeader.FOREIGN),
        (header(version=2), CowHeader.FOREIGN),
        (header(chunk=16), CowHeader.FOREIGN),
        (header(magic=b"pAnS"), CowHeader.FOREIGN),
        (b"SnAp", CowHeader.FOREIGN),
    ],
)
def test_the_header_of_a_cow_file(tmp_path: Path, content: bytes, expected: CowHeader) -> None:
    (tmp_path / "cow").write_bytes(content)
    assert kernel.cow_header(tmp_path / "cow") is expected


def test_a_folder_or_symlink_in_place_of_a_cow_file_is_foreign(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("x")
    assert kernel.cow_header(tmp_path) is CowHeader.FOREIGN
    assert kernel.cow_header(tmp_path / "link") is CowHeader.FOREIGN


def test_free_space_is_that_of_the_nearest_parent(tmp_path: Path) -> None:
    here, below = kernel.free_space(tmp_path), kernel.free_space(tmp_path / "a" / "b")
    assert here.total == below.total
    assert Bytes(0) < here.available <= here.total


def test_a_folder_is_made_once_and_removed_only_if_empty(tmp_path: Path) -> None:
    folder = tmp_path / "jail"
    assert kernel.make_folder(folder) is True
    assert kernel.make_folder(folder) is False
    assert folder.stat().st_mode & 0o777 == 0o755
    (folder / "x").touch()
    assert kernel.remove_folder(folder) is False
    (folder / "x").unlink()
    assert kernel.remove_folder(folder) is True
    assert kernel.remove_folder(folder) is False


def test_a_file_in_place_of_a_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PermanentError):
        kernel.make_folder(tmp_path / "file")
    with pytest.raises(PermanentError):
        kernel.remove_folder(tmp_path / "file")


def sparse_base(path: Path) -> bytes:
    """Write 3 MiB: a hole, data, zeros that are not a hole, data up to an odd end."""
    data = os.urandom(5000)
    with path.open("wb") as file:
        file.seek(1 << 20)
        file.write(data + bytes(1 << 20) + data)
        file.truncate((3 << 20) + 7)
    return path.read_bytes()


@pytest.mark.parametrize("nameless", [True, False], ids=["O_TMPFILE", "temporary name"])
def test_a_clone_has_the_base_and_zeros_up_to_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, nameless: bool
) -> None:
    if not nameless:
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)  # EISDIR, as an old file system says
    content = sparse_base(tmp_path / "base")
    target = tmp_path / "clones" / "disk"
    method = kernel.clone_file(tmp_path / "base", target, Bytes(4 << 20))
    assert method in set(CloneMethod)
    assert target.read_bytes() == content.ljust(4 << 20, b"\0")
    assert target.stat().st_mode & 0o777 == 0o600
    assert kernel.list_folder(target.parent) == ("disk",)
    assert kernel.allocated(target) < Bytes(3 << 20)


def test_a_clone_never_replaces_a_file(tmp_path: Path) -> None:
    sparse_base(tmp_path / "base")
    (tmp_path / "disk").write_text("data")
    with pytest.raises(PermanentError) as caught:
        kernel.clone_file(tmp_path / "base", tmp_path / "disk", Bytes(4 << 20))
    assert caught.value.kind == "eexist"
    assert (tmp_path / "disk").read_text() == "data"


def test_a_clone_smaller_than_its_base_is_refused(tmp_path: Path) -> None:
    sparse_base(tmp_path / "base")
    with pytest.raises(PermanentError, match="more than 512"):
        kernel.clone_file(tmp_path / "base", tmp_path / "disk", Bytes(512))
    assert kernel.list_folder(tmp_path) == ("base",)


def test_a_failed_clone_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, _piece: object, _at: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def no_reflink(_descriptor: int, _request: int, _argument: int) -> int:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    sparse_base(tmp_path / "base")
    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(ioctl, "call", no_reflink)
    with pytest.raises(BlockedError):
        kernel.clone_file(tmp_path / "base", tmp_path / "disk", Bytes(4 << 20))
    assert kernel.list_folder(tmp_path) == ("base",)


def test_a_source_that_knows_no_holes_is_copied_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_holes(_descriptor: int, _at: int, _whence: int) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "lseek", no_holes)
    assert list(extents.data_ranges(0, 10)) == [(0, 10)]


def test_a_partial_copy_of_a_crash_is_cleared_by_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)
    sparse_base(tmp_path / "base")
    (tmp_path / ".disk.byre-partial").write_text("half")
    kernel.clone_file(tmp_path / "base", tmp_path / "disk", Bytes(4 << 20))
    assert kernel.list_folder(tmp_path) == ("base", "disk")

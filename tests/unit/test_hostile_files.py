"""Bases, specs and names from somebody hostile: nothing hangs, is opened, or leaves its place."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler import specs
from reconciler.kernel import ioctl
from reconciler.kernel.linux import LinuxKernel
from reconciler.specs import Sourced, check_base
from statemachine.errors import IdentityMismatch, PermanentError, SpecError
from statemachine.fileidentity import FileIdentity
from statemachine.names import disk_name
from statemachine.spec import DiskSpec
from statemachine.specreader import parse
from statemachine.units import Bytes

kernel = LinuxKernel()
SIZE = Bytes(4096)
PATIENCE_S = 60.0
GOOD = '[[disk]]\nname = "sb-1"\nbase = "/srv/b.img"\n'


def in_time(work: Callable[[], None]) -> None:
    """Do something that would hang for ever if it were wrong."""
    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is raised below, in the test's thread
            failed.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "it hangs"
    if failed:
        raise failed[0]


# --- bases ---------------------------------------------------------------------------------------


def identity(path: Path) -> FileIdentity:
    seen = kernel.identify(path, follow=True)
    assert seen is not None
    return seen


def plant(path: Path, kind: str) -> None:
    """Put something at a path that is no base."""
    if kind == "pipe":
        os.mkfifo(path)  # opening it would wait for a writer
    elif kind == "device":
        path.symlink_to("/dev/zero")  # opening /dev/watchdog would reboot the host
    else:
        path.mkdir()


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_regular_file_is_never_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "base"
    plant(path, kind)
    there = identity(path)

    def copy() -> None:
        kernel.clone_file(path, tmp_path / "copy", SIZE)

    def attach() -> None:
        kernel.loop_attach(path, there, marker="x", read_only=True)

    def work() -> None:
        assert kernel.readable(path) is False
        for open_it in (copy, attach):
            with pytest.raises(PermanentError) as caught:
                open_it()
            assert caught.value.kind == "einval"

    in_time(work)


@pytest.mark.parametrize(
    ("kind", "word"),
    [("pipe", "a other"), ("device", "a other"), ("folder", "a folder"), ("loop", "symbolic")],
)
def test_what_is_no_regular_file_is_no_base(tmp_path: Path, kind: str, word: str) -> None:
    path = tmp_path / "base"
    if kind == "loop":
        path.symlink_to("base")
    else:
        plant(path, kind)
    spec = DiskSpec(name=disk_name("sb-1"), base=path)

    def work() -> None:
        with pytest.raises(SpecError, match="'base'") as caught:
            check_base("disks.toml", spec, kernel)
        assert word in caught.value.faults[0]

    in_time(work)


def test_a_base_behind_a_symlink_is_pinned_by_the_file_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "v1").write_bytes(bytes(4096))
    (tmp_path / "base").symlink_to("v1")
    spec = DiskSpec(name=disk_name("sb-1"), base=tmp_path / "base")
    assert check_base("disks.toml", spec, kernel) == identity(tmp_path / "v1")


def test_a_base_swapped_after_it_was_checked_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "base").write_bytes(b"base")
    checked = identity(tmp_path / "base")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "base").unlink()
    (tmp_path / "base").symlink_to("secret")
    with pytest.raises(IdentityMismatch):
        kernel.clone_file(tmp_path / "base", tmp_path / "copy", SIZE, expected=checked)
    assert not (tmp_path / "copy").exists()


def test_a_base_that_shrinks_while_it_is_copied_leaves_no_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    base.write_bytes(b"x" * (2 << 20))

    def no_reflink(_descriptor: int, _request: int, _argument: int) -> int:
        base.write_bytes(b"")
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(ioctl, "call", no_reflink)
    monkeypatch.setattr(os, "lseek", lambda _file, at, how: at if how == os.SEEK_DATA else 2 << 20)
    with pytest.raises(PermanentError) as caught:
        kernel.clone_file(base, tmp_path / "copy", Bytes(2 << 20))
    assert caught.value.kind == "eio"
    assert kernel.list_folder(tmp_path) == ("base",)


# --- specs ---------------------------------------------------------------------------------------


def read(folder: Path) -> list[Sourced]:
    found: list[Sourced] = []
    in_time(lambda: found.extend(specs.read(str(folder))))
    return found


def test_what_is_no_file_in_a_spec_folder_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "device.toml").symlink_to("/dev/zero")
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    (tmp_path / "dangling.toml").symlink_to("nowhere")
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "good.toml").write_text(GOOD)
    assert [each.spec.name for each in read(tmp_path)] == ["sb-1"]


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_spec_file_that_is_swapped_after_the_look_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    plant(tmp_path / "a.toml", kind)
    monkeypatch.setattr(specs, "_is_spec_file", lambda _path: True)
    with pytest.raises(SpecError, match=r"a\.toml: found .*no regular file"):
        read(tmp_path)


def test_a_file_is_read_up_to_the_bound_whatever_size_it_says_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.toml").symlink_to("/proc/self/status")  # regular, and of size 0
    monkeypatch.setattr(specs, "SPEC_BYTES_MAX", 100)
    with pytest.raises(SpecError, match="found 'more text'; allowed: at most 100 bytes"):
        read(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "..", ".", "a/b", "../a", "a..b", "-a", ".a", "a b", "a\0", "a\n", "a\r",
        "a\x1b[2J", "a\x7f",
        "\u0430",  # CYRILLIC SMALL LETTER A
        "\uff41",  # FULLWIDTH LATIN SMALL LETTER A
        "a\u0301",  # a and a combining accent
        "\u0661",  # ARABIC-INDIC DIGIT ONE, a digit to Python
        "a\u200b", "a\u202e", "\udcff", "a" * 64, "a" * 1_000_000, "A", "@host",
    ],
)  # fmt: skip
def test_a_name_that_looks_like_another_or_leaves_its_folder_is_no_name(name: str) -> None:
    document = {"disk": [{"name": name, "base": "/srv/b.img"}]}
    with pytest.raises(SpecError, match="'name'") as caught:
        parse(document, source="disks.toml", folder=Path("/srv"))
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 600


@pytest.mark.parametrize("field", ["link", "base"])
@pytest.mark.parametrize(
    "text",
    ["/srv/\0", "/srv/a\nb", "/srv/\x1b]0;x\a", "/srv/\u202e", "/srv/\udcff", "/" + "a" * 4096],
)
def test_a_path_that_a_terminal_or_the_kernel_would_misread_is_no_path(
    field: str, text: str
) -> None:
    document = {"disk": [{"name": "sb-1", "base": "/srv/b.img", field: text}]}
    with pytest.raises(SpecError, match=f"'{field}'") as caught:
        parse(document, source="disks.toml", folder=Path("/srv"))
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("link", ["/srv/jail/../../etc/passwd", "..", "a/..", "/.."])
def test_a_link_that_goes_up_is_no_link(link: str) -> None:
    document = {"disk": [{"name": "sb-1", "base": "/srv/b.img", "link": link}]}
    with pytest.raises(SpecError, match=r"a path without '\.\.'"):
        parse(document, source="disks.toml", folder=Path("/srv"))

"""Symlinks: made, exchanged and dropped only where the expected one, or nothing, is in place."""

import os
from pathlib import Path

import pytest

from reconciler.kernel import ioctl, links
from reconciler.kernel.linux import LinuxKernel
from statemachine.errors import ForeignDevice, PermanentError, TransientError
from statemachine.observed import DeviceNumber, LinkKind, LinkObservation

kernel = LinuxKernel()


def text(path: Path) -> str:
    return os.readlink(path)  # noqa: PTH115 - the literal text


def test_a_missing_path_names_its_missing_parents_outermost_first(tmp_path: Path) -> None:
    expected = LinkObservation(
        kind=LinkKind.MISSING, missing_parents=(f"{tmp_path}/a", f"{tmp_path}/a/b")
    )
    assert kernel.read_link(tmp_path / "a" / "b" / "link") == expected


def test_the_literal_text_of_a_symlink_is_what_is_observed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(".//x/../dm-1")
    expected = LinkObservation(kind=LinkKind.SYMLINK, target=".//x/../dm-1")
    assert kernel.read_link(tmp_path / "link") == expected


def test_a_file_a_folder_and_a_file_instead_of_a_parent_are_occupied(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path, tmp_path / "file" / "link"):
        assert kernel.read_link(path) == LinkObservation(kind=LinkKind.OCCUPIED)


def test_a_new_link_is_made_once(tmp_path: Path) -> None:
    link = tmp_path / "link"
    assert kernel.put_link(link, "../dm-1", replaces=None) is True
    assert kernel.put_link(link, "../dm-1", replaces=None) is False
    assert text(link) == "../dm-1"


def test_an_expected_link_is_exchanged_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("old")
    assert kernel.put_link(link, "new", replaces="old") is True
    assert text(link) == "new"
    assert kernel.list_folder(tmp_path) == ("link",)


@pytest.mark.parametrize("replaces", [None, "other"])
def test_an_unexpected_link_is_foreign_and_stays(tmp_path: Path, replaces: str | None) -> None:
    link = tmp_path / "link"
    link.symlink_to("theirs")
    with pytest.raises(ForeignDevice, match="a symlink to theirs"):
        kernel.put_link(link, "new", replaces=replaces)
    with pytest.raises(ForeignDevice):
        kernel.drop_link(link, "new")
    assert text(link) == "theirs"


def test_a_file_is_foreign_and_stays(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.write_text("data")
    with pytest.raises(ForeignDevice, match="a file or folder"):
        kernel.put_link(link, "new", replaces="old")
    with pytest.raises(ForeignDevice):
        kernel.drop_link(link, "new")
    assert link.read_text() == "data"


def test_what_came_in_between_looking_and_exchanging_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "link"
    link.symlink_to("old")
    real = ioctl.exchange
    calls = 0

    def somebody_was_faster(left: str, right: str, *, folder: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            link.unlink()
            link.write_text("theirs")
        real(left, right, folder=folder)

    monkeypatch.setattr(ioctl, "exchange", somebody_was_faster)
    with pytest.raises(ForeignDevice, match="a file or folder"):
        kernel.put_link(link, "new", replaces="old")
    assert link.read_text() == "theirs"
    assert kernel.list_folder(tmp_path) == ("link",)


def test_a_link_that_vanishes_in_between_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "link"
    link.symlink_to("old")
    real = ioctl.exchange

    def it_vanished(left: str, right: str, *, folder: int) -> None:
        link.unlink()
        real(left, right, folder=folder)

    monkeypatch.setattr(ioctl, "exchange", it_vanished)
    assert kernel.put_link(link, "new", replaces="old") is True
    assert text(link) == "new"
    assert kernel.list_folder(tmp_path) == ("link",)


def test_a_path_that_never_stands_still_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = LinkObservation(kind=LinkKind.MISSING)
    (tmp_path / "link").touch()
    monkeypatch.setattr(links, "look", lambda _place: missing)
    with pytest.raises(TransientError) as caught:
        kernel.put_link(tmp_path / "link", "new", replaces=None)
    assert caught.value.kind == "eagain"


def test_what_a_crash_left_beside_a_link_is_cleared_by_the_next_call(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("new")
    (tmp_path / ".link.byre-new").symlink_to("old")
    assert kernel.put_link(link, "new", replaces="old") is False
    assert kernel.list_folder(tmp_path) == ("link",)


def test_a_link_of_the_longest_name_is_exchanged_as_well(tmp_path: Path) -> None:
    link = tmp_path / ("n" * 255)
    link.symlink_to("old")
    assert kernel.put_link(link, "new", replaces="old") is True
    assert text(link) == "new"
    assert kernel.list_folder(tmp_path) == (link.name,)


def test_a_file_instead_of_a_parent_is_foreign(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ForeignDevice):
        kernel.put_link(tmp_path / "file" / "link", "new", replaces=None)
    with pytest.raises(ForeignDevice):
        kernel.drop_link(tmp_path / "file" / "link", "new")


def test_a_link_without_its_parent_fails_by_errno(tmp_path: Path) -> None:
    with pytest.raises(PermanentError) as caught:
        kernel.put_link(tmp_path / "no" / "link", "x", replaces=None)
    assert caught.value.kind == "enoent"


def test_the_expected_link_is_dropped_once(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("x")
    assert kernel.drop_link(link, "x") is True
    assert kernel.drop_link(link, "x") is False


def test_a_node_is_not_made_over_something_else(tmp_path: Path) -> None:
    (tmp_path / "dm-0").touch()
    with pytest.raises(ForeignDevice):
        kernel.ensure_node(DeviceNumber(253, 0), tmp_path / "dm-0")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mknod needs root")
def test_a_missing_node_is_made_once_and_only_with_its_own_number(tmp_path: Path) -> None:
    node = tmp_path / "dm-300"
    assert kernel.ensure_node(DeviceNumber(253, 300), node) is True
    assert kernel.ensure_node(DeviceNumber(253, 300), node) is False
    assert kernel.read_link(node) == LinkObservation(kind=LinkKind.DEVICE, target="253:300")
    with pytest.raises(ForeignDevice, match="the device node 253:300"):
        kernel.ensure_node(DeviceNumber(253, 301), node)

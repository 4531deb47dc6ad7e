"""Links are only where the settings allow them, by where their folder really is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from reconciler import linkroots
from reconciler.config import Settings
from reconciler.kernel.linux import LinuxKernel
from statemachine.errors import RefusedError, SpecError, UsageError
from statemachine.machine import State, Trigger
from tests.unit.builders import Stage

ROOTS = (Path("/srv/vm"), Path("/srv/jail"))


@pytest.fixture
def stage(folder: Path) -> Iterator[Stage]:
    made = Stage(folder)
    made.settings = attrs.evolve(made.settings, link_roots=ROOTS)
    made.restart()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("link", "outside"),
    [
        ("/srv/vm/a", False),
        ("/srv/vm/deep/er/a", False),
        ("/srv/jail/a", False),
        ("/srv/vm", True),
        ("/srv/vm2/a", True),
        ("/srv/vm/../x/a", True),
        ("/a", True),
        ("/etc/passwd", True),
    ],
)
def test_below_a_root_is_by_whole_parts_of_the_path(link: str, *, outside: bool) -> None:
    assert linkroots.is_outside(LinuxKernel(), Path(link), ROOTS) is outside
    assert linkroots.is_outside(LinuxKernel(), Path(link), ()) is False


def test_both_sides_are_resolved(tmp_path: Path) -> None:
    for name in ("data", "vm", "etc"):
        (tmp_path / name).mkdir()
    (tmp_path / "srv").symlink_to("data")
    (tmp_path / "vm" / "out").symlink_to("../etc")
    kernel = LinuxKernel()
    roots = (tmp_path / "srv", tmp_path / "vm")
    for inside in ("srv/a", "data/a", "srv/new/a"):
        assert not linkroots.is_outside(kernel, tmp_path / inside, roots)
    for outside in ("vm/out/a", "vm/out/new/a", "etc/a"):
        assert linkroots.is_outside(kernel, tmp_path / outside, roots)
    with pytest.raises(RefusedError, match=f"really {tmp_path}/etc/a,") as caught:
        linkroots.refuse_outside(kernel, tmp_path / "vm" / "out" / "a", roots)
    assert f"{tmp_path}/srv or {tmp_path}/vm" in caught.value.message


def test_a_folder_may_be_made_on_the_way_to_a_root_and_nowhere_else() -> None:
    for folder in ("/srv", "/srv/vm", "/srv/vm/deep/er"):
        linkroots.refuse_folder_outside(LinuxKernel(), Path(folder), ROOTS)
    linkroots.refuse_folder_outside(LinuxKernel(), Path("/etc"), ())
    for folder in ("/etc", "/srv/vm2", "/srv/other/vm"):
        with pytest.raises(RefusedError, match="outside of the link roots"):
            linkroots.refuse_folder_outside(LinuxKernel(), Path(folder), ROOTS)


def test_a_link_outside_is_refused_when_it_is_declared(stage: Stage) -> None:
    with pytest.raises(SpecError, match=r"/etc/a.*a path below /srv/vm or /srv/jail") as caught:
        stage.declare(link=Path("/etc/a"))
    assert caught.value.exit_code == 2
    assert stage.byre.log.records() == []
    assert stage.live(link=Path("/srv/vm/sb-1/a")).state is State.SNAPSHOTTED


def test_a_folder_that_became_a_symlink_out_is_refused_when_the_link_is_made(stage: Stage) -> None:
    stage.declare(link=Path("/srv/vm/sb-1/deep/a"))
    stage.kernel.put_link(Path("/srv/vm"), "/srv/other", replaces=None)
    stage.kernel.make_folder(Path("/srv/other"))
    stage.settings = attrs.evolve(stage.settings, link_roots=(Path("/srv/jail"),))
    stage.restart()
    stage.settle()
    failure = stage.record("sb-1").failure
    assert failure is not None
    assert (failure.kind, failure.exit_code) == ("refused", 4)
    assert "really /srv/other/sb-1/deep/a, is outside of the link roots" in failure.message
    assert stage.kernel.list_folder(Path("/srv/other")) == ()


def test_a_disk_whose_link_is_outside_by_now_can_still_be_removed(stage: Stage) -> None:
    record = stage.live(link=Path("/srv/vm/sb-1/a"))
    stage.settings = attrs.evolve(stage.settings, link_roots=(Path("/srv/jail"),))
    stage.restart()
    assert stage.settle() == 1
    assert stage.record("sb-1") == record
    assert stage.command(Trigger.REMOVE).state is State.REMOVED


@pytest.mark.parametrize("value", ["/srv", ["srv"], ["/srv/../etc"], [1], 7, [None]])
def test_roots_that_are_no_list_of_absolute_paths_are_a_usage_error(value: object) -> None:
    with pytest.raises(UsageError, match="link_roots"):
        Settings(link_roots=value)


def test_roots_are_read_from_the_roots_own_settings(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('link_roots = ["/srv/vm", "/srv/jail"]\n')
    assert Settings.read(tmp_path / "config.toml").link_roots == ROOTS

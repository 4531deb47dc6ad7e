"""A folder that byre made for one link goes with the last link in it, and a stranger's stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.folders import MadeFolders
from statemachine.machine import State, Trigger
from tests.unit.builders import Stage

VM = Path("/srv/vm")


def test_folders_above_a_link_are_given_outermost_first() -> None:
    made = MadeFolders()
    made.note(["/srv/vm/a", "/srv/vm", "/opt"])
    assert made.above(Path("/srv/vm/a/rootfs")) == ("/srv/vm", "/srv/vm/a")
    made.forget(["/srv/vm/a"])
    assert made.above(Path("/srv/vm/a/rootfs")) == ("/srv/vm",)


def test_the_last_link_takes_the_shared_folder_with_it(folder: Path) -> None:
    stage = Stage(folder)
    stage.live("sb-1", link=VM / "sb-1")
    stage.live("sb-2", link=VM / "sb-2")
    stage.command(Trigger.REMOVE, "sb-1")
    assert stage.kernel.list_folder(VM) == ("sb-2",)
    stage.restart()
    stage.command(Trigger.REMOVE, "sb-2")
    assert stage.kernel.identify(VM) is None
    stage.close()


def test_a_link_that_moves_takes_along_what_it_needs_no_more(folder: Path) -> None:
    stage = Stage(folder)
    stage.live("sb-1", link=VM / "old" / "rootfs")
    stage.live("sb-1", link=VM / "new" / "rootfs")
    assert stage.kernel.list_folder(VM) == ("new",)
    assert stage.record().link == str(VM / "new" / "rootfs")
    stage.check()
    stage.close()


@pytest.mark.parametrize("link", [VM / "sb-2", VM / "deep" / "sb-2"])
def test_a_folder_that_goes_with_another_disks_link_just_now_is_made_again(
    folder: Path, link: Path
) -> None:
    stage = Stage(folder)
    stage.live("sb-1", link=VM / "sb-1")

    once = iter([VM / "sb-1"])

    def leave(_: object) -> None:
        for left in once:
            stage.kernel.delete(left)
            stage.kernel.remove_folder(VM)

    last = "make_folder" if link.parent != VM else "put_link"
    stage.kernel.faults.hook(last, leave, about=str(link.parent))
    record = stage.live("sb-2", link=link)
    assert (record.state, record.link) == (State.SNAPSHOTTED, str(link))
    failed = stage.byre.log.select("WHERE disk = 'sb-2' AND type = 'transition.failed'")
    assert [(event.data["consequence"], event.data["kind"]) for event in failed] == [
        ("transient", "enoent")
    ]
    stage.close()


def test_a_folder_with_somebody_elses_file_stays(folder: Path) -> None:
    stage = Stage(folder)
    stage.live("sb-1", link=VM / "sb-1")
    stage.kernel.make_file(VM / "notes", 1)
    stage.command(Trigger.REMOVE, "sb-1")
    assert stage.kernel.list_folder(VM) == ("notes",)
    stage.close()

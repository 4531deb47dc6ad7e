"""A hint finds the disks that it is about, by what their records say now."""

from __future__ import annotations

from pathlib import Path

from reconciler.index import Index
from statemachine.machine import Trigger
from tests.unit.builders import Stage

LINK = Path("/srv/vm/sb-1/rootfs")


def test_a_live_disk_is_found_by_all_its_names(folder: Path) -> None:
    stage, index = Stage(folder), Index()
    record = stage.live(link=LINK)
    index.update([record])
    minor = record.device_number.partition(":")[2]
    names = ["byre-sb-1", f"dm-{minor}", f"loop{record.cow_loop}", f"loop{record.base_loop}"]
    assert [index.find(name) for name in (*names, str(LINK))] == [("sb-1",)] * 5
    assert index.link_folders() == {LINK.parent}
    stage.close()


def test_disks_on_one_base_are_both_found_by_its_loop(folder: Path) -> None:
    stage, index = Stage(folder), Index()
    index.update([stage.live("sb-1"), stage.live("sb-2")])
    assert index.find(f"loop{stage.record('sb-1').base_loop}") == ("sb-1", "sb-2")
    stage.close()


def test_what_a_disk_has_no_more_does_not_lead_to_it(folder: Path) -> None:
    stage, index = Stage(folder), Index()
    live = stage.live(link=LINK)
    index.update([live])
    index.update([stage.command(Trigger.PAUSE)])
    assert index.find(f"loop{live.cow_loop}") == ()
    assert index.find("byre-sb-1") == ("sb-1",)
    index.update([stage.command(Trigger.REMOVE)])
    assert index.find("byre-sb-1") == ()
    assert index.link_folders() == frozenset()
    stage.close()


def test_a_folder_counts_as_long_as_one_link_is_in_it(folder: Path) -> None:
    stage, index = Stage(folder), Index()
    index.update([stage.live("sb-1", link=LINK), stage.live("sb-2", link=LINK.with_name("other"))])
    index.update([stage.command(Trigger.REMOVE, "sb-1")])
    assert index.link_folders() == {LINK.parent}
    index.update([stage.command(Trigger.REMOVE, "sb-2")])
    assert index.link_folders() == frozenset()
    stage.close()


def test_a_loop_that_is_in_the_way_leads_to_the_disk_that_waits(folder: Path) -> None:
    stage, index = Stage(folder), Index()
    stage.live()
    other = stage.kernel.add_foreign_loop(stage.command(Trigger.PAUSE).cow_path)
    stage.byre.command(["sb-1"], Trigger.RESTORE)
    index.update([stage.once()])
    assert index.find(f"loop{other}") == ("sb-1",)
    stage.close()


def test_a_strangers_device_leads_nowhere() -> None:
    assert Index().find("dm-7") == ()

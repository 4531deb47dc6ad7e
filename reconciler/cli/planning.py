"""`plan` and `explain`: what would be done and why, and what one disk waits for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from reconciler import busy, lapse, plan
from reconciler.api import Byre
from reconciler.cli import describe, options, say
from reconciler.cli.app import Context
from reconciler.declare import Declarer
from reconciler.drivers.port import View
from reconciler.outcome import is_gone
from reconciler.protect import Freeze, Grow, NoteLevel, Protection, Thaw
from reconciler.requester import this_process
from reconciler.specs import read
from reconciler.store import files
from statemachine import projection
from statemachine.errors import ByreError
from statemachine.events import Event, NewEvent, encode
from statemachine.observed import SnapshotStatus
from statemachine.plight import Failure
from statemachine.record import Record
from statemachine.spec import DriverChoice
from statemachine.utc import iso


@click.command("plan", epilog=options.epilog("byre plan", "byre plan -f disks.toml -o json"))
@click.option(
    "-f", "--file", "where", metavar="FILE|DIR|-", help="As if these specs had been applied."
)
@options.output("table", "json")
@click.pass_obj
def plan_command(ctx: Context, *, where: str | None, output: str) -> None:
    """Show what would be done, and why; changes nothing."""
    with Byre(ctx.root.path, read_only=True, settings=ctx.settings) as byre:
        records = {record.name: record for record in byre.log.in_use()}
        if where is not None:
            _pretend(byre, records, where)
        rows = [_planned(byre, record) for record in records.values() if not is_gone(record)]
    if output == "json":
        say.machine(rows)
        return
    say.table(
        ("DISK", "STATE", "DESIRED", "NEXT", "ACTIONS", "WHY"),
        [
            [
                row["name"],
                row["state"],
                row["desired"],
                " → ".join(row["triggers"]) or "-",
                "\n".join(row["actions"]) or "-",
                row["why"],
            ]
            for row in rows
        ],
    )


@click.command("explain", epilog=options.epilog("byre explain sb-1"))
@click.argument("name", shell_complete=options.complete_names)
@options.output("table", "json")
@click.pass_obj
def explain_command(ctx: Context, *, name: str, output: str) -> None:
    """Tell what a disk should be, what it is, and what it waits for."""
    with Byre(ctx.root.path, read_only=True, settings=ctx.settings) as byre:
        record = byre.get(name)
        row = {**_planned(byre, record), **_explained(byre, record)}
    if output == "json":
        say.machine(row)
        return
    say.table(("ABOUT", name), [[key, _text(value)] for key, value in row.items() if key != "name"])


def _pretend(byre: Byre, records: dict[str, Record], where: str) -> None:
    """Move records as applying the specs would, in memory only."""
    declarer = Declarer(
        byre.log,
        byre.kernel,
        by=this_process(),
        device_prefix=byre.settings.device_prefix,
        link_roots=byre.settings.link_roots,
    )
    for name, event in declarer.preview(read(where)):
        if event is None:
            continue
        record = records.get(name) or byre.log.record(name)
        moved = projection.apply(record, _placed(event, record, byre))
        assert moved is not None, "a declaration makes a record"
        records[name] = moved


def _placed(new: NewEvent, record: Record | None, byre: Byre) -> Event:
    """Return an event as the log would store it, but for its place in the chain."""
    begins = record is None or new.generation > record.generation
    return Event(
        seq=byre.log.last_seq() + 1,
        disk=new.disk,
        generation=new.generation,
        version=1 if begins or record is None else record.version + 1,
        type=new.type.value,
        at=byre.clock.now_ns(),
        actor=new.actor,
        reason=new.reason,
        correlation_id=new.correlation_id,
        boot_id=byre.log.boot_id,
        data_text=encode(new.type, new.data, actor=new.actor),
        prev_hash="",
        hash="",
    )


def _planned(byre: Byre, record: Record) -> dict[str, Any]:
    view, choice = byre.look(record)
    step = plan.decide(view)
    triggers, actions, why = _in_words(view, step)
    return {
        "name": record.name,
        "state": record.state.value,
        "desired": record.desired.value,
        "driver": choice.driver.name,
        "triggers": triggers,
        "actions": actions,
        "why": why,
    }


def _in_words(view: View, step: plan.Step) -> tuple[list[str], list[str], str]:
    record = view.record
    if isinstance(step, plan.Rest):
        return [], [], step.why
    if isinstance(step, plan.NoteFault):
        return [], [], f"it will be faulted: {step.message}"
    if isinstance(step, plan.NextGeneration):
        return [trigger.value for trigger in plan.outlook(record)], [], "it is wanted again"
    if isinstance(step, plan.NoteDrift):
        return _drift_in_words(view, step)
    if isinstance(step, Grow | Freeze | Thaw | NoteLevel):
        return [], [_protection_in_words(step)], "its data is protected"
    way = [trigger.value for trigger in plan.outlook(record)]
    triggers = way if way[:1] == [step.trigger.value] else [step.trigger.value, *way]
    return triggers, list(map(str, step.actions)), step.why


def _protection_in_words(step: Protection) -> str:
    match step:
        case Grow():
            return f"grow its CoW to {step.size}, as {step.room.percent} % are used"
        case Freeze():
            return f"freeze it: {step.message}"
        case Thaw():
            return f"thaw it: {step.message}"
        case NoteLevel():
            return f"tell that its CoW is {step.room.percent} % full"


def _drift_in_words(view: View, step: plan.NoteDrift) -> tuple[list[str], list[str], str]:
    why = f"drift: {'; '.join(step.differences)}"
    if step.trigger.value == "repair":
        move = plan.repair(view, step.differences)
        return [step.trigger.value], list(map(str, move.actions)), why
    from statemachine.machine import path  # noqa: PLC0415

    way = path(step.target, view.record.desired) or ()
    return [step.trigger.value, *(edge.trigger.value for edge in way)], [], why


def _explained(byre: Byre, record: Record) -> dict[str, Any]:
    view, _ = byre.look(record)
    observed, failure, dm = view.observed, record.failure, view.observed.dm
    held = busy.look(byre.kernel, record, observed, failure.trigger if failure else None)
    holders = [str(holder) for holder in held.holders] if held else []
    is_in_use = failure is not None and failure.kind == busy.KIND
    on_cow = [loop for loop in byre.kernel.loops() if observed.cow and loop.backs(observed.cow)]
    return {
        "observed": {
            "shape": view.seen.shape.value,
            "defects": list(view.seen.defects),
            "base": str(observed.base) if observed.base else None,
            "cow": str(observed.cow) if observed.cow else None,
            "cow_header": observed.cow_header,
            "other_loops": [loop.path for loop in on_cow if loop != observed.cow_loop],
            "device": dm.node if dm else (observed.cow_loop.path if observed.cow_loop else None),
            "open_count": dm.open_count if dm else None,
            "suspended": dm.suspended if dm else None,
        },
        "usage": _usage(record, dm.status if dm else None),
        "rewind_to": record.rewind.point if record.rewind else None,
        "parent": f"{record.parent} by {record.parent.how}" if record.parent else None,
        "frozen": record.frozen.message if record.frozen else None,
        "lifetime": _lifetime(view),
        "in_flight": record.in_flight.trigger.value if record.in_flight else None,
        "blocker": (failure.message if failure else None)
        or (record.fault.message if record.fault else None),
        "hint": (failure.hint if failure else None)
        or (record.fault.hint if record.fault else None),
        # Of what is in use, those of now; of anything else, what the failure named.
        "holders": holders if is_in_use or failure is None else holders or list(failure.holders),
        "in_use": _in_use(record, failure) if failure and is_in_use else None,
        "attempts": record.attempts,
        "next_retry_at": iso(failure.retry_at) if failure and failure.retry_at else None,
    }


def _lifetime(view: View) -> dict[str, Any]:
    """How long the disk is wanted, and from when on it counts as idle."""
    idle_at = lapse.idle_at(view.record, view.observed)
    return {**describe.lifetime(view.record), "idle_at": iso(idle_at) if idle_at else None}


def _usage(record: Record, status: SnapshotStatus | None) -> dict[str, Any] | None:
    """How full the exception store is: by the kernel of a live disk, by its file of another."""
    if record.cow is None or record.driver != DriverChoice.DM_SNAPSHOT:
        return None
    if status is None:
        try:
            status = files.usage(Path(record.cow_path))
        except (ByreError, OSError):
            return None  # `byre fsck` says what is wrong with it
    used, total = status.used.to_bytes().count, status.total.to_bytes().count
    metadata = status.metadata.to_bytes().count
    return {
        "used_bytes": used,
        "capacity_bytes": total,
        "metadata_bytes": metadata,
        "fill": used / max(1, total),
        "dirty": max(0, used - metadata) / max(1, record.size.count),
    }


def _in_use(record: Record, failure: Failure) -> dict[str, Any]:
    """Since when it is waited for the holders, how long it may take, and what then."""
    spec = record.wanted
    return {
        "since": iso(failure.since),
        "deadline_at": iso(failure.since + int(spec.busy_timeout_s * 1_000_000_000)),
        "on_busy": spec.on_busy.value,
        "overdue": failure.overdue,
    }


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_text(each)}" for key, each in value.items())
    if isinstance(value, list):
        return "\n".join(map(str, value)) or "-"
    return "-" if value is None else str(value)

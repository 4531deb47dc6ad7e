"""`history`: what happened, to one disk or to the whole root."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import click

from reconciler.api import Byre
from reconciler.cli import options, say
from reconciler.cli.app import Context
from statemachine.errors import NoSuchDisk
from statemachine.events import Event
from statemachine.history import PAGE_MAX, Question, as_json, ask
from statemachine.names import HOST


@click.command(
    "history",
    epilog=options.epilog(
        "byre history sb-1", "byre history --since '1 hour ago' --type transition -o jsonl"
    ),
)
@click.argument("name", required=False, shell_complete=options.complete_names)
@click.option("--since", type=options.Moment(), help="Only events from this time on.")
@click.option("--until", type=options.Moment(), help="Only events before this time.")
@click.option("--type", "event_type", help="A type (disk.declared) or its first word (transition).")
@click.option("--actor", help="Only what this actor did: a user's name, or 'reconciler'.")
@options.output("table", "json", "jsonl")
@click.option("--follow", is_flag=True, help="Go on with what happens from now on.")
@click.pass_obj
def history_command(
    ctx: Context,
    *,
    name: str | None,
    since: int | None,
    until: int | None,
    event_type: str | None,
    actor: str | None,
    output: str,
    follow: bool,
) -> None:
    """Tell what happened, oldest first."""
    question = Question(disk=name, since=since, until=until, type=event_type, actor=actor)
    with Byre(ctx.root.path, read_only=True) as byre:
        if name is not None and name != HOST and byre.log.record(name) is None:
            raise NoSuchDisk(name)
        if follow:
            _follow(byre, question, "jsonl" if output == "json" else output)
        else:
            _show(ask(byre.log, question), output)


def _follow(byre: Byre, question: Question, output: str) -> None:
    from reconciler.watch.follow import LogFollower, changes  # noqa: PLC0415 - only with --follow

    with LogFollower(byre.log.path) as follower:
        after = 0
        for seq in changes(follower, byre.log.last_seq):
            while events := ask(byre.log, attrs.evolve(question, after=after), limit=PAGE_MAX):
                after = events[-1].seq
                _show(events, output, follow=True)
            after = max(after, seq)


def _show(events: Sequence[Event], output: str, *, follow: bool = False) -> None:
    if output == "json":
        say.machine([as_json(event) for event in events])
    elif output == "jsonl":
        for event in events:
            say.machine_line(as_json(event))
    elif follow:
        for event in events:
            say.person("  ".join(_row(event)))
    else:
        say.table(
            ("SEQ", "TIME", "DISK", "GEN", "EVENT", "WHAT", "ACTOR"), [_row(e) for e in events]
        )


def _row(event: Event) -> list[str]:
    return [
        str(event.seq),
        say.local_time(event.at),
        event.disk,
        str(event.generation) if event.generation else "-",
        event.type,
        what(event),
        event.actor,
    ]


def what(event: Event) -> str:
    """Return the one line of an event that a person wants to read."""
    data = event.data
    words: list[str] = []
    if "trigger" in data:
        words.append(f"{data['trigger']}: {data['source']} → {data['target']}")
    if event.type == "disk.declared":
        spec = data["spec"]
        words.append(f"{spec['state']} on {spec['base']}")
    if event.type.startswith("orphan."):
        words.append(f"{data['kind']} {data['name']}")
    if data.get("device"):
        words.append(f"at {data['device']}")
    if data.get("duration_ns"):
        words.append(f"in {data['duration_ns'] / 1e6:.1f} ms")
    if data.get("differences"):
        words.append("; ".join(data["differences"]))
    if data.get("resumes"):
        words.append(f"(goes on with event {data['resumes']}, which a crash left open)")
    told = ["cause", "message", "was", "resolution", "evidence", "why", "form", "path"]
    if data.get("trigger") == "attach":
        told.append("driver_reason")  # of one disk it is always the same
    words += [str(data[key]) for key in told if data.get(key)]
    if event.reason:
        words.append(f"({event.reason})")
    return ", ".join(words)

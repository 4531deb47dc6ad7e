"""`log export`: the log for other programs, event by event, in bounded memory."""

from __future__ import annotations

import importlib.metadata
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import attrs
import click

from reconciler.cli import options, say
from reconciler.cli.app import Context
from reconciler.cli.asking import asking
from reconciler.cli.printing import printer
from reconciler.export import cloudevents, otlp
from reconciler.export.spans import Span, Spans
from statemachine.errors import NoSuchDisk, UsageError
from statemachine.events import Event
from statemachine.logreader import LogReader
from statemachine.names import HOST
from statemachine.past import Past
from statemachine.questions import Question

SPANS_AT_ONCE: Final = 500
"""How many spans one request has; the default of OpenTelemetry's own batches is 512."""


@click.command(
    "export",
    epilog=options.epilog(
        "byre log export --format cloudevents > log.ndjson",
        "byre log export --format csv --since 7d > week.csv",
        "byre log export --archive 2026-q3.byre --format csv > all.csv",
        "byre log export --otlp-endpoint http://127.0.0.1:4318/v1/traces --since 1h",
    ),
)
@click.argument("name", required=False, shell_complete=options.complete_names)
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv", "cloudevents", "otlp"]),
    default="jsonl",
    show_default=True,
    help="Events as they are, in CloudEvents' envelope, or transitions as OpenTelemetry spans.",
)
@click.option("--otlp-endpoint", metavar="URL", help="Send spans there instead; needs byre[otel].")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    metavar="S",
    help="How long one request to the endpoint may take, in seconds.",
)
@asking
@options.archives
@click.pass_obj
def export_command(
    ctx: Context,
    *,
    name: str | None,
    form: str,
    otlp_endpoint: str | None,
    timeout_s: float,
    question: Question,
    archives: tuple[Path, ...],
) -> None:
    """Print the log for other programs, all of it or what the filters choose.

    With --archive it begins with what was moved out of the log; the archives must join it.
    """
    if otlp_endpoint is not None and not otlp_endpoint.startswith(("http://", "https://")):
        raise UsageError(f"--otlp-endpoint {otlp_endpoint!r}: allowed is an http or https URL")
    with LogReader(ctx.root.log) as log, Past(log, archives) as past:
        if name is not None and name != HOST and log.record(name) is None:
            raise NoSuchDisk(name)
        events = past.search(attrs.evolve(question, disk=name))
        if otlp_endpoint is not None:
            _send(log.root_id, events, otlp_endpoint, timeout_s)
        elif form == "otlp":
            _print_spans(log.root_id, events)
        elif form == "cloudevents":
            for event in events:
                say.machine_text(say.one_line(cloudevents.envelope(event, root_id=log.root_id)))
            say.flush()
        else:
            told = printer(form)
            for event in events:
                told.event(event)
            told.end()


def _print_spans(root_id: str, events: Iterable[Event]) -> None:
    made = Spans(root_id)
    for some in _batches(made.of(events)):
        document = otlp.request(some, root_id=root_id, version=_version())
        say.machine_text(say.one_line(document))
    say.flush()
    _tell_unfinished(made)


def _send(root_id: str, events: Iterable[Event], endpoint: str, timeout_s: float) -> None:
    from reconciler.export.collector import Collector  # noqa: PLC0415 - only with an endpoint

    made, sent = Spans(root_id), 0
    with Collector(endpoint, root_id=root_id, version=_version(), timeout_s=timeout_s) as collector:
        for some in _batches(made.of(events)):
            collector.send(some)
            sent += len(some)
    say.person(f"{sent} spans sent to {endpoint}")
    _tell_unfinished(made)


def _batches(spans: Iterator[Span]) -> Iterator[list[Span]]:
    while some := list(itertools.islice(spans, SPANS_AT_ONCE)):
        yield some


def _tell_unfinished(made: Spans) -> None:
    if made.unfinished:
        say.person(f"left out: {made.unfinished} transitions that have no outcome yet")


def _version() -> str:
    return importlib.metadata.version("byre")

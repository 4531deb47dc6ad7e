"""`byre log export`: others' programs read what it prints and what it sends."""

from __future__ import annotations

import base64
import csv
import gzip
import http.server
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from reconciler.cli import exporting
from reconciler.export import cloudevents, spans
from statemachine.eventlog import EventLog
from statemachine.events import Event
from tests.unit.cliworld import World

EMPTY: Final = Event(
    7, "sb-1", 1, 3, "transition.started", 1_700_000_000_000_000_001, "reconciler",
    "a\nb", "", "", '{"attempt":1,"trigger":"pause","v":1}', "0" * 64, "1" * 64
)  # fmt: skip


@pytest.fixture
def world(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> World:
    made = World(folder, monkeypatch, capsys)
    made.create("sb-1", "--reason", "größer")
    with made.kernel.open("/dev/mapper/byre-sb-1"):
        made.byre("pause", "sb-1", "--wait", "--timeout", "0.2")
    made.byre("pause", "sb-1", "--wait")
    return made


# --- CloudEvents ----------------------------------------------------------------------------------


def test_each_event_is_a_cloud_event_to_the_reference_library(world: World) -> None:
    lines = world.byre("log", "export", "--format", "cloudevents").out.splitlines()
    with EventLog(world.root / "byre.db", read_only=True) as log:
        wanted = list(log.events())
    assert len(lines) == len(wanted)
    for line, event in zip(lines, wanted, strict=True):
        # The constructor of its class checks every attribute.
        read = JSONFormat().read(CloudEvent, line)
        # The data as it is stored, which is what the hash covers.
        assert (str(event.seq), f"byre.{event.type}", event.disk, json.loads(event.data_text)) == (
            read.get_id(), read.get_type(), read.get_subject(), read.get_data()
        )  # fmt: skip
        assert read.get_source().startswith("/byre/")
        assert read.get_extension("correlationid") == event.correlation_id
    assert len({json.loads(line)["id"] for line in lines}) == len(lines)


def test_an_attribute_is_never_empty_and_has_no_control_character() -> None:
    made = cloudevents.envelope(EMPTY, root_id="ab")
    JSONFormat().read(CloudEvent, json.dumps(made))
    assert (made["reason"], made["time"]) == ("a b", "2023-11-14T22:13:20.000000001Z")
    assert {"correlationid", "bootid"} & made.keys() == set()
    assert all(name.isalnum() and name.islower() and len(name) <= 20 for name in made)


# --- as they are ----------------------------------------------------------------------------------


def test_lines_and_csv_are_those_of_history(world: World) -> None:
    assert world.byre("history", "-o", "jsonl").out == world.byre("log", "export").out
    exported = world.byre("log", "export", "sb-1", "--format", "csv", "--type", "transition")
    rows = list(csv.DictReader(io.StringIO(exported.out, newline="")))
    assert {"transition"} == {row["type"].split(".")[0] for row in rows}
    assert world.byre("log", "export", "nobody").code == 3


# --- spans ----------------------------------------------------------------------------------------


def checked(request: ExportTraceServiceRequest) -> list[Span]:
    """Return the spans of a request, which names its service."""
    found: list[Span] = []
    for each in request.resource_spans:
        names = {a.key: a.value.string_value for a in each.resource.attributes}
        assert names["service.name"] == "byre"
        found += [span for scope in each.scope_spans for span in scope.spans]
    return found


def of_json(line: str) -> ExportTraceServiceRequest:
    """Read OTLP's JSON, in which ids are hex and not base64 as in that of protobuf."""
    document = json.loads(line)
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for key in ("traceId", "spanId"):
                    span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
    read: ExportTraceServiceRequest = json_format.ParseDict(document, ExportTraceServiceRequest())
    return read


def check_spans(world: World, found: list[Span]) -> None:
    lines = world.byre("history", "-o", "jsonl").lines
    ended = [e for e in lines if e["type"] in ("transition.completed", "transition.failed")]
    assert [e["correlation_id"].rjust(32, "0") for e in ended] == [
        span.trace_id.hex() for span in found
    ]
    assert [f"{e['data']['trigger']} sb-1" for e in ended] == [span.name for span in found]
    wanted = [
        Status.STATUS_CODE_ERROR if "message" in e["data"] else Status.STATUS_CODE_OK for e in ended
    ]
    assert wanted == [span.status.code for span in found]
    assert Status.STATUS_CODE_ERROR in wanted
    for event, span in zip(ended, found, strict=True):
        assert event["data"].get("message", "") == span.status.message
        assert span.start_time_unix_nano <= span.end_time_unix_nano
    assert len({span.span_id for span in found}) == len(found)


def test_a_file_of_spans_is_read_as_otlp(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "SPANS_AT_ONCE", 2)
    lines = world.byre("log", "export", "--format", "otlp").out.splitlines()
    assert len(lines) > 1
    check_spans(world, [span for line in lines for span in checked(of_json(line))])


class Collecting(http.server.BaseHTTPRequestHandler):
    """A collector that keeps what it is sent."""

    taken: list[ExportTraceServiceRequest]
    status: int

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.taken.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(self.status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.end_headers()
        self.wfile.write(ExportTraceServiceResponse().SerializeToString())

    def log_message(self, *_: Any) -> None:  # noqa: ANN401 - the signature is http.server's
        """Say nothing."""


@attrs.frozen
class Endpoint:
    url: str
    handler: type[Collecting]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    handler = type("Handler", (Collecting,), {"taken": [], "status": 200})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Endpoint(f"http://127.0.0.1:{server.server_port}/v1/traces", handler)
        finally:
            server.shutdown()
            thread.join()


def test_spans_are_sent_to_a_collector(world: World, endpoint: Endpoint) -> None:
    answer = world.byre("log", "export", "--otlp-endpoint", endpoint.url)
    assert (answer.code, answer.out) == (0, "")
    check_spans(world, [span for request in endpoint.handler.taken for span in checked(request)])


def test_a_collector_that_refuses_is_named(world: World, endpoint: Endpoint) -> None:
    endpoint.handler.status = 400
    answer = world.byre("log", "export", "--otlp-endpoint", endpoint.url)
    assert (answer.code, endpoint.url in answer.err) == (1, True)
    assert world.byre("log", "export", "--otlp-endpoint", "127.0.0.1:4318").code == 2


def test_an_intent_that_a_crash_left_open_ends_where_the_next_one_begins() -> None:
    again = attrs.evolve(EMPTY, seq=9, at=EMPTY.at + 5)
    made = spans.Spans("ab")
    [span] = list(made.of([EMPTY, again]))
    assert (span.end - span.begin, span.error, made.unfinished) == (5, "left open by a crash", 1)
    assert span.trace_id != 0

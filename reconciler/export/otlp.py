"""Spans as OTLP in JSON: one request a line, as the OpenTelemetry file exporter writes them.

Ids are in hex, 64-bit numbers texts, enumerations numbers: opentelemetry.io/docs/specs/otlp, "JSON
Protobuf Encoding", and opentelemetry.io/docs/specs/otel/protocol/file-exporter.
May be imported by cli.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from reconciler.export.spans import Span, Value

KIND_INTERNAL: Final = 1
STATUS_OK: Final = 1
STATUS_ERROR: Final = 2
SERVICE: Final = "byre"


def request(spans: Sequence[Span], *, root_id: str, version: str) -> dict[str, Any]:
    """Return several spans as one ExportTraceServiceRequest."""
    resource = {"service.name": SERVICE, "service.version": version, "byre.root_id": root_id}
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(resource)},
                "scopeSpans": [
                    {
                        "scope": {"name": SERVICE, "version": version},
                        "spans": [_span(span) for span in spans],
                    }
                ],
            }
        ]
    }


def _span(span: Span) -> dict[str, Any]:
    status: dict[str, Any] = {"code": STATUS_OK}
    if span.error:
        status = {"code": STATUS_ERROR, "message": span.error}
    return {
        "traceId": f"{span.trace_id:032x}",
        "spanId": f"{span.span_id:016x}",
        "name": span.name,
        "kind": KIND_INTERNAL,
        "startTimeUnixNano": str(span.begin),
        "endTimeUnixNano": str(span.end),
        "attributes": _attributes(span.attributes),
        "status": status,
    }


def _attributes(given: Mapping[str, Value]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in given.items()]


def _value(value: Value) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}

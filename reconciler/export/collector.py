"""Sending spans to an OpenTelemetry collector, by OpenTelemetry's own exporter over HTTP.

Needs the extra `byre[otel]`. May be imported by cli.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from reconciler.export.otlp import SERVICE
from reconciler.export.spans import Span
from statemachine.errors import LogUnavailable, UsageError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


class Collector:
    """Sends to one endpoint; close it, or use it as a context manager.

    Args:
        endpoint: the whole URL, as `http://127.0.0.1:4318/v1/traces`.
        root_id: which log the spans are of.
        version: of byre.
        timeout_s: how long one request may take, with its repetitions.

    Raises:
        UsageError: the extra `byre[otel]` is not installed.
    """

    def __init__(self, endpoint: str, *, root_id: str, version: str, timeout_s: float) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
                OTLPSpanExporter,
            )
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        except ImportError as error:
            msg = f"--otlp-endpoint needs OpenTelemetry, which is not installed ({error.name})"
            hint = "pip install 'byre[otel]', or write a file with --format otlp"
            raise UsageError(msg, hint=hint) from error
        self._endpoint = endpoint
        self._exporter = OTLPSpanExporter(endpoint=endpoint, timeout=timeout_s)
        known = {"service.name": SERVICE, "service.version": version, "byre.root_id": root_id}
        self._resource = Resource(known)
        self._version = version
        # It logs each failure, and we tell of it ourselves.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def send(self, spans: Sequence[Span]) -> None:
        """Send spans in one request, tried again for a while; raises LogUnavailable."""
        from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415

        result = self._exporter.export([self._readable(span) for span in spans])
        if result is not SpanExportResult.SUCCESS:
            msg = f"{self._endpoint} did not take {len(spans)} spans"
            hint = "see whether a collector listens there; the URL ends in /v1/traces"
            raise LogUnavailable(msg, hint=hint)

    def _readable(self, span: Span) -> ReadableSpan:
        from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415
        from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags  # noqa: PLC0415

        failed = Status(StatusCode.ERROR, span.error)
        return ReadableSpan(
            name=span.name,
            context=SpanContext(
                span.trace_id,
                span.span_id,
                is_remote=False,
                trace_flags=TraceFlags(TraceFlags.SAMPLED),
            ),
            resource=self._resource,
            attributes=span.attributes,
            instrumentation_scope=InstrumentationScope(SERVICE, self._version),
            status=failed if span.error else Status(StatusCode.OK),
            start_time=span.begin,
            end_time=span.end,
        )

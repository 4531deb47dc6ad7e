"""What a running reconciler says: lines for people on a terminal, for journald, or JSON.

Goes to stderr; stdout is for what a command was asked for. May be imported by daemon, demo, bench
and cli.
"""

from __future__ import annotations

import enum
import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, TextIO

import structlog

_PRIORITY: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""sd-daemon(3): a line that begins with <N> has that priority in the journal."""


class LogFormat(enum.StrEnum):
    """How lines look."""

    AUTO = "auto"
    """`journal` under systemd, else `text`."""
    TEXT = "text"
    JOURNAL = "journal"
    JSON = "json"


def configure(
    log_format: LogFormat,
    *,
    stream: TextIO | None = None,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Set structlog up for this process; without a stream it is stderr, as that is now."""
    stream = stream or sys.stderr
    if log_format is LogFormat.AUTO:
        log_format = LogFormat.JOURNAL if environment.get("JOURNAL_STREAM") else LogFormat.TEXT
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
    ]
    if log_format is LogFormat.JSON:
        processors += [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ]
    elif log_format is LogFormat.JOURNAL:
        processors.append(_journal_line)
    else:
        stamper = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
        processors += [stamper, structlog.dev.ConsoleRenderer(colors=stream.isatty())]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )


def _journal_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    """Render `<6>message key=value …`; journald takes the number off and adds the time."""
    level = str(event.pop("level", "info"))
    message = event.pop("event", "")
    pairs = " ".join(f"{key}={value!r}" for key, value in event.items())
    line = f"{message} {pairs}".strip().replace("\n", "\\n")
    return f"<{_PRIORITY.get(level, 6)}>{line}"

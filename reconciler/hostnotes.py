"""What a reconciler tells the log of the host and of itself: a new boot, its start, its end.

May be imported by reconcile, daemon and tests.
"""

from __future__ import annotations

import os
import platform

from reconciler import recording
from statemachine import history, payloads
from statemachine.eventlog import EventLog
from statemachine.names import HOST


def booted(log: EventLog, boot_id: str) -> None:
    """Record a boot that the log has not heard of; nothing when it has."""
    before = history.last_boot(log)
    if before == boot_id:
        return
    payload = payloads.HostBooted(
        root_id=log.root_id, kernel=platform.release(), previous_boot_id=before
    )
    log.append([recording.event(HOST, payload)])


def started(log: EventLog, *, version: str) -> None:
    """Record that a daemon took over."""
    payload = payloads.ReconcilerStarted(pid=os.getpid(), version=version)
    log.append([recording.event(HOST, payload)])


def stopped(log: EventLog, *, why: str) -> None:
    """Record that a daemon ended cleanly."""
    payload = payloads.ReconcilerStopped(pid=os.getpid(), why=why)
    log.append([recording.event(HOST, payload)])

"""Events in the CloudEvents 1.0 envelope, in its JSON format.

The attributes are those of github.com/cloudevents/spec, cloudevents/spec.md and its JSON format;
`sequence` and `correlationid` are its documented extensions of these names, the rest of the
columns are extensions of our own. What is empty is left out, as an attribute must not be.
May be imported by cli.
"""

from __future__ import annotations

import json
from typing import Any, Final

from statemachine.events import Event
from statemachine.utc import iso

TYPE_PREFIX: Final = "byre."


def envelope(event: Event, *, root_id: str) -> dict[str, Any]:
    """Return one event as a CloudEvent.

    Args:
        event: of the log.
        root_id: which log; with `seq` it names the event among all others.
    """
    attributes: dict[str, Any] = {
        "specversion": "1.0",
        "id": str(event.seq),
        "source": f"/byre/{root_id}",
        "type": f"{TYPE_PREFIX}{event.type}",
        "subject": event.disk,
        "time": iso(event.at),
        "datacontenttype": "application/json",
        "sequence": f"{event.seq:020d}",
        "correlationid": event.correlation_id,
        "generation": event.generation,
        "diskversion": event.version,
        "actor": event.actor,
        "reason": _plain(event.reason),
        "bootid": event.boot_id,
        "prevhash": event.prev_hash,
        "hash": event.hash,
    }
    given = {name: value for name, value in attributes.items() if value != ""}
    return {**given, "data": json.loads(event.data_text)}


def _plain(text: str) -> str:
    """Return a text without the control characters, which an attribute must not have."""
    return "".join(each if each.isprintable() else " " for each in text).strip()

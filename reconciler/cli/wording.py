"""What a person wants to read of one event: who did it, and what it was.

May be imported by the package.
"""

from __future__ import annotations

from statemachine.events import Data, Event


def who(event: Event) -> str:
    """Return the actor, and whom it said to act for."""
    claimed = event.data.get("on_behalf_of")
    return f"{event.actor} for {claimed}" if claimed else event.actor


def what(event: Event) -> str:
    """Return the one line of an event that a person wants to read."""
    data = event.data
    words = _subject(event)
    if data.get("device"):
        words.append(f"at {data['device']}")
    if data.get("duration_ns"):
        words.append(f"in {data['duration_ns'] / 1e6:.1f} ms")
    if data.get("differences"):
        words.append("; ".join(data["differences"]))
    if data.get("resumes"):
        words.append(f"(goes on with event {data['resumes']}, which a crash left open)")
    if data.get("because"):
        words.append(f"(because of event {data['because']})")
    told = ["cause", "message", "was", "resolution", "evidence", "why", "form", "path"]
    if data.get("trigger") == "attach":
        told.append("driver_reason")  # of one disk it is always the same
    words += [str(data[key]) for key in told if data.get(key)]
    if event.reason:
        words.append(f"({event.reason})")
    return ", ".join(words)


def _subject(event: Event) -> list[str]:
    data = event.data
    if event.type == "disk.declared":
        return [_declared(data)]
    if event.type.startswith("orphan."):
        return [f"{data['kind']} {data['name']}"]
    return [f"{data['trigger']}: {data['source']} → {data['target']}"] if "trigger" in data else []


def _declared(data: Data) -> str:
    """Return what is wanted: a first declaration says everything, a later one what changed."""
    spec = data["spec"]
    if "id" in data:
        return f"{spec['state']} on {spec['base']}"
    changed = [f"{name} {spec[name]}" for name in sorted(spec) if name != "state"]
    gone = [f"no {name}" for name in data.get("without", ())]
    return ", ".join([str(spec["state"]), *changed, *gone])

"""Which links go from one disk to another, and whether they may: decided on records alone.

A path leads to one disk at any moment. In one transaction of the log the one loses the wish for it
and the other gets it, and knows then where it leads; the symlink itself is turned by a single
rename once the other disk is live. See docs/decisions/0032-links-that-move.md.

Pure; may be imported by declare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import attrs

from statemachine.diskfacts import DiskDeclared
from statemachine.errors import RefusedError, UsageError
from statemachine.machine import LIVE, Desired
from statemachine.names import DiskName
from statemachine.record import Record
from statemachine.spec import DiskSpec, DriverChoice


@attrs.frozen(kw_only=True)
class Takeover:
    """One link on its way from one disk to another."""

    link: Path
    loser: Record
    winner: str

    @property
    def leads_to(self) -> str:
        """Where the link leads until the winner is live; "" if there is none in its place."""
        return _leads_to(self.loser, self.link)


def told(payload: DiskDeclared, moves: Iterable[Takeover], name: str) -> DiskDeclared:
    """Return a disk's declaration with what it says of links that come to it or go."""
    for move in moves:
        if move.winner == name:
            payload = attrs.evolve(payload, link_from=move.loser.name, link_taken=move.leads_to)
        if move.loser.name == name:
            payload = attrs.evolve(payload, link_to=move.winner)
    return payload


def gives(moves: Iterable[Takeover], name: str) -> bool:
    """Tell whether a disk loses its link."""
    return any(move.loser.name == name for move in moves)


def in_set(
    specs: Sequence[DiskSpec],
    records: Iterable[Record],
    wanted_before: Mapping[DiskName, Path | None],
    *,
    prune: bool,
) -> list[Takeover]:
    """Find the links that a set of specs gives from one disk to another.

    Args:
        specs: the whole set.
        records: the disks in use.
        wanted_before: the link that the log has for each disk of the set.
        prune: whether disks that the set does not name lose everything.

    Raises:
        RefusedError: see `checked`.
    """
    by_name: dict[str, DiskSpec] = {spec.name: spec for spec in specs}
    winners = {
        spec.link: spec.name
        for spec in specs
        if claims(spec) and spec.link is not None and wanted_before.get(spec.name) != spec.link
    }
    found: dict[Path, Takeover] = {}
    for record in records if winners else ():
        spec = by_name.get(record.name)
        if spec is None and not prune:
            continue
        link = record.wanted.link
        keeps = spec is not None and claims(spec) and spec.link == link
        if link is None or link not in winners or keeps:
            continue
        # Of several that want it, all but one of them paused, the one that has it gives it.
        if link not in found or _leads_to(record, link):
            found[link] = Takeover(link=link, loser=record, winner=winners[link])
    return [checked(each) for each in found.values()]


def by_command(new: Record, old: Record) -> Takeover | None:
    """Return the take-over that `byre link NEW --from OLD` asks for; None if it is done already.

    Raises:
        UsageError: both are one disk.
        RefusedError: there is no link to take over, or the new one cannot have it.
    """
    if new.name == old.name:
        raise UsageError(f"{new.name}: a disk has its own link already; name two disks")
    link = old.wanted.link
    if link is None and new.link_from == old.name and new.wanted.link is not None:
        return None
    if link is None:
        msg = f"{old.name}: it has no link that {new.name} could take over"
        raise RefusedError(msg, hint="`byre get -o wide` shows which disk has which link")
    if new.desired is Desired.REMOVED:
        msg = f"{new.name}: it is removed, or about to be, and can have no link"
        raise RefusedError(msg, hint="create it first")
    if new.wanted.jail is not None and new.wanted.jail.path == link:
        msg = f"{new.name}: the node in its jail is to be at {link} already"
        raise RefusedError(msg, hint="choose another place for the node")
    return checked(Takeover(link=link, loser=old, winner=new.name))


def checked(found: Takeover) -> Takeover:
    """Return a take-over that may be done now.

    Raises:
        RefusedError: the loser is just being made live, with its link: the log cannot tell yet
            where the link leads.
    """
    flight = found.loser.in_flight
    if flight is not None and flight.target in LIVE:
        msg = (
            f"{found.winner}: link {found.link} cannot be taken over from {found.loser.name} now: "
            f"its {flight.trigger} is not done"
        )
        raise RefusedError(msg, hint="ask again when it is; `byre explain` says how far it is")
    return found


def claims(spec: DiskSpec) -> bool:
    """Tell whether a spec keeps its link for itself: one of a disk to be removed does not."""
    return spec.state is not Desired.REMOVED


def _leads_to(record: Record, link: Path) -> str:
    """Return the text of a disk's symlink at a path, as far as the log can tell; "" if it has none.

    A symlink that an attempt without a good end may have left is known by text only where the name
    of the device is.
    """
    if record.link == str(link):
        return record.link_target
    if record.link_taken:
        return record.link_taken
    is_named = record.driver == DriverChoice.DM_SNAPSHOT
    return (
        f"/dev/mapper/{record.device_name}" if str(link) in record.links_begun and is_named else ""
    )

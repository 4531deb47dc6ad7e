"""Saying what is wanted: specs and commands become `disk.declared` events, all or none.

A declaration that says nothing new is not appended. What cannot be reached from where a disk is,
and what would change a disk under its data (its base, its driver), is refused before anything is
recorded. May be imported by daemon, the API and cli.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs

from reconciler import baserefs, busy, grounds, lapse, linkmoves, sizes, specs
from reconciler.kernel.port import Kernel
from reconciler.linkmoves import Takeover
from reconciler.requester import request
from reconciler.specs import Sourced
from statemachine import payloads
from statemachine.errors import (
    IllegalTransition,
    NoSuchDisk,
    RefusedError,
    SpecError,
    VersionConflict,
)
from statemachine.eventlog import EventLog
from statemachine.events import NewEvent
from statemachine.lifetime import Lifetime
from statemachine.machine import MEETS, Desired, State, Trigger, is_met, path, sources
from statemachine.payloads import EXTENDED, DiskDeclared, DiskRecovered, Requester
from statemachine.record import Record
from statemachine.spec import DiskSpec

CONFLICTS_MAX: Final = 20
"""How often a declaration is decided again because somebody else appended meanwhile."""

WANTS: Final[dict[Trigger, Desired]] = {
    Trigger.PAUSE: Desired.PAUSED,
    Trigger.RESTORE: Desired.LIVE,
    Trigger.REMOVE: Desired.REMOVED,
}
"""What the commands of these names declare."""
Moves = Sequence[Takeover]
_USED: Final = (Desired.LIVE, Desired.ATTACHED)


@attrs.frozen(kw_only=True)
class Declared:
    """The answer to one declaration: which disk, and whether anything new was recorded."""

    name: str
    changed: bool
    note: str = ""
    """Why nothing was, where one would expect it; for people."""


class Declarer:
    """Appends what is wanted to one log.

    Args:
        log: open for writing.
        kernel: is asked about bases; nothing is changed.
        by: who asks.
        device_prefix: what new disks' devices are named with.
        link_roots: where links may be; none for anywhere.
        reason: why, in the words of whoever asks; recorded.
        on_behalf_of: for whom, as the caller says; recorded as a claim.
        anew: whether a spec is a new wish even if the same one has lapsed (`create`); else it
            stands as it stood (`apply`, a spec folder), and what has lapsed stays so.

    Raises:
        UsageError: the claim is too long, or has a control character.
    """

    def __init__(
        self,
        log: EventLog,
        kernel: Kernel,
        *,
        by: Requester,
        device_prefix: str,
        link_roots: Sequence[Path] = (),
        reason: str = "",
        on_behalf_of: str = "",
        anew: bool = False,
    ) -> None:
        self._anew = anew
        self._notes: dict[str, str] = {}
        self._log = log
        self._kernel = kernel
        self._prefix = device_prefix
        self._link_roots = tuple(link_roots)
        self._request = request(reason, on_behalf_of, by=by)

    def apply(self, wanted: Sequence[Sourced], *, prune: bool = False) -> list[Declared]:
        """Declare a whole set of specs.

        Args:
            wanted: checked specs, each name once.
            prune: also declare removed every disk that the set does not name.

        Returns:
            One answer for each spec, then one for each pruned disk.

        Raises:
            SpecError: bases that cannot be used and links where none may be, all of them named.
            RefusedError: a disk that cannot get there; nothing was recorded for any.
        """
        return self.decided(lambda: self._plan(wanted, prune=prune))

    def preview(
        self, wanted: Sequence[Sourced], *, prune: bool = False
    ) -> list[tuple[str, NewEvent | None]]:
        """Return what `apply` would append, and append nothing; raises what `apply` raises."""
        return self._plan(wanted, prune=prune)

    def command(self, names: Sequence[str], trigger: Trigger) -> list[Declared]:
        """Declare what `pause`, `restore` or `remove` ask for.

        Raises:
            NoSuchDisk: one of the names was never declared.
            IllegalTransition: neither where a disk is nor where it is going allows it.
        """
        return self.decided(
            lambda: [self._commanded(name, trigger) for name in dict.fromkeys(names)]
        )

    def retry(self, names: Sequence[str]) -> list[Declared]:
        """Record a person's word that failing, stalled or faulted disks are to be tried again."""
        return self.decided(lambda: [self._retried(name) for name in dict.fromkeys(names)])

    def decided(self, decide: Callable[[], list[tuple[str, NewEvent | None]]]) -> list[Declared]:
        """Append what a function decides upon the records; decided again if somebody was first."""
        for attempt in range(CONFLICTS_MAX):
            answers = decide()
            events = [event for _, event in answers if event is not None]
            try:
                if events:
                    self._log.append(events)
            except VersionConflict:
                if attempt == CONFLICTS_MAX - 1:
                    raise
                continue
            return [
                Declared(name=name, changed=event is not None, note=self._notes.get(name, ""))
                for name, event in answers
            ]
        raise AssertionError("the loop returns or raises")

    # --- specs -------------------------------------------------------------------------------

    def _plan(self, wanted: Sequence[Sourced], *, prune: bool) -> list[tuple[str, NewEvent | None]]:
        answers: list[tuple[str, NewEvent | None]] = []
        wanted = baserefs.all_resolved(wanted, self._log)
        faults = [
            fault
            for each in wanted
            for fault in grounds.place_faults(self._kernel, each, self._link_roots)
        ]
        moves = self._moves(wanted, prune=prune)
        for each in wanted:
            try:
                answers.append((each.spec.name, self._declaration(each, moves)))
            except SpecError as error:
                faults += error.faults
        if faults:
            raise SpecError(faults)
        grounds.refuse_taken_places(self._log, wanted, prune=prune)
        if prune:
            answers += self._pruned({each.spec.name for each in wanted}, moves)
        return answers

    def _moves(self, wanted: Sequence[Sourced], *, prune: bool) -> list[Takeover]:
        """Find the links that go from one disk to another.

        Raises:
            RefusedError: one that cannot go just now.
        """
        asked = {each.spec.name: each.spec.link for each in wanted if each.spec.link is not None}
        records = {name: self._log.record(name) for name in asked}
        before = {
            name: record.wanted.link
            for name, record in records.items()
            if record is not None and record.state is not State.REMOVED
        }
        if all(before.get(name) == link for name, link in asked.items()):
            return []
        specs_of_set = [each.spec for each in wanted]
        return linkmoves.in_set(
            specs_of_set, self._log.in_use_at(asked.values()), before, prune=prune
        )

    def _declaration(self, each: Sourced, moves: Moves) -> NewEvent | None:
        spec, record = each.spec, self._log.record(each.spec.name)
        if self._is_over(each, record):
            return None
        is_named = any(spec.name in (move.winner, move.loser.name) for move in moves)
        if record is None or record.state is State.REMOVED:
            if spec.state is Desired.REMOVED:
                return None
            return self._first(each, record, moves)
        if not linkmoves.claims(spec):
            spec = attrs.evolve(
                spec, link=None if linkmoves.gives(moves, spec.name) else record.wanted.link
            )
        if spec.to_data() == record.spec and not is_named:
            # Said again after an older log was put back, the same wish is a new one.
            return self.again(record, spec, why="declared") if record.held else None
        grounds.refuse_change(self._kernel, spec, record, boot_id=self._log.boot_id)
        sizes.refuse_below_base(each, record.base.size)
        sizes.refuse_smaller(spec, record)
        sizes.refuse_throwaway(spec, record)
        # What is being done just now, or was begun before a crash, is finished first.
        state = record.in_flight.target if record.in_flight else record.state
        # From a removal the way leads on through the next generation.
        if state is not State.REMOVED and path(state, spec.state) is None:
            way_in = next(iter(sources(Trigger.ATTACH)))
            raise IllegalTransition(spec.name, state, f"make {spec.state}", [way_in])
        return self.again(record, spec, why="declared", moves=moves)

    def _is_over(self, each: Sourced, record: Record | None) -> bool:
        """Tell whether a wish has ended, and is not one anew; notes why.

        Raises:
            SpecError: it is wanted anew, for a time that is over.
        """
        ended = lapse.ended(each.spec, record, self._log.now_ns())
        if not ended or not self._anew:
            self._notes[each.spec.name] = ended
            return bool(ended)
        if lapse.ends_before(each.spec, self._log.now_ns()):
            raise specs.lifetime_fault(each, self._log.now_ns())
        return False

    def _first(self, each: Sourced, record: Record | None, moves: Moves) -> NewEvent:
        base, base_name = baserefs.pinned(self._kernel, each, self._log)
        sizes.refuse_below_base(each, base.size)
        payload = DiskDeclared(
            id=record.id if record else secrets.token_hex(16),
            spec=each.spec.to_data(),
            device_name=f"{self._prefix}{each.spec.name}",
            base=base,
            base_name=base_name,
            by=self._request.by,
            on_behalf_of=self._request.claim,
        )
        payload = linkmoves.told(payload, moves, each.spec.name)
        generation = record.generation + 1 if record else 1
        return self._new(each.spec.name, payload, record, generation)

    def _pruned(self, names: set[str], moves: Moves) -> list[tuple[str, NewEvent | None]]:
        gone = [
            record
            for record in self._log.in_use()
            if record.name not in names and record.desired is not Desired.REMOVED
        ]
        return [(record.name, self._pruning(record, moves)) for record in gone]

    def _pruning(self, record: Record, moves: Moves) -> NewEvent:
        link = None if linkmoves.gives(moves, record.name) else record.wanted.link
        spec = attrs.evolve(record.wanted, state=Desired.REMOVED, link=link)
        return self.again(record, spec, why="pruned", moves=moves)

    # --- commands ----------------------------------------------------------------------------

    def _commanded(self, name: str, trigger: Trigger) -> tuple[str, NewEvent | None]:
        record = self.known(name)
        desired = WANTS[trigger]
        if trigger is Trigger.PAUSE:
            grounds.refuse_pause(record)
        if trigger is Trigger.RESTORE and record.rewind is not None:
            return name, self._stays_as_it_is(record)
        if record.desired is desired and record.state is not State.REMOVED:
            if record.held is not None:
                return name, self.again(record, record.wanted, why="command")
            # Asked again for what was given up because the disk was in use: it is waited anew.
            return self._retried(name) if busy.has_given_up(record.failure) else (name, None)
        if is_met(record.state, desired) and record.desired is desired:
            return name, None
        if desired is Desired.LIVE:
            lapse.refuse_ended(record, self._log.now_ns())
        going_to = MEETS[record.desired]
        allowed = set(sources(trigger))
        legal = record.state in allowed or bool(going_to & allowed)
        back = is_met(record.state, desired) and record.state is not State.REMOVED
        if record.state is State.REMOVED or not (legal or back):
            raise IllegalTransition(name, record.state, trigger, sources(trigger))
        spec = attrs.evolve(record.wanted, state=desired)
        return name, self.again(record, spec, why="command")

    def _stays_as_it_is(self, record: Record) -> NewEvent | None:
        """Take back that a disk goes back to a point; None when that is being done just now."""
        if record.in_flight is not None and record.in_flight.trigger is Trigger.REWIND:
            return None
        spec = attrs.evolve(record.wanted, state=Desired.LIVE)
        return self.again(record, spec, why="command", without_rewind=True)

    def _retried(self, name: str) -> tuple[str, NewEvent | None]:
        record = self.known(name)
        was = "faulted" if record.fault else "held" if record.held else ""
        if record.failure is not None:
            was = was or record.failure.consequence
        if not was:
            return name, None
        payload = DiskRecovered(was=was, by=self._request.by, on_behalf_of=self._request.claim)
        return name, self._new(name, payload, record, record.generation)

    def extend(self, names: Sequence[str], until: Lifetime) -> list[Declared]:
        """Give disks another end, or none: `expires_at`, or `ttl_s` from now on.

        Raises:
            NoSuchDisk: one of the names was never declared.
            RefusedError: one of them is removed, or is to be.
        """
        return self.decided(
            lambda: [(name, self._extended(name, until)) for name in dict.fromkeys(names)]
        )

    def _extended(self, name: str, until: Lifetime) -> NewEvent | None:
        record = self.known(name)
        if record.desired is Desired.REMOVED:
            msg = f"{name}: it is {record.state}, and not wanted any more"
            raise RefusedError(msg, hint="declare it again")
        before = record.wanted
        lifetime = attrs.evolve(before.lifetime, expires_at=until.expires_at, ttl_s=until.ttl_s)
        if lifetime == before.lifetime and until.ttl_s is None:
            return None
        return self.again(record, attrs.evolve(before, lifetime=lifetime), why=EXTENDED)

    def known(self, name: str) -> Record:
        """Return a disk's record; raises NoSuchDisk."""
        record = self._log.record(name)
        if record is None:
            raise NoSuchDisk(name)
        return record

    # --- events ------------------------------------------------------------------------------

    def again(
        self,
        record: Record,
        spec: DiskSpec,
        *,
        why: str,
        moves: Moves = (),
        without_rewind: bool = False,
        sparsify: bool = False,
    ) -> NewEvent:
        """Return a later declaration of a disk."""
        anew = lapse.renewed(record, self._log.now_ns()) if spec.state in _USED else ()
        anew = ("ttl",) if why == EXTENDED else anew
        payload = DiskDeclared(
            **payloads.again(record.spec, spec.to_data(), anew=anew),
            by=self._request.by,
            why=why,
            on_behalf_of=self._request.claim,
            without_rewind=without_rewind,
        )
        payload = attrs.evolve(payload, sparsify=sparsify)
        payload = linkmoves.told(payload, moves, record.name)
        return self._new(record.name, payload, record, record.generation)

    def _new(self, name: str, payload: object, record: Record | None, generation: int) -> NewEvent:
        return NewEvent(
            disk=name,
            type=payloads.type_of(payload),
            data=payloads.to_data(payload),
            payload=payload,
            actor=self._request.by.user,
            expect=record.expect if record else (0, 0),
            generation=generation,
            reason=self._request.reason,
            correlation_id=self._request.correlation_id,
        )

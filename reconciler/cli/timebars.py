"""A timeline in the terminal: a bar for each generation, with marks below it.

Each state has its own character besides its colour, so that it can be read without colours.
May be imported by timelining only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from reconciler.cli import say
from reconciler.cli.printing import plain
from statemachine.lives import Life, Mark, MarkKind, bounds, cells
from statemachine.machine import State

_LOOKS: Final[dict[str, tuple[str, str]]] = {
    State.ABSENT.value: ("·", "bright_black"),
    State.ATTACHED.value: ("░", "cyan"),
    State.SNAPSHOTTED.value: ("█", "green"),
    State.PAUSED.value: ("▒", "yellow"),
    State.RESTORED.value: ("▓", "bright_green"),
    State.REMOVED.value: ("▁", "bright_black"),
}
_UNKNOWN: Final = ("?", "magenta")
_MARKS: Final[dict[MarkKind, tuple[str, str]]] = {
    MarkKind.FAULT: ("F", "bold red"),
    MarkKind.FAILURE: ("x", "red"),
    MarkKind.DRIFT: ("!", "bold yellow"),
    MarkKind.FROZEN: ("*", "blue"),
}
"""The worst first: in one place only one can be shown."""
WIDTH_MIN: Final = 20
WIDTH_WITHOUT_TERMINAL: Final = 100
TOLD_MAX: Final = 10
"""How many marks are told in words; the picture has all of them."""


def show(name: str, found: Sequence[Life]) -> None:
    """Print the bars, what they mean, and the last marks in words."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_WITHOUT_TERMINAL
    label = max(len(str(life.generation)) for life in found) + 2
    count = max(WIDTH_MIN, console.width - label - 1)
    begin, end = bounds(found)
    console.print(Text(f"{name}: {_lived(found)}", style="bold"), soft_wrap=True)
    for life in found:
        console.print(_bar(life, begin, end, count, label), soft_wrap=True)
        if life.marks:
            console.print(_marks(life, begin, end, count, label), soft_wrap=True)
    console.print(Text(_axis(begin, end, count, label)), soft_wrap=True)
    console.print(_legend(found))
    _tell_marks(console, [mark for life in found for mark in life.marks])


def _lived(found: Sequence[Life]) -> str:
    begin, end = bounds(found)
    lives = f"{len(found)} generations, " if len(found) > 1 else ""
    return f"{lives}{say.local_time(begin)} to {say.local_time(end)} ({say.duration(end - begin)})"


def _bar(life: Life, begin: int, end: int, count: int, label: int) -> Text:
    line = Text(f"{life.generation}".rjust(label - 1) + " ")
    for state in cells(life, begin=begin, end=end, count=count):
        character, style = _LOOKS.get(state, _UNKNOWN) if state else (" ", "")
        line.append(character, style=style)
    return line


def _marks(life: Life, begin: int, end: int, count: int, label: int) -> Text:
    places: dict[int, MarkKind] = {}
    order = list(_MARKS)
    for mark in life.marks:
        place = min(count - 1, max(0, (mark.at - begin) * count // (end - begin)))
        known = places.get(place, mark.kind)
        places[place] = min(known, mark.kind, key=order.index)
    line = Text(" " * label)
    for place in range(max(places) + 1):
        character, style = _MARKS[places[place]] if place in places else (" ", "")
        line.append(character, style=style)
    return line


def _axis(begin: int, end: int, count: int, label: int) -> str:
    first, last = (say.local_time(moment)[:-4] for moment in (begin, end))
    return " " * label + first + last.rjust(max(len(last) + 2, count - len(first)))


def _legend(found: Sequence[Life]) -> Text:
    spent: Counter[str] = Counter()
    for life in found:
        for span in life.spans:
            spent[span.state] += span.end - span.begin
    line = Text()
    for state in [*_LOOKS, *(each for each in spent if each not in _LOOKS)]:
        if state in spent:
            character, style = _LOOKS.get(state, _UNKNOWN)
            line.append(character, style=style)
            line.append(_unbroken(f" {state} {say.duration(spent[state])}") + "   ")
    kinds = Counter(mark.kind for life in found for mark in life.marks)
    for kind, (character, style) in _MARKS.items():
        if kinds[kind]:
            line.append(character, style=style)
            plural = "s" if kinds[kind] > 1 and kind is not MarkKind.FROZEN else ""
            line.append(_unbroken(f" {kinds[kind]} {kind.value}{plural}") + "   ")
    return line


def _unbroken(text: str) -> str:
    """Return a text that is not parted at the end of a line."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _tell_marks(console: Console, marks: Sequence[Mark]) -> None:
    for mark in marks[-TOLD_MAX:]:
        character, style = _MARKS[mark.kind]
        line = Text(f"{say.local_time(mark.at)}  ")
        line.append(character, style=style)
        line.append(f" event {mark.seq}: {plain(mark.message)}")
        console.print(line, soft_wrap=True)
    if len(marks) > TOLD_MAX:
        console.print(Text(f"and {len(marks) - TOLD_MAX} before; `byre history` has all"))

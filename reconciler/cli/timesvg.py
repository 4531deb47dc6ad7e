"""A timeline as SVG: one file that needs nothing else, with a title and a description.

May be imported by timelining only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from reconciler.cli import say
from statemachine.lives import Life, Mark, MarkKind, Span, bounds
from statemachine.machine import State

WIDTH: Final = 1000
LEFT: Final = 60
RIGHT: Final = 24
TOP: Final = 56
ROW: Final = 56
BAR: Final = 26
LEGEND: Final = 84
LETTER: Final = 7.2
"""How wide a letter of the small text is, at the most."""
_INNER: Final = WIDTH - LEFT - RIGHT

_COLOURS: Final[dict[str, str]] = {
    State.ABSENT.value: "#d5d8dc",
    State.ATTACHED.value: "#56b4e9",
    State.SNAPSHOTTED.value: "#009e73",
    State.PAUSED.value: "#f0e442",
    State.RESTORED.value: "#8fdcc0",
    State.REMOVED.value: "#7f8c8d",
}
"""After Okabe and Ito: told apart by people who see fewer colours (jfly.uni-koeln.de/color)."""
_UNKNOWN: Final = "#cc79a7"
_SHAPES: Final[dict[MarkKind, tuple[str, str]]] = {
    MarkKind.FAILURE: ("M-5 -5 L5 5 M5 -5 L-5 5", "fill:none;stroke:#c0392b;stroke-width:2.5"),
    MarkKind.DRIFT: ("M0 -6 L6 5 L-6 5 Z", "fill:#e69f00;stroke:#6e4d00"),
    MarkKind.FAULT: ("M-5 -5 H5 V5 H-5 Z", "fill:#c0392b;stroke:#641e16"),
    MarkKind.FROZEN: ("M0 -6 L6 0 L0 6 L-6 0 Z", "fill:#0072b2;stroke:#003a5c"),
}
_STYLE: Final = (
    "text{font:12px ui-sans-serif,system-ui,sans-serif;fill:#1b1f23}"
    ".big{font-size:16px;font-weight:600}.dim{fill:#57606a}.in{font-size:11px}"
    ".axis{stroke:#8c959f}.back{fill:#ffffff}"
    "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.dim{fill:#9ba3ac}"
    ".in{fill:#1b1f23}.back{fill:#0d1117}}"
)


def drawing(name: str, found: Sequence[Life]) -> str:
    """Return the SVG of a disk's life."""
    begin, end = bounds(found)
    height = TOP + ROW * len(found) + LEGEND
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title desc">',
        f'<title id="title">The life of disk {escape(name)}</title>',
        f'<desc id="desc">{escape(_in_words(found))}</desc>',
        f"<style>{_STYLE}</style>",
        f'<rect class="back" width="{WIDTH}" height="{height}"/>',
        f'<text class="big" x="{LEFT}" y="28">{escape(name)}</text>',
        f'<text class="dim" x="{LEFT}" y="46">{escape(_span_in_words(begin, end))}</text>',
    ]
    for row, life in enumerate(found):
        parts += _life(life, TOP + ROW * row, begin, end)
    bottom = TOP + ROW * len(found)
    parts += _axis(bottom, begin, end)
    parts += _legend(found, bottom + 52)
    return "\n".join([*parts, "</svg>", ""])


def _in_words(found: Sequence[Life]) -> str:
    said = []
    for life in found:
        states = ", then ".join(span.state for span in life.spans[:20])
        more = f", and {len(life.spans) - 20} more" if len(life.spans) > 20 else ""  # noqa: PLR2004
        marks = ", ".join(
            f"{sum(mark.kind is kind for mark in life.marks)} of kind {kind.value}"
            for kind in MarkKind
            if any(mark.kind is kind for mark in life.marks)
        )
        said.append(f"Generation {life.generation}: {states}{more}. Marks: {marks or 'none'}.")
    return " ".join(said)


def _span_in_words(begin: int, end: int) -> str:
    return f"{say.local_time(begin)} to {say.local_time(end)}, {say.duration(end - begin)}"


def _x(moment: int, begin: int, end: int) -> float:
    return LEFT + max(0, moment - begin) / (end - begin) * _INNER


def _life(life: Life, top: int, begin: int, end: int) -> Iterator[str]:
    middle = top + 18
    yield f'<text x="{LEFT - 12}" y="{middle}" text-anchor="end">{life.generation}</text>'
    for left, width, span in _visible(life, begin, end):
        told = (
            f"{span.state}, {say.duration(span.end - span.begin)} from {say.local_time(span.begin)}"
        )
        colour = _COLOURS.get(span.state, _UNKNOWN)
        yield (
            f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{BAR}" fill="{colour}">'
            f"<title>{escape(told)}</title></rect>"
        )
        if width > len(span.state) * LETTER + 6:
            x = left + 5
            yield f'<text class="in" x="{x:.1f}" y="{middle - 1}">{escape(span.state)}</text>'
    for mark in life.marks:
        yield _mark(mark, _x(mark.at, begin, end), top + BAR + 10)


def _visible(life: Life, begin: int, end: int) -> Iterator[tuple[float, float, Span]]:
    """Yield what is at least half a pixel wide, and the last one, whatever its width."""
    for index, span in enumerate(life.spans):
        left, right = _x(span.begin, begin, end), _x(span.end, begin, end)
        is_last = index == len(life.spans) - 1
        if right - left >= 0.5 or is_last:  # noqa: PLR2004
            yield left, max(right - left, 1.5), span


def _mark(mark: Mark, x: float, y: float) -> str:
    path, style = _SHAPES[mark.kind]
    told = f"{mark.kind.value} at {say.local_time(mark.at)}, event {mark.seq}: {mark.message}"
    return (
        f'<path d="{path}" style={quoteattr(style)} transform="translate({x:.1f} {y})">'
        f"<title>{escape(_printable(told))}</title></path>"
    )


def _printable(text: str) -> str:
    """Return a text without what XML does not allow."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def _axis(y: int, begin: int, end: int) -> Iterator[str]:
    yield f'<line class="axis" x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>'
    for part in range(5):
        moment = begin + (end - begin) * part // 4
        x = _x(moment, begin, end)
        anchor = "start" if part == 0 else "end" if part == 4 else "middle"  # noqa: PLR2004
        yield f'<line class="axis" x1="{x:.1f}" y1="{y}" x2="{x:.1f}" y2="{y + 5}"/>'
        said = say.local_time(moment)[:-4]
        yield f'<text class="dim" x="{x:.1f}" y="{y + 20}" text-anchor="{anchor}">{said}</text>'


def _legend(found: Sequence[Life], y: int) -> Iterator[str]:
    x = float(LEFT)
    states = {span.state for life in found for span in life.spans}
    for state in [*(each for each in _COLOURS if each in states), *sorted(states - set(_COLOURS))]:
        colour = _COLOURS.get(state, _UNKNOWN)
        yield f'<rect x="{x:.1f}" y="{y}" width="14" height="14" fill="{colour}"/>'
        yield f'<text x="{x + 19:.1f}" y="{y + 12}">{escape(state)}</text>'
        x += 19 + len(state) * LETTER + 14
    kinds = {mark.kind for life in found for mark in life.marks}
    for kind, (path, style) in _SHAPES.items():
        if kind in kinds:
            place = f"translate({x + 6:.1f} {y + 7})"
            yield f'<path d="{path}" style={quoteattr(style)} transform="{place}"/>'
            yield f'<text x="{x + 17:.1f}" y="{y + 12}">{kind.value}</text>'
            x += 17 + len(kind.value) * LETTER + 14

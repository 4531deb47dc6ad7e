"""Write the generated parts of the pages from the code, or say which of them are stale.

    python docs/generate.py           # write
    python docs/generate.py --check   # write nothing; exit 1 and name the stale pages

A generated part stands between `<!-- generated: NAME -->` and `<!-- end: NAME -->`. What is outside
of the two lines is written by people and is left alone. The parts are made in `docs/parts.py`.

What this program does not do: it makes no page, and it checks no prose (tests/style does).
Run by `just docs` and by tests/style/test_docs.py.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from docs import parts  # noqa: E402 - a script's own folder is not the repository

PAGES: Final[dict[str, tuple[str, ...]]] = {
    "docs/explanation/architecture.md": ("layers",),
    "docs/explanation/performance.md": ("figures",),
    "docs/reference/commands.md": ("commands",),
    "docs/reference/conditions-and-exit-codes.md": ("errors", "errnos"),
    "docs/reference/events.md": ("events", "types"),
    "docs/reference/log-format.md": ("tables", "guards", "views"),
    "docs/reference/python-api.md": ("api",),
    "docs/reference/states.md": ("edges", "desired", "diagram"),
}
"""Every page with generated parts, and which."""

_OPEN: Final = "<!-- generated: {} -->"
_CLOSE: Final = "<!-- end: {} -->"
_MARK: Final = re.compile(r"<!-- (?:generated|end): (\S+) -->")


class PageError(Exception):
    """A page lacks the two lines of a part, or has them for a part that nobody makes."""


def main(arguments: list[str]) -> int:
    """Write or check all pages; return the exit code."""
    if arguments not in ([], ["--check"]):
        print("usage: generate.py [--check]", file=sys.stderr)
        return 2
    stale = stale_pages()
    if arguments:
        for name in stale:
            print(f"{name} is stale: run `just docs`", file=sys.stderr)
        return 1 if stale else 0
    for name, text in stale.items():
        (REPOSITORY / name).write_text(text, encoding="utf-8")
        print(f"written: {name}", file=sys.stderr)
    return 0


def stale_pages() -> dict[str, str]:
    """Return the pages that are not what they should be, each with the text it should have.

    Raises:
        PageError: the marks on a page do not fit `PAGES`.
    """
    stale = {}
    for name, wanted in PAGES.items():
        before = (REPOSITORY / name).read_text(encoding="utf-8")
        after = filled(name, before, {part: parts.MAKERS[part]() for part in wanted})
        if before != after:
            stale[name] = after
    return stale


def filled(name: str, page: str, made: dict[str, str]) -> str:
    """Return a page with its generated parts replaced.

    Raises:
        PageError: a mark is missing, stands twice, or names another part.
    """
    expected = sorted([*made, *made])
    if sorted(_MARK.findall(page)) != expected:
        raise PageError(f"{name}: expected one pair of marks for each of {', '.join(made)}")
    for part, text in made.items():
        begin, end = _OPEN.format(part), _CLOSE.format(part)
        before, _, rest = page.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise PageError(f"{name}: the mark {end} stands before {begin}")
        page = f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"
    return page


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A progress bar on a terminal while a command waits; nothing anywhere else."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from reconciler.api import Byre
from reconciler.outcome import is_there
from statemachine.errors import ByreError

REFRESH_S: Final = 0.2


@contextlib.contextmanager
def progress(byre: Byre, names: Sequence[str]) -> Iterator[None]:
    """Show how many of the disks are there, as long as the block runs."""
    if not sys.stderr.isatty() or not names:
        yield
        return
    from rich.console import Console  # noqa: PLC0415 - rich is slow to import
    from rich.progress import Progress  # noqa: PLC0415

    done = threading.Event()
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("disks", total=len(names))

        def show() -> None:
            while not done.wait(REFRESH_S):
                with contextlib.suppress(ByreError):
                    bar.update(task, completed=sum(is_there(byre.get(name)) for name in names))

        thread = threading.Thread(target=show, name="byre-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


@contextlib.contextmanager
def byte_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show how many bytes are done; yields what is to be told (what, done, of how many)."""
    if not sys.stderr.isatty():
        yield lambda _what, _done, _total: None
        return
    from rich.console import Console  # noqa: PLC0415 - rich is slow to import
    from rich.progress import DownloadColumn, Progress, TaskID  # noqa: PLC0415

    columns = (*Progress.get_default_columns(), DownloadColumn(binary_units=True))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield tell

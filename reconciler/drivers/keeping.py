"""The actions on what is kept of a disk, or is not, by any driver: its points, and old data.

Pure; may be imported by the drivers.
"""

from __future__ import annotations

from pathlib import Path

from reconciler.actions import Action, PutInPlace, RemoveCow
from reconciler.drivers.port import Ground
from statemachine.observed import ObservedDisk
from statemachine.record import Record


def go_back(record: Record, ground: Ground, cow: Path) -> tuple[Action, ...]:
    """Put the copy that waits in the place of the disk's own file, which has no loop any more."""
    rewind = record.rewind
    assert rewind is not None, "nothing else goes back to a point"
    assert record.cow is not None, "a disk with points has data"
    return (
        PutInPlace(
            Path(rewind.path),
            cow,
            rewind.file,
            record.cow,
            same_boot=rewind.boot_id == ground.boot_id,
            cow_same_boot=record.cow_boot_id == ground.boot_id,
        ),
    )


def drop_all(record: Record, ground: Ground) -> tuple[Action, ...]:
    """Delete what is kept of a disk that ends, and what waits to be its file."""
    files = [(each.path, each.file, each.boot_id) for each in record.points]
    if record.rewind is not None:
        files.append((record.rewind.path, record.rewind.file, record.rewind.boot_id))
    return tuple(
        RemoveCow(Path(path), file, boot_id == ground.boot_id) for path, file, boot_id in files
    )


def throw_away(
    record: Record, observed: ObservedDisk, ground: Ground, cow: Path
) -> tuple[Action, ...]:
    """Delete the file of a throwaway disk that is made anew: its device is gone, and its data.

    Only the recorded file. Another one in its place is what an interrupted attempt has made since.
    """
    if record.wanted.persistent or record.cow is None or observed.cow is None:
        return ()
    same_boot = record.cow_boot_id == ground.boot_id
    if not record.cow.same_file(observed.cow, same_boot=same_boot):
        return ()
    return (RemoveCow(cow, record.cow, same_boot),)

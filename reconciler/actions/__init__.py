"""What can be done to the kernel: one class an action, each idempotent, verified, with its undo.

An action is a value that a plan consists of. `do` looks, acts if it must, looks again, and says
CHANGED (True) or UNCHANGED (False). `undo` takes back what this very `do` changed, and nothing
else: whatever was there before stays.

What is known only while acting (the number of a loop device) goes from one action to the next in
the `Scene`. Actions make no choices: what could be one was made in the plan.
May be imported by drivers, act, busy and reconcile.
"""

from reconciler.actions.compacting import CompactCow, DropNext, SwapCow
from reconciler.actions.dm import (
    FindDm,
    HandOverCow,
    LoadTable,
    MakeDm,
    RemoveDm,
    ResumeDm,
    refuse_foreign,
)
from reconciler.actions.files import (
    CheckBase,
    CheckCow,
    CloneBase,
    MakeCow,
    PutInPlace,
    RemoveCow,
    SyncCow,
)
from reconciler.actions.growing import GrowDm, GrowOwn, MakeOrigin, RemoveOrigin
from reconciler.actions.links import (
    CheckLink,
    CheckName,
    DropFolder,
    DropLink,
    DropNode,
    MakeFolder,
    MakeLink,
    MakeNode,
)
from reconciler.actions.loops import (
    TWO_LOOPS,
    AttachBase,
    AttachCow,
    DetachCow,
    OfferFile,
    ReleaseBase,
    SetDirectIo,
)
from reconciler.actions.scene import (
    Action,
    Scene,
    in_use_error,
    lasting,
)

__all__ = [
    "TWO_LOOPS",
    "Action",
    "AttachBase",
    "AttachCow",
    "CheckBase",
    "CheckCow",
    "CheckLink",
    "CheckName",
    "CloneBase",
    "CompactCow",
    "DetachCow",
    "DropFolder",
    "DropLink",
    "DropNext",
    "DropNode",
    "FindDm",
    "GrowDm",
    "GrowOwn",
    "HandOverCow",
    "LoadTable",
    "MakeCow",
    "MakeDm",
    "MakeFolder",
    "MakeLink",
    "MakeNode",
    "MakeOrigin",
    "OfferFile",
    "PutInPlace",
    "ReleaseBase",
    "RemoveCow",
    "RemoveDm",
    "RemoveOrigin",
    "ResumeDm",
    "Scene",
    "SetDirectIo",
    "SwapCow",
    "SyncCow",
    "in_use_error",
    "lasting",
    "refuse_foreign",
]

"""Concurrency primitives: tasks, deadlines, permits, cancellation and cleanup.

`tasks`         task groups, bounded loops, and tasks owned by an object
`deadlines`     time limits of many calls, enforced by one timer
`permits`       fair semaphores for connections and memory
`speculation`   marks requests that take only free permits
`cancellation`  cancels requested by the library, distinguished from the caller's
`cleanup`       work that completes although its task was cancelled, and calls in worker threads
`inflight`      work that is cancelled and rolled back before a store or driver closes
`turns`         time for other tasks during a long transfer that never waits
"""

from .cancellation import OwnCancel
from .cleanup import (
    CLEANUP_SECONDS,
    CloseStack,
    Entered,
    await_outcome,
    in_thread,
    run_cleanup,
    run_shielded,
    shielded,
    wait_until_done,
)
from .deadlines import Deadlines, within
from .inflight import InFlight
from .permits import FairSemaphore, Parkable, Permits
from .speculation import speculative
from .tasks import OwnedTask, OwnedTasks, for_each, task_group
from .turns import Turns

__all__ = [
    "CLEANUP_SECONDS",
    "CloseStack",
    "Deadlines",
    "Entered",
    "FairSemaphore",
    "InFlight",
    "OwnCancel",
    "OwnedTask",
    "OwnedTasks",
    "Parkable",
    "Permits",
    "Turns",
    "await_outcome",
    "for_each",
    "in_thread",
    "run_cleanup",
    "run_shielded",
    "shielded",
    "speculative",
    "task_group",
    "wait_until_done",
    "within",
]

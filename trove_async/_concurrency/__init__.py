"""Tasks, deadlines, permits and cleanup: the concurrency primitives of the package.

`tasks`      task groups, bounded loops, and tasks that belong to an object
`deadlines`  the time limits of many calls under one timer
`permits`    connections and memory, handed out in the order in which they are asked for
`cancellation` cancels of our own, told apart from others
`cleanup`    work that must end although its task was cancelled, and calls in worker threads
`inflight`   calls that are cancelled, and rolled back, when the store closes
"""

from .cleanup import (
    CLEANUP_SECONDS,
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
from .tasks import OwnedTask, OwnedTasks, for_each, task_group

__all__ = [
    "CLEANUP_SECONDS",
    "Deadlines",
    "FairSemaphore",
    "InFlight",
    "OwnedTask",
    "OwnedTasks",
    "Parkable",
    "Permits",
    "await_outcome",
    "for_each",
    "in_thread",
    "run_cleanup",
    "run_shielded",
    "shielded",
    "task_group",
    "wait_until_done",
    "within",
]

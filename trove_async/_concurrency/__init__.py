"""Tasks, deadlines, permits and cleanup: the concurrency primitives of the package.

`tasks`      task groups, bounded loops, and tasks that belong to an object
`deadlines`  the time limits of many calls under one timer
`permits`    connections and memory, handed out in the order in which they are asked for
`cleanup`    work that must end although its task was cancelled, and calls in worker threads
`inflight`   calls that are cancelled, and rolled back, when the store closes
"""

from .deadlines import Deadlines, within
from .inflight import UnderWay
from .tasks import (
    CLEANUP_SECONDS,
    Line,
    OwnedTask,
    OwnedTasks,
    Parkable,
    Permits,
    concluded,
    finished,
    for_each,
    in_thread,
    settled,
    shielded,
    task_group,
    to_its_end,
)

__all__ = [
    "CLEANUP_SECONDS",
    "Deadlines",
    "Line",
    "OwnedTask",
    "OwnedTasks",
    "Parkable",
    "Permits",
    "UnderWay",
    "concluded",
    "finished",
    "for_each",
    "in_thread",
    "settled",
    "shielded",
    "task_group",
    "to_its_end",
    "within",
]

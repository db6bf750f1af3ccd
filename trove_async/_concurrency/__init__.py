"""Tasks, deadlines, permits and cleanup: the concurrency primitives of the package.

`tasks`      task groups, bounded loops, and tasks that belong to an object
`deadlines`  the time limits of many calls under one timer
`permits`    connections and memory, handed out in the order in which they are asked for
`cleanup`    work that must end although its task was cancelled, and calls in worker threads
`inflight`   calls that are cancelled, and rolled back, when the store closes
"""

from .cleanup import CLEANUP_SECONDS, concluded, finished, in_thread, settled, shielded, to_its_end
from .deadlines import Deadlines, within
from .inflight import UnderWay
from .permits import Line, Parkable, Permits
from .tasks import OwnedTask, OwnedTasks, for_each, task_group

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

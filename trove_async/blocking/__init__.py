"""A blocking facade of the store, for scripts, Django, Celery and notebooks.

`Trove` has the methods of `trove_async.Trove`, without ``await``::

    from trove_async import blocking

    with blocking.Trove("s3://us-east-1/my-bucket") as store:
        store.put("data", "report.csv", b"a,b")
        with store.open("data", "report.csv") as file:
            print(file.read())

Any number of threads may use one store. All stores of a process share one event loop, which runs in a daemon
thread that starts with the first store.

* Callbacks run on that thread: `progress`, route functions, the functions of scopes, the `decode` of a get, and
  listeners of events. They must not block, and must not call a blocking store: that raises RuntimeError. The
  bodies of puts and the keys of deletions never run there, so they may block.
* An interrupt (Ctrl-C) in a waiting thread cancels the operation, and waits for its cleanup, before it is raised.
  So does any exception that a signal handler raises. A second one does not wait.
* A store that was started before a fork raises ClosedError in the child. Create and start a store in each
  process: with Celery, in `worker_process_init`. A store that is created before the fork and started after it
  works.
* In a thread that runs an event loop, the methods work, but block that loop. Use `trove_async.Trove` there.
"""

from ._bucket import Bucket
from ._deletion import Deletion
from ._files import FileReader, FileWriter
from ._iterators import ListArguments, MisplacedIterator, ObjectIterator, VersionIterator
from ._reader import ObjectReader
from ._store import Trove

__all__ = [
    "Bucket",
    "Deletion",
    "FileReader",
    "FileWriter",
    "ListArguments",
    "MisplacedIterator",
    "ObjectIterator",
    "ObjectReader",
    "Trove",
    "VersionIterator",
]

"""Makes a directory or bucket equal to another one.

A call passes through them in about this order:

`job`             The public function `sync`: checks the arguments, puts the parts together, makes the report.
`run`             The loop: pairs the entries of both sides by their keys, transfers what differs, deletes the rest.
`sides`           Streams the entries of a directory and of a bucket, in key order, and reads both ahead.
`walk`            Walks a directory in key order, and notices what it cannot examine.
`sorting`         Sorts any number of records in bounded memory, with temporary files.
`entries`         What is known of a file and of an object, and how a file's time and version are recorded.
`filters`         Selects paths by the include and exclude patterns.
`rules`           Decides from two entries, without I/O, whether the source has changed.
`digests`         Compares contents by checksums, where the rules cannot decide.
`direction`       The contract of `uploads`, `downloads` and `copies`, by which `run` uses them.
`uploads`         Stores files of a directory in a bucket.
`downloads`       Writes objects of a bucket to a directory.
`copies`          Copies objects from a bucket to a bucket.
`source_files`    Reads files, and detects changes meanwhile.
`target_files`    Writes and deletes files, without following symbolic links.
`paths`           Refuses keys that are no paths below a directory, and names temporary files.
`thread_batches`  Runs many short blocking calls in one hop to a thread.
`buckets`         What a sync needs of a bucket besides its methods.
"""

from .direction import SyncChange
from .job import SyncReport, sync

__all__ = ["SyncChange", "SyncReport", "sync"]

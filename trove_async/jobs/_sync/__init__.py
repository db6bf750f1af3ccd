"""Makes a directory or bucket equal to another one.

`job`             the public function: checks arguments, and puts the parts together
`run`             the loop: pairs the entries of both sides, transfers and deletes
`sides`           the entries of each side, in key order
`walk`            walks a directory
`sorting`         sorts any number of records in bounded memory
`entries`         files and objects, and how a file's time and version are recorded
`filters`         the include and exclude patterns
`rules`           decides from listings what has changed
`digests`         compares contents
`direction`       the contract of the next three
`uploads`         from a directory to a bucket
`downloads`       from a bucket to a directory
`copies`          from a bucket to a bucket
`source_files`    reads files, and detects changes meanwhile
`target_files`    writes and deletes files, without following links
`paths`           keys as paths
`thread_batches`  many short blocking calls in one hop to a thread
`buckets`         what a sync needs of a bucket besides its methods
"""

from .job import SyncReport, sync

__all__ = ["SyncReport", "sync"]

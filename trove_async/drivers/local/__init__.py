"""The local driver: objects are files below a root directory.

Writes are atomic and, by default, durable. No path leads out of the root, and other tools can read the
files.

The driver
`driver`            `LocalDriver`, which implements the driver contract on the event loop
`_threads`          run blocking work in threads, with safe cancellation; the modules below block,
                    except for their coroutines and functions named ``…_nowait``

Objects and buckets
`_objects`          find, store and delete one object; `_copy`: copy one; `_copy_between`: from another
                    root, which `_borrowing` keeps open
`_readers`          bodies of gets
`_upload`           uploads in parts
`_publish`          rename a finished file to its object's path
`_buckets`          create, delete and list buckets
`_listing`          list keys in bytewise order; `_snapshots`: a cache of sorted directories

The root
`_root`             the open root, its area ``.trove``, and the features of its file system
`_layout`           the paths of a key
`_openat2`          open paths that cannot lead out of the root
`_staging`          temporary files, and the removal of those of killed processes
`_locks`            one lock for each key, between threads and between processes
`_metadata`         metadata and checksums, in extended attributes; `_sidecars`: in separate files
`_errors`           the library's error for each errno
"""

import sys

if sys.platform == "win32":
    raise ImportError(
        "LocalDriver does not support Windows, which has no openat(2) to confine paths"
    )

from .driver import LocalDriver

__all__ = ["LocalDriver"]

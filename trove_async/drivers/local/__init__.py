"""Objects as files under a directory: atomic, durable, confined, and readable by any other tool.

=================  ================================================================================
`driver`           `LocalDriver`: the contract, on the event loop; everything else here runs in threads
`_threads`         hops from the loop to a thread that end when they say so, even under a cancel
`_bodies`          what get hands out; `_uploads`: what upload hands out
`_objects`         finding, storing and deleting one object; `_copying` it; `_buckets`: where they are
`_placing`         how a finished file takes its object's place
`_walk`            listings: directories read lazily, in bytewise order of keys
`_root`            the root, its own area ``.trove``, and what the file system below can do
`_staging`         files on their way to being objects, and what dead processes left of them
`_locks`           one lock for each key, between threads and between processes
`_record`          what is known of an object beside its bytes; `_sidecars`: where it does not fit
`_checksums`       CRC-32C, of parts as well
`_beneath`         opening paths that cannot lead out of the root
`_layout`          which path a key has; `_failures`: which error an errno is
=================  ================================================================================
"""

import sys

if sys.platform == "win32":
    raise ImportError("LocalDriver confines paths by openat(2), which Windows has not")

from .driver import LocalDriver

__all__ = ["LocalDriver"]

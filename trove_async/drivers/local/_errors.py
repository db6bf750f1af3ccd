"""Which of our errors an errno is: the driver's one table, applied at its edge."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from trove_async.errors import (
    BackendError,
    BucketNotFoundError,
    InvalidNameError,
    PermissionDeniedError,
    StorageFullError,
    TroveError,
    UnavailableError,
)

FAILURES: Final[dict[int, tuple[type[TroveError], str]]] = {
    errno.ENOSPC: (StorageFullError, "no space is left: free some, or move the root"),
    errno.EDQUOT: (StorageFullError, "the disk quota is used up: free some space, or raise it"),
    errno.EACCES: (PermissionDeniedError, "this process may not: check the files' owner and mode"),
    errno.EPERM: (PermissionDeniedError, "this process may not: check the files' owner and flags"),
    errno.EROFS: (PermissionDeniedError, "the file system is mounted read-only: remount it"),
    errno.EMFILE: (UnavailableError, "too many files are open here: raise `ulimit -n`"),
    errno.ENFILE: (UnavailableError, "too many files are open on the system: raise fs.file-max"),
    errno.ENOMEM: (UnavailableError, "the system is out of memory"),
    errno.ENOLCK: (UnavailableError, "the system has no lock left: is the lock service running?"),
    errno.EAGAIN: (UnavailableError, "the file system cannot serve now"),
    errno.EBUSY: (UnavailableError, "the file is in use by the system"),
    errno.ESTALE: (UnavailableError, "the network file system lost the file"),
    errno.ETIMEDOUT: (UnavailableError, "the network file system does not answer"),
    errno.EFBIG: (BackendError, "the file is larger than the file system, or `ulimit -f`, allows"),
    errno.EXDEV: (BackendError, "another file system is mounted below the root: unmount it there"),
    errno.ENOENT: (BackendError, "the root, or `.trove` in it, was removed: open the store anew"),
    errno.EIO: (BackendError, "the disk failed: look at the kernel's log"),
    errno.ENAMETOOLONG: (InvalidNameError, "the file system cannot hold so long a name"),
}


def failure(error: OSError, bucket: str | None = None, key: str | None = None) -> TroveError:
    """Return our error for the system's, to be raised from it."""
    code = error.errno or 0
    kind, advice = FAILURES.get(code, (BackendError, "the file system failed"))
    name = errno.errorcode.get(code, "no errno")
    return kind(f"{advice} ({name}: {os.strerror(code)})", bucket=bucket, key=key)


def unopened(error: OSError, root: str) -> TroveError:
    """Return our error for a root that cannot be opened, to be raised from the system's."""
    found = failure(error)
    path = error.filename
    # Below an open directory the system is given a bare name: the driver's own.
    within = "" if path in {None, root} else f", at {path!r}"
    found.message = f"the root {root!r} cannot be opened{within}: {found.message}"
    return found


@contextmanager
def translated(bucket: str | None = None, key: str | None = None) -> Iterator[None]:
    """Let the system's errors out as ours, and tell ours where they happened."""
    try:
        yield
    except TroveError as error:  # some are OSErrors as well
        error.located(bucket=bucket, key=key)
        raise
    except OSError as error:
        raise failure(error, bucket, key) from error


def missing_bucket(bucket: str) -> BucketNotFoundError:
    """Return the error for a bucket that has no directory."""
    return BucketNotFoundError("there is no such bucket: create_bucket makes it", bucket=bucket)

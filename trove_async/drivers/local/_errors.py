"""The library's error for each errno, and functions that translate an OSError into it."""

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

ERRORS: Final[dict[int, tuple[type[TroveError], str]]] = {
    errno.ENOSPC: (StorageFullError, "no space is left: free some, or move the root"),
    errno.EDQUOT: (StorageFullError, "the disk quota is used up: free some space, or raise it"),
    errno.EACCES: (
        PermissionDeniedError,
        "this process has no permission: check the files' owner and mode",
    ),
    errno.EPERM: (
        PermissionDeniedError,
        "this process has no permission: check the files' owner and flags",
    ),
    errno.EROFS: (PermissionDeniedError, "the file system is mounted read-only: remount it"),
    errno.EMFILE: (UnavailableError, "this process has too many open files: raise `ulimit -n`"),
    errno.ENFILE: (UnavailableError, "the system has too many open files: raise fs.file-max"),
    errno.ENOMEM: (UnavailableError, "the system is out of memory"),
    errno.ENOLCK: (UnavailableError, "the system has no locks left: is its lock service running?"),
    errno.EAGAIN: (UnavailableError, "the file system is temporarily unavailable: retry"),
    errno.EBUSY: (UnavailableError, "the system is using the file: retry"),
    errno.ESTALE: (UnavailableError, "the network file system no longer has the file: retry"),
    errno.ETIMEDOUT: (
        UnavailableError,
        "the network file system did not respond: check its server",
    ),
    errno.EFBIG: (BackendError, "the file is larger than the file system, or `ulimit -f`, allows"),
    errno.EXDEV: (BackendError, "a different file system is mounted below the root: unmount it"),
    # A missing object raises ObjectNotFoundError before this table is used.
    errno.ENOENT: (BackendError, "the root, or `.trove` in it, was removed: reopen the store"),
    errno.EIO: (BackendError, "the disk failed: check the kernel's log"),
    errno.ENAMETOOLONG: (InvalidNameError, "the name is too long for the file system"),
}


def translate_error(
    error: OSError, bucket: str | None = None, key: str | None = None
) -> TroveError:
    """Return the library's error for an OSError. The caller raises it from the OSError."""
    code = error.errno or 0
    error_class, message = ERRORS.get(code, (BackendError, "the file system failed"))
    name = errno.errorcode.get(code, "no errno")
    return error_class(f"{message} ({name}: {os.strerror(code)})", bucket=bucket, key=key)


def translate_opening_error(error: OSError, root: str) -> TroveError:
    """Return the error for a root that cannot be opened. The caller raises it from the OSError."""
    opening_error = translate_error(error)
    path = error.filename
    # Files below the root are opened by relative paths, so the OSError has no full path.
    location = "" if path in {None, root} else f", at {path!r}"
    opening_error.message = f"the root {root!r} cannot be opened{location}: {opening_error.message}"
    return opening_error


@contextmanager
def translated(bucket: str | None = None, key: str | None = None) -> Iterator[None]:
    """Translate OSErrors raised in the block, and add bucket and key to the library's errors."""
    try:
        yield
    except TroveError as error:  # some are OSErrors as well
        error.located(bucket=bucket, key=key)
        raise
    except OSError as error:
        raise translate_error(error, bucket, key) from error


def missing_bucket(bucket: str) -> BucketNotFoundError:
    """Return the error for a bucket without a directory."""
    return BucketNotFoundError(
        "the bucket does not exist: create it with create_bucket", bucket=bucket
    )

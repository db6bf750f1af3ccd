"""The builtin exceptions that fsspec promises, for errors of a store."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from trove_async.errors import (
    AlreadyExistsError,
    BackendError,
    BucketNotEmptyError,
    ContentBlockedError,
    IntegrityError,
    NotFoundError,
    ObjectChangedError,
    PreconditionFailedError,
    StorageFullError,
    TroveError,
    UnauthenticatedError,
)

_ERRNO: Final[dict[type[TroveError], int]] = {
    NotFoundError: errno.ENOENT,  # FileNotFoundError
    AlreadyExistsError: errno.EEXIST,  # FileExistsError
    UnauthenticatedError: errno.EACCES,  # PermissionError
    ContentBlockedError: errno.EPERM,  # PermissionError
    BucketNotEmptyError: errno.ENOTEMPTY,
    StorageFullError: errno.ENOSPC,
    ObjectChangedError: errno.ESTALE,
    PreconditionFailedError: errno.EBUSY,
    IntegrityError: errno.EIO,
    BackendError: errno.EIO,
}
"""The first class that fits decides. OSError chooses its subclass by the number."""


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Raise the errors of a store about `path` as OSErrors.

    Errors that are OSErrors or ValueErrors already, and errors in the use of a store such as ClosedError,
    pass unchanged.
    """
    try:
        yield
    except TroveError as error:
        code = None if isinstance(error, OSError | ValueError) else _errno_of(error)
        if code is None:
            raise
        raise OSError(code, str(error), path) from error


def _errno_of(error: TroveError) -> int | None:
    return next((code for kind, code in _ERRNO.items() if isinstance(error, kind)), None)


def is_directory_error(path: str) -> IsADirectoryError:
    """Return the error of an operation on an object whose path names none."""
    return IsADirectoryError(
        errno.EISDIR, "a path to an object must be 'bucket/key', this names no key", path
    )

"""The exceptions that trove_async raises.

::

    TroveError
    ├── NotFoundError
    │   ├── ObjectNotFoundError      (also FileNotFoundError)
    │   ├── BucketNotFoundError
    │   └── BackendNotFoundError
    ├── AlreadyExistsError
    │   ├── ObjectExistsError        (also FileExistsError)
    │   └── BucketExistsError
    ├── PreconditionFailedError
    │   └── ObjectChangedError
    ├── BucketNotEmptyError
    ├── PermissionDeniedError        (also PermissionError)
    ├── UnauthenticatedError
    ├── InvalidNameError             (also ValueError)
    ├── PatternError                 (also ValueError)
    ├── CursorError                  (also ValueError)
    ├── ConfigError                  (also ValueError)
    ├── NotSupportedError
    ├── RangeError
    ├── IntegrityError
    │   └── DecryptionError
    ├── StorageFullError
    ├── ContentBlockedError
    ├── StreamError
    │   ├── ClosedError
    │   └── BodyConsumedError
    └── BackendError
        └── UnavailableError
            ├── TimedOutError        (also TimeoutError)
            └── PoolTimeoutError

An argument of the wrong *type* raises the builtin ``TypeError``. A wrong *value* without a class in
this tree raises the builtin ``ValueError``. Both are raised before any I/O, except for values that a
body yields or a callback returns.
"""

from __future__ import annotations

from typing import Any, Self


class TroveError(Exception):
    """The base class of all errors. It has a message and the place of the failure.

    A driver raises an error with the attributes that it has, and the store adds the others (`located`). A
    layer that renames buckets or keys renames them in its errors as well. The SDK's error, if there
    is one and it shows no credentials, is ``__cause__``.

    Args:
        message: What happened and, if the user can fix it, how. One line, without credentials,
            signatures or bodies.
        operation: The public operation that failed: ``"put"``, ``"get"``, …
        backend: The name of the backend that failed.
        bucket: The bucket.
        key: The key.
        retryable: Whether the same request may succeed later. The default depends on the class:
            True for `UnavailableError` and its subclasses, else False.
        retry_after: Seconds to wait before the next attempt, if the service requested a pause.

    Attributes:
        inside: The physical bucket that holds the logical bucket, if the backend stores all its
            buckets in one (`Mapped`, or a URL that names a bucket).
        member: The member of a layer of several drivers (`Mirrored`, `Fallback`) that failed.
        maybe_done: Whether the operation may have succeeded although it raised, for example because
            the response was lost. True for `UnavailableError` and its subclasses except
            `PoolTimeoutError`. Drivers set it to False when they know better.
    """

    retryable: bool = False
    retry_after: float | None = None
    maybe_done: bool = False
    inside: str | None = None
    member: str | None = None

    def __init__(
        self,
        message: str = "",
        *,
        operation: str | None = None,
        backend: str | None = None,
        bucket: str | None = None,
        key: str | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.operation = operation
        self.backend = backend
        self.bucket = bucket
        self.key = key
        if retryable is not None:
            self.retryable = retryable
        if retry_after is not None:
            self.retry_after = retry_after

    @property
    def message(self) -> str:
        """What happened, without the location. Set it to add advice."""
        return str(self.args[0]) if self.args else ""

    @message.setter
    def message(self, message: str) -> None:
        self.args = (message,)

    def located(
        self,
        *,
        operation: str | None = None,
        backend: str | None = None,
        bucket: str | None = None,
        key: str | None = None,
    ) -> Self:
        """Fill in the parts of the location that are not set yet, and return the error itself."""
        # The value that was set first, by the innermost code, is the most precise.
        self.operation = self.operation or operation
        self.backend = self.backend or backend
        if self.bucket is None:
            self.bucket = bucket
        if self.key is None:
            self.key = key
        return self

    def __str__(self) -> str:
        location = [] if self.operation is None else [self.operation]
        if self.bucket is not None:
            location.append(repr(self.bucket if self.key is None else f"{self.bucket}/{self.key}"))
        if self.backend is not None:
            location.append(f"on backend {self.backend!r}")
        if self.member is not None:
            location.append(f"by its {self.member}" if self.backend else f"by the {self.member}")
        if self.inside is not None and (self.key is None or isinstance(self, _BUCKET_ERRORS)):
            location.append(f"inside the physical bucket {self.inside!r}")
        return f"{self.message} [{' '.join(location)}]" if location else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # OSError, a base class of some errors, pickles only `args`. Add the other attributes.
        return (_restore, (type(self), self.message, self.__dict__))


def _restore(cls: type[TroveError], message: str, state: dict[str, Any]) -> TroveError:
    error = cls(message)
    error.__dict__.update(state)
    return error


class NotFoundError(TroveError):
    """A bucket, object or backend does not exist."""


class ObjectNotFoundError(NotFoundError, FileNotFoundError):
    """The bucket has no object with this key, or not this version of it."""


class BucketNotFoundError(NotFoundError):
    """The backend has no bucket with this name.

    Attributes:
        creatable: Whether create_bucket can create the bucket. Layers and drivers set it to False if it
            cannot. The store then keeps their message, which explains what to do.
    """

    creatable: bool = True


class BackendNotFoundError(NotFoundError):
    """The store has no backend with this name."""


class AlreadyExistsError(TroveError):
    """The bucket or object to be created already exists."""


class ObjectExistsError(AlreadyExistsError, FileExistsError):
    """A put, copy or move with ``if_none_match="*"`` found an object with this key."""


class BucketExistsError(AlreadyExistsError):
    """The bucket to be created already exists. It may belong to another account."""


class PreconditionFailedError(TroveError):
    """A condition (``if_match``, ``if_none_match``) does not hold for the object."""


class ObjectChangedError(PreconditionFailedError):
    """The object was replaced or deleted while it was being read, copied or moved."""


class BucketNotEmptyError(TroveError):
    """The bucket to be deleted is not empty."""


class PermissionDeniedError(TroveError, PermissionError):
    """The credentials are valid, but do not allow the request."""


class UnauthenticatedError(TroveError):
    """The credentials are missing or not valid."""


class InvalidNameError(TroveError, ValueError):
    """A bucket name, a key or a header value is not allowed, or the backend cannot store it."""


class PatternError(TroveError, ValueError):
    """A route's pattern is malformed."""


class CursorError(TroveError, ValueError):
    """The cursor is malformed, or belongs to a listing with other backends, rules or arguments."""


class ConfigError(TroveError, ValueError):
    """A setting or a URL is not valid."""


class NotSupportedError(TroveError):
    """The backend cannot honour an option or an operation. Nothing was done."""


class RangeError(TroveError):
    """The byte range selects no bytes, or a read selects more bytes than its limit.

    Attributes:
        info: The object, as an `ObjectInfo`, if the store has requested its metadata. Else None.
    """

    info: object = None


class IntegrityError(TroveError):
    """The bytes that were received or stored differ from those that were sent, or would differ.

    A middleware with a bug raises this error as well. The message names the middleware.
    """


class DecryptionError(IntegrityError):
    """The key of an encrypted object is unknown or wrong, or the object was altered."""


class ContentBlockedError(TroveError):
    """An inspection rejected the body of a put. Nothing was stored."""


class StorageFullError(TroveError):
    """The backend is full, or its quota is used up."""


class StreamError(TroveError):
    """A reader, body or store is in a state that does not allow the call."""


class ClosedError(StreamError):
    """The store or reader is not open, or belongs to another event loop or process."""


class BodyConsumedError(StreamError):
    """A body that can be read only once has already been read."""


class BackendError(TroveError):
    """The backend failed in a way that no other class describes."""


class UnavailableError(BackendError):
    """The backend cannot be reached, or is overloaded. Another attempt may succeed."""

    retryable = True
    maybe_done = True


class TimedOutError(UnavailableError, TimeoutError):
    """A time limit was exceeded (`Timeout`)."""


class PoolTimeoutError(UnavailableError):
    """No memory or connection became free in time. The message names the setting to change."""

    maybe_done = False


_BUCKET_ERRORS = (BucketNotFoundError, BucketExistsError, BucketNotEmptyError)
"""Errors about a bucket, even if they name a key."""

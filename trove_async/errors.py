"""Every exception that trove_async raises of its own.

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
    ├── StorageFullError
    ├── StreamError
    │   ├── ClosedError
    │   └── BodyConsumedError
    └── BackendError
        └── UnavailableError
            ├── TimedOutError        (also TimeoutError)
            └── PoolTimeoutError

Arguments of a wrong *type* raise the builtin ``TypeError``; a wrong *value* that is none of the
above raises the builtin ``ValueError``. Both are raised before any I/O.
"""

from __future__ import annotations

from typing import Any, Self


class TroveError(Exception):
    """The root of the tree: what went wrong, and where.

    Drivers raise with what they know; the rooms above fill in the rest (`located`), and a layer
    that renames buckets or keys renames them here too. The SDK's own error, where there is one, is
    ``__cause__``.

    Args:
        message: What happened and, where the user can mend it, how. One line; never a credential,
            a signature or a body.
        operation: The operation that failed, as users call it: ``"put"``, ``"get"``, …
        backend: The name of the backend that it failed on.
        bucket: The bucket concerned.
        key: The key concerned.
        retryable: Whether the same request may succeed a moment later. Defaults to the class's
            own answer: True for `UnavailableError` and below, else False.
        retry_after: Seconds that the service asked to wait first, if it said.

    Attributes:
        inside: The physical bucket that holds the bucket concerned, where that is a logical one: all
            buckets of a backend whose URL names a bucket are (`Mapped`). Told of errors about a
            bucket.
        maybe_done: Whether what was asked for may have been done all the same: an answer that was
            lost, for one. A driver that knows better says so. True for `UnavailableError` and
            below, but for `PoolTimeoutError`.
    """

    retryable: bool = False
    retry_after: float | None = None
    maybe_done: bool = False
    inside: str | None = None

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
        """What happened, without where. A room above may put it better, or say what to do."""
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
        """Fill in what is not known yet of where this happened, and return the error itself."""
        self.operation = self.operation or operation
        self.backend = self.backend or backend
        if self.bucket is None:
            self.bucket = bucket
        if self.key is None:
            self.key = key
        return self

    def __str__(self) -> str:
        where = [] if self.operation is None else [self.operation]
        if self.bucket is not None:
            where.append(repr(self.bucket if self.key is None else f"{self.bucket}/{self.key}"))
        if self.backend is not None:
            where.append(f"on backend {self.backend!r}")
        if self.inside is not None and (self.key is None or isinstance(self, _OF_BUCKETS)):
            where.append(f"where buckets are logical ones, inside the bucket {self.inside!r}")
        return f"{self.message} [{' '.join(where)}]" if where else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # OSError, a base of some, pickles its `args` only: keep the rest of the state as well.
        return (_restore, (type(self), self.message, self.__dict__))


def _restore(cls: type[TroveError], message: str, state: dict[str, Any]) -> TroveError:
    error = cls(message)
    error.__dict__.update(state)
    return error


class NotFoundError(TroveError):
    """Something that was named does not exist."""


class ObjectNotFoundError(NotFoundError, FileNotFoundError):
    """The bucket has no object of that key (or not that version of it)."""


class BucketNotFoundError(NotFoundError):
    """The backend has no bucket of that name."""


class BackendNotFoundError(NotFoundError):
    """The store has no backend of that name."""


class AlreadyExistsError(TroveError):
    """Something that was to be made is already there."""


class ObjectExistsError(AlreadyExistsError, FileExistsError):
    """A put with ``if_none_match="*"`` met an object of that key."""


class BucketExistsError(AlreadyExistsError):
    """The bucket to be created exists, whoever owns it."""


class PreconditionFailedError(TroveError):
    """The object is not in the state that ``if_match`` or ``if_none_match`` asked for."""


class ObjectChangedError(PreconditionFailedError):
    """The object was replaced or deleted while it was being read, copied or moved."""


class BucketNotEmptyError(TroveError):
    """The bucket to be deleted still has objects."""


class PermissionDeniedError(TroveError, PermissionError):
    """The backend knows who asks, and refuses."""


class UnauthenticatedError(TroveError):
    """The backend does not accept the credentials, or there were none."""


class InvalidNameError(TroveError, ValueError):
    """A bucket's or a key's name, or a header's value, that no backend may be given."""


class PatternError(TroveError, ValueError):
    """A route's pattern is malformed."""


class CursorError(TroveError, ValueError):
    """A cursor that is none, or belongs to a listing with other backends, rules or arguments."""


class ConfigError(TroveError, ValueError):
    """Settings, or a URL, from which no store or driver can be made."""


class NotSupportedError(TroveError):
    """The backend cannot honour what was asked; nothing was done."""


class RangeError(TroveError):
    """A byte range that selects nothing of the object."""


class IntegrityError(TroveError):
    """Bytes that arrived, or were stored, are not the bytes that were sent."""


class StorageFullError(TroveError):
    """The backend has no room, or its quota is used up."""


class StreamError(TroveError):
    """A reader, a body or a store is used in a state that does not allow it."""


class ClosedError(StreamError):
    """The store or reader is closed, was never opened, or belongs to another loop or process."""


class BodyConsumedError(StreamError):
    """A body that can be read once was read before."""


class BackendError(TroveError):
    """The backend failed in a way that none of the other classes names."""


class UnavailableError(BackendError):
    """The backend cannot be reached, or cannot serve now; retried within the budget."""

    retryable = True
    maybe_done = True


class TimedOutError(UnavailableError, TimeoutError):
    """No progress within the time allowed for it."""


class PoolTimeoutError(UnavailableError):
    """No memory or no connection became free in time; the message says which knob to turn."""

    maybe_done = False


_OF_BUCKETS = (BucketNotFoundError, BucketExistsError, BucketNotEmptyError)
"""Errors that are about a bucket even if they name a key."""

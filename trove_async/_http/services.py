"""Helpers shared by the S3 and GCS drivers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple, TypeVar

from trove_async._concurrency import OwnedTask, run_cleanup, within
from trove_async.errors import (
    BucketNotFoundError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    TroveError,
)
from trove_async.options import DeleteOptions, PutOptions

_CACHE_SECONDS: Final = 60.0
"""Seconds for which a bucket that was found is assumed to exist."""

_CANCEL_GRACE: Final = 2.0
"""Seconds that a cancelled call waits for the response, which identifies the created resource."""

MAX_SEARCHED: Final = 4096
"""Maximum number of characters of a service's message that are searched for secrets and known texts."""

_MAX_CODE: Final = 80
"""Maximum number of characters of a service's error code that an error shows."""

_MAX_SHOWN: Final = 300
"""Maximum number of characters of a service's message that an error shows."""

T = TypeVar("T")


class ErrorMapping(NamedTuple):
    """The error that a service's error response is mapped to.

    Attributes:
        kind: The class of the error.
        advice: The cause and, if the user can fix it, the remedy.
        retryable: Whether a retry may succeed; None uses the default of the class.
        no_effect: Whether the request certainly had no effect. False: unknown.
    """

    kind: type[TroveError]
    advice: str
    retryable: bool | None = None
    no_effect: bool = False


def one_line(text: str, limit: int = _MAX_SHOWN) -> str:
    """Return a service's text for an error message: one line of printable characters, cut at the limit.

    Messages go to logs and terminals. A line break could forge a line of a log, and an escape sequence
    could change what a terminal shows.
    """
    text = text[:MAX_SEARCHED]
    if not text.isprintable():
        text = "".join([character if character.isprintable() else " " for character in text])
    line = " ".join(text.split())
    return line if len(line) <= limit else line[:limit] + "…"


def describe_response(status: int, code: str, message: str, secret: re.Pattern[str]) -> str:
    """Return the part of an error's message that describes an error response.

    Args:
        status: The status of the response.
        code: The service's code for the error. May be empty.
        message: The service's message. May be empty.
        secret: Matches secrets in the message. The groups 1 and 2 are kept.
    """
    summary = f"{status} {one_line(code, _MAX_CODE)}".rstrip()
    # Remove secrets before `one_line`, which would split a secret with a line break into two words.
    detail = one_line(secret.sub(r"\1\2…", message[:MAX_SEARCHED]))
    return f"{summary}: {detail}" if detail else summary


def replace_advice(message: str, mapping: ErrorMapping) -> str:
    """Return an error's message with the advice of another mapping and the same response."""
    _, _, response = message.partition(" (")
    return f"{mapping.advice} ({response}" if response else mapping.advice


@contextmanager
def map_condition_errors(options: PutOptions | DeleteOptions) -> Iterator[None]:
    """Convert a service's errors about a condition to the errors of the driver contract.

    If `if_match` names a version and the object does not exist, AWS responds with 404 (S3 User
    Guide, "How to prevent object overwrites with conditional writes") and others with 412.
    """
    try:
        yield
    except ObjectChangedError:
        raise  # about the source of a copy, not about a condition in the options
    except PreconditionFailedError as error:
        if getattr(options, "if_none_match", None) is None:
            raise
        raise ObjectExistsError("if_none_match: the object exists") from error
    except ObjectNotFoundError as error:
        if options.if_match is None:
            raise
        raise PreconditionFailedError("if_match: the object does not exist") from error


class BucketExistenceCache:
    """Checks whether buckets exist, and caches positive results for a minute.

    Some responses do not distinguish a missing object from a missing bucket, so drivers check.

    Args:
        head_bucket: Raises BucketNotFoundError if the bucket does not exist.
    """

    __slots__ = ("_expirations", "_forget_count", "_head_bucket")

    def __init__(self, head_bucket: Callable[[str], Awaitable[object]]) -> None:
        self._head_bucket = head_bucket
        self._expirations: dict[str, float] = {}
        self._forget_count = 0

    async def exists(self, bucket: str) -> bool:
        """Return whether a bucket exists.

        A bucket for which a head request is forbidden is assumed to exist.
        """
        now = asyncio.get_running_loop().time()
        if self._expirations.get(bucket, 0.0) > now:
            return True
        forget_count = self._forget_count
        try:
            await self._head_bucket(bucket)
        except BucketNotFoundError:
            return False
        except PermissionDeniedError:
            pass
        # If `forget` was called during the request, the bucket may have been deleted since.
        if forget_count == self._forget_count:
            self._expirations[bucket] = now + _CACHE_SECONDS
        return True

    def forget(self, bucket: str) -> None:
        """Drop a bucket from the cache. Call this after a request to delete the bucket.

        A check that is in flight during the call does not cache its result.
        """
        self._forget_count += 1
        self._expirations.pop(bucket, None)


async def create_or_undo(
    work: Coroutine[Any, Any, T], undo: Callable[[T], Coroutine[Any, Any, object]]
) -> T:
    """Create a resource in a service and return it; after a cancel, undo the creation.

    A service may create a resource although the connection breaks, and only the response contains the
    identifier that is needed to remove it. So a cancelled call waits up to two seconds for the response.

    Args:
        work: Creates the resource and returns it.
        undo: Removes the resource.
    """
    creation = OwnedTask(work)
    try:
        return await creation.result()
    except asyncio.CancelledError:
        with suppress(TroveError):
            await run_cleanup(_undo_created(creation, undo))
        raise


async def _undo_created(
    creation: OwnedTask[T], undo: Callable[[T], Coroutine[Any, Any, object]]
) -> None:
    try:
        created = await within(_CANCEL_GRACE, "the service did not respond", creation.result())
    finally:
        await creation.aclose()
    await undo(created)

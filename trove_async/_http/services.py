"""What drivers of remote services have in common, whatever the service's language."""

from __future__ import annotations

import asyncio
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

_KNOWN_SECONDS: Final = 60.0
"""How long a bucket that was there is taken to be there still, when an object is not."""


_NAMED_SECONDS: Final = 2.0
"""How long a call that was cancelled waits for the name of what it may have made."""

T = TypeVar("T")


class Meaning(NamedTuple):
    """What an answer means.

    Attributes:
        kind: Our error.
        advice: What happened and, where the user can mend it, how.
        retryable: Where it differs from what the kind says.
        undone: Whether it says that nothing was done, where what the kind says is in doubt.
    """

    kind: type[TroveError]
    advice: str
    retryable: bool | None = None
    undone: bool = False


@contextmanager
def conditioned(options: PutOptions | DeleteOptions) -> Iterator[None]:
    """Raise what the contract says of a condition for what the service answers.

    A version that is to be replaced, and is not there at all, is a 404 for AWS (S3 User Guide,
    "How to prevent object overwrites with conditional writes") and a 412 for others.
    """
    try:
        yield
    except ObjectChangedError:
        raise  # a source's, which is no condition of the options
    except PreconditionFailedError as error:
        if getattr(options, "if_none_match", None) is None:
            raise
        raise ObjectExistsError("if_none_match: there is an object of that key") from error
    except ObjectNotFoundError as error:
        if options.if_match is None:
            raise
        raise PreconditionFailedError("if_match: there is no such object") from error


class KnownBuckets:
    """Tells whether what is missing is an object or its bucket, where the service does not say.

    Args:
        ask: Raises BucketNotFoundError unless there is such a bucket.
    """

    __slots__ = ("_ask", "_forgotten", "_known")

    def __init__(self, ask: Callable[[str], Awaitable[object]]) -> None:
        self._ask = ask
        self._known: dict[str, float] = {}
        self._forgotten = 0

    async def exists(self, bucket: str) -> bool:
        """Tell whether there is a bucket, from memory if it was there a moment ago.

        One that these credentials may not look at is taken to be there.
        """
        now = asyncio.get_running_loop().time()
        if self._known.get(bucket, 0.0) > now:
            return True
        forgotten = self._forgotten
        try:
            await self._ask(bucket)
        except BucketNotFoundError:
            return False
        except PermissionDeniedError:
            pass
        if forgotten == self._forgotten:  # else it may have been deleted meanwhile
            self._known[bucket] = now + _KNOWN_SECONDS
        return True

    def forget(self, bucket: str) -> None:
        """Ask anew: the bucket is to be deleted, or was."""
        self._forgotten += 1
        self._known.pop(bucket, None)


async def made(work: Coroutine[Any, Any, T], undo: Callable[[T], Coroutine[Any, Any, object]]) -> T:
    """Return what a service makes; after a cancel, have it undone as soon as it has a name.

    A request that is broken off may be carried out all the same, and what nobody knows the name of
    nobody can undo.
    """
    making = OwnedTask(work)
    try:
        return await making.result()
    except asyncio.CancelledError:
        with suppress(TroveError):
            await run_cleanup(_undone(making, undo))
        raise


async def _undone(making: OwnedTask[T], undo: Callable[[T], Coroutine[Any, Any, object]]) -> None:
    try:
        named = await within(_NAMED_SECONDS, "no name came", making.result())
    finally:
        await making.aclose()
    await undo(named)

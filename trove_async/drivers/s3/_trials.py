"""Trials: tests of a service's behaviour with one-byte objects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from contextlib import suppress
from secrets import token_hex
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from trove_async._concurrency import InFlight, await_outcome, for_each, run_cleanup, within
from trove_async.errors import ClosedError, NotFoundError, PermissionDeniedError, TroveError
from trove_async.models import ObjectInfo
from trove_async.options import CopyOptions, DeleteOptions, ListOptions, Part, PutOptions

from ._data_plane import UnconfirmedWriteError
from ._multipart import PartedUpload, patiently

if TYPE_CHECKING:
    from ._data_plane import DataPlane

BODY: Final = memoryview(b"x")

_CANCELLED_SECONDS: Final = 5.0
"""How long a cancelled write waits for its trial. A responsive service takes less, and the retry of
a write that reached its deadline then finds the outcome known."""

_CLEANUP_SECONDS: Final = 5.0
"""Timeout of the deletion of a trial's objects."""

_LISTING_SECONDS: Final = 2.0
"""Timeout of the listing of their versions, within `_CLEANUP_SECONDS`."""

_DELETES: Final = 4


def trial_name() -> str:
    """Return a unique last segment for the key of a trial object."""
    return f"trove-probe-{token_hex(8)}"


def denied(question: str, error: PermissionDeniedError) -> PermissionDeniedError:
    """Return the error for credentials that do not permit a trial.

    Args:
        question: The behaviour being tested, a phrase in the third person.
        error: The service's refusal.
    """
    return PermissionDeniedError(
        f"it is not known whether the service {question}, and an object to try it on was refused. If it"
        f" does, give the driver dialect='s3' ({error.message})"
    )


class Trials:
    """The trials of one open driver. Concurrent writes that need the same trial share it."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, asyncio.Lock] = {}
        self._in_flight = InFlight()
        self._ended = False

    async def learn_once(
        self,
        what: Hashable,
        is_known: Callable[[], bool],
        learn: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """Run a trial unless its outcome is known.

        After a cancel the trial may run for a few more seconds before it is cancelled as well. The
        cancellation is raised once the trial's objects are deleted.

        Args:
            what: The identity of the trial.
            is_known: Returns whether the outcome is known.
            learn: Runs the trial. If it raises, the outcome stays unknown.

        Raises:
            ClosedError: The driver was closed.
        """
        lock = self._locks.setdefault(what, asyncio.Lock())
        try:
            async with lock:
                if self._ended:
                    raise ClosedError("the store was closed meanwhile")
                if not is_known():
                    await await_outcome(self._tried(learn), _CANCELLED_SECONDS)
        finally:
            if self._locks.get(what) is lock and not lock.locked():
                del self._locks[what]  # waiters hold a reference to it

    async def _tried(self, learn: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with self._in_flight.track():
            await learn()

    async def end(self) -> None:
        """Cancel the trials in flight and wait until their objects are deleted."""
        self._ended = True
        await self._in_flight.cancel_all()


class TrialObjects:
    """The objects of a trial. Exiting the context deletes every version of them.

    Args:
        plane: Sends the requests.
        bucket: The bucket to create them in.
    """

    def __init__(self, plane: DataPlane, bucket: str) -> None:
        self._plane = plane
        self._bucket = bucket
        self._stored: list[tuple[str, str | None]] = []
        self._doubtful: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(TroveError):  # a leftover object is one byte
            await run_cleanup(self._delete_all(), _CLEANUP_SECONDS)

    def doubt(self, key: str) -> None:
        """Delete this key as well on exit. What is stored there is unknown."""
        self._doubtful.add(key)

    async def put(self, key: str, options: PutOptions) -> ObjectInfo:
        """Store an object in one request."""
        return await self._made(key, self._plane.put_object(self._bucket, key, [BODY], options))

    async def upload(self, key: str, options: PutOptions) -> ObjectInfo:
        """Store an object with a multipart upload."""
        return await self._made(key, self._uploaded(key, options))

    async def copy(self, source: ObjectInfo, key: str, options: PutOptions) -> ObjectInfo:
        """Store a copy of an object of the trial."""
        request = CopyOptions(source=source, put=options)
        copying = self._plane.copy_object(self._bucket, source.key, self._bucket, key, request)
        return await self._made(key, copying)

    async def _uploaded(self, key: str, options: PutOptions) -> ObjectInfo:
        async with PartedUpload(self._plane, self._bucket, key, options) as upload:
            await upload.send(Part(number=1, offset=0, size=1, last=True), [BODY])
            return await upload.commit({})

    async def _made(self, key: str, making: Coroutine[Any, Any, ObjectInfo]) -> ObjectInfo:
        try:
            info = await making
        except UnconfirmedWriteError as unconfirmed:
            info = unconfirmed.info
        except TroveError as error:
            if error.maybe_done:
                self.doubt(key)
            raise
        except BaseException:
            self.doubt(key)
            raise
        self._stored.append((key, info.version_id))
        return info

    async def _delete_all(self) -> None:
        named = {stored for stored in self._stored if stored[1] is not None}
        unnamed = {key for key, version_id in self._stored if version_id is None}
        await for_each(named, self._delete, limit=_DELETES)
        # Doubtful keys first: the service may have stored another key's object under one of them.
        await for_each(self._doubtful, self._delete_versions, limit=_DELETES)
        await for_each(unnamed - self._doubtful, self._delete_versions, limit=_DELETES)

    async def _delete(self, stored: tuple[str, str | None]) -> None:
        key, version_id = stored
        options = DeleteOptions(version_id=version_id)
        try:
            await patiently(lambda: self._plane.delete_object(self._bucket, key, options))
        except TroveError:
            if version_id is not None:
                await self._delete((key, None))  # a delete marker at least hides it

    async def _delete_versions(self, key: str) -> None:
        """Delete all versions of a key.

        In a bucket with suspended versioning, the version id is ``null`` and is missing from the
        response to the put. A delete without the id would leave a delete marker.
        """
        try:
            listing = self._plane.list_versions(self._bucket, ListOptions(prefix=key))
            page = await within(_LISTING_SECONDS, "no page came", listing)
            found = [(key, entry.version_id) for entry in page.entries if entry.key == key]
        except TroveError:
            found = []
        if found or await self._is_there(key):
            await for_each(found or [(key, None)], self._delete, limit=_DELETES)

    async def _is_there(self, key: str) -> bool:
        try:
            await self._plane.head_object(self._bucket, key, None)
        except NotFoundError:
            return False
        except TroveError:
            pass
        return True

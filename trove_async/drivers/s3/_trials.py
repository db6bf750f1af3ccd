"""Trials: one-byte objects with which the driver tests a feature before it relies on it."""

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
"""How long a cancelled write waits for its trial. A service that responds takes less, and a write that
was cancelled by its own deadline need not try again."""

_CLEANUP_SECONDS: Final = 5.0
"""How long a write waits for the deletion of its trial's objects."""

_LISTING_SECONDS: Final = 2.0
"""How much of that time the listing of its versions may take."""

_DELETES: Final = 4


def trial_name() -> str:
    """Return the last segment of a key that no other object has."""
    return f"trove-probe-{token_hex(8)}"


def denied(question: str, error: PermissionDeniedError) -> PermissionDeniedError:
    """Return the error for credentials that may not make the objects of a trial.

    Args:
        question: What is tried: what the service might do.
        error: How it refused.
    """
    return PermissionDeniedError(
        f"it is not known whether the service {question}, and an object to try it on was refused. If it"
        f" does, give the driver dialect='s3' ({error.message})"
    )


class Trials:
    """The trials of one open driver. Writes that need to learn the same thing share one trial."""

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
        """Learn something unless it is known.

        A cancel ends the trial if it takes long, and is raised once its objects are deleted.

        Args:
            what: Names it.
            is_known: Returns whether it is known by now.
            learn: Tries it. An error leaves it unknown.

        Raises:
            ClosedError: The driver was closed meanwhile.
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
                del self._locks[what]  # those that wait for it have it

    async def _tried(self, learn: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with self._in_flight.track():
            await learn()

    async def end(self) -> None:
        """Cancel the trials that are under way, and wait until their objects are deleted."""
        self._ended = True
        await self._in_flight.cancel_all()


class TrialObjects:
    """Objects that something is tried on. Leaving deletes them, each version of them.

    Args:
        plane: Sends the requests.
        bucket: Where they are made.
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
        with suppress(TroveError):  # what cannot be deleted is a byte of litter
            await run_cleanup(self._delete_all(), _CLEANUP_SECONDS)

    def doubt(self, key: str) -> None:
        """Have the key deleted as well: it is not known what is stored there."""
        self._doubtful.add(key)

    async def put(self, key: str, options: PutOptions) -> ObjectInfo:
        """Store an object in one request."""
        return await self._made(key, self._plane.put_object(self._bucket, key, [BODY], options))

    async def upload(self, key: str, options: PutOptions) -> ObjectInfo:
        """Store an object in parts."""
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
        # First those that a service may have stored another one under.
        await for_each(self._doubtful, self._delete_versions, limit=_DELETES)
        await for_each(unnamed - self._doubtful, self._delete_versions, limit=_DELETES)

    async def _delete(self, stored: tuple[str, str | None]) -> None:
        key, version_id = stored
        options = DeleteOptions(version_id=version_id)
        try:
            await patiently(lambda: self._plane.delete_object(self._bucket, key, options))
        except TroveError:
            if version_id is not None:
                await self._delete((key, None))  # which at least hides it

    async def _delete_versions(self, key: str) -> None:
        """Delete whatever versions there are of a key.

        A bucket whose versioning is suspended has one that is called ``null``, and is not named in
        the response to its put. Deleted without that name it leaves a marker.
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

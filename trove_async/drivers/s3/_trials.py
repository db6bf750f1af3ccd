"""Trials, which store one-byte objects to test how a service behaves."""

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
from ._multipart import MultipartUpload, send_with_retries

if TYPE_CHECKING:
    from ._data_plane import DataPlane

BODY: Final = memoryview(b"x")

_GRACE_SECONDS: Final = 5.0
"""Seconds that a trial may continue after the operation that needs it was cancelled. A responsive
service needs less. If the operation is repeated, the outcome is usually known by then."""

_CLEANUP_SECONDS: Final = 5.0
"""Timeout for deleting a trial's objects."""

_LISTING_SECONDS: Final = 2.0
"""Timeout for listing the versions of one of the objects. `_CLEANUP_SECONDS` includes it."""

_MAX_DELETES: Final = 4


def trial_name() -> str:
    """Return a unique last segment for the key of a trial object."""
    return f"trove-probe-{token_hex(8)}"


def trial_denied(behaviour: str, error: PermissionDeniedError) -> PermissionDeniedError:
    """Return the error for credentials that do not permit a trial.

    Args:
        behaviour: The behaviour under test. A phrase that completes "the service …".
        error: The service's error.
    """
    return PermissionDeniedError(
        f"to test whether the service {behaviour}, the driver must store and read an object, but the"
        f" credentials do not permit it. If the service does, pass dialect='s3' ({error.message})"
    )


class Trials:
    """The trials of one open driver. Concurrent operations that need the same trial share it."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, asyncio.Lock] = {}
        self._in_flight = InFlight()
        self._is_ended = False

    async def run_once(
        self,
        trial: Hashable,
        has_outcome: Callable[[], bool],
        run: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """Run a trial unless its outcome is known.

        After a cancel, the trial may run for a few more seconds before it is cancelled as well. The
        cancellation is raised once the trial's objects are deleted.

        Args:
            trial: The identity of the trial.
            has_outcome: Returns whether the outcome is known.
            run: Runs the trial. If it raises, the outcome stays unknown.

        Raises:
            ClosedError: The driver was closed.
        """
        lock = self._locks.setdefault(trial, asyncio.Lock())
        try:
            async with lock:
                if self._is_ended:
                    raise ClosedError("the store was closed during the operation")
                if not has_outcome():
                    await await_outcome(self._run_tracked(run), _GRACE_SECONDS)
        finally:
            if self._locks.get(trial) is lock and not lock.locked():
                del self._locks[trial]  # waiting tasks hold a reference to it

    async def _run_tracked(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with self._in_flight.track():
            await run()

    async def end(self) -> None:
        """Cancel the trials in flight and wait until their objects are deleted."""
        self._is_ended = True
        await self._in_flight.cancel_all()


class TrialObjects:
    """The objects of a trial. Exiting the context tries to delete every version of them.

    Args:
        plane: Sends the requests.
        bucket: The bucket to create them in.
    """

    def __init__(self, plane: DataPlane, bucket: str) -> None:
        self._plane = plane
        self._bucket = bucket
        self._stored: list[tuple[str, str | None]] = []
        self._uncertain: set[str] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(TroveError):  # an object that remains has only one byte
            await run_cleanup(self._delete_all(), _CLEANUP_SECONDS)

    def delete_on_exit(self, key: str) -> None:
        """Delete every version of this key on exit. It is unknown whether there are any."""
        self._uncertain.add(key)

    async def put(self, key: str, options: PutOptions) -> ObjectInfo:
        """Store an object in one request."""
        return await self._record_write(
            key, self._plane.put_object(self._bucket, key, [BODY], options)
        )

    async def upload(self, key: str, options: PutOptions) -> ObjectInfo:
        """Store an object with a multipart upload."""
        return await self._record_write(key, self._upload(key, options))

    async def copy(self, source: ObjectInfo, key: str, options: PutOptions) -> ObjectInfo:
        """Store a copy of an object of the trial."""
        copy_options = CopyOptions(source=source, put=options)
        write = self._plane.copy_object(self._bucket, source.key, self._bucket, key, copy_options)
        return await self._record_write(key, write)

    async def _upload(self, key: str, options: PutOptions) -> ObjectInfo:
        async with MultipartUpload(self._plane, self._bucket, key, options) as upload:
            await upload.send(Part(number=1, offset=0, size=1, last=True), [BODY])
            return await upload.commit({})

    async def _record_write(self, key: str, write: Coroutine[Any, Any, ObjectInfo]) -> ObjectInfo:
        """Await a write and record that its object must be deleted."""
        try:
            info = await write
        except UnconfirmedWriteError as unconfirmed:
            info = unconfirmed.info
        except TroveError as error:
            if error.maybe_done:
                self.delete_on_exit(key)
            raise
        except BaseException:
            self.delete_on_exit(key)
            raise
        self._stored.append((key, info.version_id))
        return info

    async def _delete_all(self) -> None:
        with_version_id = {stored for stored in self._stored if stored[1] is not None}
        without_version_id = {key for key, version_id in self._stored if version_id is None}
        await for_each(with_version_id, self._delete, limit=_MAX_DELETES)
        # Uncertain keys first: the service may have stored another key's object under one of them.
        await for_each(self._uncertain, self._delete_versions, limit=_MAX_DELETES)
        await for_each(
            without_version_id - self._uncertain, self._delete_versions, limit=_MAX_DELETES
        )

    async def _delete(self, stored: tuple[str, str | None]) -> None:
        key, version_id = stored
        options = DeleteOptions(version_id=version_id)
        try:
            await send_with_retries(lambda: self._plane.delete_object(self._bucket, key, options))
        except TroveError:
            if version_id is not None:
                await self._delete((key, None))  # at least a delete marker hides the object

    async def _delete_versions(self, key: str) -> None:
        """Delete all versions of a key.

        In a bucket with suspended versioning, the version id is ``null`` and is missing from the
        response to the put. A delete without the id would leave a delete marker.
        """
        try:
            listing = self._plane.list_versions(self._bucket, ListOptions(prefix=key))
            page = await within(
                _LISTING_SECONDS, "the service did not list the versions in time", listing
            )
            versions = [(key, entry.version_id) for entry in page.entries if entry.key == key]
        except TroveError:
            versions = []
        if versions or await self._may_exist(key):
            await for_each(versions or [(key, None)], self._delete, limit=_MAX_DELETES)

    async def _may_exist(self, key: str) -> bool:
        """Return whether the key has an object. Return True if that is unknown."""
        try:
            await self._plane.head_object(self._bucket, key, None)
        except NotFoundError:
            return False
        except TroveError:
            pass
        return True

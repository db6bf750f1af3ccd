"""Objects of one byte that something is tried on, before the driver relies on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from trove_async._closing import UnderWay
from trove_async._concurrency import concluded, finished, for_each
from trove_async.errors import TroveError
from trove_async.models import CopyOptions, DeleteOptions, ListOptions, ObjectInfo, Part, PutOptions

from ._plane import UntoldError
from ._uploads import PartedUpload, patiently

if TYPE_CHECKING:
    from ._plane import Plane

BODY: Final = memoryview(b"x")

_CANCELLED_SECONDS: Final = 2.0
"""How long a cancelled write waits for what its trial finds out: a service that responds takes less,
and a retry then need not try again."""

_CLEANUP_SECONDS: Final = 10.0
"""How long a write that has to wait for the deletion of its trial's objects waits for it."""

_DELETES: Final = 4


class Trials:
    """The trials of one driver: each thing is tried by one write at a time."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, asyncio.Lock] = {}
        self._under_way = UnderWay()

    async def once(
        self,
        what: Hashable,
        is_known: Callable[[], bool],
        learn: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """Learn something unless it is known. A cancel is raised once the trial has ended.

        Args:
            what: Names it.
            is_known: Returns whether it is known by now.
            learn: Tries it. An error leaves it unknown.
        """
        async with self._locks.setdefault(what, asyncio.Lock()):
            if not is_known():
                await concluded(self._tried(learn), _CANCELLED_SECONDS)
        self._locks.pop(what, None)  # of no more use to those that wait for it, either

    async def _tried(self, learn: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with self._under_way.one():
            await learn()

    async def end(self) -> None:
        """Cancel the trials that are under way, and wait until their objects are deleted."""
        await self._under_way.end()


class Trial:
    """Objects that something is tried on. Leaving deletes them, each version of them.

    Args:
        plane: Sends the requests.
        bucket: Where they are made.
    """

    def __init__(self, plane: Plane, bucket: str) -> None:
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
            await finished(self._delete_all(), _CLEANUP_SECONDS)

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
        except UntoldError as untold:
            info = untold.info
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
        await for_each(self._stored, self._delete, limit=_DELETES)
        await for_each(self._doubtful, self._delete_whatever, limit=_DELETES)

    async def _delete(self, stored: tuple[str, str | None]) -> None:
        key, version_id = stored
        options = DeleteOptions(version_id=version_id)
        with suppress(TroveError):
            await patiently(lambda: self._plane.delete_object(self._bucket, key, options))

    async def _delete_whatever(self, key: str) -> None:
        """Delete what there is of a key, then what is left of it in a bucket that keeps versions."""
        await self._delete((key, None))
        with suppress(TroveError):
            page = await self._plane.list_versions(self._bucket, ListOptions(prefix=key))
            left = [(entry.key, entry.version_id) for entry in page.entries]
            await for_each(left, self._delete, limit=_DELETES)

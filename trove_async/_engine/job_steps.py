"""What jobs do with single objects: moves between backends, and encoding again in place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from trove_async.models import ObjectInfo
from trove_async.options import PutOptions

from .copy import CopyResult, is_encoded_as_today
from .copy_overrides import CopyOverrides
from .key_guard import MoveInterruptedError
from .locations import Location, located
from .move_checks import check_copy_writable, check_source_deletable, is_elsewhere
from .relocation import (
    Relocated,
    Relocation,
    RelocationRequest,
    RelocationResult,
    check_primary,
)
from .runtime import Runtime
from .upload import Progress

Head = Callable[[Location], Awaitable[ObjectInfo]]
Locate = Callable[[str, str, str], Awaitable[Location]]
Copy = Callable[
    [Location, Location, CopyOverrides, Progress | None, Head], Coroutine[Any, Any, CopyResult]
]


class JobSteps:
    """The steps of jobs, which the writes of users interrupt.

    Args:
        runtime: The state that all handles of the store share.
        locate: Returns the location of a bucket and key on a named backend.
        head: Returns the object at a location.
        copy: Copies an object between two locations.
    """

    def __init__(self, runtime: Runtime, locate: Locate, head: Head, copy: Copy) -> None:
        self._runtime = runtime
        self._location = locate
        self._head = head
        self._copy = copy

    async def relocate(
        self,
        bucket: str,
        key: str,
        *,
        source: str,
        target: str,
        size: int,
        exists: bool = False,
        replace: bool = False,
        keep_source: bool = False,
        delete_shadowed: bool = False,
        moved_before: str | None = None,
        dry_run: bool = False,
    ) -> RelocationResult:
        """Move or copy an object to another backend, for a job. See `RelocationRequest`.

        In a dry run, `moved_before` names a backend whose object will have been moved to the target by then.

        Raises:
            MoveInterruptedError: A user's write to the key is in progress, or has interrupted the move.
        """

        async def head(location: Location) -> ObjectInfo:
            info = await self._head(location)
            check_primary(location, info)
            return info

        async def work() -> RelocationResult:
            origin = await self._location(bucket, key, source)
            destination = await self._location(bucket, key, target)
            if not await is_elsewhere(origin, destination):
                return RelocationResult(Relocated.NOT_MOVED)
            check_copy_writable(origin, destination, moves=not keep_source)
            if not keep_source:
                await check_source_deletable(origin)
            earlier = None
            if moved_before is not None:
                earlier = await self._location(bucket, key, moved_before)
            request = RelocationRequest(
                source=origin,
                target=destination,
                size=size,
                exists=exists,
                replace=replace,
                keep_source=keep_source,
                delete_shadowed=delete_shadowed,
                moved_before=earlier,
                write_id=next(self._runtime.write_ids),
            )
            relocation = Relocation(
                request,
                lambda one, other, overrides: self._copy(one, other, overrides, None, head),
            )
            if dry_run:
                return await relocation.preview()
            try:
                with self._runtime.key_guard.moving((bucket, key)):
                    return await relocation.run()
            except MoveInterruptedError:
                if relocation.result is None:
                    raise
                return relocation.result  # the interruption came when it was complete
            finally:
                if self._runtime.placement is not None:
                    self._runtime.placement.moved(bucket, key)

        return await self._runtime.run("relocate", bucket, key, work)

    async def reencode(self, bucket: str, key: str, backend: str, *, dry_run: bool) -> int | None:
        """Encode an object again as a put would today, in place, for a job.

        Returns:
            The new stored size in bytes, or None if nothing was to be done. In a dry run, the present one.

        Raises:
            MoveInterruptedError: A user's write to the key is in progress, or has interrupted the job.
        """

        async def work() -> int | None:
            location = await self._location(bucket, key, backend)
            info = await self._head(location)
            with located(location):
                if await is_encoded_as_today(location, info, self._runtime.transforms):
                    return None
            if dry_run:
                return info.stored_size
            put = PutOptions(write_id=next(self._runtime.write_ids))
            with self._runtime.key_guard.moving((bucket, key)):
                overrides = CopyOverrides(put=put)
                copied = await self._copy(location, location, overrides, None, self._head)
            return None if copied.stored is copied.source else copied.size

        return await self._runtime.run("reencode", bucket, key, work)

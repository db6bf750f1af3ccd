"""The operations of a store that looks for an object on all its backends: ``locate="anywhere"``.

The object that a get returns is *visible*: that of the routed backend if there is one, else that of the
first other backend, in the order of the store. Objects of the same key on later backends are *hidden*.

Puts, copies and moves store an object on the routed backend. A deletion deletes the hidden objects first, and
the visible one last, so that no hidden object becomes visible in between.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, TypeVar

from trove_async.driver import Capabilities
from trove_async.errors import (
    BucketNotFoundError,
    InvalidNameError,
    NotSupportedError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
    TroveError,
)
from trove_async.models import ObjectInfo, RouteDecision
from trove_async.options import DeleteOptions, GetOptions, PresignOptions, PutOptions
from trove_async.router import Router

from . import backend_checks
from .backends import Backend
from .copy import CopyResult
from .copy_overrides import CopyOverrides
from .locations import Location, ObjectAddress, add_operation
from .move_checks import check_copy_writable, check_source_deletable
from .opening import Decode, OpenBody
from .operations import Operations, Work
from .placement import Placement
from .runtime import Runtime
from .search import MISSING, Search
from .sources import Source, source_of
from .upload import Progress

T = TypeVar("T")

_MAX_ATTEMPTS: Final = 3
"""Maximum number of attempts of a copy whose source is moved, or whose destination is created, meanwhile."""


class OperationsAnywhere(Operations):
    """The operations of a handle that looks for objects on all backends.

    Args:
        runtime: The state that all handles of the store share.
        router: Resolves keys to backends.
        placement: The moves, deletions and searches of the store.
    """

    def __init__(self, runtime: Runtime, router: Router, placement: Placement) -> None:
        super().__init__(runtime, router)
        self._placement = placement
        self._search = Search(lambda: self.backends, self._resolve, self._bucket_exists, placement)
        self._queries.search = self._search

    # -- reading: open, read, get_ranges and head ----------------------------------------------------

    async def _run_on_object(
        self,
        operation: str,
        bucket: str,
        key: str,
        work: Work[T],
        version_id: str | None = None,
    ) -> T:
        """Run an operation on an object that must exist, on the first backend that has it."""
        return await self._runtime.run(
            operation, bucket, key, lambda: self._search.run(bucket, key, work, version_id)
        )

    async def open(
        self,
        bucket: str,
        key: str,
        options: GetOptions,
        *,
        decode: Decode,
        backend: Backend | None = None,
    ) -> OpenBody:
        """Open a body of the first backend that has the object. See `Operations.open`."""
        if backend is not None:
            return await super().open(bucket, key, options, decode=decode, backend=backend)
        return await self._search_for(
            "get",
            bucket,
            key,
            lambda found: self.open(bucket, key, options, decode=decode, backend=found),
            options.version_id,
        )

    async def read(
        self,
        bucket: str,
        key: str,
        options: GetOptions,
        limit: int | None,
        *,
        decode: bool,
        backend: Backend | None = None,
    ) -> bytes:
        """Return a body of the first backend that has the object. See `Operations.read`."""
        if backend is not None:
            return await super().read(bucket, key, options, limit, decode=decode, backend=backend)
        return await self._search_for(
            "read",
            bucket,
            key,
            lambda found: self.read(bucket, key, options, limit, decode=decode, backend=found),
            options.version_id,
        )

    async def head(
        self,
        bucket: str,
        key: str,
        version_id: str | None = None,
        backend: Backend | None = None,
    ) -> ObjectInfo:
        """Return the metadata of an object of the first backend that has it. See `Operations.head`."""
        if backend is not None:
            return await super().head(bucket, key, version_id, backend)
        return await self._search_for(
            "head",
            bucket,
            key,
            lambda found: self.head(bucket, key, version_id, found),
            version_id,
        )

    async def _search_for(
        self,
        operation: str,
        bucket: str,
        key: str,
        work: Callable[[Backend], Awaitable[T]],
        version_id: str | None,
    ) -> T:
        try:
            return await self._search.run(bucket, key, work, version_id)
        except TroveError as error:
            add_operation(error, operation, bucket, key)
            raise

    async def _signer(self, method: str, bucket: str, key: str, options: PresignOptions) -> Backend:
        if method == "GET" and any(backend.capabilities.presign for backend in self.backends):
            try:
                return (await self._search.find(bucket, key, options.version_id))[0]
            except MISSING:
                pass  # there may be an object when the URL is used
        return await self._resolve(bucket, key)

    async def explain(self, bucket: str, key: str) -> RouteDecision:
        """Return the backend of a key, and why. See `Operations.explain`."""
        decision = await super().explain(bucket, key)
        others = ", ".join(repr(name) for name in self._runtime.names if name != decision.backend)
        if not others:
            return decision
        reason = f"{decision.reason} An object that is not there is looked for on {others}."
        return replace(decision, reason=reason)

    # -- writing -------------------------------------------------------------------------------------

    async def put(
        self,
        bucket: str,
        key: str,
        source: Source,
        options: PutOptions,
        progress: Progress | None,
        *,
        type_guessed: bool = False,
    ) -> ObjectInfo:
        """Store a body on the routed backend. See `Operations.put`."""
        try:
            return await super().put(
                bucket, key, source, options, progress, type_guessed=type_guessed
            )
        except ObjectExistsError as error:
            if options.if_match is None:
                raise
            raise _created_meanwhile(error) from error

    async def put_memory(
        self,
        bucket: str,
        key: str,
        memory: memoryview,
        options: PutOptions,
        *,
        type_guessed: bool = False,
    ) -> ObjectInfo:
        """Store a body that is in memory, as `put` does."""
        source = source_of(memory)
        return await self.put(bucket, key, source, options, None, type_guessed=type_guessed)

    async def _conditions(
        self, target: Location, options: PutOptions, origin: Location | None = None
    ) -> PutOptions:
        """Return options whose condition the target's backend can evaluate, after asking the others.

        ``if_none_match="*"`` requires that no backend has the object. An `if_match` of an object on a
        different backend requires that the target's backend has none.

        Args:
            target: The destination.
            options: The options, with a condition.
            origin: The source of a copy, which does not count as an existing object.
        """
        bucket, key = target.bucket, target.key
        if options.if_none_match is not None:
            for backend in self._search.others(target.backend, bucket, key):
                other = Location(backend=backend, bucket=bucket, key=key)
                if origin is not None and origin.is_same(other):
                    continue
                if await self._search.has(backend, bucket, key):
                    raise ObjectExistsError("the object already exists", backend=backend.name)
            return options
        try:
            backend, visible = await self._search.find(bucket, key)
        except MISSING:
            return options  # the target's backend raises PreconditionFailedError
        if backend is target.backend:
            return options
        if visible.etag != options.if_match:
            raise PreconditionFailedError(
                "if_match: the current version has a different etag", backend=backend.name
            )
        if not target.backend.capabilities.put_if_none_match:
            raise NotSupportedError(
                f"the object is on backend {backend.name!r}, and {target.backend.driver.name} cannot"
                " create it on a condition: move it first",
                backend=target.backend.name,
            )
        return replace(options, if_match=None, if_none_match="*")

    # -- deleting ------------------------------------------------------------------------------------

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete an object on all backends, or a version on the backend that has it."""

        async def work() -> None:
            if options.version_id is not None:
                await self._delete_version(bucket, key, options)
                return
            order = await self._search.order(bucket, key)
            if options.if_match is not None:
                order = await self._from_visible(bucket, key, options, order)
            order = await self._deletable(bucket, key, order)
            await self._delete_in_order(bucket, key, order, options)

        exclusive = self._placement.exclusive(bucket, key, work)
        try:
            await self._runtime.key_guard.write([(bucket, key)], exclusive)
        except TroveError as error:
            add_operation(error, "delete", bucket, key)
            raise

    async def _from_visible(
        self, bucket: str, key: str, options: DeleteOptions, order: Sequence[Backend]
    ) -> Sequence[Backend]:
        """Return the backends from that of the visible object on, if the condition holds."""
        try:
            backend, visible = await self._search.find(bucket, key)
        except ObjectNotFoundError as error:
            raise PreconditionFailedError(
                "the object does not exist, so if_match does not hold", backend=order[0].name
            ) from error
        backend_checks.check_delete(backend, options)
        if visible.etag != options.if_match:
            raise PreconditionFailedError(
                "if_match: the current version has a different etag", backend=backend.name
            )
        return order[order.index(backend) :]

    async def _deletable(
        self, bucket: str, key: str, backends: Sequence[Backend]
    ) -> Sequence[Backend]:
        """Return the backends that are not read-only.

        Raises:
            NotSupportedError: A read-only backend has the object. Nothing was deleted.
        """
        for backend in backends:
            if not backend.capabilities.writable and await self._search.has(backend, bucket, key):
                backend_checks.check_writable(backend, "delete an object")
            if backend.capabilities.writable and len(backends) > 1:
                await check_source_deletable(Location(backend=backend, bucket=bucket, key=key))
        return [backend for backend in backends if backend.capabilities.writable]

    async def _delete_in_order(
        self, bucket: str, key: str, order: Sequence[Backend], options: DeleteOptions
    ) -> None:
        """Delete the objects of a key, so that none that is hidden becomes visible.

        If one of them cannot be deleted, those that hide it are kept.
        """
        if not order:
            return  # no backend is writable, and none has the object
        visible, *hidden = order
        missing = await self._delete_hidden(bucket, key, hidden)
        try:
            await visible.driver.delete(bucket, key, options)
        except BucketNotFoundError:
            if missing == len(hidden) and not await self._bucket_exists(bucket):
                raise

    async def _delete_hidden(self, bucket: str, key: str, backends: Sequence[Backend]) -> int:
        """Delete an object on all backends, the last one first. Return how many of them lack the bucket.

        The routed backend may lack the object. Then the first of `backends` that has it is the visible one, so
        they are deleted one after another.

        Raises:
            TroveError: A backend failed. The objects on the backends before it were not deleted.
        """
        missing = 0
        for backend in reversed(backends):
            options = DeleteOptions(write_id=next(self._runtime.write_ids))
            try:
                await backend.driver.delete(bucket, key, options)
            except BucketNotFoundError:
                missing += 1
            except InvalidNameError:
                continue  # it cannot have an object of this name
            except TroveError as error:
                error.located(backend=backend.name)
                raise
        return missing

    async def _delete_version(self, bucket: str, key: str, options: DeleteOptions) -> None:
        order = await self._search.order(bucket, key)
        versioned = [backend for backend in order if backend.capabilities.versions]
        holder = (versioned or order)[0]
        if len(versioned) > 1:
            with suppress(*MISSING):  # it is a delete marker, or does not exist
                holder, _ = await self._search.find(bucket, key, options.version_id)
        backend_checks.check_delete(holder, options)
        await holder.driver.delete(bucket, key, options)

    async def _holders(self, bucket: str, key: str) -> Sequence[Backend]:
        order = await self._search.order(bucket, key)
        visible, *hidden = await self._deletable(bucket, key, order) or order[:1]
        return [*hidden, visible]

    # -- copying and moving --------------------------------------------------------------------------

    async def _copied(
        self,
        source: ObjectAddress,
        target: ObjectAddress,
        overrides: CopyOverrides,
        progress: Progress | None,
        *,
        moves: bool,
    ) -> tuple[Location, Location, CopyResult]:
        """Copy the visible source. Look for it again if it is moved meanwhile."""
        destination = await self._location(*target)
        attempt = 1
        while True:
            origin, info = await self._found(source)
            check_copy_writable(origin, destination, moves=moves)
            if moves and not origin.is_same(destination):
                await check_source_deletable(origin)
            if origin.version_id is not None and origin.is_same(destination):
                origin = await self._without_latest_id(origin)
            placed = await self._placed(source, origin, info, destination, overrides)
            head = self._head if info is None else _returning(info)
            try:
                copied = await self._copy(origin, destination, placed, progress, head)
            except ObjectExistsError as error:
                if overrides.put.if_match is not None:
                    raise _created_meanwhile(error) from error
                if overrides.put.if_none_match is not None or attempt == _MAX_ATTEMPTS:
                    raise
            except (ObjectNotFoundError, ObjectChangedError):
                # Nothing was stored. A move back and forth makes a new version of the same object.
                if source.backend is not None or attempt == _MAX_ATTEMPTS:
                    raise
            else:
                return origin, destination, copied
            attempt += 1

    async def _found(self, source: ObjectAddress) -> tuple[Location, ObjectInfo | None]:
        """Return the location of a source, and the source unless its backend was passed."""
        if source.backend is not None:
            return await self._location(*source), None
        bucket, key, _, version_id = source
        backend, info = await self._search.find(bucket, key, version_id)
        return Location(backend=backend, bucket=bucket, key=key, version_id=version_id), info

    async def _placed(
        self,
        source: ObjectAddress,
        origin: Location,
        info: ObjectInfo | None,
        target: Location,
        overrides: CopyOverrides,
    ) -> CopyOverrides:
        """Return the overrides, with conditions that take all backends into account.

        A copy of an object to its routed backend must not replace an object that is put there
        meanwhile, which is newer.
        """
        put = overrides.put
        if put.conditional:
            put = await self._conditions(target, put, origin)
        elif (
            info is not None
            and source.has_key_of(target)
            and source.version_id is None
            and not origin.is_same(target)
            and _can_create(target.backend.capabilities, info.stored_size)
        ):
            put = replace(put, if_none_match="*")
        return overrides if put is overrides.put else replace(overrides, put=put)

    async def _remove_source(
        self, source: ObjectAddress, origin: Location, target: Location, copied: CopyResult
    ) -> None:
        """Delete the source of a move, after the objects that it hides."""
        if source.backend is source.version_id is None and not source.has_key_of(target):
            order = await self._search.order(source.bucket, source.key)
            hidden = [
                backend
                for backend in order[order.index(origin.backend) + 1 :]
                if not _is_at(replace(origin, backend=backend), target)
            ]
            deletable = await self._deletable(source.bucket, source.key, hidden)
            await self._delete_hidden(source.bucket, source.key, deletable)
        await super()._remove_source(source, origin, target, copied)


def _is_at(location: Location, target: Location) -> bool:
    """Return whether a deletion of the location may delete what was stored at the target."""
    return location.is_same(target) or location.is_written_by(target)


def _can_create(capabilities: Capabilities, size: int) -> bool:
    """Return whether a backend can store an object of this size only if it does not exist."""
    return capabilities.put_if_none_match and (
        capabilities.commit_conditions or size <= capabilities.max_put
    )


def _returning(info: ObjectInfo) -> Callable[[Location], Awaitable[ObjectInfo]]:
    """Return a function that returns an object that was headed already."""

    async def head(_: Location) -> ObjectInfo:
        return info

    return head


def _created_meanwhile(error: ObjectExistsError) -> PreconditionFailedError:
    return PreconditionFailedError(
        "if_match: a different version was stored meanwhile", backend=error.backend
    )

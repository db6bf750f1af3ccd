"""Moves or copies an object to the same key of another backend, for jobs, while users read and write.

Unlike `move`, the object must not change for its readers: they find the same content at every moment. A store
that finds objects on any backend reads the routed one first.

1. *Copy.* The destination must not have an object (``if_none_match``), or must have a known one that the routes
   hide (``if_match``). So a newer object that a user puts there is never replaced.
2. *Prove* that the destination has the copied bytes, as a move does.
3. *Delete the source*, if it is still the version that was copied. If it was replaced or deleted meanwhile, the
   copy is deleted instead: it would bring back a deleted object, or hide a newer one.

From the second step on, a cancel waits until the third one is done. A cancel before that deletes the copy.

Several runs of jobs, in one process or in several, may find the same object. A run that finds a copy which
another run has made, and which may be still in progress, *adopts* it before it deletes the source: it stores
the copy again with its own write_id, then HEADs the source again. A run whose source is gone deletes its copy
only if that still has the run's own write_id. So of two runs, at most one deletes:

- The adopting run has deleted the source: the other one finds a write_id that is not its own.
- Two runs in opposite directions adopt each other's source: at least one of them finds its source changed.
- A run in the opposite direction does not delete a copy that another store has made in the last half hour, if
  the etags of the services may be the same after a copy: that store may be about to delete the copy's source.

Within this process, `key_guard` keeps users' writes to the key apart from all this. Between processes, each
step is conditional where the backends support it. These windows remain:

- A backend that cannot delete on a condition (`Capabilities.delete_if_match`): a put by another process
  between the HEAD of the source and its deletion is lost. The window is one request long.
- A deletion by another process in that window, or, on a service whose lost responses cannot be told apart,
  during the deletion itself: the copy stays, so the object comes back. The same happens if a deletion on
  several backends reaches the destination before the copy is stored, and the source after it was deleted here
  (`jobs.tier`), or if a user deletes an object that two runs process at once.
- A deletion by another process during the copy: the object is readable again until the copy is removed.
- A destination that cannot put on a condition: another process's put between the HEAD and the copy is lost. An
  object that another process deletes during the copy comes back: the copy may have replaced that of another
  run, which has deleted the source, so it is not removed.
- A destination that cannot delete on a condition, or has equal etags for equal bytes: another process's put
  between the HEAD and the deletion of a copy that is removed is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from trove_async._concurrency import CLEANUP_SECONDS, await_outcome, run_cleanup
from trove_async._version_identity import have_same_bytes, is_same
from trove_async.errors import (
    AlreadyExistsError,
    NotFoundError,
    ObjectChangedError,
    ObjectNotFoundError,
    PreconditionFailedError,
    TroveError,
    UnavailableError,
)
from trove_async.layers._copies.members import untag
from trove_async.models import MiB, ObjectInfo
from trove_async.options import DeleteOptions, PutOptions, without_mark

from .copy import CopyResult
from .copy_marks import is_copy_in_progress, is_copy_of, marked
from .copy_overrides import CopyOverrides
from .locations import Location, located
from .move import are_distinct, check_not_the_copy, check_version, head_copy, is_proved

_FINISH_SECONDS: Final = 20.0
"""Seconds that the steps after the copy may take. They are a few small requests with their retries. A user's
write of the key waits for them."""

_SMALL_COPY: Final = 8 * MiB
"""Maximum size of an object of which a cancel waits for the end of the copy, instead of interrupting it."""


_HEADERS: Final = (
    "content_type",
    "cache_control",
    "content_disposition",
    "content_encoding",
    "content_language",
)


class Relocated(Enum):
    """The result of a relocation.

    Attributes:
        MOVED: The destination has the object, and the source was deleted if that was requested.
        NOT_MOVED: Source and destination are two names of one place. Nothing was changed.
        SAME: The destination already had the same bytes, and the source was deleted if requested.
        SHADOWED: The destination has a different object, and the source was deleted as requested.
        CONFLICT: The destination has a different object, or records no write_id, so that a copy by another
            run could not be recognised. Nothing was changed.
        GONE: There was no source.
        CHANGED: The source was replaced or deleted meanwhile, or the destination was, or another run of a job
            processes the object. This run has left no copy.
    """

    MOVED = "moved"
    NOT_MOVED = "not moved"
    SAME = "same"
    SHADOWED = "shadowed"
    CONFLICT = "conflict"
    GONE = "gone"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class RelocationRequest:
    """What to relocate.

    Attributes:
        source: The present location.
        target: The same bucket and key on another backend.
        size: The stored size of the source as far as is known. A cancel waits for the outcome of a small
            copy, which is one request: such a request may succeed even after it was cancelled.
        exists: Whether the destination is known to have an object, which is compared before the copy.
        replace: Whether to replace a different object at the destination, or one with different attributes.
            Pass it only if the store hides that object.
        keep_source: Whether to leave the source.
        delete_shadowed: Whether to delete the source if the destination has a different object. Pass it only
            if the store hides the source in that case.
        moved_before: In a preview, the location of an object that will have been moved to the target by then.
        write_id: The write_id of the copy, without the mark of its source (`copy_marks`).
    """

    source: Location
    target: Location
    size: int
    exists: bool = False
    replace: bool = False
    keep_source: bool = False
    delete_shadowed: bool = False
    moved_before: Location | None = None
    write_id: str


Copy = Callable[[Location, Location, CopyOverrides], Coroutine[Any, Any, CopyResult]]


@dataclass(frozen=True, slots=True)
class RelocationResult:
    """The result, and the number of bytes that were copied."""

    result: Relocated
    bytes: int = 0


class Relocation:
    """One relocation.

    Args:
        request: What to relocate.
        copy: Copies an object between two locations.

    Attributes:
        result: The result, once it is certain. It may be set although `run` was cancelled.
    """

    def __init__(self, request: RelocationRequest, copy: Copy) -> None:
        self._request = request
        self._source = request.source
        self._target = request.target
        self._copy = copy
        self._is_new = False  # whether the copy was made on the condition that there was no object
        self._may_overwrite = False  # whether the copy was made without a condition
        self.result: RelocationResult | None = None

    async def run(self) -> RelocationResult:
        """Relocate the object. After an error or a cancel, its readers find the same content as before.

        Raises:
            ObjectChangedError: The copy could not be verified, or was replaced. Both objects stay.
            TroveError: As `Trove.copy`.
        """
        # 1. Compare an object that the destination already has.
        existing = await self._existing()
        if existing is not None:
            settled = await self._compare(existing)
            if settled is not None:
                return settled
        # 2. Copy.
        copy = self._copy(self._source, self._target, self._overrides(existing))
        try:
            copied = await self._awaited(copy)
        except ObjectNotFoundError:
            return self._end(Relocated.GONE)
        except AlreadyExistsError:
            # Another writer was faster. It may have deleted its object again.
            settled = await self._compare(await self._head(self._target))
            return settled or self._end(Relocated.CHANGED)
        except PreconditionFailedError:
            return self._end(Relocated.CHANGED)  # the source, or a destination to be replaced
        except BaseException as error:
            if not isinstance(error, TroveError) or error.maybe_done:
                with suppress(TroveError):  # both objects stay, with the same bytes
                    await run_cleanup(self._undo_unknown(), _FINISH_SECONDS)
            raise
        # 3. Prove the copy and delete the source. From here on, a cancel waits.
        return await run_cleanup(self._finish(copied), _FINISH_SECONDS)

    def _end(self, result: Relocated, size: int = 0) -> RelocationResult:
        self.result = RelocationResult(result, size)
        return self.result

    # -- before the copy -----------------------------------------------------------------------------

    async def _existing(self) -> ObjectInfo | None:
        """Return the destination's object. None: there is none, or the copy fails if there is one."""
        if self._request.exists or self._request.replace or not self._is_conditional:
            return await self._head(self._target)
        return None

    @property
    def _is_conditional(self) -> bool:
        """Whether the destination's backend can store an object of this size on a condition."""
        capabilities = self._target.backend.capabilities
        return capabilities.put_if_none_match and (
            capabilities.commit_conditions or self._request.size <= capabilities.max_put
        )

    def _overrides(self, existing: ObjectInfo | None) -> CopyOverrides:
        capabilities = self._target.backend.capabilities
        put = PutOptions(write_id=self._request.write_id)
        if existing is None:
            if self._is_conditional:
                self._is_new = True
                put = replace(put, if_none_match="*")
        elif self._is_conditional and capabilities.put_if_match and existing.etag is not None:
            put = replace(put, if_match=existing.etag)
        self._may_overwrite = not put.conditional
        return CopyOverrides(put=put, marks_source=True)

    async def _awaited(self, copy: Coroutine[Any, Any, CopyResult]) -> CopyResult:
        if self._request.size <= _SMALL_COPY:
            return await await_outcome(copy, CLEANUP_SECONDS)
        return await copy

    async def _compare(self, existing: ObjectInfo | None) -> RelocationResult | None:
        """Settle the case of an object at the destination. Return None if it must be copied."""
        if existing is None:
            return None  # deleted meanwhile
        source = await self._head(self._source)
        if source is None:
            return self._end(Relocated.GONE)
        if self._is_same(source, existing):
            keep = self._request.keep_source
            return self._end(Relocated.SAME if keep else await self._adopt(source, existing))
        if self._request.replace:
            return None
        if not self._request.delete_shadowed:
            return self._end(Relocated.CONFLICT)
        return self._end(await self._remove_shadowed(source, existing))

    async def _remove_shadowed(self, source: ObjectInfo, existing: ObjectInfo) -> Relocated:
        """Delete the source, which a different object hides."""
        if self._is_in_progress(existing):
            return Relocated.CHANGED  # another run may be about to delete it
        await self._check_not_one_object()
        is_deleted = await run_cleanup(self._delete_leftover(source), _FINISH_SECONDS)
        return Relocated.SHADOWED if is_deleted else Relocated.CHANGED

    def _is_same(self, source: ObjectInfo, existing: ObjectInfo) -> bool:
        """Return whether the destination has the object already.

        An object that users read keeps its attributes. A hidden one is deleted with them.
        """
        if is_copy_of(existing, source):
            return True
        is_visible = self._request.replace
        return have_same_bytes(source, existing) and (
            not is_visible or self._has_attributes_of(source, existing)
        )

    def _has_attributes_of(self, source: ObjectInfo, existing: ObjectInfo) -> bool:
        """Return whether the destination has the source's attributes, as far as it can store them."""
        capabilities = self._target.backend.capabilities
        names = [
            *(["metadata"] if capabilities.metadata else []),
            *(["tags"] if capabilities.tags else []),
            *(_HEADERS if capabilities.headers else []),
            *(["expires"] if capabilities.expires else []),
        ]
        return all(getattr(source, name) == getattr(existing, name) for name in names)

    async def preview(self) -> RelocationResult:
        """Return what `run` would do, by reading requests alone."""
        size = self._request.size
        existing = await self._head(self._request.moved_before or self._target)
        if existing is None:
            return RelocationResult(Relocated.MOVED, size)
        source = await self._head(self._source)
        if source is None:
            return RelocationResult(Relocated.GONE)
        if self._is_same(source, existing):
            adopts = self._request.keep_source or self._can_adopt(source)
            return RelocationResult(Relocated.SAME if adopts else Relocated.CONFLICT)
        if self._request.replace:
            return RelocationResult(Relocated.MOVED, size)
        if self._request.delete_shadowed and self._is_in_progress(existing):
            return RelocationResult(Relocated.CHANGED)
        shadowed = self._request.delete_shadowed
        return RelocationResult(Relocated.SHADOWED if shadowed else Relocated.CONFLICT)

    # -- a copy that another run has made --------------------------------------------------------------

    async def _adopt(self, source: ObjectInfo, existing: ObjectInfo) -> Relocated:
        """Make the destination's object this run's own, and delete the source if it is still `source`."""
        if not self._can_adopt(source):
            return Relocated.CONFLICT
        await self._check_not_one_object()
        # 1. Store the object again with this run's write_id, unless it is replaced meanwhile.
        target = self._target.backend.capabilities
        put = PutOptions(write_id=marked(self._request.write_id, source))
        in_one_request = existing.stored_size <= target.max_put
        is_conditional = target.put_if_match and (target.commit_conditions or in_one_request)
        if is_conditional and existing.etag is not None:
            put = replace(put, if_match=existing.etag)
        copy = self._copy(self._target, self._target, CopyOverrides(put=put, rewrite=True))
        try:
            adopted = await self._awaited(copy)
        except (NotFoundError, PreconditionFailedError, ObjectChangedError):
            return Relocated.CHANGED
        if not _is_version(existing, adopted.source):
            return Relocated.CHANGED
        # 2. Delete the source. The HEAD follows the put: see the top of this module.
        is_deleted = await run_cleanup(self._delete_leftover(source), _FINISH_SECONDS)
        return Relocated.SAME if is_deleted else Relocated.CHANGED

    def _can_adopt(self, source: ObjectInfo) -> bool:
        """Return whether this run may delete the source of a copy that it has found."""
        target = self._target.backend.capabilities
        if not target.metadata:
            return False  # other runs could not find out
        # A run in the opposite direction may be about to delete the destination's object. Its deletion fails
        # after this run has stored that object again, if each put has an etag of its own.
        are_etags_unique = target.embedded and target.delete_if_match
        return are_etags_unique or not self._is_in_progress(source)

    def _is_in_progress(self, info: ObjectInfo) -> bool:
        """Return whether another run may be about to delete the source of this copy, or the copy itself."""
        return is_copy_in_progress(info, self._request.write_id)

    async def _delete_leftover(self, source: ObjectInfo) -> bool:
        """Delete the source, which the destination's object replaces. Return False if it has changed."""
        current = await self._head(self._source)
        if current is None or not _is_version(source, current):
            return False
        leftover = CopyResult(
            source=source, stored=source, size=source.stored_size, checksums={}, write_id=None
        )
        return await self._delete_source(leftover)

    async def _check_not_one_object(self) -> None:
        """Raise ObjectChangedError if both locations may be names of one object.

        Jobs relocate between backends whose places differ, but two drivers may reach one service by
        two addresses. Then both objects have the same write_id, or the same etag and date.
        """
        if are_distinct(self._source, self._target):
            return
        source, target = await self._head(self._source), await self._head(self._target)
        if source is None or target is None:
            return
        if source.write_id is not None or target.write_id is not None:
            is_one = source.write_id == target.write_id
        else:
            is_one = source.etag == target.etag and source.last_modified == target.last_modified
        if is_one:
            raise ObjectChangedError(
                "source and destination may be one object under two names: nothing was deleted"
            )

    # -- after the copy ------------------------------------------------------------------------------

    async def _finish(self, copied: CopyResult) -> RelocationResult:
        # 1. Prove that the destination has the copied bytes.
        destination = None
        if not is_proved(self._source, self._target, copied):
            with located(self._target):
                destination = await head_copy(self._target, copied)
        # 2. Check that the source is the version that was copied, and not the copy itself.
        capabilities = self._source.backend.capabilities
        conditional = capabilities.delete_if_match and copied.source.etag is not None
        is_settled = capabilities.embedded or capabilities.settles_doubt
        # A put on the condition that there is no object would have failed on the source itself.
        distinct = self._is_new or are_distinct(self._source, self._target)
        if self._request.keep_source or not (conditional and is_settled and distinct):
            current = await self._head(self._source)
            if current is None or not _is_version(copied.source, current):
                if current is not None and current.write_id == copied.write_id:
                    check_version(self._source, self._target, copied, current)  # raises
                await self._undo(copied, is_gone=current is None)
                return self._end(Relocated.CHANGED)
            if not distinct:
                await check_not_the_copy(self._source, self._target, copied, current, destination)
        # 3. Delete the source.
        if not self._request.keep_source and not await self._delete_source(copied):
            current = await self._head(self._source)
            # Without a settled outcome, the deletion may be our own, whose response was lost.
            if is_settled or current is not None:
                await self._undo(copied, is_gone=current is None)
                return self._end(Relocated.CHANGED)
        return self._end(Relocated.MOVED, copied.size)

    async def _delete_source(self, copied: CopyResult) -> bool:
        """Delete the version that was copied. Return False if the source is not that version any more."""
        conditional = (
            self._source.backend.capabilities.delete_if_match and copied.source.etag is not None
        )
        options = DeleteOptions(if_match=copied.source.etag if conditional else None)
        with located(self._source):
            try:
                await self._source.backend.driver.delete(
                    self._source.bucket, self._source.key, options
                )
            except PreconditionFailedError:
                return False
        return True

    async def _undo(self, copied: CopyResult, *, is_gone: bool) -> None:
        """Delete the copy, unless it was replaced, or adopted by another run.

        Args:
            copied: The copy.
            is_gone: Whether there is no source any more.
        """
        if is_gone and self._may_overwrite:
            return  # the copy may have replaced that of another run, which has deleted the source
        await self._delete_copy(copied.stored.etag)

    async def _undo_unknown(self) -> None:
        """Delete the copy if the destination has it: its put was cancelled, or its response was lost."""
        if self._target.backend.capabilities.metadata:
            await self._delete_copy(None)

    async def _delete_copy(self, etag: str | None) -> None:
        target = self._target
        conditional = target.backend.capabilities.delete_if_match
        if target.backend.capabilities.metadata or not conditional or etag is None:
            current = await self._head(target)
            if current is None or not self._is_own(current):
                return
            etag = current.etag
        options = DeleteOptions(if_match=etag if conditional else None)
        try:
            with located(target):
                await target.backend.driver.delete(target.bucket, target.key, options)
        except PreconditionFailedError:
            return  # replaced or deleted by another writer

    def _is_own(self, info: ObjectInfo) -> bool:
        """Return whether this run has stored an object."""
        write_id = info.write_id
        return write_id is not None and without_mark(write_id) == self._request.write_id

    async def _head(self, location: Location) -> ObjectInfo | None:
        try:
            with located(location):
                info = await location.backend.driver.head(location.bucket, location.key)
        except NotFoundError:
            return None
        check_primary(location, info)
        return info


def check_primary(location: Location, info: ObjectInfo) -> None:
    """Raise UnavailableError if a replica has answered for its primary: its object may be an older one."""
    etag = info.etag
    if location.backend.capabilities.replicated and etag is not None and untag(etag)[1] != etag:
        error = UnavailableError(
            "the primary is not available, and a replica's object may be older: nothing was moved"
        )
        error.located(backend=location.backend.name, bucket=location.bucket, key=location.key)
        raise error


def _is_version(first: ObjectInfo, later: ObjectInfo) -> bool:
    """Return whether two responses describe one version, also if services have equal etags of equal bytes."""
    return is_same(first, later) and first.write_id == later.write_id

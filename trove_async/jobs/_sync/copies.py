"""From a bucket to a bucket."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from anyio.abc import TaskGroup

from trove_async.bucket import Bucket
from trove_async.errors import (
    ConfigError,
    NotFoundError,
    ObjectChangedError,
    ObjectNotFoundError,
)
from trove_async.jobs._report import Outcome

from . import rules
from .buckets import delete_objects, kept_headers, store_of
from .digests import objects_are_equal
from .direction import GONE, VANISHED, Deletable
from .entries import NANOSECONDS, ObjectEntry, nanoseconds
from .rules import Comparison, Verdict

_ATTEMPTS: Final = 3
"""How often an object is copied that is replaced while it is copied."""


class Copy:
    """Copies objects: on the server where the engine does so, otherwise through this process.

    Args:
        source: The source's bucket.
        target: The target's bucket.
        target_prefix: The start of the target's keys.
        comparison: How objects are compared.
    """

    action: Final = "copy"

    def __init__(
        self, source: Bucket, target: Bucket, target_prefix: str, comparison: Comparison
    ) -> None:
        self._source = source
        self._target = target
        self._prefix = target_prefix
        self._comparison = comparison
        self._is_distinct = False  # proved before the first deletion
        self._one_store = store_of(source)._core is store_of(target)._core  # noqa: SLF001 - jobs are part of the library

    def start(self, group: TaskGroup) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def verdict(self, source: ObjectEntry, target: ObjectEntry | None) -> Verdict:
        """Compare two objects. See `Direction.verdict`."""
        if target is None:
            return Verdict.CHANGED
        return rules.copy_verdict(source, target, self._comparison)

    async def is_same(self, source: ObjectEntry, target: ObjectEntry) -> bool:
        """Compare the contents. See `Direction.is_same`."""
        if self._comparison == "checksum":
            with suppress(*GONE):
                return await objects_are_equal(self._source, source, self._target, target)
        return False

    async def transfer(self, source: ObjectEntry, _target: ObjectEntry | None, /) -> Outcome:
        """Copy an object. See `Direction.transfer`."""
        # A source that is replaced during the copy may be older than the copy, and the next sync would not
        # see it. So the source is headed when it is copied.
        copied = (source.etag, source.modified_ns)
        for _ in range(_ATTEMPTS):
            try:
                size, written_as = await self._copy(source)
                current = await self._source.head(source.full_key)
            except ObjectNotFoundError:
                return VANISHED
            if written_as is not None and current.write_id == written_as:
                raise ConfigError("source and target are one object under two addresses")
            version = (current.etag, nanoseconds(current.last_modified))
            if _are_equal(version, copied):
                return Outcome(result="changed", bytes=size)
            copied = version
        raise ObjectChangedError("the source was replaced while it was copied: sync again")

    async def _copy(self, source: ObjectEntry) -> tuple[int, str | None]:
        """Copy the latest version. Return its size and, between two stores, the write id of the copy."""
        key = self._prefix + source.key
        if self._one_store:
            info = await store_of(self._target).copy(
                self._source.name,
                source.full_key,
                self._target.name,
                key,
                source_backend=source.backend,
            )
            return info.size, None
        # The response to a get has no tags.
        info = await self._source.head(source.full_key)
        async with self._source.get(source.full_key) as reader:
            stored = await self._target.put(
                key,
                reader,
                size=reader.info.size,
                **kept_headers(info),
            )
        return stored.size, stored.write_id

    def deletable(self, target: ObjectEntry) -> Deletable:
        """Return the object. See `Direction.deletable`."""
        return Deletable(target.key)

    async def delete(self, keys: Sequence[str]) -> Sequence[Exception | None]:
        """Delete objects. See `Direction.delete`."""
        if not self._one_store and not self._is_distinct:
            await self._check_distinct(self._prefix + keys[0])
            self._is_distinct = True
        return await delete_objects(self._target, self._prefix, keys)

    async def _check_distinct(self, key: str) -> None:
        """Raise ConfigError if the target's bucket is that of the source, whose objects would be deleted.

        A service may have several addresses, so the places do not show it. But then, an object of the target is
        also one of the source's store.
        """
        try:
            theirs = await self._target.head(key)
            mine = await self._source.head(key)
        except NotFoundError:
            return
        version = (mine.etag, mine.size, mine.last_modified, mine.write_id)
        if version == (theirs.etag, theirs.size, theirs.last_modified, theirs.write_id):
            raise ConfigError(
                "source and target overlap: they are folders of one bucket under two addresses; nothing was deleted"
            )


def _are_equal(left: tuple[str | None, int], right: tuple[str | None, int]) -> bool:
    """Return whether two etags are equal, or two times if an etag is missing."""
    if left[0] is not None and right[0] is not None:
        return left[0] == right[0]
    return left[1] // NANOSECONDS == right[1] // NANOSECONDS

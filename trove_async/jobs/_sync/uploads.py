"""From a directory to a bucket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress
from typing import Final

from anyio.abc import TaskGroup

from trove_async.bucket import Bucket
from trove_async.jobs._report import Outcome
from trove_async.models import MiB

from . import rules
from .buckets import MetadataSupport, delete_objects
from .digests import file_is_listed, file_is_object
from .direction import GONE, VANISHED, Deletable, SkipError
from .entries import MTIME, NANOSECONDS, FileEntry, ObjectEntry, mtime_text
from .rules import Comparison, Verdict
from .source_files import SMALL_SIZE, FileState, SmallFile, SourceFiles, changed_error
from .thread_batches import ThreadBatches

_ATTEMPTS: Final = 3
"""How often a file is stored that changes while it is stored."""

_READERS: Final = 2

_MULTIPART: Final = 4 * MiB
"""Objects above this size may be stored in parts, and then have no MD5 as their etag."""


class Upload:
    """Stores files as objects.

    Args:
        files: The source.
        bucket: The target's bucket.
        prefix: The start of the target's keys.
        comparison: How files are compared with objects.
    """

    action: Final = "upload"

    def __init__(
        self, files: SourceFiles, bucket: Bucket, prefix: str, comparison: Comparison
    ) -> None:
        self._files = files
        self._bucket = bucket
        self._prefix = prefix
        self._comparison = comparison
        self._metadata_support = MetadataSupport(bucket)
        self._small: ThreadBatches[str, SmallFile] = ThreadBatches(files.read_small)
        self._states: ThreadBatches[str, FileState | None] = ThreadBatches(files.states)
        self._now_ns = time.time_ns()

    def start(self, group: TaskGroup) -> None:
        """Start the tasks that read small files."""
        for _ in range(_READERS):
            group.start_soon(self._small.run)
        group.start_soon(self._states.run)

    def close(self) -> None:
        """Let the tasks end."""
        self._small.close()
        self._states.close()

    def verdict(self, source: FileEntry, target: ObjectEntry | None) -> Verdict:
        """Compare a file with its object. See `Direction.verdict`."""
        if source.kind != "file":
            if source.error is not None:
                raise source.error
            raise SkipError("symbolic link" if source.kind == "link" else "special file")
        if target is None:
            return Verdict.CHANGED
        return rules.upload_verdict(source, target, self._comparison, self._now_ns)

    async def is_same(self, source: FileEntry, target: ObjectEntry) -> bool:
        """Compare the contents. See `Direction.is_same`."""
        with suppress(*GONE):
            if self._comparison == "checksum":
                return await file_is_object(self._files, source, self._bucket, target)
            return await file_is_listed(self._files, source, target)
        return False

    async def transfer(self, source: FileEntry, _target: ObjectEntry | None, /) -> Outcome:
        """Store a file. See `Direction.transfer`."""
        # A change after the file was read may be older than the object, and the next sync would not see it.
        # So the file is examined once more when it is stored.
        key = source.key
        for _ in range(_ATTEMPTS):
            try:
                state = await self._store(key, source.size)
            except (FileNotFoundError, NotADirectoryError):
                return VANISHED
            current = await self._states.submit(key)
            if current is None or current == state:
                return Outcome(result="changed", bytes=state.size)
        raise changed_error(key)

    async def _store(self, key: str, size: int) -> FileState:
        if size <= SMALL_SIZE:
            content, state = await self._small.submit(key)
            if content is not None:
                await self._bucket.put(
                    self._prefix + key, content, metadata=await self._metadata(key, state)
                )
                return state
        async with (
            self._files.opened(key) as (descriptor, state),
            aclosing(self._files.chunks(key, descriptor, state)) as chunks,
        ):
            if state.size > _MULTIPART:
                await _second_passes(state.mtime_ns)
            await self._bucket.put(
                self._prefix + key,
                chunks,
                size=state.size,
                metadata=await self._metadata(key, state),
            )
        return state

    async def _metadata(self, key: str, state: FileState) -> dict[str, str]:
        if await self._metadata_support.keeps(self._prefix + key):
            return {MTIME: mtime_text(state.mtime_ns)}
        return {}

    def deletable(self, target: ObjectEntry) -> Deletable:
        """Return the object. See `Direction.deletable`."""
        return Deletable(target.key)

    async def delete(self, keys: Sequence[str]) -> Sequence[Exception | None]:
        """Delete objects. See `Direction.delete`."""
        return await delete_objects(self._bucket, self._prefix, keys)


async def _second_passes(time_ns: int) -> None:
    """Wait until the second of a file's time has passed, which it has unless the file is new.

    A service with whole seconds would otherwise give the object a date that may be older than the file, and
    the next sync would store it again.
    """
    now_ns = time.time_ns()
    if now_ns // NANOSECONDS == time_ns // NANOSECONDS:
        await asyncio.sleep(1 - now_ns % NANOSECONDS / NANOSECONDS)

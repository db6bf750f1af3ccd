"""From a bucket to a directory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from anyio.abc import TaskGroup

from trove_async._concurrency import in_thread
from trove_async.bucket import Bucket
from trove_async.errors import ObjectNotFoundError
from trove_async.jobs._report import UNCHANGED, Outcome
from trove_async.models import MiB, ObjectInfo
from trove_async.reader import ObjectReader

from . import rules
from .digests import file_is_listed, file_is_object
from .direction import GONE, VANISHED, Deletable
from .entries import FileEntry, ObjectEntry, mtime_of, nanoseconds
from .paths import FolderConflicts, check_path
from .rules import Comparison, Verdict
from .source_files import SMALL_SIZE, SourceFiles
from .target_files import FileWrite, OpenFile, TargetDirectory, Version
from .thread_batches import ThreadBatches

_CHUNK: Final = MiB

_WRITERS: Final = 2


class Download:
    """Writes objects to files.

    Args:
        bucket: The source's bucket.
        directory: The target.
        files: The target, to read files that are compared.
        comparison: How objects are compared with files.
    """

    action: Final = "download"

    def __init__(
        self,
        bucket: Bucket,
        directory: TargetDirectory,
        files: SourceFiles,
        comparison: Comparison,
    ) -> None:
        self._bucket = bucket
        self._directory = directory
        self._files = files
        self._comparison = comparison
        self._conflicts = FolderConflicts()
        self._small: ThreadBatches[FileWrite, None] = ThreadBatches(directory.write_small)

    def start(self, group: TaskGroup) -> None:
        """Start the tasks that write small files."""
        for _ in range(_WRITERS):
            group.start_soon(self._small.run)

    def close(self) -> None:
        """Let the tasks end."""
        self._small.close()

    def verdict(self, source: ObjectEntry, target: FileEntry | None) -> Verdict:
        """Compare an object with its file. See `Direction.verdict`."""
        check_path(source.key)
        above = self._conflicts.file_above(source.key)
        if above is not None:
            raise NotADirectoryError(
                f"the object {above!r} is a file, so it cannot be a directory as well: {source.key!r} was not"
                " written"
            )
        if target is None:
            return Verdict.CHANGED
        if target.error is not None:
            raise target.error
        if target.kind == "special":
            raise FileExistsError(
                f"{source.key!r} is a FIFO, a socket or a device, and was not replaced"
            )
        return rules.download_verdict(source, target, self._comparison)

    async def is_same(self, source: ObjectEntry, target: FileEntry) -> bool:
        """Compare the contents. See `Direction.is_same`."""
        with suppress(*GONE):
            if self._comparison == "checksum":
                return await file_is_object(self._files, target, self._bucket, source)
            return await file_is_listed(self._files, target, source)
        return False

    async def transfer(self, source: ObjectEntry, target: FileEntry | None) -> Outcome:
        """Write a file. See `Direction.transfer`."""
        key = source.key
        try:
            async with self._bucket.get(source.full_key) as reader:
                info = reader.info
                version = _version_of(source, info)
                if self._has_same_time(info, target) and await self._adopt(key, info.size, version):
                    return UNCHANGED
                if reader.remaining > SMALL_SIZE:
                    await self._write_large(key, reader, version, is_new=target is None)
                    return Outcome(result="changed", bytes=info.size)
                content = await reader.read()
        except ObjectNotFoundError:
            return VANISHED
        await self._small.submit(FileWrite(key, content, version, is_new=target is None))
        return Outcome(result="changed", bytes=len(content))

    def _has_same_time(self, info: ObjectInfo, target: FileEntry | None) -> bool:
        """Return whether a file has the size and the time of its object, and no record of another version.

        It is probably the file that the object was made from.
        """
        return (
            self._comparison == "size_and_time"
            and target is not None
            and target.kind == "file"
            and target.record is None
            and target.size == info.size
            and target.mtime_ns == mtime_of(info.metadata)
        )

    async def _adopt(self, key: str, size: int, version: Version) -> bool:
        try:
            await in_thread(self._directory.adopt, key, size, version)
        except OSError:  # replaced since, or owned by another user: write the file
            return False
        return True

    async def _write_large(
        self, key: str, reader: ObjectReader, version: Version, *, is_new: bool
    ) -> None:
        opened: list[OpenFile] = []
        try:
            # The call ends even if this task is cancelled, so it stores its result in `opened`.
            await in_thread(lambda: opened.append(self._directory.create(key)))
            while chunk := await reader.read(_CHUNK):
                await in_thread(opened[0].write, chunk)
            await in_thread(lambda: self._directory.publish(opened[0], version, is_new=is_new))
        except BaseException:
            for file in opened:
                await in_thread(file.discard)
            raise

    def deletable(self, target: FileEntry) -> Deletable:
        """Return the file. See `Direction.deletable`."""
        if target.kind in {"file", "link"}:
            return Deletable(target.key)
        return Deletable(target.key, "special file" if target.error is None else "not readable")

    async def delete(self, keys: Sequence[str]) -> Sequence[Exception | None]:
        """Delete files. See `Direction.delete`."""
        return await in_thread(self._directory.delete, keys)


def _version_of(source: ObjectEntry, info: ObjectInfo) -> Version:
    """Return the version to record: that of the listing, because the next sync compares it with a listing.

    If the object was replaced since it was listed, the file is newer than its record, and the next sync writes
    it again.
    """
    mtime_ns = mtime_of(info.metadata)
    if mtime_ns is None:
        mtime_ns = nanoseconds(info.last_modified)
    return Version(mtime_ns, source.size, source.modified_ns, source.etag)

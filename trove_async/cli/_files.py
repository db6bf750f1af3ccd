"""Transfers of single objects: between files, stores, and standard input and output."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from trove_async._concurrency import in_thread
from trove_async.errors import NotSupportedError, ObjectChangedError
from trove_async.jobs._sync.buckets import MetadataSupport, kept_headers
from trove_async.jobs._sync.entries import MTIME, mtime_of, mtime_text
from trove_async.models import ObjectInfo

from ._command import UsageProblem
from ._input import special_file, standard_input
from ._partial_file import PartialFile
from ._places import LocalPath, Object, Place, Stream
from ._progress import Progress

_CHUNK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """How single objects are transferred.

    Attributes:
        progress: Counts the objects and bytes.
        no_clobber: Whether to keep an object or file that exists.
        headers: The arguments of put that the user has given.
        resume: Whether a download continues the file of an earlier one, and keeps its own if it is interrupted.
    """

    progress: Progress
    no_clobber: bool = False
    headers: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False

    async def copy(self, source: Place, target: Place) -> Source:
        """Copy an object or a file. Return what was read, so that a move can delete exactly that.

        After an error or an interrupt, the target is as it was, and no temporary file is left.

        Raises:
            TroveError: A store failed.
            OSError: A file cannot be read or written.
        """
        if isinstance(target, Object):
            if isinstance(source, Object):
                read = await self._object_to_object(source, target)
            else:
                read = await self._put(source, target)
        elif isinstance(source, Object):
            read = await self._get(source, target)
        else:
            raise UsageProblem(f"{source} and {target} are both local: use cp(1)")
        self.progress.add(objects=1)
        return read

    async def move(self, source: LocalPath | Object, target: LocalPath | Object) -> None:
        """Copy an object or a file, then delete exactly what was copied.

        After an error or an interrupt, it exists at its source, at its target, or at both.

        Raises:
            ObjectChangedError: The source was changed meanwhile. It is kept.
            TroveError: A store failed.
            OSError: A file cannot be read, written or deleted.
        """
        if isinstance(source, LocalPath):
            await in_thread(_check_movable, source.path)
        elif isinstance(target, Object) and source.owner is target.owner:
            await self._move_in_store(source, target)
            return
        read = await self.copy(source, target)
        if isinstance(target, LocalPath):
            await in_thread(_write_to_disk, target.path)  # before the only other copy is deleted
        await read.delete()

    async def _move_in_store(self, source: Object, target: Object) -> None:
        info = await source.bucket.head(source.key)
        await target.store.move(
            source.bucket_name,
            source.key,
            target.bucket_name,
            target.key,
            source_backend=info.backend,
            progress=self.progress.of_object(),
            if_none_match="*" if self.no_clobber else None,
        )
        self.progress.add(objects=1)

    # -- into a store ------------------------------------------------------------------------------------

    async def _put(self, source: Stream | LocalPath, target: Object) -> Source:
        options = {**self.headers, "if_none_match": "*" if self.no_clobber else None}
        if isinstance(source, Stream):
            async with aclosing(standard_input()) as chunks:
                await target.bucket.put(target.key, self._counted(chunks), **options)
            return Source()
        before = await in_thread(_status, source.path)
        if not stat.S_ISREG(before.st_mode):
            async with aclosing(special_file(source.path)) as chunks:
                await target.bucket.put(target.key, self._counted(chunks), **options)
            return Source()
        if await MetadataSupport(target.bucket).keeps(target.key):
            mtime = {MTIME: mtime_text(before.st_mtime_ns)}
            options["metadata"] = {**mtime, **self.headers.get("metadata", {})}
        counted = self.progress.of_object()
        await target.bucket.put(target.key, Path(source.path), progress=counted, **options)
        return Source(path=source.path, status=before)

    async def _counted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            self.progress.add(size=len(chunk))
            yield chunk

    # -- out of a store ----------------------------------------------------------------------------------

    async def _get(self, source: Object, target: Stream | LocalPath) -> Source:
        if self.resume and isinstance(target, LocalPath):
            return Source(bucket=source, info=await self._resume_download(source, target))
        async with source.bucket.get(source.key, progress=self.progress.of_object()) as reader:
            if isinstance(target, Stream):
                sys.stdout.flush()
                while chunk := await reader.read(_CHUNK):
                    sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
            else:
                await in_thread(self._check_target, target.path)
                await reader.save(target.path)
                await in_thread(_set_time, target.path, reader.info)
            return Source(bucket=source, info=reader.info)

    async def _resume_download(self, source: Object, target: LocalPath) -> ObjectInfo:
        """Continue an earlier download of the same version, or begin one. Return the version."""
        await in_thread(self._check_target, target.path)
        info = await source.bucket.head(source.key)
        partial = await in_thread(PartialFile.open, target.path, info)
        try:
            self.progress.add(size=partial.size)
            if partial.size < info.size:
                counted = self.progress.of_object()
                async with source.bucket.get(
                    source.key, range=(partial.size, None), if_match=info, progress=counted
                ) as reader:
                    while chunk := await reader.read(_CHUNK):
                        await in_thread(partial.write, chunk)
            await in_thread(partial.publish)
            await in_thread(_set_time, target.path, info)
        finally:
            await in_thread(partial.close)
        return info

    def _check_target(self, path: str) -> None:
        if self.no_clobber and os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "the file exists, and --no-clobber keeps it", path)
        _make_directory(path)

    # -- between stores ----------------------------------------------------------------------------------

    async def _object_to_object(self, source: Object, target: Object) -> Source:
        guard: dict[str, Any] = {"if_none_match": "*" if self.no_clobber else None}
        info = await source.bucket.head(source.key)
        if source.owner is target.owner:
            await target.store.copy(
                source.bucket_name,
                source.key,
                target.bucket_name,
                target.key,
                source_backend=info.backend,
                source_version_id=info.version_id,
                progress=self.progress.of_object(),
                **self.headers,
                **guard,
            )
        else:
            # The response to a get has no tags, so the version that was headed is the one to read.
            async with source.bucket.get(
                source.key, if_match=info, progress=self.progress.of_object()
            ) as reader:
                stored = await target.bucket.put(
                    target.key, reader, **{**kept_headers(info), **self.headers}, **guard
                )
            return Source(bucket=source, info=info, written_as=stored.write_id)
        return Source(bucket=source, info=info)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a copy has read: nothing that can be deleted, a file, or a version of an object."""

    path: str | None = None
    status: os.stat_result | None = None
    bucket: Object | None = None
    info: ObjectInfo | None = None
    written_as: str | None = None
    """The write id of the copy, if it is in another store."""

    async def delete(self) -> None:
        """Delete it, for a move.

        Raises:
            ObjectChangedError: It was changed since it was read. It is kept.
            TroveError: The store failed.
            OSError: The file cannot be deleted.
        """
        if self.path is not None:
            await in_thread(_delete_file, self.path, self.status)
        elif self.bucket is not None and self.info is not None:
            if self.written_as is not None:
                await self._check_distinct(self.bucket, self.info.key)
            try:
                await self.bucket.bucket.delete(self.info.key, if_match=self.info)
            except NotSupportedError:
                await self._delete_compared(self.bucket, self.info)

    async def _check_distinct(self, place: Object, key: str) -> None:
        """Raise an error if the copy has replaced the source: two stores may lead to one object.

        Their addresses do not show it, because a service may have several.
        """
        if (await place.bucket.head(key)).write_id == self.written_as:
            raise ObjectChangedError(
                f"{place.named(key)} is the object that it was copied to, under another name: it was kept"
            )

    async def _delete_compared(self, place: Object, read: ObjectInfo) -> None:
        """Delete an object of a service without conditional deletions."""
        now = await place.bucket.head(read.key)
        if (now.etag, now.size, now.last_modified) != (read.etag, read.size, read.last_modified):
            raise _changed(place.named(read.key))
        await place.bucket.delete(read.key)


def _status(path: str) -> os.stat_result:
    status = Path(path).stat()
    if stat.S_ISDIR(status.st_mode):
        raise UsageProblem(f"{path} is a directory: add --recursive")
    return status


def _check_movable(path: str) -> None:
    """Raise UsageProblem for anything whose deletion would not delete what was copied."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        raise UsageProblem(f"{path} is no regular file, so it cannot be moved: use cp")


def _set_time(path: str, info: ObjectInfo) -> None:
    """Give a file the time that is recorded with its object."""
    mtime = mtime_of(info.metadata)
    if mtime is not None:
        os.utime(path, ns=(mtime, mtime))


def _write_to_disk(path: str) -> None:
    for name in (path, os.path.dirname(path) or "."):  # noqa: PTH120 - of a str
        descriptor = os.open(name, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _delete_file(path: str, before: os.stat_result | None) -> None:
    now = os.lstat(path)
    if before is None or _identity(now) != _identity(before):
        raise _changed(path)
    Path(path).unlink()


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _changed(name: str) -> ObjectChangedError:
    return ObjectChangedError(f"{name} was changed while it was copied, so it was not deleted")


def _make_directory(path: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)

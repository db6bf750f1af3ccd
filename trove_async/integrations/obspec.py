"""Adapters from buckets to obspec, the protocols of object stores that its users type-check against.

Example::

    from obspec import GetRangesAsync

    async def headers(client: GetRangesAsync, path: str) -> None: ...

    await headers(AsyncObspecStore(store.bucket("data")), "table.parquet")

`AsyncObspecStore` has obspec's async methods and `ObspecStore` its blocking ones, because a store belongs to
one event loop. Paths are keys. A prefix stands for a directory: ``foo/bar`` includes ``foo/bar/x``, but neither
``foo/bar`` nor ``foo/bar_baz``.

Errors that obspec gives a name, such as NotFoundError, are those of `obspec.exceptions`. The error of the store
is their ``__cause__``. Other errors are the store's own.
"""

from __future__ import annotations

try:
    from obspec import Attributes, GetOptions, ListResult, ObjectMeta, PutMode, PutResult
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{__name__} requires an extra: pip install 'trove-async[obspec]'", name=error.name
    ) from error

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from trove_async import Bucket, ObjectInfo, ObjectReader, blocking

from ._obspec import (
    HEADERS,
    byte_range,
    byte_ranges,
    directory,
    get_arguments,
    meta,
    put_arguments,
    result,
    separated,
    translated,
)


class AsyncObspecStore:
    """A bucket with obspec's async methods.

    Args:
        bucket: The bucket, of a store that is open in the event loop of the calls.
    """

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def __repr__(self) -> str:
        if not hasattr(self, "_bucket"):
            return "<AsyncObspecStore, not initialised>"  # its constructor raised
        return f"<AsyncObspecStore of {self._bucket!r}>"

    async def get_async(self, path: str, *, options: GetOptions | None = None) -> AsyncGetResult:
        """Open an object. Read the result to its end, with `buffer_async` or by iterating over it."""
        with translated(options):
            return AsyncGetResult(await self._bucket.get(path, **get_arguments(options)))

    async def get_range_async(
        self, path: str, *, start: int, end: int | None = None, length: int | None = None
    ) -> bytes:
        """Return the bytes of a range."""
        with translated():
            return await self._bucket.read(path, range=byte_range(start, end, length))

    async def get_ranges_async(
        self,
        path: str,
        *,
        starts: Sequence[int],
        ends: Sequence[int] | None = None,
        lengths: Sequence[int] | None = None,
    ) -> Sequence[bytes]:
        """Return the bytes of many ranges of one version."""
        with translated():
            return await self._bucket.get_ranges(path, byte_ranges(starts, ends, lengths))

    async def head_async(self, path: str) -> ObjectMeta:
        """Return the metadata of an object."""
        with translated():
            return meta(await self._bucket.head(path))

    async def put_async(
        self,
        path: str,
        file: Any,  # noqa: ANN401 - what obspec allows, and all that `Trove.put` does
        *,
        attributes: Attributes | None = None,
        tags: dict[str, str] | None = None,
        mode: PutMode | None = None,
        use_multipart: bool | None = None,
        chunk_size: int = 0,
        max_concurrency: int = 0,
    ) -> PutResult:
        """Store an object, atomically. The store chooses the parts, so obspec's advice on them is ignored."""
        with translated():
            del use_multipart, chunk_size, max_concurrency
            arguments = {"tags": tags, **put_arguments(attributes, mode)}
            if not isinstance(file, AsyncGetResult):
                return result(await self._bucket.put(path, file, **arguments))
            async with file.reader as body:
                return result(await self._bucket.put(path, body, **arguments))

    def list_async(
        self, prefix: str | None = None, *, offset: str | None = None
    ) -> AsyncIterator[Sequence[ObjectMeta]]:
        """List the objects of a directory and of those below it, in chunks."""
        listing = self._bucket.list(prefix=directory(prefix), start_after=offset)
        return _metas(listing.pages())

    async def list_with_delimiter_async(
        self, prefix: str | None = None
    ) -> ListResult[Sequence[ObjectMeta]]:
        """List the objects and directories of a directory."""
        with translated():
            listing = self._bucket.list(prefix=directory(prefix), delimiter="/")
            return separated(await listing.all())

    async def delete_async(self, paths: str | Sequence[str]) -> None:
        """Delete objects. A missing one is no error."""
        with translated():
            await self._bucket.delete_many([paths] if isinstance(paths, str) else paths)

    async def copy_async(self, from_: str, to: str, *, overwrite: bool = True) -> None:
        """Copy an object."""
        with translated():
            await self._bucket.copy(from_, to, if_none_match=None if overwrite else "*")

    async def rename_async(self, from_: str, to: str, *, overwrite: bool = True) -> None:
        """Move an object: copy it, verify the copy, and delete the source."""
        with translated():
            await self._bucket.move(from_, to, if_none_match=None if overwrite else "*")


class ObspecStore:
    """A bucket with obspec's blocking methods. Any number of threads may use it.

    Args:
        bucket: The bucket of a blocking store.
    """

    def __init__(self, bucket: blocking.Bucket) -> None:
        self._bucket = bucket

    def __repr__(self) -> str:
        if not hasattr(self, "_bucket"):
            return "<ObspecStore, not initialised>"  # its constructor raised
        return f"<ObspecStore of {self._bucket!r}>"

    def get(self, path: str, *, options: GetOptions | None = None) -> GetResult:
        """Open an object. Read the result to its end, with `buffer` or by iterating over it."""
        with translated(options):
            return GetResult(self._bucket.get(path, **get_arguments(options)))

    def get_range(
        self, path: str, *, start: int, end: int | None = None, length: int | None = None
    ) -> bytes:
        """Return the bytes of a range."""
        with translated():
            return self._bucket.read(path, range=byte_range(start, end, length))

    def get_ranges(
        self,
        path: str,
        *,
        starts: Sequence[int],
        ends: Sequence[int] | None = None,
        lengths: Sequence[int] | None = None,
    ) -> Sequence[bytes]:
        """Return the bytes of many ranges of one version."""
        with translated():
            return self._bucket.get_ranges(path, byte_ranges(starts, ends, lengths))

    def head(self, path: str) -> ObjectMeta:
        """Return the metadata of an object."""
        with translated():
            return meta(self._bucket.head(path))

    def put(
        self,
        path: str,
        file: Any,  # noqa: ANN401 - what obspec allows, and all that `Trove.put` does
        *,
        attributes: Attributes | None = None,
        tags: dict[str, str] | None = None,
        mode: PutMode | None = None,
        use_multipart: bool | None = None,
        chunk_size: int = 0,
        max_concurrency: int = 0,
    ) -> PutResult:
        """Store an object, atomically. The store chooses the parts, so obspec's advice on them is ignored."""
        with translated():
            del use_multipart, chunk_size, max_concurrency
            arguments = {"tags": tags, **put_arguments(attributes, mode)}
            if not isinstance(file, GetResult):
                return result(self._bucket.put(path, file, **arguments))
            with file.reader as body:
                return result(self._bucket.put(path, body, **arguments))

    def list(
        self, prefix: str | None = None, *, offset: str | None = None
    ) -> Iterator[Sequence[ObjectMeta]]:
        """List the objects of a directory and of those below it, in chunks."""
        listing = self._bucket.list(prefix=directory(prefix), start_after=offset)
        with translated():
            for page in listing.pages():
                yield [meta(info) for info in page]

    def list_with_delimiter(self, prefix: str | None = None) -> ListResult[Sequence[ObjectMeta]]:
        """List the objects and directories of a directory."""
        with translated():
            listing = self._bucket.list(prefix=directory(prefix), delimiter="/")
            return separated(listing.all())

    def delete(self, paths: str | Sequence[str]) -> None:
        """Delete objects. A missing one is no error."""
        with translated():
            self._bucket.delete_many([paths] if isinstance(paths, str) else paths).run()

    def copy(self, from_: str, to: str, *, overwrite: bool = True) -> None:
        """Copy an object."""
        with translated():
            self._bucket.copy(from_, to, if_none_match=None if overwrite else "*")

    def rename(self, from_: str, to: str, *, overwrite: bool = True) -> None:
        """Move an object: copy it, verify the copy, and delete the source."""
        with translated():
            self._bucket.move(from_, to, if_none_match=None if overwrite else "*")


class _Result:
    """What both kinds of results report about an object."""

    reader: ObjectReader | blocking.ObjectReader

    @property
    def attributes(self) -> Attributes:
        """The headers and metadata of the object."""
        info = self.reader.info
        headers = {name: getattr(info, field) for name, field in HEADERS.items()}
        return {
            **{name: value for name, value in headers.items() if value is not None},
            **info.metadata,
        }

    @property
    def meta(self) -> ObjectMeta:
        """The metadata of the object."""
        return meta(self.reader.info)

    @property
    def range(self) -> tuple[int, int]:
        """The absolute ``(start, end)`` of the bytes."""
        return self.reader.range


class AsyncGetResult(_Result):
    """The open body of an object.

    Args:
        reader: The body.
    """

    def __init__(self, reader: ObjectReader) -> None:
        self.reader: ObjectReader = reader

    async def buffer_async(self) -> bytes:
        """Return all bytes."""
        with translated():
            async with self.reader as reader:
                return await reader.read()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with translated():
            async with self.reader as reader:
                async for chunk in reader:
                    yield chunk


class GetResult(_Result):
    """The open body of an object.

    Args:
        reader: The body.
    """

    def __init__(self, reader: blocking.ObjectReader) -> None:
        self.reader: blocking.ObjectReader = reader

    def buffer(self) -> bytes:
        """Return all bytes."""
        with translated(), self.reader as reader:
            return reader.read()

    def __iter__(self) -> Iterator[bytes]:
        with translated(), self.reader as reader:
            yield from reader


async def _metas(
    pages: AsyncIterator[Sequence[ObjectInfo]],
) -> AsyncIterator[Sequence[ObjectMeta]]:
    with translated():
        async for page in pages:
            yield [meta(info) for info in page]

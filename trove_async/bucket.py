"""A handle on one bucket of a store."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol, Unpack, overload

from . import _names
from ._engine.bulk_delete import Deletion
from ._engine.iterators import ObjectIterator, VersionIterator
from ._engine.misplaced import MisplacedIterator
from ._engine.sources import BodySource
from ._engine.upload import Progress
from .file import FileReader, FileWriter, OpeningFile, WriteArguments
from .models import ByteRange, ObjectInfo, Prefix, RouteDecision
from .reader import OpeningReader


class ObjectMethods(Protocol):
    """The object methods of a store. They take the arguments of `Trove`'s methods.

    `Trove` has a method that returns a `Bucket`, so this module cannot import `Trove`.
    """

    def put(self, *args: Any, **kwargs: Any) -> Awaitable[ObjectInfo]: ...
    def get(self, *args: Any, **kwargs: Any) -> OpeningReader: ...
    def open_file(self, *args: Any, **kwargs: Any) -> OpeningFile[Any]: ...
    def read(self, *args: Any, **kwargs: Any) -> Awaitable[bytes]: ...
    def get_ranges(self, *args: Any, **kwargs: Any) -> Awaitable[Sequence[bytes]]: ...
    def head(self, *args: Any, **kwargs: Any) -> Awaitable[ObjectInfo]: ...
    def exists(self, *args: Any, **kwargs: Any) -> Awaitable[bool]: ...
    def delete(self, *args: Any, **kwargs: Any) -> Awaitable[None]: ...
    def delete_many(self, *args: Any, **kwargs: Any) -> Deletion: ...
    def list(self, *args: Any, **kwargs: Any) -> ObjectIterator[Any]: ...
    def list_versions(self, *args: Any, **kwargs: Any) -> VersionIterator: ...
    def misplaced(self, *args: Any, **kwargs: Any) -> MisplacedIterator: ...
    def copy(self, *args: Any, **kwargs: Any) -> Awaitable[ObjectInfo]: ...
    def move(self, *args: Any, **kwargs: Any) -> Awaitable[ObjectInfo]: ...
    def presign_get(self, *args: Any, **kwargs: Any) -> Awaitable[str]: ...
    def presign_put(self, *args: Any, **kwargs: Any) -> Awaitable[str]: ...
    def explain(self, *args: Any, **kwargs: Any) -> Awaitable[RouteDecision]: ...


class Bucket:
    """One bucket of a store: the store's object methods without their bucket argument.

    A handle holds only the store and the name, and need not be closed. To create one, the store need
    not be open and the bucket need not exist.

    Example:
        >>> async with Trove("mem://") as store:
        ...     await store.create_bucket("data")
        ...     data = store.bucket("data")
        ...     info = await data.put("report.csv", b"a,b")
        >>> info.content_type
        'text/csv'

    Args:
        store: The store, or a handle that is pinned to one of its backends.
        name: The bucket's name.

    Attributes:
        name: The bucket's name.

    Raises:
        InvalidNameError: The name is not allowed.
    """

    __slots__ = ("_store", "name")

    def __init__(self, store: ObjectMethods, name: str) -> None:
        _names.check_bucket(name)
        self._store = store
        self.name = name

    def __repr__(self) -> str:
        if not hasattr(self, "name"):
            return "<Bucket, not initialised>"  # its constructor raised
        return f"<Bucket {self.name!r} of {self._store!r}>"

    async def put(
        self,
        key: str,
        body: BodySource,
        *,
        size: int | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        storage_class: str | None = None,
        cache_control: str | None = None,
        content_disposition: str | None = None,
        content_encoding: str | None = None,
        content_language: str | None = None,
        expires: datetime | None = None,
        if_none_match: str | None = None,
        if_match: str | ObjectInfo | None = None,
        progress: Progress | None = None,
    ) -> ObjectInfo:
        """Store an object, atomically. See `Trove.put`."""
        return await self._store.put(
            self.name,
            key,
            body,
            size=size,
            content_type=content_type,
            metadata=metadata,
            tags=tags,
            storage_class=storage_class,
            cache_control=cache_control,
            content_disposition=content_disposition,
            content_encoding=content_encoding,
            content_language=content_language,
            expires=expires,
            if_none_match=if_none_match,
            if_match=if_match,
            progress=progress,
        )

    def get(
        self,
        key: str,
        *,
        range: ByteRange | tuple[int, int | None] | None = None,
        version_id: str | None = None,
        if_match: str | ObjectInfo | None = None,
        if_none_match: str | ObjectInfo | None = None,
        decode: bool | Callable[[ObjectInfo], bool] = True,
        progress: Progress | None = None,
    ) -> OpeningReader:
        """Open an object's body: ``async with bucket.get(…) as obj``. See `Trove.get`."""
        return self._store.get(
            self.name,
            key,
            range=range,
            version_id=version_id,
            if_match=if_match,
            if_none_match=if_none_match,
            decode=decode,
            progress=progress,
        )

    @overload
    def open_file(
        self,
        key: str,
        mode: Literal["rb"] = "rb",
        *,
        version_id: str | None = None,
        if_match: str | ObjectInfo | None = None,
    ) -> OpeningFile[FileReader]: ...

    @overload
    def open_file(
        self,
        key: str,
        mode: Literal["wb", "xb"],
        *,
        if_match: str | ObjectInfo | None = None,
        **arguments: Unpack[WriteArguments],
    ) -> OpeningFile[FileWriter]: ...

    def open_file(
        self,
        key: str,
        mode: Literal["rb", "wb", "xb"] = "rb",
        *,
        version_id: str | None = None,
        if_match: str | ObjectInfo | None = None,
        **arguments: Unpack[WriteArguments],
    ) -> OpeningFile[Any]:
        """Open an object as a file: ``async with bucket.open_file(…) as file``. See `Trove.open_file`."""
        return self._store.open_file(
            self.name, key, mode, version_id=version_id, if_match=if_match, **arguments
        )

    async def read(
        self,
        key: str,
        *,
        range: ByteRange | tuple[int, int | None] | None = None,
        limit: int | None = None,
        version_id: str | None = None,
        if_match: str | ObjectInfo | None = None,
        if_none_match: str | ObjectInfo | None = None,
        decode: bool = True,
    ) -> bytes:
        """Return a small object's bytes in one call. See `Trove.read`."""
        return await self._store.read(
            self.name,
            key,
            range=range,
            limit=limit,
            version_id=version_id,
            if_match=if_match,
            if_none_match=if_none_match,
            decode=decode,
        )

    async def get_ranges(
        self, key: str, ranges: Iterable[ByteRange | tuple[int, int | None]]
    ) -> Sequence[bytes]:
        """Return the bytes of many ranges of one version. See `Trove.get_ranges`."""
        return await self._store.get_ranges(self.name, key, ranges)

    async def head(self, key: str, *, version_id: str | None = None) -> ObjectInfo:
        """Return the metadata of an object. See `Trove.head`."""
        return await self._store.head(self.name, key, version_id=version_id)

    async def exists(self, key: str, *, version_id: str | None = None) -> bool:
        """Return whether an object exists. See `Trove.exists`."""
        return await self._store.exists(self.name, key, version_id=version_id)

    async def delete(
        self, key: str, *, version_id: str | None = None, if_match: str | ObjectInfo | None = None
    ) -> None:
        """Delete an object. See `Trove.delete`."""
        return await self._store.delete(self.name, key, version_id=version_id, if_match=if_match)

    def delete_many(self, keys: Iterable[str] | AsyncIterable[str]) -> Deletion:
        """Delete many objects. See `Trove.delete_many`."""
        return self._store.delete_many(self.name, keys)

    async def copy(
        self,
        src_key: str,
        dst_key: str,
        *,
        dst_bucket: str | Bucket | None = None,
        source_backend: str | None = None,
        source_version_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        content_type: str | None = None,
        cache_control: str | None = None,
        content_disposition: str | None = None,
        content_encoding: str | None = None,
        content_language: str | None = None,
        expires: datetime | Literal[""] | None = None,
        storage_class: str | None = None,
        if_match: str | ObjectInfo | None = None,
        if_none_match: str | None = None,
        progress: Progress | None = None,
    ) -> ObjectInfo:
        """Copy an object, within the bucket or into another bucket. See `Trove.copy`.

        `dst_bucket` is the name of the destination's bucket, or a handle on it; None: this bucket.
        Only the name of a handle is used: this bucket's store routes the destination.
        """
        return await self._store.copy(
            self.name,
            src_key,
            _name_of(dst_bucket, self.name),
            dst_key,
            source_backend=source_backend,
            source_version_id=source_version_id,
            metadata=metadata,
            tags=tags,
            content_type=content_type,
            cache_control=cache_control,
            content_disposition=content_disposition,
            content_encoding=content_encoding,
            content_language=content_language,
            expires=expires,
            storage_class=storage_class,
            if_match=if_match,
            if_none_match=if_none_match,
            progress=progress,
        )

    async def move(
        self,
        src_key: str,
        dst_key: str,
        *,
        dst_bucket: str | Bucket | None = None,
        source_backend: str | None = None,
        source_version_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        content_type: str | None = None,
        cache_control: str | None = None,
        content_disposition: str | None = None,
        content_encoding: str | None = None,
        content_language: str | None = None,
        expires: datetime | Literal[""] | None = None,
        storage_class: str | None = None,
        if_match: str | ObjectInfo | None = None,
        if_none_match: str | None = None,
        progress: Progress | None = None,
    ) -> ObjectInfo:
        """Move an object, within the bucket or into another bucket. See `Trove.move` and `copy`."""
        return await self._store.move(
            self.name,
            src_key,
            _name_of(dst_bucket, self.name),
            dst_key,
            source_backend=source_backend,
            source_version_id=source_version_id,
            metadata=metadata,
            tags=tags,
            content_type=content_type,
            cache_control=cache_control,
            content_disposition=content_disposition,
            content_encoding=content_encoding,
            content_language=content_language,
            expires=expires,
            storage_class=storage_class,
            if_match=if_match,
            if_none_match=if_none_match,
            progress=progress,
        )

    @overload
    def list(
        self,
        *,
        prefix: str = "",
        delimiter: None = None,
        start_after: str | None = None,
        cursor: str | None = None,
        page_size: int = 1000,
        details: bool = False,
        include_shadowed: bool = False,
    ) -> ObjectIterator[ObjectInfo]: ...

    @overload
    def list(
        self,
        *,
        prefix: str = "",
        delimiter: str | None,
        start_after: str | None = None,
        cursor: str | None = None,
        page_size: int = 1000,
        details: bool = False,
        include_shadowed: bool = False,
    ) -> ObjectIterator[ObjectInfo | Prefix]: ...

    def list(
        self,
        *,
        prefix: str = "",
        delimiter: str | None = None,
        start_after: str | None = None,
        cursor: str | None = None,
        page_size: int = 1000,
        details: bool = False,
        include_shadowed: bool = False,
    ) -> ObjectIterator[Any]:
        """List the bucket's objects. See `Trove.list`."""
        return self._store.list(
            self.name,
            prefix=prefix,
            delimiter=delimiter,
            start_after=start_after,
            cursor=cursor,
            page_size=page_size,
            details=details,
            include_shadowed=include_shadowed,
        )

    def list_versions(self, *, prefix: str = "", page_size: int = 1000) -> VersionIterator:
        """List all versions of the bucket's objects. See `Trove.list_versions`."""
        return self._store.list_versions(self.name, prefix=prefix, page_size=page_size)

    def misplaced(
        self, *, prefix: str = "", start_after: str | None = None, page_size: int = 1000
    ) -> MisplacedIterator:
        """List the objects that are not on the backend of their keys. See `Trove.misplaced`."""
        return self._store.misplaced(
            self.name, prefix=prefix, start_after=start_after, page_size=page_size
        )

    async def presign_get(
        self,
        key: str,
        *,
        expires: float = 3600,
        version_id: str | None = None,
        response_content_type: str | None = None,
        response_content_disposition: str | None = None,
    ) -> str:
        """Return a URL that allows anyone to get the object. See `Trove.presign_get`."""
        return await self._store.presign_get(
            self.name,
            key,
            expires=expires,
            version_id=version_id,
            response_content_type=response_content_type,
            response_content_disposition=response_content_disposition,
        )

    async def presign_put(
        self, key: str, *, expires: float = 3600, content_type: str | None = None
    ) -> str:
        """Return a URL that allows anyone to put the object. See `Trove.presign_put`."""
        return await self._store.presign_put(
            self.name, key, expires=expires, content_type=content_type
        )

    async def explain(self, key: str) -> RouteDecision:
        """Return the backend of a key, and why. See `Trove.explain`."""
        return await self._store.explain(self.name, key)


def _name_of(bucket: str | Bucket | None, default: str) -> str:
    if bucket is None:
        return default
    return bucket.name if isinstance(bucket, Bucket) else bucket

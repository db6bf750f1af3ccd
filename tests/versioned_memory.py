"""A memory driver that keeps versions as S3 does, with delete markers."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

from trove_async import BucketNotEmptyError, ObjectNotFoundError, VersionInfo
from trove_async.drivers.memory import MemoryDriver, _Object, _Reader
from trove_async.models import DeleteResult
from trove_async.options import VersionPage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from trove_async import ObjectInfo
    from trove_async.driver import DriverReader
    from trove_async.options import CopyOptions, DeleteOptions, GetOptions, ListOptions, PutOptions

    Kept = tuple[VersionInfo, _Object | None]


class VersionedMemory(MemoryDriver):
    """Memory with object versions.

    Attributes:
        keeping: The buckets that keep versions. In other buckets each object has one version with
            the id ``null``.
        asked: The options of every page of versions that was listed.
    """

    def __init__(self, **capabilities: Any) -> None:
        super().__init__()
        self._capabilities = replace(self._capabilities, versions=True, **capabilities)
        self.keeping: set[str] = set()
        self.asked: list[ListOptions] = []
        self._ids = count(1)
        self._kept: dict[str, dict[str, list[Kept]]] = {}

    def _add(self, bucket: str, key: str, held: _Object | None, info: ObjectInfo) -> None:
        version = VersionInfo(
            bucket=bucket,
            key=key,
            version_id=info.version_id or "null",
            size=0 if held is None else info.size,
            etag=None if held is None else info.etag,
            last_modified=info.last_modified,
            storage_class=None if held is None else info.storage_class,
            latest=True,
            deleted=held is None,
            backend=self._backend,
        )
        kept = self._kept.setdefault(bucket, {}).setdefault(key, [])
        kept[:] = [
            (version, held),
            *((replace(old, latest=False), body) for old, body in kept if bucket in self.keeping),
        ]

    def _id(self, bucket: str) -> str:
        return f"v{next(self._ids)}" if bucket in self.keeping else "null"

    def _store(
        self, bucket: str, key: str, chunks: tuple[bytes, ...], checksum: int, options: PutOptions
    ) -> ObjectInfo:
        info = replace(
            super()._store(bucket, key, chunks, checksum, options), version_id=self._id(bucket)
        )
        held = self._object(bucket, key)._replace(info=info)
        self._bucket(bucket).objects[key] = held
        self._add(bucket, key, held, info)
        return info

    def _version(self, bucket: str, key: str, version_id: str) -> _Object:
        self._bucket(bucket)
        for version, held in self._kept.get(bucket, {}).get(key, []):
            if version.version_id == version_id and held is not None:
                return held
        raise ObjectNotFoundError("no such version", bucket=bucket, key=key)

    def _source(self, bucket: str, key: str, options: CopyOptions) -> _Object:
        if options.version_id is None:
            return self._object(bucket, key)
        return self._version(bucket, key, options.version_id)

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        if options.version_id is None:
            return super().get(bucket, key, options)
        version_id = options.version_id

        class OneVersion(MemoryDriver):
            def _object(_, bucket: str, key: str) -> _Object:  # noqa: N805 - self is the outer one
                return self._version(bucket, key, version_id)

        return _Reader(OneVersion(), bucket, key, options)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        if version_id is None:
            return await super().head(bucket, key)
        return self._version(bucket, key, version_id).info

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        home = self._bucket(bucket)
        if options.version_id is None:
            await super().delete(bucket, key, options)
            self._add_marker(bucket, key)
            return
        kept = self._kept.get(bucket, {}).get(key, [])
        kept[:] = [
            (version, held) for version, held in kept if version.version_id != options.version_id
        ]
        kept[:1] = [(replace(version, latest=True), held) for version, held in kept[:1]]
        if key in home.objects:
            home.remove(key)
        if kept and kept[0][1] is not None:
            home.add(key, kept[0][1])

    def _add_marker(self, bucket: str, key: str) -> None:
        kept = self._kept.get(bucket, {}).get(key, [])
        if bucket not in self.keeping:
            kept.clear()
        elif kept:
            deleted = next((held for _, held in kept if held is not None), None)
            if deleted is not None:
                self._add(bucket, key, None, replace(deleted.info, version_id=self._id(bucket)))

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        results = await super().delete_many(bucket, keys)
        for key in keys:
            self._add_marker(bucket, key)
        return results

    async def delete_bucket(self, bucket: str) -> None:
        if any(self._kept.get(bucket, {}).values()):
            raise BucketNotEmptyError("the bucket has versions of objects", bucket=bucket)
        await super().delete_bucket(bucket)

    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        self.asked.append(options)
        self._bucket(bucket)
        everything = [
            version
            for key, kept in sorted(self._kept.get(bucket, {}).items())
            for version, _ in kept
            if key.startswith(options.prefix)
        ]
        if options.token is not None:
            # The token counts the oldest versions of the key that are left, so it stays valid while
            # newer ones are deleted.
            key, _, left = options.token.rpartition("\0")
            of_key = [version for version in everything if version.key == key]
            everything = [
                *of_key[len(of_key) - int(left) :],
                *(version for version in everything if version.key > key),
            ]
        elif options.start_after is not None:
            start = options.start_after
            everything = [version for version in everything if version.key > start]
        page, rest = everything[: options.limit], everything[options.limit :]
        if not rest:
            return VersionPage(entries=page)
        key = page[-1].key
        left_of_key = sum(version.key == key for version in rest)
        return VersionPage(entries=page, token=f"{key}\0{left_of_key}")

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

    StoredVersion = tuple[VersionInfo, _Object | None]


class VersionedMemory(MemoryDriver):
    """Memory with object versions.

    Attributes:
        versioned_buckets: The buckets that keep versions. In other buckets each object has one
            version with the id ``null``.
        version_pages: The options of every page of versions that was listed.
    """

    def __init__(self, **capabilities: Any) -> None:
        super().__init__()
        self._capabilities = replace(self._capabilities, versions=True, **capabilities)
        self.versioned_buckets: set[str] = set()
        self.version_pages: list[ListOptions] = []
        self._ids = count(1)
        self._versions: dict[str, dict[str, list[StoredVersion]]] = {}

    def _add(self, bucket: str, key: str, stored: _Object | None, info: ObjectInfo) -> None:
        version = VersionInfo(
            bucket=bucket,
            key=key,
            version_id=info.version_id or "null",
            size=0 if stored is None else info.size,
            etag=None if stored is None else info.etag,
            last_modified=info.last_modified,
            storage_class=None if stored is None else info.storage_class,
            latest=True,
            deleted=stored is None,
            backend=self._backend,
        )
        versions = self._versions.setdefault(bucket, {}).setdefault(key, [])
        versions[:] = [
            (version, stored),
            *(
                (replace(older, latest=False), body)
                for older, body in versions
                if bucket in self.versioned_buckets
            ),
        ]

    def _new_version_id(self, bucket: str) -> str:
        return f"v{next(self._ids)}" if bucket in self.versioned_buckets else "null"

    def _store(
        self, bucket: str, key: str, chunks: tuple[bytes, ...], checksum: int, options: PutOptions
    ) -> ObjectInfo:
        info = replace(
            super()._store(bucket, key, chunks, checksum, options),
            version_id=self._new_version_id(bucket),
        )
        stored = self._object(bucket, key)._replace(info=info)
        self._bucket(bucket).objects[key] = stored
        self._add(bucket, key, stored, info)
        return info

    def _version(self, bucket: str, key: str, version_id: str) -> _Object:
        self._bucket(bucket)
        for version, stored in self._versions.get(bucket, {}).get(key, []):
            if version.version_id == version_id and stored is not None:
                return stored
        raise ObjectNotFoundError("the version does not exist", bucket=bucket, key=key)

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
            def _object(_, bucket: str, key: str) -> _Object:  # noqa: N805 - `self` is the outer driver
                return self._version(bucket, key, version_id)

        return _Reader(OneVersion(), bucket, key, options)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        if version_id is None:
            return await super().head(bucket, key)
        return self._version(bucket, key, version_id).info

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        contents = self._bucket(bucket)
        if options.version_id is None:
            await super().delete(bucket, key, options)
            self._add_marker(bucket, key)
            return
        versions = self._versions.get(bucket, {}).get(key, [])
        versions[:] = [
            (version, stored)
            for version, stored in versions
            if version.version_id != options.version_id
        ]
        versions[:1] = [(replace(version, latest=True), stored) for version, stored in versions[:1]]
        if key in contents.objects:
            contents.remove(key)
        if versions and versions[0][1] is not None:
            contents.add(key, versions[0][1])

    def _add_marker(self, bucket: str, key: str) -> None:
        versions = self._versions.get(bucket, {}).get(key, [])
        if bucket not in self.versioned_buckets:
            versions.clear()
        elif versions:
            newest = next((stored for _, stored in versions if stored is not None), None)
            if newest is not None:
                version_id = self._new_version_id(bucket)
                self._add(bucket, key, None, replace(newest.info, version_id=version_id))

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        results = await super().delete_many(bucket, keys)
        for key in keys:
            self._add_marker(bucket, key)
        return results

    async def delete_bucket(self, bucket: str) -> None:
        if any(self._versions.get(bucket, {}).values()):
            raise BucketNotEmptyError("the bucket has object versions", bucket=bucket)
        await super().delete_bucket(bucket)

    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        self.version_pages.append(options)
        self._bucket(bucket)
        unlisted = [
            version
            for key, versions in sorted(self._versions.get(bucket, {}).items())
            for version, _ in versions
            if key.startswith(options.prefix)
        ]
        if options.token is not None:
            # The token is a key and the number of its versions that are not listed yet. Those are
            # the oldest, so the token stays valid while newer versions are deleted.
            key, _, number = options.token.rpartition("\0")
            of_key = [version for version in unlisted if version.key == key]
            unlisted = [
                *of_key[len(of_key) - int(number) :],
                *(version for version in unlisted if version.key > key),
            ]
        elif options.start_after is not None:
            start = options.start_after
            unlisted = [version for version in unlisted if version.key > start]
        page, later = unlisted[: options.limit], unlisted[options.limit :]
        if not later:
            return VersionPage(entries=page)
        key = page[-1].key
        count_of_key = sum(version.key == key for version in later)
        return VersionPage(entries=page, token=f"{key}\0{count_of_key}")

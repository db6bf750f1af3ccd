"""Compares contents by their checksums: of files, in listings, in metadata, and of bodies."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Collection, Mapping
from contextlib import aclosing
from typing import Final, Protocol

from trove_async._checksums import Crc32c
from trove_async._concurrency import in_thread
from trove_async.bucket import Bucket
from trove_async.models import KiB

from .entries import FileEntry, ObjectEntry
from .rules import md5_of
from .source_files import SourceFiles

_INLINE: Final = 256 * KiB
"""Chunks of up to this size are hashed on the event loop."""

_PREFERRED: Final = ("crc32c", "sha256", "md5", "sha1")
"""The checksums that can be computed here, the first choice first."""

_OF_BODIES: Final = "sha256"
"""The checksum with which two bodies are compared."""


class _Hasher(Protocol):
    def update(self, data: bytes, /) -> None: ...


class Digests:
    """Computes several checksums of a body at once."""

    def __init__(self, algorithms: Collection[str]) -> None:
        self._hashers: dict[str, _Hasher] = {
            name: Crc32c() if name == "crc32c" else hashlib.new(name, usedforsecurity=False)
            for name in algorithms
        }

    async def update(self, data: bytes) -> None:
        """Add bytes, in a thread if there are many."""
        if len(data) > _INLINE:
            await in_thread(self._update, data)
        else:
            self._update(data)

    def _update(self, data: bytes) -> None:
        for hasher in self._hashers.values():
            hasher.update(data)

    def result(self) -> Mapping[str, str]:
        """Return the checksums in the form of `ObjectInfo.checksums`."""
        return {name: _text_of(hasher) for name, hasher in self._hashers.items()}


def _text_of(hasher: _Hasher) -> str:
    if isinstance(hasher, Crc32c):
        return hasher.digest()
    digest: bytes = getattr(hasher, "digest")()  # noqa: B009 - of hashlib
    return b64encode(digest).decode()


async def digests_of_file(
    files: SourceFiles, key: str, algorithms: Collection[str]
) -> Mapping[str, str]:
    """Return checksums of a file.

    Raises:
        ObjectChangedError: The file was changed while it was read.
        OSError: It cannot be read.
    """
    digests = Digests(algorithms)
    async with (
        files.opened(key) as (descriptor, state),
        aclosing(files.chunks(key, descriptor, state)) as chunks,
    ):
        async for chunk in chunks:
            await digests.update(chunk)
    return digests.result()


async def digests_of_object(
    bucket: Bucket, key: str, algorithms: Collection[str]
) -> Mapping[str, str]:
    """Read an object, and return checksums of its body."""
    digests = Digests(algorithms)
    async with bucket.get(key) as reader:
        while chunk := await reader.read(1024 * KiB):
            await digests.update(chunk)
    return digests.result()


def _listed_checksums(entry: ObjectEntry) -> Mapping[str, str]:
    """Return the checksums in a listing, including an etag that looks like an MD5."""
    md5 = md5_of(entry)
    if md5 is None:
        return entry.checksums
    return {**entry.checksums, "md5": b64encode(bytes.fromhex(md5)).decode()}


async def file_is_listed(files: SourceFiles, file: FileEntry, entry: ObjectEntry) -> bool:
    """Return whether a listing proves that a file and an object of the same size have the same content."""
    listed = _listed_checksums(entry)
    algorithm = next((name for name in _PREFERRED if name in listed), None)
    if algorithm is None:
        return False
    actual = await digests_of_file(files, file.key, [algorithm])
    return actual[algorithm] == listed[algorithm]


async def file_is_object(
    files: SourceFiles, file: FileEntry, bucket: Bucket, entry: ObjectEntry
) -> bool:
    """Return whether a file and an object of the same size have the same content.

    The checksum in the listing decides if it is equal. Otherwise the one in the metadata decides, which
    costs a HEAD. If there is none, the body of the object is read.
    """
    listed = _listed_checksums(entry)
    if listed and await file_is_listed(files, file, entry):
        return True
    recorded = (await bucket.head(entry.full_key)).checksums
    algorithm = next((name for name in _PREFERRED if name in recorded), None)
    if algorithm is not None:
        actual = await digests_of_file(files, file.key, [algorithm])
        return actual[algorithm] == recorded[algorithm]
    actual = await digests_of_file(files, file.key, [_OF_BODIES])
    return actual == await digests_of_object(bucket, entry.full_key, [_OF_BODIES])


async def objects_are_equal(
    source: Bucket, left: ObjectEntry, target: Bucket, right: ObjectEntry
) -> bool:
    """Return whether two objects of the same size have the same content, as `file_is_object` does."""
    # 1. The listings.
    mine, theirs = _listed_checksums(left), _listed_checksums(right)
    if any(mine[name] == theirs[name] for name in mine.keys() & theirs.keys()):
        return True
    # 2. The metadata.
    mine = (await source.head(left.full_key)).checksums
    theirs = (await target.head(right.full_key)).checksums
    common = mine.keys() & theirs.keys()
    if common:
        return all(mine[name] == theirs[name] for name in common)
    # 3. The bodies. A checksum that only one side has need not be computed for that side.
    algorithms = [name for name in _PREFERRED if name in mine or name in theirs][:1] or [_OF_BODIES]
    name = algorithms[0]
    if name not in mine:
        mine = await digests_of_object(source, left.full_key, algorithms)
    if name not in theirs:
        theirs = await digests_of_object(target, right.full_key, algorithms)
    return mine[name] == theirs[name]

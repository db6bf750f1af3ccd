"""Conformance tests of metadata, headers, tags, storage class and checksums.

All of them must come back unchanged, and must be replaced together with the body. The values below
contain what services commonly mangle: case, spaces, quotes, non-ASCII text and encoded words.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest

from trove_async.driver import AsyncDriver, Capabilities
from trove_async.errors import IntegrityError
from trove_async.options import GetOptions, PutOptions
from trove_async.testing._harness import (
    content,
    crc32c_of,
    keys,
    part_size,
    parts,
    read,
    upload,
    uploading,
    write,
)
from trove_async.testing.driver._base import DriverTopic, needs

METADATA = {
    "plain": "value",
    "empty": "",
    "with-dash_and.dot": "a=b; c=\"d\", 'e' \\ %20+",
    "unicode": "gr\u00fc\u00df \u2603 \U0001f600",
    "spaced": " in  and around ",
    "number": "0042",
    "encoded": "=?utf-8?b?eA==?=",
}
HEADERS: dict[str, Any] = {
    "content_type": 'text/plain; charset="utf-8"',
    "cache_control": "max-age=60, private",
    "content_disposition": "attachment; filename*=UTF-8''gr%C3%BC%C3%9F.txt",
    "content_encoding": "gzip",
    "content_language": "de-CH, en",
}
EXPIRES = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)
TAGS = {"team": "storage", "cost centre": "a:b/c=d+e-f_g.h@i", "empty": ""}


def checksums_of(body: bytes) -> dict[str, str]:
    """Return the base64 checksums of a body by kind, for the kinds that the suite can compute."""
    return {
        "crc32c": crc32c_of(body),
        "sha256": b64encode(hashlib.sha256(body).digest()).decode(),
        "md5": b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode(),
    }


class DriverMetadata(DriverTopic):
    """Metadata, headers, tags, storage class and checksums, of put and of upload.

    Attributes:
        storage_class: A storage class that the backend accepts and reports.
    """

    storage_class: ClassVar[str] = "STANDARD"

    @pytest.mark.parametrize("operation", ["put", "upload"])
    async def test_metadata_is_kept(
        self, backend: AsyncDriver, bucket: str, operation: str
    ) -> None:
        needs(backend, "metadata")
        await self._store(backend, bucket, operation, b"body", metadata=METADATA)
        assert dict((await backend.head(bucket, "key")).metadata) == METADATA
        async with backend.get(bucket, "key", GetOptions()) as reader:
            assert dict(reader.info.metadata) == METADATA

    async def test_metadata_of_max_metadata_bytes_is_kept(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        capabilities = needs(backend, "metadata")
        # The limit counts names and values, as the limit of S3 does.
        metadata = {"name": "v" * (capabilities.max_metadata_bytes - len("name"))}
        await write(backend, bucket, "key", metadata=metadata)
        assert dict((await backend.head(bucket, "key")).metadata) == metadata

    @pytest.mark.parametrize("operation", ["put", "upload"])
    async def test_headers_are_kept_and_body_is_not_decoded(
        self, backend: AsyncDriver, bucket: str, operation: str
    ) -> None:
        needs(backend, "headers")
        # An HTTP client decodes gzip by default, and would fail on this body.
        await self._store(backend, bucket, operation, b"not gzip at all", **HEADERS)
        head = await backend.head(bucket, "key")
        async with backend.get(bucket, "key", GetOptions()) as reader:
            got = reader.info
        for info in (head, got):
            assert {name: getattr(info, name) for name in HEADERS} == HEADERS
        assert await read(backend, bucket, "key") == b"not gzip at all"

    @pytest.mark.parametrize("operation", ["put", "upload"])
    async def test_expires_is_kept(self, backend: AsyncDriver, bucket: str, operation: str) -> None:
        needs(backend, "expires")
        await self._store(backend, bucket, operation, b"body", expires=EXPIRES)
        async with backend.get(bucket, "key", GetOptions()) as reader:
            assert reader.info.expires == EXPIRES
        assert (await backend.head(bucket, "key")).expires == EXPIRES
        # A put without `expires` must not keep the old object's value.
        await write(backend, bucket, "key", b"body")
        assert (await backend.head(bucket, "key")).expires is None

    @pytest.mark.parametrize("operation", ["put", "upload"])
    async def test_tags_are_kept(self, backend: AsyncDriver, bucket: str, operation: str) -> None:
        needs(backend, "tags", *(["upload_tags"] if operation == "upload" else []))
        await self._store(backend, bucket, operation, b"body", tags=TAGS)
        assert dict((await backend.head(bucket, "key")).tags) == TAGS

    @pytest.mark.parametrize("operation", ["put", "upload"])
    async def test_storage_class_is_kept(
        self, backend: AsyncDriver, bucket: str, operation: str
    ) -> None:
        needs(backend, "storage_class")
        await self._store(backend, bucket, operation, b"body", storage_class=self.storage_class)
        assert (await backend.head(bucket, "key")).storage_class == self.storage_class

    async def test_object_without_metadata_reports_none(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        await write(backend, bucket, "key")
        info = await backend.head(bucket, "key")
        assert (dict(info.metadata), dict(info.tags)) == ({}, {})
        assert info.cache_control is None
        assert info.content_disposition is None
        assert info.content_encoding is None
        assert info.content_language is None
        assert info.expires is None

    async def test_replaced_object_loses_its_metadata(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        needs(backend, "metadata", "headers")
        await write(backend, bucket, "key", metadata={"a": "1", "b": "2"}, **HEADERS)
        await write(backend, bucket, "key", metadata={"b": "3"})
        info = await backend.head(bucket, "key")
        assert dict(info.metadata) == {"b": "3"}
        assert info.cache_control is None
        assert info.content_encoding is None
        assert info.content_language is None

    async def test_put_copies_the_metadata_mapping(self, backend: AsyncDriver, bucket: str) -> None:
        needs(backend, "metadata")
        metadata = {"a": "1"}
        await write(backend, bucket, "key", metadata=metadata)
        metadata["a"] = "changed"
        assert dict((await backend.head(bucket, "key")).metadata) == {"a": "1"}

    @pytest.mark.parametrize("operation", ["put", "upload"])
    async def test_checksums_are_reported(
        self, backend: AsyncDriver, bucket: str, operation: str
    ) -> None:
        body = content(12_345)
        checksums = _claimed(needs(backend, "checksums"), body)
        await self._store(backend, bucket, operation, body, checksums=checksums)
        reported = (await backend.head(bucket, "key")).checksums
        # A service may report more kinds than were sent.
        assert {kind: reported[kind] for kind in checksums} == checksums

    async def test_reported_checksums_are_correct(self, backend: AsyncDriver, bucket: str) -> None:
        body = content(12_345)
        correct = checksums_of(body)
        for info in (
            await write(backend, bucket, "key", body),
            await backend.head(bucket, "key"),
        ):
            # A service may also report kinds that the suite cannot compute, such as CRC-64.
            common = info.checksums.keys() & correct.keys()
            assert {kind: info.checksums[kind] for kind in common} == {
                kind: correct[kind] for kind in common
            }

    @pytest.mark.parametrize("operation", ["put", "upload"])
    async def test_body_that_does_not_match_its_checksum_is_refused(
        self, backend: AsyncDriver, bucket: str, operation: str
    ) -> None:
        capabilities = needs(backend, "checksums")
        for kind, value in _claimed(capabilities, b"another body").items():
            with pytest.raises(IntegrityError):
                await self._store(backend, bucket, operation, b"the body", checksums={kind: value})
            assert await keys(backend, bucket) == []
        # Nor must a refused body replace an existing object.
        old = await write(backend, bucket, "key", b"old")
        for kind, value in _claimed(capabilities, b"another body").items():
            with pytest.raises(IntegrityError):
                await self._store(backend, bucket, operation, b"the body", checksums={kind: value})
        assert await read(backend, bucket, "key") == b"old"
        assert (await backend.head(bucket, "key")).etag == old.etag

    async def test_commit_verifies_and_records_checksums(
        self, backend: AsyncDriver, bucket: str
    ) -> None:
        capabilities = needs(backend, "checksums", "upload")
        size = part_size(capabilities)
        body = content(2 * size + 1)
        correct = _claimed(capabilities, body)
        wrong = _claimed(capabilities, body[:-1])
        # The wrong checksums first: a refused commit must leave nothing.
        for checksums in (wrong, correct):
            async with uploading(backend).upload(bucket, "key", PutOptions()) as running:
                for part, piece in parts(body, size):
                    await running.send(part, piece)
                if checksums is correct:
                    await running.commit(correct)
                else:
                    with pytest.raises(IntegrityError):
                        await running.commit(wrong)
                    assert await keys(backend, bucket) == []
        reported = (await backend.head(bucket, "key")).checksums
        assert {kind: reported[kind] for kind in correct} == correct

    async def _store(
        self, backend: AsyncDriver, bucket: str, operation: str, body: bytes, **options: Any
    ) -> None:
        if operation == "upload":
            needs(backend, "upload")
            await upload(backend, bucket, "key", body, **options)
        else:
            await write(backend, bucket, "key", body, **options)


def _claimed(capabilities: Capabilities, body: bytes) -> dict[str, str]:
    checksums = checksums_of(body)
    return {kind: checksums[kind] for kind in capabilities.checksums if kind in checksums}

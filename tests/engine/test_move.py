"""Moves on services that store two keys as one object, store wrong bytes or report too little."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pytest

from tests.fakes import CallLog, fill, single_attempt_store
from tests.versioned_memory import VersionedMemory
from trove_async import IntegrityError, ObjectChangedError, ObjectInfo, UnavailableError
from trove_async.drivers.memory import MemoryDriver
from trove_async.options import DeleteOptions, PutOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from trove_async.driver import DriverReader
    from trove_async.options import CopyOptions, GetOptions

Etags: TypeAlias = Literal["of the write", "of the content", "none"]

ROUTES = [("*.cold", "cold")]


class Service(CallLog):
    """A service with configurable flaws.

    Args:
        folds_keys: Whether it stores ``a//b`` and ``/a/b`` as ``a/b``.
        etags: What its etags identify: each write, or the content. ``none``: it has no etags.
        records_metadata: Whether it stores metadata, including the write_id.
        reports_checksums: Whether it returns checksums of the stored bytes.
        date: The last_modified of every object; None: the current time.
        capabilities: As for `CallLog`.
    """

    def __init__(
        self,
        *,
        folds_keys: bool = False,
        etags: Etags = "of the content",
        records_metadata: bool = True,
        reports_checksums: bool = True,
        date: datetime | None = None,
        **capabilities: Any,
    ) -> None:
        super().__init__(**{"metadata": records_metadata, **capabilities})
        self._folds_keys = folds_keys
        self._etags = etags
        self._records_metadata = records_metadata
        self._reports_checksums = reports_checksums
        self._date = date

    def _stored_key(self, key: str) -> str:
        return re.sub("/+", "/", key).lstrip("/") if self._folds_keys else key

    def _store(
        self, bucket: str, key: str, chunks: tuple[bytes, ...], checksum: int, options: PutOptions
    ) -> ObjectInfo:
        if not self._records_metadata:
            options = replace(options, write_id=None)
        info = super()._store(bucket, key, chunks, checksum, options)
        if self._etags != "of the write":
            content = f"{checksum:08x}"
            info = replace(info, etag=content if self._etags == "of the content" else None)
        if not self._reports_checksums:
            info = replace(info, checksums={})
        if self._date is not None:
            info = replace(info, last_modified=self._date)
        self.replace_info(bucket, key, info)
        return info

    def replace_info(self, bucket: str, key: str, info: ObjectInfo) -> None:
        """Replace the stored info of an object."""
        objects = self._buckets[bucket].objects
        objects[key] = objects[key]._replace(info=info)

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        return await super().put(bucket, self._stored_key(key), views, options)

    @asynccontextmanager
    async def _get(self, bucket: str, key: str, options: GetOptions) -> AsyncIterator[DriverReader]:
        async with super()._get(bucket, self._stored_key(key), options) as reader:
            yield reader

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        return await super().head(bucket, self._stored_key(key), version_id)

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        await super().delete(bucket, self._stored_key(key), options)

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        return await super().copy(
            src_bucket, self._stored_key(src_key), dst_bucket, self._stored_key(dst_key), options
        )


def backdate(service: Service, key: str) -> None:
    """Set the date of an object back by one minute."""
    info = service._buckets["data"].objects[key].info
    last_modified = info.last_modified - timedelta(minutes=1)
    service.replace_info("data", key, replace(info, last_modified=last_modified))


# -- one object under two names --------------------------------------------------------------------


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("etags", ["of the write", "of the content", "none"])
@pytest.mark.parametrize("records_metadata", [True, False], ids=["records ids", "records nothing"])
@pytest.mark.parametrize("server_copy", [True, False])
async def test_move_to_a_second_name_of_its_source_deletes_nothing(
    *, conditional: bool, etags: Etags, records_metadata: bool, server_copy: bool
) -> None:
    service = Service(
        folds_keys=True,
        etags=etags,
        records_metadata=records_metadata,
        delete_if_match=conditional,
        server_copy=server_copy,
    )
    async with single_attempt_store(service) as store:
        await store.create_bucket("data")
        await store.put("data", "p/q", b"keep me")
        with pytest.raises(ObjectChangedError) as caught:
            await store.move("data", "p/q", "data", "p//q")
        assert (caught.value.operation, caught.value.key) == ("move", "p/q")
        assert "as one object" in str(caught.value) or not records_metadata
        assert await store.read("data", "p/q") == b"keep me"


@pytest.mark.parametrize("etags", ["of the write", "of the content", "none"])
async def test_move_between_two_addresses_of_one_service_deletes_nothing(etags: Etags) -> None:
    service, proxied = Service(etags=etags), Service(etags=etags)
    proxied._buckets = service._buckets
    routed_to: list[str] = []

    def route_in_turn(_bucket: str, _key: str) -> str:
        return routed_to.pop(0) if routed_to else ""

    async with single_attempt_store(
        service, backends={"second": proxied}, route_functions=[route_in_turn]
    ) as store:
        await store.create_bucket("data")
        await store.put("data", "key", b"keep me")
        routed_to += ["default", "second"]
        with pytest.raises(ObjectChangedError, match="one object"):
            await store.move("data", "key", "data", "key")
        assert await store.read("data", "key") == b"keep me"


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("etags", ["of the write", "of the content", "none"])
@pytest.mark.parametrize("reports_checksums", [True, False])
@pytest.mark.parametrize("target_key", ["to", "to.cold"])
async def test_move_to_a_distinct_object_deletes_its_source(
    *, conditional: bool, etags: Etags, reports_checksums: bool, target_key: str
) -> None:
    service = Service(etags=etags, reports_checksums=reports_checksums, delete_if_match=conditional)
    cold = Service(etags=etags, reports_checksums=reports_checksums)
    async with single_attempt_store(service, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"body")
        await store.move("data", "key", "data", target_key)
        assert await store.read("data", target_key) == b"body"
        assert service.stored_keys("data") == ([] if target_key == "to.cold" else ["to"])


async def test_source_without_write_id_is_moved_if_the_service_keeps_ids() -> None:
    service = Service(folds_keys=True)
    await fill(service, "data", "key")
    async with single_attempt_store(service) as store:
        service.calls.clear()
        await store.move("data", "key", "data", "to")
        assert service.stored_keys("data") == ["to"]
        assert service.calls == ["head", "copy", "head", "head", "delete"]


@pytest.mark.parametrize("etags", ["of the write", "of the content"])
async def test_dates_or_etags_distinguish_source_and_destination_without_metadata(
    etags: Etags,
) -> None:
    service = Service(records_metadata=False, etags=etags)
    await fill(service, "data", "key")
    backdate(service, "key")
    async with single_attempt_store(service) as store:
        await store.move("data", "key", "data", "to")
        assert service.stored_keys("data") == ["to"]


async def test_both_objects_stay_if_nothing_distinguishes_them() -> None:
    service = Service(records_metadata=False, date=datetime(2026, 1, 1, tzinfo=UTC))
    await fill(service, "data", "key")
    async with single_attempt_store(service) as store:
        with pytest.raises(ObjectChangedError, match="under another name"):
            await store.move("data", "key", "data", "to")
        assert await store.read("data", "key") == await store.read("data", "to") == b"key"


# -- a destination that differs from the copy -----------------------------------------------------


class WrongBodyService(Service):
    """Stores `wrong_body` instead of the body that it receives."""

    wrong_body = b"another"

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        stored_info = await super().put(bucket, key, views, options)
        await self.tamper(bucket, key, options)
        return stored_info

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        stored_info = await super().copy(src_bucket, src_key, dst_bucket, dst_key, options)
        await self.tamper(dst_bucket, dst_key, options.put)
        return replace(stored_info, etag="x", checksums={})

    async def tamper(self, bucket: str, key: str, options: PutOptions) -> None:
        """Change the object that was stored."""
        put = replace(options, checksums={}, if_none_match=None, if_match=None)
        await super().put(bucket, key, [memoryview(self.wrong_body)], put)


class NothingStoredService(WrongBodyService):
    """Stores nothing."""

    async def tamper(self, bucket: str, key: str, options: PutOptions) -> None:
        del options
        await MemoryDriver.delete(self, bucket, key, DeleteOptions())


class WrongObjectService(WrongBodyService):
    """Has an object of a different write at the destination."""

    async def tamper(self, bucket: str, key: str, options: PutOptions) -> None:
        await super().tamper(bucket, key, replace(options, write_id="another"))


class DroppedMetadataService(WrongBodyService):
    """Stores the body, but drops the write_id, although its capabilities include metadata."""

    async def tamper(self, bucket: str, key: str, options: PutOptions) -> None:
        del options
        info = self._buckets[bucket].objects[key].info
        self.replace_info(bucket, key, replace(info, write_id=None))


@pytest.mark.parametrize("target_key", ["to", "to.cold"])
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (WrongBodyService, IntegrityError),
        (NothingStoredService, ObjectChangedError),
        (WrongObjectService, ObjectChangedError),
        (DroppedMetadataService, ObjectChangedError),
    ],
)
async def test_source_stays_if_the_destination_is_not_the_copy(
    kind: type[WrongBodyService], error: type[Exception], target_key: str
) -> None:
    service, cold = kind(reports_checksums=False), kind(reports_checksums=False)
    await fill(cold, "data")
    async with single_attempt_store(service, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", exist_ok=True)
        await MemoryDriver.put(service, "data", "key", [memoryview(b"body")], PutOptions())
        with pytest.raises(error) as caught:
            await store.move("data", "key", "data", target_key)
        assert getattr(caught.value, "key", None) == target_key
        assert await store.read("data", "key") == b"body"


async def test_corrupt_copy_is_not_deleted_if_it_is_its_source() -> None:
    class WrongChecksumService(Service):
        """Reports a wrong checksum for a copy."""

        async def copy(
            self,
            src_bucket: str,
            src_key: str,
            dst_bucket: str,
            dst_key: str,
            options: CopyOptions,
        ) -> ObjectInfo:
            stored_info = await super().copy(src_bucket, src_key, dst_bucket, dst_key, options)
            return replace(stored_info, checksums={"crc32c": "AAAAAA=="})

    service = WrongChecksumService(folds_keys=True)
    async with single_attempt_store(service) as store:
        await store.create_bucket("data")
        await store.put("data", "p/q", b"keep me")
        with pytest.raises(IntegrityError):
            await store.move("data", "p/q", "data", "p//q")
        assert await store.read("data", "p/q") == b"keep me"
        with pytest.raises(IntegrityError):
            await store.move("data", "p/q", "data", "other")
        assert service.stored_keys("data") == ["p/q"]


async def test_destination_checksum_is_compared_if_the_response_has_none() -> None:
    class HeadChecksumService(WrongBodyService):
        """Reports checksums in a head, but not in the response to a put, as some services do."""

        wrong_body = b"ydob"

        async def put(
            self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
        ) -> ObjectInfo:
            return replace(await super().put(bucket, key, views, options), checksums={})

    default, cold = Service(), HeadChecksumService()
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"body")
        with pytest.raises(IntegrityError, match="crc32c"):
            await store.move("data", "key", "data", "to.cold")
        assert await store.read("data", "key") == b"body"


async def test_source_stays_if_the_destination_cannot_be_headed() -> None:
    service = Service(reports_checksums=False, etags="of the write")
    async with single_attempt_store(service) as store:
        await store.create_bucket("data")
        await store.put("data", "key", b"body")
        service.fail("head", UnavailableError("broken"), after=1)
        with pytest.raises(UnavailableError) as caught:
            await store.move("data", "key", "data", "to")
        assert caught.value.key == "to"
        assert service.stored_keys("data") == ["key", "to"]


async def test_version_that_was_not_copied_stays() -> None:
    class LostCopyMemory(VersionedMemory):
        """Reports success for copies, but does not store them."""

        async def copy(
            self,
            src_bucket: str,
            src_key: str,
            dst_bucket: str,
            dst_key: str,
            options: CopyOptions,
        ) -> ObjectInfo:
            stored_info = await super().copy(src_bucket, src_key, dst_bucket, dst_key, options)
            await MemoryDriver.delete(self, dst_bucket, dst_key, DeleteOptions())
            return replace(stored_info, checksums={})

    driver = LostCopyMemory()
    driver.versioned_buckets.add("data")
    async with single_attempt_store(driver) as store:
        await store.create_bucket("data")
        old = await store.put("data", "key", b"old")
        await store.put("data", "key", b"new")
        with pytest.raises(ObjectChangedError, match="the destination has no object"):
            await store.move("data", "key", "data", "to", source_version_id=old.version_id)
        assert await store.read("data", "key", version_id=old.version_id) == b"old"


# -- requests --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "calls"),
    [
        ({"exact_keys": True}, ["head", "copy", "delete"]),
        (
            {"exact_keys": True, "delete_if_match": False},
            ["head", "copy", "head", "delete"],
        ),
        ({}, ["head", "copy", "head", "delete"]),
        ({"delete_if_match": False}, ["head", "copy", "head", "delete"]),
        ({"etags": "of the write"}, ["head", "copy", "head", "delete"]),
        # Without checksums, an etag of the content proves the copy. An etag of the write does not, so a
        # second head requests the destination.
        ({"reports_checksums": False}, ["head", "copy", "head", "delete"]),
        (
            {"reports_checksums": False, "etags": "of the write"},
            ["head", "copy", "head", "head", "delete"],
        ),
    ],
)
async def test_move_sends_the_documented_requests(
    settings: dict[str, Any], calls: list[str]
) -> None:
    service = Service(**settings)
    async with single_attempt_store(service) as store:
        await store.create_bucket("data")
        await store.put("data", "key", b"body")
        service.calls.clear()
        await store.move("data", "key", "data", "to")
        assert service.calls == calls


async def test_exact_keys_prove_nothing_across_two_buckets() -> None:
    """One bucket may be an alias of the other, such as an S3 access point."""
    service = Service(exact_keys=True)
    async with single_attempt_store(service) as store:
        await store.create_bucket("data")
        await store.create_bucket("other")
        await store.put("data", "key", b"body")
        service.calls.clear()
        await store.move("data", "key", "other", "key")
        assert service.calls == ["head", "copy", "head", "delete"]


async def test_two_services_with_exact_keys_are_distinct() -> None:
    class NamedService(Service):
        @property
        def name(self) -> str:
            return "other"

    service, cold = Service(exact_keys=True), NamedService(exact_keys=True)
    async with single_attempt_store(service, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"body")
        service.calls.clear()
        cold.calls.clear()
        await store.move("data", "key", "data", "to.cold")
        assert (service.calls, cold.calls) == (["head", "get", "delete"], ["put"])

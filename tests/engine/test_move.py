"""Moves to and within services that fold names, store something else, or report nothing."""

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
    """A service that is not what the best are.

    Args:
        folds: It takes ``a//b`` and ``/a/b`` for ``a/b``.
        etags: What its etags tell apart.
        keeps: It keeps metadata, the id of a write among them.
        reports: It tells checksums of what it has stored.
        date: The date of all that it stores; None: the time.
        capabilities: As of `CallLog`.
    """

    def __init__(
        self,
        *,
        folds: bool = False,
        etags: Etags = "of the content",
        keeps: bool = True,
        reports: bool = True,
        date: datetime | None = None,
        **capabilities: Any,
    ) -> None:
        super().__init__(**{"metadata": keeps, **capabilities})
        self._folds = folds
        self._etags = etags
        self._keeps = keeps
        self._reports = reports
        self._date = date

    def _of(self, key: str) -> str:
        return re.sub("/+", "/", key).lstrip("/") if self._folds else key

    def _store(
        self, bucket: str, key: str, chunks: tuple[bytes, ...], checksum: int, options: PutOptions
    ) -> ObjectInfo:
        if not self._keeps:
            options = replace(options, write_id=None)
        info = super()._store(bucket, key, chunks, checksum, options)
        if self._etags != "of the write":
            content = f"{checksum:08x}"
            info = replace(info, etag=content if self._etags == "of the content" else None)
        if not self._reports:
            info = replace(info, checksums={})
        if self._date is not None:
            info = replace(info, last_modified=self._date)
        self.hold(bucket, key, info)
        return info

    def hold(self, bucket: str, key: str, info: ObjectInfo) -> None:
        """Have other facts of an object that is there."""
        objects = self._buckets[bucket].objects
        objects[key] = objects[key]._replace(info=info)

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        return await super().put(bucket, self._of(key), views, options)

    @asynccontextmanager
    async def _get(self, bucket: str, key: str, options: GetOptions) -> AsyncIterator[DriverReader]:
        async with super()._get(bucket, self._of(key), options) as reader:
            yield reader

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        return await super().head(bucket, self._of(key), version_id)

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        await super().delete(bucket, self._of(key), options)

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        return await super().copy(
            src_bucket, self._of(src_key), dst_bucket, self._of(dst_key), options
        )


def older(service: Service, key: str, seconds: float = 60) -> None:
    """Have an object be so much older."""
    info = service._buckets["data"].objects[key].info
    service.hold(
        "data", key, replace(info, last_modified=info.last_modified - timedelta(seconds=seconds))
    )


# -- one object under two names --------------------------------------------------------------------


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("etags", ["of the write", "of the content", "none"])
@pytest.mark.parametrize("keeps", [True, False], ids=["keeps ids", "keeps nothing"])
@pytest.mark.parametrize("server_copy", [True, False])
async def test_move_to_another_name_of_its_source_deletes_nothing(
    *, conditional: bool, etags: Etags, keeps: bool, server_copy: bool
) -> None:
    service = Service(
        folds=True,
        etags=etags,
        keeps=keeps,
        delete_if_match=conditional,
        server_copy=server_copy,
    )
    async with single_attempt_store(service) as store:
        await store.create_bucket("data")
        await store.put("data", "p/q", b"keep me")
        with pytest.raises(ObjectChangedError) as caught:
            await store.move("data", "p/q", "data", "p//q")
        assert (caught.value.operation, caught.value.key) == ("move", "p/q")
        assert "as one object" in str(caught.value) or not keeps
        assert await store.read("data", "p/q") == b"keep me"


@pytest.mark.parametrize("etags", ["of the write", "of the content", "none"])
async def test_move_between_two_addresses_of_one_service_deletes_nothing(etags: Etags) -> None:
    service, proxied = Service(etags=etags), Service(etags=etags)
    proxied._buckets = service._buckets
    answers: list[str] = []

    def by_turn(_bucket: str, _key: str) -> str:
        return answers.pop(0) if answers else ""

    async with single_attempt_store(
        service, backends={"too": proxied}, route_functions=[by_turn]
    ) as store:
        await store.create_bucket("data")
        await store.put("data", "key", b"keep me")
        answers += ["default", "too"]
        with pytest.raises(ObjectChangedError, match="one object"):
            await store.move("data", "key", "data", "key")
        assert await store.read("data", "key") == b"keep me"


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("etags", ["of the write", "of the content", "none"])
@pytest.mark.parametrize("reports", [True, False])
@pytest.mark.parametrize("to", ["to", "to.cold"])
async def test_move_to_another_object_deletes_its_source(
    *, conditional: bool, etags: Etags, reports: bool, to: str
) -> None:
    service = Service(etags=etags, reports=reports, delete_if_match=conditional)
    cold = Service(etags=etags, reports=reports)
    async with single_attempt_store(service, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"body")
        await store.move("data", "key", "data", to)
        assert await store.read("data", to) == b"body"
        assert service.holds("data") == ([] if to == "to.cold" else ["to"])


async def test_source_of_another_tool_is_moved_where_ids_are_kept() -> None:
    service = Service(folds=True)
    await fill(service, "data", "key")
    async with single_attempt_store(service) as store:
        service.calls.clear()
        await store.move("data", "key", "data", "to")
        assert service.holds("data") == ["to"]
        assert service.calls == ["head", "copy", "head", "head", "delete"]


@pytest.mark.parametrize("etags", ["of the write", "of the content"])
async def test_where_nothing_is_kept_dates_or_etags_tell_source_and_destination_apart(
    etags: Etags,
) -> None:
    service = Service(keeps=False, etags=etags)
    await fill(service, "data", "key")
    older(service, "key")
    async with single_attempt_store(service) as store:
        await store.move("data", "key", "data", "to")
        assert service.holds("data") == ["to"]


async def test_where_nothing_tells_source_and_destination_apart_both_stay() -> None:
    service = Service(keeps=False, date=datetime(2026, 1, 1, tzinfo=UTC))
    await fill(service, "data", "key")
    async with single_attempt_store(service) as store:
        with pytest.raises(ObjectChangedError, match="under another name"):
            await store.move("data", "key", "data", "to")
        assert await store.read("data", "key") == await store.read("data", "to") == b"key"


# -- something else at the destination -------------------------------------------------------------


class Other(Service):
    """Stores another body than it is sent, and tells what `stored` says."""

    stored = b"another"

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        told = await super().put(bucket, key, views, options)
        await self.store_other(bucket, key, options)
        return told

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        told = await super().copy(src_bucket, src_key, dst_bucket, dst_key, options)
        await self.store_other(dst_bucket, dst_key, options.put)
        return replace(told, etag="x", checksums={})

    async def store_other(self, bucket: str, key: str, options: PutOptions) -> None:
        put = replace(options, checksums={}, if_none_match=None, if_match=None)
        await super().put(bucket, key, [memoryview(self.stored)], put)


class Lost(Other):
    """Stores nothing."""

    async def store_other(self, bucket: str, key: str, options: PutOptions) -> None:
        del options
        await MemoryDriver.delete(self, bucket, key, DeleteOptions())


class Kept(Other):
    """Keeps what was there before."""

    async def store_other(self, bucket: str, key: str, options: PutOptions) -> None:
        await super().store_other(bucket, key, replace(options, write_id="another"))


class Stripped(Other):
    """Stores the body, and drops the metadata that it is said to keep."""

    async def store_other(self, bucket: str, key: str, options: PutOptions) -> None:
        del options
        info = self._buckets[bucket].objects[key].info
        self.hold(bucket, key, replace(info, write_id=None))


@pytest.mark.parametrize("to", ["to", "to.cold"])
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (Other, IntegrityError),
        (Lost, ObjectChangedError),
        (Kept, ObjectChangedError),
        (Stripped, ObjectChangedError),
    ],
)
async def test_source_stays_where_the_destination_is_not_what_was_copied(
    kind: type[Other], error: type[Exception], to: str
) -> None:
    service, cold = kind(reports=False), kind(reports=False)
    await fill(cold, "data")
    async with single_attempt_store(service, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", exist_ok=True)
        await MemoryDriver.put(service, "data", "key", [memoryview(b"body")], PutOptions())
        with pytest.raises(error) as caught:
            await store.move("data", "key", "data", to)
        assert getattr(caught.value, "key", None) == to
        assert await store.read("data", "key") == b"body"


async def test_copy_that_is_told_to_be_wrong_is_not_deleted_where_it_is_its_source() -> None:
    class Mistaken(Service):
        """Tells a wrong checksum of a copy."""

        async def copy(
            self,
            src_bucket: str,
            src_key: str,
            dst_bucket: str,
            dst_key: str,
            options: CopyOptions,
        ) -> ObjectInfo:
            told = await super().copy(src_bucket, src_key, dst_bucket, dst_key, options)
            return replace(told, checksums={"crc32c": "AAAAAA=="})

    service = Mistaken(folds=True)
    async with single_attempt_store(service) as store:
        await store.create_bucket("data")
        await store.put("data", "p/q", b"keep me")
        with pytest.raises(IntegrityError):
            await store.move("data", "p/q", "data", "p//q")
        assert await store.read("data", "p/q") == b"keep me"
        with pytest.raises(IntegrityError):
            await store.move("data", "p/q", "data", "other")
        assert service.holds("data") == ["p/q"]


async def test_checksum_of_the_destination_is_compared_when_the_response_told_none() -> None:
    class Late(Other):
        """Tells checksums only when it is headed, as some services do."""

        stored = b"ydob"

    cold = Late()
    default = Service()

    async def silent(bucket: str, key: str, views: Any, options: PutOptions) -> ObjectInfo:
        return replace(await Late.put(cold, bucket, key, views, options), checksums={})

    cold.put = silent  # type: ignore[method-assign]
    async with single_attempt_store(default, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"body")
        with pytest.raises(IntegrityError, match="crc32c"):
            await store.move("data", "key", "data", "to.cold")
        assert await store.read("data", "key") == b"body"


async def test_destination_that_cannot_be_looked_at_keeps_the_source() -> None:
    service = Service(reports=False, etags="of the write")
    async with single_attempt_store(service) as store:
        await store.create_bucket("data")
        await store.put("data", "key", b"body")
        service.fail("head", UnavailableError("broken"), after=1)
        with pytest.raises(UnavailableError) as caught:
            await store.move("data", "key", "data", "to")
        assert caught.value.key == "to"
        assert service.holds("data") == ["key", "to"]


async def test_version_that_was_not_copied_stays() -> None:
    class Losing(VersionedMemory):
        """Stores no copies, and tells that it has."""

        async def copy(
            self,
            src_bucket: str,
            src_key: str,
            dst_bucket: str,
            dst_key: str,
            options: CopyOptions,
        ) -> ObjectInfo:
            told = await super().copy(src_bucket, src_key, dst_bucket, dst_key, options)
            await MemoryDriver.delete(self, dst_bucket, dst_key, DeleteOptions())
            return replace(told, checksums={})

    driver = Losing()
    driver.keeping.add("data")
    async with single_attempt_store(driver) as store:
        await store.create_bucket("data")
        old = await store.put("data", "key", b"old")
        await store.put("data", "key", b"new")
        with pytest.raises(ObjectChangedError, match="the destination has no object"):
            await store.move("data", "key", "data", "to", source_version_id=old.version_id)
        assert await store.read("data", "key", version_id=old.version_id) == b"old"


# -- what it costs ---------------------------------------------------------------------------------


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
        # The etag proves the content, or the destination is headed.
        ({"reports": False}, ["head", "copy", "head", "delete"]),
        (
            {"reports": False, "etags": "of the write"},
            ["head", "copy", "head", "head", "delete"],
        ),
    ],
)
async def test_requests_of_a_move(settings: dict[str, Any], calls: list[str]) -> None:
    service = Service(**settings)
    async with single_attempt_store(service) as store:
        await store.create_bucket("data")
        await store.put("data", "key", b"body")
        service.calls.clear()
        await store.move("data", "key", "data", "to")
        assert service.calls == calls


async def test_exact_keys_say_nothing_of_two_buckets() -> None:
    """One may be an alias of the other: S3's access points are."""
    service = Service(exact_keys=True)
    async with single_attempt_store(service) as store:
        await store.create_bucket("data")
        await store.create_bucket("other")
        await store.put("data", "key", b"body")
        service.calls.clear()
        await store.move("data", "key", "other", "key")
        assert service.calls == ["head", "copy", "head", "delete"]


async def test_two_services_of_exact_keys_cannot_be_one() -> None:
    class Named(Service):
        @property
        def name(self) -> str:
            return "other"

    service, cold = Service(exact_keys=True), Named(exact_keys=True)
    async with single_attempt_store(service, backends={"cold": cold}, routes=ROUTES) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"body")
        service.calls.clear()
        cold.calls.clear()
        await store.move("data", "key", "data", "to.cold")
        assert (service.calls, cold.calls) == (["head", "get", "delete"], ["put"])

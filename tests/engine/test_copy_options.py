"""Options of copies and moves: the properties of the copy, and the version of the source."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import CallLog, single_attempt_store
from tests.versioned_memory import VersionedMemory
from trove_async import (
    BackendNotFoundError,
    InvalidNameError,
    NotSupportedError,
    ObjectNotFoundError,
    Trove,
)
from trove_async.drivers import LocalDriver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PROPERTIES: dict[str, Any] = {
    "content_type": "text/plain",
    "metadata": {"colour": "blue"},
    "tags": {"team": "a"},
    "cache_control": "no-store",
    "content_disposition": "attachment",
    "content_encoding": "identity",
    "content_language": "de-CH",
    "expires": datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC),
}
OVERRIDES: dict[str, Any] = {
    "content_type": "text/html",
    "metadata": {"size": "1"},
    "tags": {"team": "b"},
    "cache_control": "max-age=1",
    "content_disposition": "inline",
    "content_encoding": "gzip",
    "content_language": "en",
    "expires": datetime(2032, 2, 3, 4, 5, 6, tzinfo=UTC),
}
EMPTY_MAPPINGS: dict[str, Any] = {"metadata": {}, "tags": {}}


def properties_of(info: object) -> dict[str, Any]:
    return {name: getattr(info, name) for name in PROPERTIES}


@pytest.fixture(params=["server copy", "streamed", "onto itself"])
async def setup(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Trove, str]]:
    """A store, and the key to copy to."""
    async with single_attempt_store(CallLog(server_copy=request.param == "server copy")) as store:
        await store.create_bucket("data")
        yield store, "key" if request.param == "onto itself" else "copy"


async def test_copy_keeps_the_properties_of_the_source(setup: tuple[Trove, str]) -> None:
    store, key = setup
    await store.put("data", "key", b"body", **PROPERTIES)
    copied = await store.copy("data", "key", "data", key)
    assert properties_of(copied) == properties_of(await store.head("data", key)) == PROPERTIES


@pytest.mark.parametrize("name", PROPERTIES)
async def test_option_overrides_one_property_of_the_source(
    setup: tuple[Trove, str], name: str
) -> None:
    store, key = setup
    await store.put("data", "key", b"body", **PROPERTIES)
    await store.copy("data", "key", "data", key, **{name: OVERRIDES[name]})
    assert properties_of(await store.head("data", key)) == {**PROPERTIES, name: OVERRIDES[name]}
    assert await store.read("data", key) == b"body"


@pytest.mark.parametrize("name", PROPERTIES)
async def test_empty_value_removes_the_property_from_the_copy(
    setup: tuple[Trove, str], name: str
) -> None:
    store, key = setup
    await store.put("data", "key", b"body", **PROPERTIES)
    empty = EMPTY_MAPPINGS.get(name, "")
    await store.copy("data", "key", "data", key, **{name: empty})
    properties = properties_of(await store.head("data", key))
    assert properties == {**PROPERTIES, name: EMPTY_MAPPINGS.get(name)}


async def test_move_applies_its_options() -> None:
    async with single_attempt_store(CallLog()) as store:
        await store.create_bucket("data")
        await store.put("data", "key", b"body", **PROPERTIES)
        moved = await store.move("data", "key", "data", "moved", **OVERRIDES)
        assert properties_of(moved) == OVERRIDES
        assert not await store.exists("data", "key")


@pytest.mark.parametrize(
    ("capability", "options"),
    [
        ("headers", {"content_type": "a/b"}),
        ("headers", {"content_language": "de"}),
        ("tags", {"tags": {"a": "b"}}),
        ("expires", {"expires": OVERRIDES["expires"]}),
    ],
)
async def test_option_unsupported_by_the_destination_is_rejected_before_the_source_is_read(
    capability: str, options: dict[str, Any]
) -> None:
    source, target = CallLog(), CallLog(**{capability: False})
    async with single_attempt_store(
        source, backends={"cold": target}, routes=[("*.cold", "cold")]
    ) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"body")
        source.calls.clear()
        target.calls.clear()
        with pytest.raises(NotSupportedError):
            await store.copy("data", "key", "data", "key.cold", **options)
        assert source.calls == target.calls == []


async def test_guessable_type_is_dropped_if_the_destination_stores_no_headers() -> None:
    target = CallLog(headers=False)
    async with single_attempt_store(
        CallLog(), backends={"cold": target}, routes=[("cold/*", "cold")]
    ) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "page.html", b"body")
        copied = await store.copy("data", "page.html", "data", "cold/page.html")
        assert copied.content_type is None
        with pytest.raises(NotSupportedError):
            await store.copy("data", "page.html", "data", "cold/page")
        await store.put("data", "page.html", b"body", content_type="text/plain")
        with pytest.raises(NotSupportedError):
            await store.move("data", "page.html", "data", "cold/page.html")
        assert await store.exists("data", "page.html")


async def test_property_unsupported_by_the_destination_is_rejected_unless_removed() -> None:
    target = CallLog(expires=False)
    async with single_attempt_store(
        CallLog(), backends={"cold": target}, routes=[("*.cold", "cold")]
    ) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"body", **PROPERTIES)
        with pytest.raises(NotSupportedError, match="expires"):
            await store.copy("data", "key", "data", "key.cold")
        assert target.stored_keys("data") == []
        copied = await store.copy("data", "key", "data", "key.cold", expires="")
        assert properties_of(copied) == {**PROPERTIES, "expires": None}


async def test_source_is_read_from_the_named_backend() -> None:
    cold = CallLog()
    async with single_attempt_store(CallLog(), backends={"cold": cold}) as store:
        await store.create_bucket("data", backends="all")
        await store.put("data", "key", b"routed")
        await store.backend("cold").put("data", "key", b"cold")
        copied = await store.copy("data", "key", "data", "copy", source_backend="cold")
        assert copied.backend == "default"
        assert await store.read("data", "copy") == b"cold"
        await store.move("data", "key", "data", "key", source_backend="cold")
        assert await store.read("data", "key") == b"cold"
        assert cold.stored_keys("data") == []


async def test_unknown_source_backend_or_version_is_rejected_before_any_io() -> None:
    driver = CallLog()
    async with single_attempt_store(driver) as store:
        for call in (store.copy, store.move):
            with pytest.raises(BackendNotFoundError, match="'default'"):
                await call("data", "key", "data", "copy", source_backend="warm")
            with pytest.raises(NotSupportedError, match="version"):
                await call("data", "key", "data", "copy", source_version_id="v1")
            with pytest.raises(InvalidNameError, match="version_id"):
                await call("data", "key", "data", "copy", source_version_id="\n")
    assert driver.calls == ["open", "aclose"]


@pytest.mark.parametrize("key", ["../other/key", "a/../../other/key", "./key", ".."])
async def test_source_key_that_the_named_backend_cannot_address_is_rejected(
    tmp_path: Path, key: str
) -> None:
    local = LocalDriver(tmp_path)
    async with single_attempt_store(CallLog(), backends={"local": local}) as store:
        await store.create_bucket("data", backends="all")
        await store.create_bucket("other", backends="all")
        await store.backend("local").put("other", "key", b"secret")
        for call in (store.copy, store.move):
            with pytest.raises(InvalidNameError, match="segment"):
                await call("data", key, "data", "copy", source_backend="local")
        assert not await store.exists("data", "copy")
        assert await store.backend("local").read("other", "key") == b"secret"


@pytest.fixture(params=["server copy", "streamed"])
async def versioned(request: pytest.FixtureRequest) -> AsyncIterator[Trove]:
    driver = VersionedMemory(server_copy=request.param == "server copy")
    driver.versioned_buckets.add("data")
    async with single_attempt_store(driver) as store:
        await store.create_bucket("data")
        yield store


async def versions_of(store: Trove) -> list[tuple[str, str]]:
    versions = await store.list_versions("data").all()
    return [(version.key, version.version_id) for version in versions]


async def test_copy_of_an_older_version(versioned: Trove) -> None:
    old = await versioned.put("data", "key", b"old", metadata={"is": "old"})
    await versioned.put("data", "key", b"new")
    copied = await versioned.copy("data", "key", "data", "copy", source_version_id=old.version_id)
    assert await versioned.read("data", "copy") == b"old"
    assert copied.metadata == {"is": "old"}


async def test_missing_version_is_not_copied(versioned: Trove) -> None:
    await versioned.put("data", "key", b"new")
    with pytest.raises(ObjectNotFoundError):
        await versioned.copy("data", "key", "data", "copy", source_version_id="none")
    assert not await versioned.exists("data", "copy")


async def test_old_version_copied_onto_its_key_is_the_latest_again(versioned: Trove) -> None:
    old = await versioned.put("data", "key", b"old", metadata={"is": "old"})
    await versioned.put("data", "key", b"new")
    restored = await versioned.copy("data", "key", "data", "key", source_version_id=old.version_id)
    assert await versioned.read("data", "key") == b"old"
    assert (await versioned.head("data", "key")).metadata == {"is": "old"}
    assert len(await versions_of(versioned)) == 3
    unchanged = await versioned.copy(
        "data", "key", "data", "key", source_version_id=restored.version_id
    )
    assert unchanged.version_id == restored.version_id
    assert len(await versions_of(versioned)) == 3


async def test_version_of_a_deleted_object_is_copied(versioned: Trove) -> None:
    old = await versioned.put("data", "key", b"old")
    await versioned.delete("data", "key")
    await versioned.copy("data", "key", "data", "key", source_version_id=old.version_id)
    assert await versioned.read("data", "key") == b"old"


async def test_move_of_a_version_deletes_that_version_only(versioned: Trove) -> None:
    old = await versioned.put("data", "key", b"old")
    new = await versioned.put("data", "key", b"new")
    moved = await versioned.move("data", "key", "data", "moved", source_version_id=old.version_id)
    assert await versioned.read("data", "moved") == b"old"
    assert await versioned.read("data", "key") == b"new"
    assert await versions_of(versioned) == [("key", new.version_id), ("moved", moved.version_id)]


async def test_move_of_a_version_onto_its_key_leaves_it_as_the_latest(versioned: Trove) -> None:
    old = await versioned.put("data", "key", b"old")
    new = await versioned.put("data", "key", b"new")
    version_id = old.version_id
    for _ in range(2):  # the second time, it is already the latest
        moved = await versioned.move("data", "key", "data", "key", source_version_id=version_id)
        version_id = moved.version_id
        assert await versioned.read("data", "key") == b"old"
        assert await versions_of(versioned) == [("key", version_id), ("key", new.version_id)]


async def test_move_of_a_null_version_does_not_delete_the_copy() -> None:
    # The bucket does not keep versions: each object has the version id "null".
    async with single_attempt_store(VersionedMemory()) as store:
        await store.create_bucket("data")
        await store.put("data", "key", b"body")
        await store.move("data", "key", "data", "key", source_version_id="null")
        assert await store.read("data", "key") == b"body"
        await store.move("data", "key", "data", "moved", source_version_id="null")
        assert await store.read("data", "moved") == b"body"
        assert not await store.exists("data", "key")

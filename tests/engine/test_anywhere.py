"""``locate="anywhere"``: every operation on an object that is not where its key is routed to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import CallLog, Sparse, Unordered, fill, single_attempt_store
from tests.versioned_memory import VersionedMemory
from trove_async import (
    BackendNotFoundError,
    BucketNotFoundError,
    ConfigError,
    CursorError,
    InvalidNameError,
    NotSupportedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    Prefix,
    RangeError,
    Route,
    Trove,
    UnavailableError,
)
from trove_async.drivers import LocalDriver, MemoryDriver
from trove_async.layers import Mapped, ReadOnly
from trove_async.middlewares import Compression

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

ROUTES = [("*.log", "cold"), Route.prefix("archive/", "archive")]


def anywhere(default: Any = None, cold: Any = None, archive: Any = None, **arguments: Any) -> Trove:
    """Return a store of three backends that looks for objects on all of them."""
    return single_attempt_store(
        default or CallLog(),
        backends={"cold": cold or CallLog(), "archive": archive or CallLog()},
        **{"routes": ROUTES, "locate": "anywhere", **arguments},
    )


async def three_drivers(*keys: str, on: str) -> tuple[CallLog, CallLog, CallLog]:
    """Return three drivers with a bucket, one of which has objects. Their logs are empty."""
    drivers = CallLog(), CallLog(), CallLog()
    for name, driver in zip(("default", "cold", "archive"), drivers, strict=True):
        await fill(driver, "data", *(keys if name == on else ()))
        driver.calls.clear()
    return drivers


def requests(*drivers: CallLog) -> list[list[str]]:
    return [[call for call in driver.calls if call != "open"] for driver in drivers]


# -- where to look ------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["default", "cold", "archive"])
async def test_object_is_read_wherever_it_is(place: str) -> None:
    drivers = await three_drivers("app.log", on=place)
    async with anywhere(*drivers) as store:
        assert await store.read("data", "app.log") == b"app.log"
        assert await store.read("data", "app.log", range=(4, None)) == b"log"
        assert await store.get_ranges("data", "app.log", [(0, 3), (4, 7)]) == [b"app", b"log"]
        info = await store.head("data", "app.log")
        assert (info.backend, info.size) == (place, 7)
        assert await store.exists("data", "app.log")
        async with store.get("data", "app.log", if_match=info) as reader:
            assert reader.info.backend == place
            assert await reader.read() == b"app.log"
        assert await store.bucket("data").read("app.log") == b"app.log"


async def test_object_on_its_routed_backend_takes_one_request() -> None:
    drivers = await three_drivers("app.log", on="cold")
    async with anywhere(*drivers) as store:
        await store.read("data", "app.log")
        await store.head("data", "app.log")
        assert requests(*drivers) == [[], ["get", "head"], []]


async def test_other_backends_are_asked_in_the_order_of_the_store() -> None:
    drivers = await three_drivers("app.log", on="archive")
    async with anywhere(*drivers) as store:
        await store.read("data", "app.log")
        # The first two again: an object may have been moved from the second to the first meanwhile.
        assert requests(*drivers) == [["get", "get"], ["get", "get"], ["get"]]


async def test_missing_object_takes_two_requests_per_backend_but_one_of_the_last() -> None:
    drivers = await three_drivers(on="cold")
    async with anywhere(*drivers) as store:
        with pytest.raises(ObjectNotFoundError) as caught:
            await store.read("data", "app.log")
        assert requests(*drivers) == [["get"] * 2, ["get"] * 2, ["get"]]
        assert (caught.value.operation, caught.value.backend) == ("read", "cold")
        assert not await store.exists("data", "none")


async def test_routed_object_takes_precedence_then_the_order_of_the_store() -> None:
    drivers = [CallLog(), CallLog(), CallLog()]
    async with anywhere(*drivers) as store:
        await store.create_bucket("data", backends="all")
        for name in ("archive", "default", "cold"):
            await store.backend(name).put("data", "app.log", name.encode())
        assert await store.read("data", "app.log") == b"cold"
        await store.backend("cold").delete("data", "app.log")
        assert await store.read("data", "app.log") == b"default"


async def test_pinned_handle_does_not_look_elsewhere() -> None:
    drivers = await three_drivers("app.log", on="default")
    async with anywhere(*drivers) as store:
        with pytest.raises(ObjectNotFoundError):
            await store.backend("cold").read("data", "app.log")
        assert requests(*drivers) == [[], ["get"], []]


async def test_routed_store_does_not_look_elsewhere() -> None:
    drivers = await three_drivers("app.log", on="default")
    async with anywhere(*drivers, locate="routed") as store:
        with pytest.raises(ObjectNotFoundError):
            await store.read("data", "app.log")
        assert requests(*drivers) == [[], ["get"], []]


async def test_two_names_of_one_place_are_asked_once() -> None:
    inner = CallLog()
    await fill(inner, "shared")
    inner.calls.clear()
    backends = {
        "one": Mapped(inner, buckets={"data": "shared"}),
        "two": Mapped(inner, buckets={"data": "shared"}),
    }
    async with single_attempt_store(
        backends=backends, routes=[("*", "two")], locate="anywhere"
    ) as store:
        await store.create_bucket("data")
        with pytest.raises(ObjectNotFoundError):
            await store.read("data", "key")
        assert inner.calls.count("get") == 2  # the routed backend, and once more after the default
        await store.backend("one").put("data", "key", b"body")
        listed = await store.list("data").all()
        assert [info.key for info in listed] == ["key"]
        await store.backend("default").put("data", "key", b"hidden")
        listed = await store.list("data").all()
        assert [(info.key, info.backend) for info in listed] == [("key", "one")]
        await store.delete("data", "key")
        assert await store.list("data").all() == []


async def test_backend_that_cannot_address_the_key_is_not_asked() -> None:
    default = CallLog(dot_segments=True)
    cold = CallLog()
    await fill(default, "data")
    await fill(cold, "data")
    async with anywhere(default, cold) as store:
        with pytest.raises(ObjectNotFoundError):
            await store.read("data", "a/../b")
        assert cold.calls.count("get") == 0
        with pytest.raises(InvalidNameError):
            await store.read("data", "archive/../b")


@pytest.mark.parametrize("value", ["everywhere", "", "Routed"])
def test_other_value_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="locate must be"):
        anywhere(locate=value)


async def test_explanation_names_the_backends_that_are_asked_after_a_miss() -> None:
    async with anywhere() as store:
        decision = await store.explain("data", "app.log")
        assert decision.backend == "cold"
        assert decision.reason.endswith(
            "An object that is not there is looked for on 'default', 'archive'."
        )
    async with single_attempt_store(locate="anywhere") as store:
        assert "looked for" not in (await store.explain("data", "key")).reason


# -- buckets ------------------------------------------------------------------------------------------


async def test_missing_bucket_on_one_backend_is_a_miss() -> None:
    default, cold = CallLog(), CallLog()
    await fill(default, "data", "app.log")
    async with anywhere(default, cold) as store:
        assert await store.read("data", "app.log") == b"app.log"
        with pytest.raises(ObjectNotFoundError):
            await store.read("data", "other.log")
        with pytest.raises(ObjectNotFoundError):
            await store.head("data", "other.log")
        await store.delete("data", "other.log")
        await store.delete("data", "app.log")
        assert default.stored_keys("data") == []


async def test_bucket_that_all_backends_lack_is_an_error() -> None:
    async with anywhere() as store:
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: store.read("none", "key"),
            lambda: store.head("none", "key"),
            lambda: store.get_ranges("none", "key", [(0, 1)]),
            lambda: store.delete("none", "key"),
            lambda: store.list("none").all(),
            lambda: store.copy("none", "key", "none", "copy"),
            lambda: store.move("none", "key", "none", "key"),
            lambda: store.put("none", "key", b"", if_match="etag"),
        ]
        for call in calls:
            with pytest.raises(BucketNotFoundError) as caught:
                await call()
            assert caught.value.bucket == "none"
        with pytest.raises(BucketNotFoundError):
            await store.delete_many("none", ["key"])


# -- failures -----------------------------------------------------------------------------------------


async def test_unavailable_routed_backend_hides_no_newer_object() -> None:
    default, cold, archive = await three_drivers("app.log", on="default")
    async with anywhere(default, cold, archive) as store:
        cold.fail("get", UnavailableError("down"))
        with pytest.raises(UnavailableError) as caught:
            await store.read("data", "app.log")
        assert caught.value.backend == "cold"
        assert requests(default, archive) == [[], []]


async def test_object_behind_an_unavailable_backend_is_found() -> None:
    default, cold, archive = await three_drivers("app.log", on="archive")
    async with anywhere(default, cold, archive) as store:
        for step in ("get", "head"):
            default.fail(step, UnavailableError("down"))
        assert await store.read("data", "app.log") == b"app.log"
        assert (await store.head("data", "app.log")).backend == "archive"


@pytest.mark.parametrize(
    "error", [UnavailableError("down"), PermissionDeniedError("no"), UnavailableError("slow")]
)
async def test_object_is_not_missing_while_a_backend_does_not_answer(error: Exception) -> None:
    default, cold, archive = await three_drivers(on="archive")
    async with anywhere(default, cold, archive) as store:
        for step in ("get", "head", "delete"):
            default.fail(step, error)
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: store.read("data", "app.log"),
            lambda: store.exists("data", "app.log"),
            lambda: store.get_ranges("data", "app.log", [(0, 1)]),
            lambda: store.copy("data", "app.log", "data", "copy"),
            lambda: store.delete("data", "app.log"),
        ]
        for call in calls:
            with pytest.raises(type(error)) as caught:
                await call()
            assert caught.value.backend == "default"  # type: ignore[attr-defined]  # a TroveError


async def test_copy_uses_no_object_behind_an_unavailable_backend() -> None:
    default, cold, archive = await three_drivers("app.log", on="archive")
    async with anywhere(default, cold, archive) as store:
        default.fail("head", UnavailableError("down"))
        with pytest.raises(UnavailableError):
            await store.move("data", "app.log", "data", "moved")
    assert archive.stored_keys("data") == ["app.log"]


async def test_failed_backend_is_not_asked_again() -> None:
    default, cold, archive = await three_drivers(on="cold")
    async with anywhere(default, cold, archive) as store:
        default.fail("get", UnavailableError("down"))
        with pytest.raises(UnavailableError):
            await store.read("data", "app.log")
        assert requests(default, cold, archive) == [["get"], ["get"] * 2, ["get"]]


async def test_option_that_a_backend_lacks_is_refused_only_if_it_has_the_object() -> None:
    default, cold = CallLog(ranges=False, get_conditions=False), CallLog()
    await fill(default, "data", "there.log")
    await fill(cold, "data")
    async with anywhere(default, cold) as store:
        with pytest.raises(NotSupportedError):
            await store.read("data", "there.log", range=(0, 1))
        with pytest.raises(NotSupportedError):
            await store.get_ranges("data", "there.log", [(0, 1)])
        with pytest.raises(NotSupportedError):
            await store.read("data", "there.log", if_match="etag")
        with pytest.raises(ObjectNotFoundError):
            await store.read("data", "none.log", range=(0, 1))


async def test_conditions_and_ranges_apply_to_the_object_that_is_found() -> None:
    drivers = await three_drivers("app.log", on="default")
    async with anywhere(*drivers) as store:
        info = await store.head("data", "app.log")
        with pytest.raises(PreconditionFailedError):
            await store.read("data", "app.log", if_match="other")
        with pytest.raises(PreconditionFailedError):
            await store.read("data", "app.log", if_none_match=info)
        with pytest.raises(RangeError):
            await store.read("data", "app.log", range=(7, None))


async def test_unknown_backend_of_a_route_function_is_an_error() -> None:
    async with anywhere(route_functions=[lambda _bucket, _key: "none"]) as store:
        await store.create_bucket("data")
        for call in (store.read("data", "key"), store.delete("data", "key")):
            with pytest.raises(BackendNotFoundError):
                await call


# -- transforms ---------------------------------------------------------------------------------------


async def test_transformed_object_is_decoded_on_the_backend_where_it_is() -> None:
    text = b"compressible " * 10_000
    default = Sparse()
    async with anywhere(default, middleware=[Compression(frame_size=64 * 1024)]) as store:
        await store.create_bucket("data", backends="all")
        await store.backend("default").put("data", "app.log", text)
        assert await store.read("data", "app.log") == text
        assert await store.read("data", "app.log", range=(70_000, 70_013)) == text[70_000:70_013]
        assert await store.get_ranges("data", "app.log", [(5, 9)]) == [text[5:9]]
        info = await store.head("data", "app.log")
        assert (info.size, info.backend, info.transforms) == (len(text), "default", ("zstd",))
        assert info.stored_size < info.size
        (listed,) = await store.list("data", details=True).all()
        assert (listed.size, listed.backend) == (len(text), "default")
        moved = await store.move("data", "app.log", "data", "app.log")
        assert (moved.backend, moved.size) == ("cold", len(text))
        assert await store.read("data", "app.log") == text


# -- deleting -----------------------------------------------------------------------------------------


async def store_everywhere(store: Trove, key: str) -> None:
    """Put an object with the name of its backend on every backend."""
    await store.create_bucket("data", backends="all", exist_ok=True)
    for name in store.backends:
        await store.backend(name).put("data", key, name.encode())


@pytest.mark.parametrize("bulk", [False, True])
async def test_object_is_deleted_on_all_backends_the_visible_one_last(*, bulk: bool) -> None:
    order: list[str] = []

    class Recording(CallLog):
        def __init__(self, name: str) -> None:
            super().__init__(bulk_delete=0)
            self.label = name

        async def delete(self, *arguments: Any) -> None:
            await super().delete(*arguments)
            order.append(self.label)

    drivers = [Recording(name) for name in ("default", "cold", "archive")]
    async with anywhere(*drivers) as store:
        await store_everywhere(store, "app.log")
        if bulk:
            await store.delete_many("data", ["app.log"])
        else:
            await store.delete("data", "app.log")
        assert not await store.exists("data", "app.log")
        assert await store.list("data", include_shadowed=True).all() == []
    assert sorted(order[:2]) == ["archive", "default"]
    assert order[2:] == ["cold"]


@pytest.mark.parametrize("bulk", [False, True])
async def test_visible_object_is_kept_if_a_hidden_one_cannot_be_deleted(*, bulk: bool) -> None:
    default, cold, archive = CallLog(bulk_delete=0), CallLog(), CallLog()
    async with anywhere(default, cold, archive) as store:
        await store_everywhere(store, "app.log")
        await store.put("data", "other", b"")
        default.fail("delete", UnavailableError("down"))
        with pytest.raises(UnavailableError) as caught:
            if bulk:
                await store.delete_many("data", ["app.log"])
            else:
                await store.delete("data", "app.log")
        assert caught.value.backend == "default"
        assert await store.read("data", "app.log") == b"cold"
        assert archive.stored_keys("data") == []  # the others were tried
        del default.before["delete"]
        await store.delete("data", "app.log")
        assert [info.key for info in await store.list("data").all()] == ["other"]


async def test_bulk_deletion_reports_each_key() -> None:
    default, cold, archive = CallLog(bulk_delete=0), CallLog(), CallLog()
    async with anywhere(default, cold, archive) as store:
        await store_everywhere(store, "app.log")
        await store_everywhere(store, "archive/1")

        async def fail_once() -> None:
            del default.before["delete"]
            raise UnavailableError("down")

        default.before["delete"] = fail_once
        results = [
            result
            async for result in store.delete_many("data", ["app.log", "archive/1", "none", "\0"])
        ]
        errors = {result.key: result.error for result in results}
        assert [result.key for result in results] == ["app.log", "archive/1", "none", "\0"]
        assert isinstance(errors["app.log"], UnavailableError)
        assert (errors["archive/1"], errors["none"]) == (None, None)
        assert isinstance(errors["\0"], InvalidNameError)
        assert [info.key for info in await store.list("data").all()] == ["app.log"]


async def test_condition_of_a_deletion_applies_to_the_visible_object() -> None:
    async with anywhere() as store:
        await store_everywhere(store, "app.log")
        hidden = await store.backend("default").head("data", "app.log")
        with pytest.raises(PreconditionFailedError):
            await store.delete("data", "app.log", if_match=hidden)
        listed = await store.list("data", include_shadowed=True).all()
        assert len(listed) == 3
        await store.delete("data", "app.log", if_match=await store.head("data", "app.log"))
        assert await store.list("data", include_shadowed=True).all() == []
        with pytest.raises(PreconditionFailedError):
            await store.delete("data", "app.log", if_match="etag")


async def test_condition_applies_to_an_object_on_a_different_backend() -> None:
    drivers = await three_drivers("app.log", on="archive")
    async with anywhere(*drivers) as store:
        info = await store.head("data", "app.log")
        await store.delete("data", "app.log", if_match=info)
        assert not await store.exists("data", "app.log")


async def test_condition_that_the_backend_of_the_object_lacks_is_refused() -> None:
    default = CallLog(delete_if_match=False)
    async with anywhere(default) as store:
        await store.create_bucket("data", backends="all")
        info = await store.backend("default").put("data", "app.log", b"")
        with pytest.raises(NotSupportedError):
            await store.delete("data", "app.log", if_match=info)
        assert await store.exists("data", "app.log")


# -- versions -----------------------------------------------------------------------------------------


def versioned() -> VersionedMemory:
    driver = VersionedMemory()
    driver.versioned_buckets.add("data")
    return driver


async def test_version_is_read_and_deleted_on_the_backend_that_has_it() -> None:
    default, cold = versioned(), versioned()
    async with anywhere(default, cold) as store:
        await store.create_bucket("data", backends="all")
        away = store.backend("default")
        first = await away.put("data", "app.log", b"first")
        second = await away.put("data", "app.log", b"second")
        assert first.version_id is not None
        assert await store.read("data", "app.log", version_id=first.version_id) == b"first"
        assert (await store.head("data", "app.log", version_id=second.version_id)).size == 6
        copied = await store.copy(
            "data", "app.log", "data", "copy.log", source_version_id=first.version_id
        )
        assert (copied.size, copied.backend) == (5, "cold")
        await store.delete("data", "app.log", version_id=first.version_id)
        assert not await store.exists("data", "app.log", version_id=first.version_id)
        assert await store.read("data", "app.log") == b"second"


async def test_version_on_a_store_without_versions_is_refused() -> None:
    async with anywhere() as store:
        await store.create_bucket("data", backends="all")
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: store.read("data", "app.log", version_id="1"),
            lambda: store.head("data", "app.log", version_id="1"),
            lambda: store.delete("data", "app.log", version_id="1"),
        ]
        for call in calls:
            with pytest.raises(NotSupportedError):
                await call()


async def test_missing_version_is_not_found_where_one_backend_has_versions() -> None:
    async with anywhere(versioned()) as store:
        await store.create_bucket("data", backends="all")
        with pytest.raises(ObjectNotFoundError):
            await store.read("data", "app.log", version_id="1-1")


# -- copying and moving ---------------------------------------------------------------------------------


async def test_move_onto_its_own_key_moves_an_object_to_its_backend() -> None:
    default, cold, archive = CallLog(), CallLog(), CallLog()
    async with anywhere(default, cold, archive) as store:
        await store.create_bucket("data", backends="all")
        body, metadata = b"body" * 300_000, {"name": "value"}
        await store.backend("default").put(
            "data", "app.log", body, metadata=metadata, content_type="text/csv"
        )
        moved = await store.move("data", "app.log", "data", "app.log")
        assert (moved.backend, moved.size) == ("cold", len(body))
        info = await store.head("data", "app.log")
        assert (info.metadata, info.content_type) == (metadata, "text/csv")
        assert await store.read("data", "app.log") == body
        assert (default.stored_keys("data"), cold.stored_keys("data")) == ([], ["app.log"])
        cold.calls.clear()
        again = await store.move("data", "app.log", "data", "app.log")
        assert again.backend == "cold"
        assert set(cold.calls) <= {"head"}


async def test_move_onto_its_own_key_never_replaces_the_routed_object() -> None:
    async with anywhere() as store:
        await store_everywhere(store, "app.log")
        moved = await store.move("data", "app.log", "data", "app.log")
        assert moved.backend == "cold"
        assert await store.read("data", "app.log") == b"cold"
        assert len(await store.list("data", include_shadowed=True).all()) == 3


async def test_object_that_is_put_during_a_move_is_kept() -> None:
    default, cold = CallLog(), CallLog()
    async with anywhere(default, cold) as store:
        await store.create_bucket("data", backends="all")
        await store.backend("default").put("data", "app.log", b"old")

        async def put_first() -> None:
            del cold.before["put"]
            await store.put("data", "app.log", b"new")

        cold.before["put"] = put_first
        moved = await store.move("data", "app.log", "data", "app.log")
        assert (moved.backend, moved.size) == ("cold", 3)
        assert await store.read("data", "app.log") == b"new"


async def test_copy_finds_its_source_and_is_routed() -> None:
    drivers = await three_drivers("app.log", on="archive")
    async with anywhere(*drivers) as store:
        info = await store.copy("data", "app.log", "data", "copy.log")
        assert info.backend == "cold"
        assert [driver.calls.count("head") for driver in drivers] == [2, 2, 1]
        assert await store.read("data", "copy.log") == b"app.log"
        assert (await store.head("data", "app.log")).backend == "archive"


async def test_copy_onto_its_own_key_changes_the_metadata_at_its_backend() -> None:
    drivers = await three_drivers("app.log", on="default")
    async with anywhere(*drivers) as store:
        info = await store.copy("data", "app.log", "data", "app.log", metadata={"a": "b"})
        assert (info.backend, info.metadata) == ("cold", {"a": "b"})
        assert (await store.head("data", "app.log")).metadata == {"a": "b"}


async def test_move_to_a_different_key_leaves_no_hidden_object() -> None:
    async with anywhere() as store:
        await store_everywhere(store, "app.log")
        await store.move("data", "app.log", "data", "moved.log")
        assert not await store.exists("data", "app.log")
        assert await store.read("data", "moved.log") == b"cold"
        listed = await store.list("data", include_shadowed=True).all()
        assert [info.key for info in listed] == ["moved.log"]


async def test_source_is_kept_if_a_hidden_object_cannot_be_deleted() -> None:
    default = CallLog()
    async with anywhere(default) as store:
        await store_everywhere(store, "app.log")
        default.fail("delete", UnavailableError("down"))
        with pytest.raises(UnavailableError):
            await store.move("data", "app.log", "data", "moved.log")
        assert await store.read("data", "app.log") == b"cold"
        assert await store.read("data", "moved.log") == b"cold"


async def test_source_backend_pins_the_source() -> None:
    async with anywhere() as store:
        await store_everywhere(store, "app.log")
        await store.copy("data", "app.log", "data", "copy.log", source_backend="default")
        assert await store.read("data", "copy.log") == b"default"
        with pytest.raises(ObjectNotFoundError):
            await store.copy("data", "none.log", "data", "copy.log", source_backend="default")


async def test_condition_of_a_copy_counts_no_object_that_is_its_source() -> None:
    drivers = await three_drivers("app.log", on="default")
    async with anywhere(*drivers) as store:
        await store.backend("archive").put("data", "taken.log", b"")
        with pytest.raises(ObjectExistsError):
            await store.copy("data", "app.log", "data", "taken.log", if_none_match="*")
        moved = await store.move("data", "app.log", "data", "app.log", if_none_match="*")
        assert moved.backend == "cold"
        with pytest.raises(ObjectExistsError):
            await store.move("data", "app.log", "data", "app.log", if_none_match="*")


# -- conditional puts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["default", "cold", "archive"])
async def test_put_creates_nothing_that_would_hide_an_object(place: str) -> None:
    drivers = await three_drivers("app.log", on=place)
    async with anywhere(*drivers) as store:
        with pytest.raises(ObjectExistsError):
            await store.put("data", "app.log", b"new", if_none_match="*")
        assert await store.read("data", "app.log") == b"app.log"
        info = await store.put("data", "other.log", b"new", if_none_match="*")
        assert info.backend == "cold"


@pytest.mark.parametrize("place", ["default", "cold", "archive"])
async def test_put_replaces_the_version_that_is_found(place: str) -> None:
    drivers = await three_drivers("app.log", on=place)
    async with anywhere(*drivers) as store:
        info = await store.head("data", "app.log")
        with pytest.raises(PreconditionFailedError):
            await store.put("data", "app.log", b"new", if_match="other")
        assert await store.read("data", "app.log") == b"app.log"
        replaced = await store.put("data", "app.log", b"new", if_match=info)
        assert replaced.backend == "cold"
        assert await store.read("data", "app.log") == b"new"
        with pytest.raises(PreconditionFailedError):
            await store.put("data", "app.log", b"newer", if_match=info)


async def test_version_elsewhere_is_not_replaced_where_objects_cannot_be_created_on_a_condition() -> (
    None
):
    default, cold = CallLog(), CallLog(put_if_none_match=False)
    await fill(default, "data", "app.log")
    await fill(cold, "data")
    async with anywhere(default, cold) as store:
        info = await store.head("data", "app.log")
        with pytest.raises(NotSupportedError, match="move it first"):
            await store.put("data", "app.log", b"new", if_match=info)
        moved = await store.move("data", "app.log", "data", "app.log")
        await store.put("data", "app.log", b"new", if_match=moved)
        assert await store.read("data", "app.log") == b"new"


async def test_copy_replaces_the_version_that_is_found() -> None:
    default, cold, archive = await three_drivers("app.log", "source", on="default")
    async with anywhere(default, cold, archive) as store:
        info = await store.head("data", "app.log")

        async def put_first() -> None:
            del cold.before["put"]
            await store.put("data", "app.log", b"first")

        cold.before["put"] = put_first
        with pytest.raises(PreconditionFailedError, match="meanwhile"):
            await store.copy("data", "source", "data", "app.log", if_match=info)
        current = await store.head("data", "app.log")
        await store.copy("data", "source", "data", "app.log", if_match=current)
        assert await store.read("data", "app.log") == b"source"


async def test_old_version_is_restored_on_its_backend() -> None:
    default, cold = versioned(), versioned()
    async with anywhere(default, cold) as store:
        await store.create_bucket("data", backends="all")
        first = await store.put("data", "app.log", b"first")
        second = await store.put("data", "app.log", b"second")
        for source, body in ((second, b"second"), (first, b"first")):
            await store.copy(
                "data", "app.log", "data", "app.log", source_version_id=source.version_id
            )
            assert await store.read("data", "app.log") == body


async def test_put_of_a_missing_version_fails() -> None:
    async with anywhere() as store:
        await store.create_bucket("data", backends="all")
        with pytest.raises(PreconditionFailedError):
            await store.put("data", "app.log", b"", if_match="etag")


async def test_one_of_two_conditional_puts_wins() -> None:
    default, cold, archive = await three_drivers("app.log", on="default")
    async with anywhere(default, cold, archive) as store:
        info = await store.head("data", "app.log")

        async def put_first() -> None:
            del cold.before["put"]
            await store.put("data", "app.log", b"first", if_match=info)

        cold.before["put"] = put_first
        with pytest.raises(PreconditionFailedError, match="meanwhile"):
            await store.put("data", "app.log", b"second", if_match=info)
        assert await store.read("data", "app.log") == b"first"


async def test_refused_conditional_put_leaves_a_file_at_its_position(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    drivers = await three_drivers("app.log", on="default")
    async with anywhere(*drivers) as store:
        with path.open("rb") as file:
            file.seek(3)
            with pytest.raises(ObjectExistsError):
                await store.put("data", "app.log", file, if_none_match="*")
            assert file.tell() == 3


async def test_unconditional_put_is_routed_and_hides_the_object() -> None:
    drivers = await three_drivers("app.log", on="default")
    async with anywhere(*drivers) as store:
        await store.put("data", "app.log", b"new")
        assert requests(*drivers) == [[], ["put"], []]
        assert await store.read("data", "app.log") == b"new"
        (item,) = await store.misplaced("data").all()
        assert (item.info.backend, item.shadowed) == ("default", True)


# -- listing --------------------------------------------------------------------------------------------


async def filled(*drivers: Any) -> None:
    default, cold, archive = drivers
    await fill(default, "data", "a.log", "b", "both.log", "dir/1", "only-default.log")
    await fill(cold, "data", "b", "both.log", "c.log", "only-cold", "dir/2.log")
    await fill(archive, "data", "archive/1", "both.log", "only-archive", "dir/1")


SHOWN = [
    ("a.log", "default"), ("archive/1", "archive"), ("b", "default"), ("both.log", "cold"),
    ("c.log", "cold"), ("dir/1", "default"), ("dir/2.log", "cold"), ("only-archive", "archive"),
    ("only-cold", "cold"), ("only-default.log", "default"),
]  # fmt: skip


@pytest.mark.parametrize("details", [False, True])
@pytest.mark.parametrize("page_size", [1, 2, 3, 100])
async def test_each_key_is_listed_once_where_a_get_finds_it(
    *, page_size: int, details: bool
) -> None:
    drivers = Sparse(), Sparse(), Sparse()
    await filled(*drivers)
    async with anywhere(*drivers) as store:
        listing = store.list("data", page_size=page_size, details=details)
        assert [(info.key, info.backend) async for info in listing] == SHOWN
        assert listing.ordered is True
        assert all(
            info.complete is details for info in await store.list("data", details=details).all()
        )
        for key, backend in SHOWN:
            assert (await store.head("data", key)).backend == backend


async def test_ordered_backends_are_listed_without_a_head() -> None:
    drivers = CallLog(), CallLog(), CallLog()
    await filled(*drivers)
    async with anywhere(*drivers) as store:
        await store.list("data").all()
    assert "head" not in {*drivers[0].calls, *drivers[1].calls, *drivers[2].calls}


UNORDERED = [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)]


@pytest.mark.parametrize("page_size", [1, 2, 100])
@pytest.mark.parametrize("unordered", UNORDERED)
async def test_each_key_is_listed_once_also_on_unordered_backends(
    unordered: tuple[int, ...], page_size: int
) -> None:
    drivers = [Unordered() if index in unordered else CallLog() for index in range(3)]
    await filled(*drivers)
    async with anywhere(*drivers) as store:
        listing = store.list("data", page_size=page_size)
        assert sorted([(info.key, info.backend) async for info in listing]) == SHOWN
        assert listing.ordered is False


async def test_routed_objects_of_an_unordered_backend_are_not_headed() -> None:
    default, cold = CallLog(), Unordered()
    await fill(default, "data", "a", "b")
    await fill(cold, "data", "c.log", "d.log", "e")
    async with anywhere(default, cold) as store:
        await store.list("data").all()
    assert (default.calls.count("head"), cold.calls.count("head")) == (1, 0)  # of `e`


@pytest.mark.parametrize("page_size", [1, 2, 100])
async def test_common_prefixes_are_listed_once(page_size: int) -> None:
    drivers = CallLog(), CallLog(), CallLog()
    await filled(*drivers)
    async with anywhere(*drivers) as store:
        listed = await store.list("data", delimiter="/", page_size=page_size).all()
        assert [entry.key for entry in listed] == [
            "a.log", "archive/", "b", "both.log", "c.log", "dir/", "only-archive", "only-cold",
            "only-default.log",
        ]  # fmt: skip
        assert [entry.key for entry in listed if isinstance(entry, Prefix)] == ["archive/", "dir/"]


@pytest.mark.parametrize("page_size", [1, 2, 3])
async def test_listing_resumes_at_every_cursor(page_size: int) -> None:
    drivers = CallLog(), CallLog(), CallLog()
    await filled(*drivers)
    async with anywhere(*drivers) as store:
        listing = store.list("data", page_size=page_size)
        seen: list[str] = []
        async for info in listing:
            seen.append(info.key)
            if listing.cursor is None:
                break
            rest = await store.list("data", cursor=listing.cursor, page_size=page_size).all()
            assert [*seen, *(entry.key for entry in rest)] == [key for key, _ in SHOWN]


async def test_cursor_of_a_routed_listing_does_not_fit() -> None:
    drivers = CallLog(), CallLog(), CallLog()
    await filled(*drivers)
    cursors: dict[str, str | None] = {}
    for locate in ("routed", "anywhere"):
        async with anywhere(*drivers, locate=locate) as store:
            for shadowed in (False, True):
                listing = store.list("data", page_size=1, include_shadowed=shadowed)
                await anext(listing)
                cursors[f"{locate} {shadowed}"] = listing.cursor
    async with anywhere(*drivers) as store:
        for name in ("routed False", "routed True", "anywhere True"):
            with pytest.raises(CursorError):
                await store.list("data", cursor=cursors[name]).all()
        assert len(await store.list("data", cursor=cursors["anywhere False"]).all()) == 9


async def test_shadowed_objects_can_be_listed() -> None:
    drivers = CallLog(), CallLog(), CallLog()
    await filled(*drivers)
    async with anywhere(*drivers) as store:
        assert len(await store.list("data", include_shadowed=True).all()) == 14
        assert len(await store.backend("cold").list("data").all()) == 5


async def test_unavailable_backend_makes_a_listing_raise() -> None:
    default, cold, archive = CallLog(), CallLog(), CallLog()
    await filled(default, cold, archive)
    async with anywhere(default, cold, archive) as store:
        archive.fail("list_page", UnavailableError("down"))
        with pytest.raises(UnavailableError):
            await store.list("data", prefix="a.log").all()


async def test_async_route_functions_decide_between_objects() -> None:
    async def by_name(_bucket: str, key: str) -> str:
        return "archive" if key == "both.log" else ""

    for kinds in ([CallLog, CallLog, CallLog], [CallLog, Unordered, CallLog]):
        drivers = [kind() for kind in kinds]
        await filled(*drivers)
        async with anywhere(*drivers, route_functions=[by_name]) as store:
            listed = {info.key: info.backend for info in await store.list("data").all()}
        assert listed == {**dict(SHOWN), "both.log": "archive"}


async def test_failure_while_a_page_is_examined_loses_no_entry() -> None:
    default, cold, archive = CallLog(), Unordered(), CallLog()
    await filled(default, cold, archive)
    async with anywhere(default, cold, archive) as store:
        for driver in (default, cold, archive):
            driver.fail("head", UnavailableError("down"))
        listing = store.list("data")
        with pytest.raises(UnavailableError):
            await listing.all()
        for driver in (default, cold, archive):
            driver.before.clear()
        assert sorted([(info.key, info.backend) async for info in listing]) == SHOWN


# -- URLs -------------------------------------------------------------------------------------------------


class Signing(CallLog):
    def __init__(self, name: str) -> None:
        super().__init__(presign=True)
        self.label = name

    async def presign(self, method: str, bucket: str, key: str, *_: Any) -> str:
        return f"{method} {self.label}/{bucket}/{key}"


async def test_url_is_that_of_the_backend_that_has_the_object() -> None:
    drivers = Signing("default"), Signing("cold"), Signing("archive")
    async with anywhere(*drivers) as store:
        await store.create_bucket("data", backends="all")
        await store.backend("archive").put("data", "app.log", b"")
        assert await store.presign_get("data", "app.log") == "GET archive/data/app.log"
        assert await store.presign_put("data", "app.log") == "PUT cold/data/app.log"
        assert await store.presign_get("data", "new.log") == "GET cold/data/new.log"


async def test_url_that_no_backend_can_sign_is_refused_before_any_request() -> None:
    drivers = await three_drivers("app.log", on="default")
    async with anywhere(*drivers) as store:
        with pytest.raises(NotSupportedError):
            await store.presign_get("data", "app.log")
        assert requests(*drivers) == [[], [], []]


# -- real files -------------------------------------------------------------------------------------------


async def test_files_move_between_a_directory_and_memory(tmp_path: Path) -> None:
    files = LocalDriver(tmp_path, fsync=False)
    async with Trove(
        MemoryDriver(), backends={"files": files}, routes=[("*.log", "files")], locate="anywhere"
    ) as store:
        await store.create_bucket("data", backends="all")
        await store.backend("default").put("data", "app.log", b"body", metadata={"a": "b"})
        await store.backend("files").put("data", "note", b"note")
        for key in ("app.log", "note"):
            await store.move("data", key, "data", key)
        listed = await store.list("data").all()
        assert [(info.key, info.backend) for info in listed] == [
            ("app.log", "files"),
            ("note", "default"),
        ]
        assert await store.misplaced("data").all() == []
        assert (await store.head("data", "app.log")).metadata == {"a": "b"}


# -- read-only backends -------------------------------------------------------------------------------


async def test_object_on_a_read_only_backend_is_not_deleted_anywhere() -> None:
    default, cold, archive = CallLog(), CallLog(), CallLog()
    for driver in (default, archive):
        await fill(driver, "data", "both")
    await fill(cold, "data")
    async with anywhere(default, cold, ReadOnly(archive)) as store:
        with pytest.raises(NotSupportedError, match="read-only"):
            await store.delete("data", "both")
        results = [result async for result in store.delete_many("data", ["both"])]
        assert isinstance(results[0].error, NotSupportedError)
        assert await store.read("data", "both") == b"both"
        assert (await store.head("data", "both")).backend == "default"


async def test_read_only_backend_without_the_object_does_not_keep_it_from_being_deleted() -> None:
    default, cold, archive = CallLog(), CallLog(), CallLog()
    await fill(default, "data", "one", "many")
    for driver in (cold, archive):
        await fill(driver, "data")
    async with anywhere(default, cold, ReadOnly(archive)) as store:
        await store.delete("data", "one")
        await store.delete_many("data", ["many", "missing"])
        await store.delete("data", "archive/missing")  # routed to the read-only backend
        assert await store.list("data").all() == []


async def test_object_on_a_read_only_backend_is_copied_but_not_moved() -> None:
    default, cold, archive = CallLog(), CallLog(), CallLog()
    await fill(archive, "data", "key")
    for driver in (default, cold):
        await fill(driver, "data")
    async with anywhere(default, cold, ReadOnly(archive)) as store:
        with pytest.raises(NotSupportedError, match="source of a move"):
            await store.move("data", "key", "data", "moved")
        assert not await store.exists("data", "moved")
        assert (await store.copy("data", "key", "data", "copied")).backend == "default"
        with pytest.raises(NotSupportedError, match="read-only"):
            await store.copy("data", "key", "data", "archive/copy")

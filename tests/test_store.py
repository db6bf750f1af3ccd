"""Routing, handles, health, events and error messages of a store.

See `test_store_life` for opening and closing.
"""

from __future__ import annotations

import asyncio
import pickle
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import CallLog, fill, single_attempt_store
from tests.versioned_memory import VersionedMemory
from trove_async import (
    BackendInfo,
    BackendNotFoundError,
    BucketNotFoundError,
    ClosedError,
    ConfigError,
    CursorError,
    Event,
    InvalidNameError,
    ObjectNotFoundError,
    PatternError,
    RangeError,
    Route,
    TimedOutError,
    Timeout,
    Trove,
    TroveError,
    UnavailableError,
    route_function,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.idle_time


# -- routing ---------------------------------------------------------------------------------------


async def test_functions_apply_before_patterns_and_the_default_last() -> None:
    def first(_bucket: str, key: str) -> str | None:
        return "one" if key.startswith("f") else None

    async def second(_bucket: str, key: str) -> str:
        return "two" if key.startswith(("f", "g")) else ""

    async with single_attempt_store(
        backends={"one": CallLog(), "two": CallLog(), "three": CallLog()},
        routes=[("*.x", "three"), ("*.?", "one")],
        route_functions=[first, second],
    ) as store:
        await store.create_bucket("data")
        for key, backend in [
            ("f.x", "one"), ("g.x", "two"), ("h.x", "three"), ("h.y", "one"), ("h", "default"),
        ]:  # fmt: skip
            assert (await store.put("data", key, b"")).backend == backend
            assert (await store.head("data", key)).backend == backend
            assert (await store.explain("data", key)).backend == backend
            async with store.get("data", key) as reader:
                assert reader.info.backend == backend


async def open_and_read(store: Trove) -> None:
    async with store.get("data", "key") as reader:
        await reader.read()


async def delete_two(store: Trove) -> None:
    await store.delete_many("data", ["key", "b"])


OPERATIONS: list[tuple[str, int, Callable[[Trove], Awaitable[object]]]] = [
    ("put", 1, lambda store: store.put("data", "new", b"1")),
    ("get", 1, open_and_read),
    ("read", 1, lambda store: store.read("data", "key")),
    ("get_ranges", 1, lambda store: store.get_ranges("data", "key", [(0, 1)])),
    ("head", 1, lambda store: store.head("data", "key")),
    ("exists", 1, lambda store: store.exists("data", "key")),
    ("delete", 1, lambda store: store.delete("data", "key")),
    ("delete_many", 2, delete_two),
    ("copy", 2, lambda store: store.copy("data", "key", "data", "to")),
    ("move", 2, lambda store: store.move("data", "key", "data", "to")),
    ("explain", 1, lambda store: store.explain("data", "key")),
]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("name", "times", "operate"), OPERATIONS, ids=lambda value: str(value)[:12]
)
async def test_route_function_is_called_once_per_operation_and_key(
    *, asynchronous: bool, name: str, times: int, operate: Callable[[Trove], Awaitable[object]]
) -> None:
    calls: list[tuple[str, str]] = []

    def function(bucket: str, key: str) -> str:
        calls.append((bucket, key))
        return ""

    async def async_function(bucket: str, key: str) -> str:
        return function(bucket, key)

    default = CallLog()
    await fill(default, "data", "key")
    async with single_attempt_store(
        default, route_functions=[async_function if asynchronous else function]
    ) as store:
        await operate(store)
    assert len(calls) == times, name
    assert {bucket for bucket, _ in calls} == {"data"}


async def test_unknown_backend_from_a_route_function_changes_nothing() -> None:
    default, cold = CallLog(), CallLog()
    await fill(default, "data", "key")
    default.calls.clear()
    cold.calls.clear()
    async with single_attempt_store(
        default, backends={"cold": cold}, route_functions=[lambda _bucket, _key: "gold"]
    ) as store:
        for _, _, operate in OPERATIONS:
            with pytest.raises(BackendNotFoundError, match=r"'gold': there are 'cold', 'default'"):
                await operate(store)
        assert (await store.backend("default").head("data", "key")).size == 3
    assert default.calls == ["open", "head", "aclose"]
    assert cold.calls == ["open", "aclose"]


async def test_exception_of_a_route_function_passes_through() -> None:
    def function(_bucket: str, _key: str) -> str:
        raise LookupError("no tenant")

    async with single_attempt_store(route_functions=[function]) as store:
        with pytest.raises(LookupError, match="no tenant"):
            await store.put("data", "key", b"")


async def test_explain_returns_the_reason() -> None:
    @route_function(by="bucket")
    def tenants(bucket: str, _key: str) -> str:
        return "cold" if bucket == "tenant" else ""

    store = single_attempt_store(
        backends={"cold": CallLog()},
        routes=[("*.log", "cold"), Route.prefix("tmp/", "default")],
        route_functions=[tenants],
    )
    decision = await store.explain("data", "a.log")
    assert (decision.backend, decision.rule) == ("cold", "*.log")
    assert "'*.log' is the first pattern that matches" in decision.reason
    assert "tenants" in (await store.explain("tenant", "x")).reason
    assert (await store.explain("data", "x")).rule is None
    assert "pinned" in (await store.backend("cold").explain("data", "x")).reason


async def test_route_to_an_unknown_backend_is_rejected() -> None:
    with pytest.raises(BackendNotFoundError, match="'nowhere': there are 'cold', 'default'"):
        single_attempt_store(routes=[("*", "nowhere")], backends={"cold": CallLog()})
    single_attempt_store(routes=[("*", "default")])


# -- pinned handles --------------------------------------------------------------------------------


async def test_pinned_handle_uses_one_backend_of_the_store() -> None:
    default, cold = CallLog(), CallLog()
    async with single_attempt_store(
        default, backends={"cold": cold}, routes=[("*.log", "cold")]
    ) as store:
        await store.create_bucket("data", backends="all")
        handle = store.backend("cold")
        assert handle.pool is store.pool
        assert handle.events is store.events
        await handle.put("data", "plain.txt", b"pinned")
        assert cold.stored_keys("data") == ["plain.txt"]
        assert not await store.exists("data", "plain.txt")
        assert await handle.read("data", "plain.txt") == b"pinned"
        await store.backend("default").put("data", "a.log", b"hidden")
        assert not await store.exists("data", "a.log")
        assert await store.backend("default").read("data", "a.log") == b"hidden"
        moved = await handle.move("data", "plain.txt", "data", "moved.txt")
        assert moved.backend == "cold"
        assert handle.backend("default").backend("cold") is not handle
    assert default.calls.count("open") == cold.calls.count("open") == 1


async def test_closing_a_handle_leaves_the_store_open() -> None:
    cold = CallLog()
    async with single_attempt_store(backends={"cold": cold}) as store:
        async with store.backend("cold") as handle:
            await handle.create_bucket("data")
        await store.backend("cold").aclose()
        assert await store.backend("cold").list_buckets()
        assert "aclose" not in cold.calls
    assert cold.calls.count("aclose") == 1


async def test_handle_can_be_created_before_the_store_is_open() -> None:
    store = single_attempt_store()
    handle = store.backend("default")
    async with store:
        await handle.create_bucket("data")
        await handle.put("data", "key", b"")


def test_unknown_reserved_and_invalid_backends_are_rejected() -> None:
    with pytest.raises(BackendNotFoundError, match="'gold' in this store: there are 'default'"):
        single_attempt_store().backend("gold")
    with pytest.raises(ConfigError, match="choose a different name"):
        Trove(CallLog(), backends={"default": CallLog()})
    with pytest.raises(TypeError, match="'cold' must be a driver or a URL, got int"):
        Trove(CallLog(), backends={"cold": 5})  # type: ignore[dict-item]  # tested at run time


def test_handle_of_a_subclass_keeps_its_attributes() -> None:
    class TenantStore(Trove):
        def __init__(self) -> None:
            super().__init__(CallLog(), backends={"cold": CallLog()})
            self.tenant = "a"

    handle = TenantStore().backend("cold")
    assert isinstance(handle, TenantStore)
    assert handle.tenant == "a"


# -- health, timeouts and events -----------------------------------------------------------------------


async def test_health_pings_concurrently_and_never_raises() -> None:
    default, cold, stuck = CallLog(), CallLog(), CallLog(embedded=False)
    barrier = asyncio.Barrier(2)
    default.before["ping"] = cold.before["ping"] = barrier.wait
    stuck.before["ping"] = asyncio.Event().wait
    async with single_attempt_store(
        default,
        backends={"cold": cold, "stuck": stuck},
        timeout=Timeout(first_byte=0.05),
    ) as store:
        health = await store.health()
        assert list(health) == ["default", "cold", "stuck"]
        assert [status.ok for status in health.values()] == [True, True, False]
        assert isinstance(health["stuck"].error, TimedOutError)
        assert health["stuck"].latency >= 0.04
        cold.fail("ping", RuntimeError("a bug"))
        default.before.clear()
        health = await store.backend("cold").health()
        assert list(health) == ["cold"]
        assert str(health["cold"].error) == "a bug"


async def test_total_timeout_ends_an_operation() -> None:
    driver = CallLog()
    await fill(driver, "data", "key")
    driver.before["head"] = driver.before["list_page"] = asyncio.Event().wait
    async with single_attempt_store(driver, timeout=Timeout(total=0.02)) as store:
        for operation in (store.head("data", "key"), store.list("data").all()):
            with pytest.raises(TimedOutError, match=r"did not finish within 0\.02 s") as caught:
                await operation
            assert caught.value.bucket == "data"


async def test_events_of_operations_attempts_and_parts() -> None:
    driver = CallLog()
    events: list[Event] = []
    async with single_attempt_store(driver) as store:
        await store.create_bucket("data")
        unsubscribe = store.events.subscribe(events.append)
        await store.put("data", "key", b"body")
        with pytest.raises(ObjectNotFoundError):
            await store.head("data", "missing")
        unsubscribe()
        await store.head("data", "key")
    by_kind = {
        kind: [event for event in events if event.kind == kind]
        for kind in ("operation", "attempt", "part")
    }
    assert [(event.operation, event.key) for event in by_kind["operation"]] == [
        ("put", "key"), ("head", "missing"),
    ]  # fmt: skip
    assert by_kind["operation"][0].error is None
    assert isinstance(by_kind["operation"][1].error, ObjectNotFoundError)
    assert {(event.operation, event.backend) for event in by_kind["attempt"]} >= {
        ("put", "default"), ("head", "default"),
    }  # fmt: skip
    assert [event.size for event in by_kind["part"]] == [4]
    assert all(event.duration >= 0 for event in events)


# -- error messages -------------------------------------------------------------------------------


REMEDIES: list[tuple[Callable[[Trove], Any], type[Exception], str]] = [
    (lambda _: Route("a[", "cold"), PatternError, "["),
    (lambda _: single_attempt_store(routes=[("a[", "default")]), PatternError, "["),
    (lambda store: store.backend("gold"), BackendNotFoundError, "there are 'default'"),
    (lambda store: store.put("data", "key", "text"), TypeError, ".encode()"),  # type: ignore[arg-type]  # tested at run time
    (lambda store: store.read("data", "key", limit="3"), TypeError, "limit must be an int"),  # type: ignore[arg-type]  # tested at run time
    (lambda store: store.read("data", "key", limit=-1), ValueError, "limit must not be negative"),
    (lambda store: store.presign_get("data", "key", expires="1"), TypeError, "number of seconds"),  # type: ignore[arg-type]  # tested at run time
    (lambda store: store.put("data", "key", 5), TypeError, "bytes, a path"),  # type: ignore[arg-type]  # tested at run time
    (lambda store: store.read("data", "key", range=(5, 5)), RangeError, "the end is exclusive"),
    (lambda store: store.read("data", "key", range=(-5, None)), RangeError, "ByteRange.last(n)"),
    (lambda store: store.read("data", "key", range=(9, None)), RangeError, "the object's 3 bytes"),
    (lambda store: store.read("data", "key", limit=2), RangeError, "stream it with get"),
    (lambda store: store.put("data", "", b""), InvalidNameError, "must not be empty"),
    (lambda store: store.put("none", "key", b""), BucketNotFoundError,
     "await store.create_bucket('none') first"),
    (lambda store: store.read("none", "key"), BucketNotFoundError, "create it with create_bucket"),
    (lambda store: store.list("none").all(), BucketNotFoundError, "create it with create_bucket"),
    (lambda store: store.delete_many("data", "key"), TypeError, "[key]"),
    (lambda store: store.list("data", delimiter=""), ValueError, "None for no delimiter"),
    (lambda store: store.list("data", cursor="x").all(), CursorError, "ObjectIterator.cursor"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "remedy"), REMEDIES)
async def test_message_is_one_line_and_has_advice(
    call: Callable[[Trove], Any], error: type[Exception], remedy: str
) -> None:
    driver = CallLog()
    await fill(driver, "data", "key")
    async with single_attempt_store(driver) as store:
        with pytest.raises(error) as caught:
            await call(store)
    assert remedy in str(caught.value)
    assert "\n" not in str(caught.value)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args  # noqa: S301 - our own


async def test_error_has_the_operation_the_object_and_the_backend() -> None:
    cold = CallLog()
    await fill(cold, "data", "key.log")
    cold.fail("head", UnavailableError("no response"))
    async with single_attempt_store(backends={"cold": cold}, routes=[("*.log", "cold")]) as store:
        with pytest.raises(TroveError) as caught:
            await store.head("data", "key.log")
    assert str(caught.value) == "no response [head 'data/key.log' on backend 'cold']"


def test_repr_has_the_names_of_the_backends() -> None:
    store = single_attempt_store(backends={"cold": CallLog()})
    assert repr(store) == "<Trove of default, cold>"
    assert repr(store.backend("cold")) == "<Trove of default, cold pinned to 'cold'>"


INVALID_ARGUMENTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"backends": [CallLog()]}, TypeError, "backends must map names"),
    ({"backends": {1: CallLog()}}, TypeError, "a backend's name must be a str, got int"),
    ({"backends": {"": CallLog()}}, ConfigError, "name must not be empty"),
    ({"backends": {"b": CallLog}}, TypeError, r"got a class: pass CallLog\(…\)"),
    ({"route_functions": print}, TypeError, r"pass \[function\]"),
    ({"routes": "*.log"}, TypeError, r"pass \[route\]"),
    ({"pool": 5}, TypeError, "pool must be a BufferPool, got int"),
    ({"retry": 5}, TypeError, "retry must be a RetryPolicy, got int"),
    ({"timeout": 5}, TypeError, "timeout must be a Timeout, got int"),
    ({"create_missing_buckets": "always"}, ConfigError, 'True, False or "auto"'),
]


@pytest.mark.parametrize(("arguments", "error", "message"), INVALID_ARGUMENTS)
def test_invalid_argument_is_rejected_when_the_store_is_created(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Trove(CallLog(), **arguments)


async def test_progress_that_is_not_callable_is_rejected_before_any_io() -> None:
    async with Trove(CallLog()) as store:
        await store.create_bucket("data")
        progress: Any = 5
        with pytest.raises(TypeError, match="progress must be callable with"):
            await store.put("data", "key", b"", progress=progress)
        assert not await store.exists("data", "key")


async def test_backends_are_known_before_opening() -> None:
    cold = CallLog(versions=True)
    store = single_attempt_store(CallLog(), backends={"cold": cold})
    before = dict(store.backends)
    assert list(before) == ["default", "cold"]
    assert before["cold"] == BackendInfo(
        name="cold", service="memory", capabilities=cold.capabilities
    )
    assert list(store.backend("cold").backends) == ["cold"]

    async def detect_capabilities() -> None:
        cold._capabilities = replace(cold.capabilities, tags=False)

    cold.before["open"] = detect_capabilities
    async with store:
        assert store.backends["default"] == before["default"]
        assert not store.backends["cold"].capabilities.tags


async def test_store_can_be_opened_and_closed_explicitly() -> None:
    driver = CallLog()
    store = single_attempt_store(driver)
    assert await store.open() is store
    pinned = store.backend("default")
    assert await pinned.open() is pinned
    await store.create_bucket("data")
    with pytest.raises(ClosedError, match="opened once"):
        await store.open()
    await pinned.aclose()
    await store.put("data", "key", b"")
    await store.aclose()
    assert driver.calls.count("open") == driver.calls.count("aclose") == 1


async def test_head_of_a_version() -> None:
    driver = VersionedMemory()
    driver.versioned_buckets.add("data")
    async with single_attempt_store(driver) as store:
        await store.create_bucket("data")
        old = await store.put("data", "key", b"old")
        await store.put("data", "key", b"newer")
        assert await store.head("data", "key", version_id=old.version_id) == old
        assert await store.exists("data", "key", version_id=old.version_id)
        assert not await store.exists("data", "key", version_id="none")
        with pytest.raises(ObjectNotFoundError):
            await store.head("data", "key", version_id="none")

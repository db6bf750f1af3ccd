"""The layer `Hedged`: which reads are sent twice, which response is used, and what is left of the other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
import pytest_asyncio

from tests.fakes import Fake, content, fill, store_of
from trove_async import (
    BackendError,
    ConfigError,
    Event,
    ObjectNotFoundError,
    RetryPolicy,
    TimedOutError,
    Timeout,
    Trove,
    UnavailableError,
)
from trove_async._concurrency import OwnedTask
from trove_async.driver import AsyncDriver, Layer
from trove_async.drivers import MemoryDriver
from trove_async.layers import Hedged, Mapped, ReadOnly, _latencies, hedged
from trove_async.layers._latencies import Latencies
from trove_async.models import MiB
from trove_async.options import GetOptions
from trove_async.testing import DriverSuite, StoreSuite, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from trove_async._resilience.calls import Calls
    from trove_async._resilience.driver import ResilientDriver

    Read = Callable[[Trove], Coroutine[Any, Any, object]]

FAST = 0.01
SLOW = 10.0

ONE_ATTEMPT = RetryPolicy(attempts=1)

idle_time = pytest.mark.idle_time


# -- conformance: every read is hedged, and both requests are about equally fast ----------------------


class Jittery(MemoryDriver):
    """Memory whose reads take a different number of steps of the event loop each time."""

    steps = 0

    async def _pause(self) -> None:
        self.steps += 1
        for _ in range(self.steps * 7 % 11):
            await asyncio.sleep(0)

    async def head(self, *arguments: Any) -> Any:
        await self._pause()
        return await super().head(*arguments)

    def get(self, *arguments: Any) -> Any:
        return _PausingGet(self, super().get(*arguments))


class _PausingGet:
    def __init__(self, driver: Jittery, context: Any) -> None:
        self._driver = driver
        self._context = context

    async def __aenter__(self) -> Any:
        await self._driver._pause()
        reader = await self._context.__aenter__()
        try:
            await self._driver._pause()
        except BaseException:
            await self._context.__aexit__(None, None, None)
            raise
        return reader

    async def __aexit__(self, *error: object) -> Any:
        return await self._context.__aexit__(*error)


class _At:
    """Latencies whose quantile does not change."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def add(self, seconds: float) -> None:
        del seconds


class Always(Hedged):
    """Sends every read twice, the second time at the next step of the event loop."""

    def __init__(self, driver: AsyncDriver) -> None:
        super().__init__(driver, budget=1)
        self._latencies = {"get": _At(0.0), "head": _At(0.0)}  # type: ignore[dict-item]


@pytest.fixture(autouse=True)
def no_minimal_wait(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.cls is not None:  # a suite
        monkeypatch.setattr(hedged, "SLACK", 0.0)


class TestDriver(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        return Always(Jittery())


class TestDriverNested(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        return Always(Mapped(Always(Mapped(Jittery(), into="all")), into="outer"))


@pytest.mark.soak  # it forwards then
class TestDriverThatIsNeverSlow(DriverSuite):
    @pytest.fixture
    def driver(self) -> AsyncDriver:
        return Hedged(MemoryDriver())


@pytest.mark.soak  # the routed store is run always
class TestStore(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        async with Trove(Always(Jittery())) as store:
            yield store


class TestStoreRouted(StoreSuite):
    @pytest_asyncio.fixture
    async def store(self) -> AsyncIterator[Trove]:
        async with Trove(
            Always(Jittery()),
            backends={"other": Mapped(Always(Always(Jittery())), into="all")},
            routes=[("*[0-4]", "other")],
        ) as store:
            yield store


# -- a backend whose latencies are scripted ------------------------------------------------------------


class Scripted(Fake):
    """Memory with a latency before each get and head: the next one in `latencies`, or `FAST`.

    An item may also be an error, which is raised after `FAST`, or a pair of a latency and an error.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"embedded": False, **options})
        self.latencies: list[Any] = []
        self.before["get"] = self.before["head"] = self.respond
        self.in_flight = 0

    async def respond(self) -> None:
        item = self.latencies.pop(0) if self.latencies else FAST
        latency, error = item if isinstance(item, tuple) else (item, None)
        if isinstance(latency, Exception):
            latency, error = FAST, latency
        self.in_flight += 1
        try:
            await asyncio.sleep(latency)
        finally:
            self.in_flight -= 1
        if error is not None:
            raise error


def now() -> float:
    return asyncio.get_running_loop().time()


async def get(store: Trove) -> bytes:
    return await store.read("bucket", "key")


async def head(store: Trove) -> str:
    return (await store.head("bucket", "key")).key


READS: dict[str, Read] = {"get": get, "head": head}


@pytest.fixture(params=READS)
def read(request: pytest.FixtureRequest) -> Read:
    return READS[request.param]


async def warm_up(store: Trove, fake: Scripted, count: int = 50) -> None:
    """Store an object, measure fast reads of it, and clear the log."""
    await store.put("bucket", "key", b"body")
    for _ in range(count):
        await get(store)
        await head(store)
    fake.steps.clear()


def sent(fake: Scripted) -> int:
    return fake.count("get") + fake.count("head")


def layered(fake: Scripted, **options: Any) -> Any:
    return store_of(Hedged(fake, **options), retry=ONE_ATTEMPT)


def assert_nothing_left(fake: Scripted, layer: Hedged) -> None:
    assert (fake.open_readers, fake.in_flight, fake.calls_under_way) == (0, 0, 0), fake.steps
    assert layer._tasks._running == set()


async def settle() -> None:
    """Let cancelled requests end."""
    for _ in range(30):
        await asyncio.sleep(0)


@idle_time
async def test_slow_read_is_sent_again_and_the_faster_response_is_used(
    read: Read,
) -> None:
    fake = Scripted()
    layer = Hedged(fake)
    async with store_of(layer, retry=ONE_ATTEMPT) as store:
        await warm_up(store, fake)
        fake.latencies = [SLOW, FAST]
        started = now()
        assert await read(store) in {b"body", "key"}
        assert now() - started == pytest.approx(2 * FAST, abs=0.002)
        assert sent(fake) == 2
        await settle()
        assert_nothing_left(fake, layer)


@idle_time
async def test_first_response_is_used_if_it_is_faster_after_all(
    read: Read,
) -> None:
    fake = Scripted()
    layer = Hedged(fake)
    async with store_of(layer, retry=ONE_ATTEMPT) as store:
        await warm_up(store, fake)
        fake.latencies = [1.5 * FAST, SLOW]
        started = now()
        await read(store)
        assert now() - started == pytest.approx(1.5 * FAST)
        assert sent(fake) == 2
        await settle()
        assert_nothing_left(fake, layer)


@idle_time
async def test_fast_read_is_sent_once(read: Read) -> None:
    fake = Scripted()
    async with layered(fake) as store:
        await warm_up(store, fake)
        for _ in range(100):
            await read(store)
        assert sent(fake) == 100


@idle_time
async def test_nothing_is_sent_again_before_enough_samples() -> None:
    fake = Scripted()
    async with layered(fake) as store:
        await warm_up(store, fake, count=49)
        fake.latencies = [SLOW]
        await get(store)
        assert sent(fake) == 1
        fake.latencies = [SLOW, FAST]
        await get(store)
        assert sent(fake) == 3


@idle_time
async def test_gets_and_heads_have_their_own_latencies() -> None:
    fake = Scripted()
    async with layered(fake) as store:
        await store.put("bucket", "key", b"body")
        for _ in range(50):
            await head(store)
        fake.steps.clear()
        fake.latencies = [SLOW]
        await get(store)
        assert sent(fake) == 1


@idle_time
@pytest.mark.parametrize("budget", [0, 0.02, 0.1, 0.5])
async def test_budget_limits_the_second_requests(budget: float) -> None:
    fake = Scripted()
    async with layered(fake, after=0.5, budget=budget) as store:
        await warm_up(store, fake)
        latencies = [FAST, 3 * FAST]
        for number in range(400):  # half of the first requests are slow
            fake.latencies = [latencies[number % 2]]
            await head(store)
        extra = sent(fake) - 400
        assert extra <= budget * 500
        assert extra >= budget * 300 or budget == 0.5


@idle_time
async def test_quiet_times_save_up_only_a_few_second_requests() -> None:
    fake = Scripted()
    async with layered(fake, budget=0.1) as store:
        await warm_up(store, fake, count=1000)
        fake.latencies = [SLOW] * 1000
        tasks = [OwnedTask(head(store)) for _ in range(100)]
        await asyncio.sleep(5 * FAST)
        assert sent(fake) == 100 + 10
        for task in tasks:
            await task.aclose()


@idle_time
async def test_quantile_follows_a_service_that_becomes_slower() -> None:
    fake = Scripted()
    async with layered(fake) as store:
        await warm_up(store, fake)
        for _ in range(1000):
            fake.latencies = [5 * FAST, 5 * FAST]
            await head(store)
        fake.steps.clear()
        for _ in range(100):
            fake.latencies = [5 * FAST]
            await head(store)
        assert sent(fake) == 100


# -- errors ------------------------------------------------------------------------------------------


@idle_time
async def test_missing_object_is_reported_by_whichever_is_faster() -> None:
    fake = Scripted()
    layer = Hedged(fake)
    async with store_of(layer, retry=ONE_ATTEMPT) as store:
        await warm_up(store, fake)
        for latencies, duration in (
            ([1.5 * FAST, SLOW], 1.5 * FAST),
            ([SLOW, FAST], 2 * FAST),
        ):
            fake.latencies = list(latencies)
            started = now()
            with pytest.raises(ObjectNotFoundError):
                await store.head("bucket", "missing")
            assert now() - started == pytest.approx(duration, abs=0.002)
            await settle()
            assert_nothing_left(fake, layer)


@idle_time
@pytest.mark.parametrize(
    "latencies",
    [[(1.5 * FAST, UnavailableError("first")), 3 * FAST], [4 * FAST, UnavailableError("second")]],
)
async def test_failure_of_one_request_waits_for_the_other(latencies: list[Any]) -> None:
    fake = Scripted()
    layer = Hedged(fake)
    async with store_of(layer, retry=ONE_ATTEMPT) as store:
        await warm_up(store, fake)
        fake.latencies = latencies
        started = now()
        assert await get(store) == b"body"
        assert now() - started == pytest.approx(4 * FAST, abs=0.002)
        await settle()
        assert_nothing_left(fake, layer)


@idle_time
@pytest.mark.parametrize("first_is_faster", [True, False])
async def test_if_both_fail_the_error_of_the_first_is_raised(*, first_is_faster: bool) -> None:
    fake = Scripted()
    async with layered(fake) as store:
        await warm_up(store, fake)
        first = 1.5 * FAST if first_is_faster else 9 * FAST
        fake.latencies = [
            (first, UnavailableError("first")),
            (2 * FAST, UnavailableError("second")),
        ]
        with pytest.raises(UnavailableError, match="first"):
            await get(store)
        assert sent(fake) == 2


@idle_time
async def test_failure_before_the_second_request_is_raised_at_once() -> None:
    fake = Scripted()
    async with layered(fake) as store:
        await warm_up(store, fake)
        fake.latencies = [(FAST / 2, UnavailableError("refused"))]
        with pytest.raises(UnavailableError, match="refused"):
            await get(store)
        assert sent(fake) == 1


@idle_time
async def test_other_errors_are_responses() -> None:
    fake = Scripted()
    async with layered(fake) as store:
        await warm_up(store, fake)
        fake.latencies = [SLOW, BackendError("rejected")]
        started = now()
        with pytest.raises(BackendError, match="rejected"):
            await get(store)
        assert now() - started == pytest.approx(2 * FAST, abs=0.002)


@idle_time
async def test_second_request_is_not_retried_and_its_failure_is_not_an_outage() -> None:
    fake = Scripted()
    retry = RetryPolicy(base_delay=0.0)
    async with store_of(Hedged(fake), retry=retry) as store:
        await warm_up(store, fake)
        fake.latencies = [SLOW, UnavailableError("second"), SLOW]
        assert await get(store) == b"body"
        assert sent(fake) == 2


@idle_time
async def test_first_request_that_times_out_waits_for_the_second() -> None:
    fake = Scripted()
    async with store_of(
        Hedged(fake), retry=ONE_ATTEMPT, timeout=Timeout(first_byte=10 * FAST)
    ) as store:
        await warm_up(store, fake)
        fake.latencies = [SLOW, 9.5 * FAST]
        assert await get(store) == b"body"
        fake.latencies = [SLOW, SLOW]
        with pytest.raises(TimedOutError):
            await get(store)


# -- what is left ------------------------------------------------------------------------------------


@idle_time
@pytest.mark.parametrize("after", [0.5, 1.5, 2.5])
async def test_cancelled_caller_leaves_no_request(read: Read, after: float) -> None:
    fake = Scripted()
    layer = Hedged(fake)
    async with store_of(layer, retry=ONE_ATTEMPT) as store:
        await warm_up(store, fake)
        fake.latencies = [SLOW, SLOW]
        task = OwnedTask(read(store))
        await asyncio.sleep(after * FAST)
        assert sent(fake) == (1 if after < 1 else 2)
        await task.aclose()
        assert_nothing_left(fake, layer)


@idle_time
async def test_caller_cancelled_while_only_the_second_request_is_left() -> None:
    fake = Scripted()
    layer = Hedged(fake)
    async with store_of(layer, retry=ONE_ATTEMPT) as store:
        await warm_up(store, fake)
        fake.latencies = [(1.5 * FAST, UnavailableError("first")), SLOW]
        task = OwnedTask(get(store))
        await asyncio.sleep(3 * FAST)
        assert fake.in_flight == 1
        await task.aclose()
        assert_nothing_left(fake, layer)


@idle_time
@pytest.mark.parametrize("latencies", [[2 * FAST, FAST], [2 * FAST, 1.5 * FAST], [SLOW, FAST]])
async def test_cancel_at_every_step_of_a_race_leaves_nothing(latencies: list[float]) -> None:
    """Also at those steps at which both requests have ended, or the second one has just won."""
    fake = Scripted()
    layer = Hedged(fake, budget=1)
    async with store_of(layer, retry=ONE_ATTEMPT) as store:
        await warm_up(store, fake)
        layer._latencies["get"] = _At(FAST - hedged.SLACK)  # type: ignore[assignment]
        for steps in range(60):
            fake.latencies = list(latencies)
            task = OwnedTask(get(store))
            await asyncio.sleep(1.99 * FAST)  # just before the responses
            for _ in range(steps):
                await asyncio.sleep(0)
            await task.aclose()
            await settle()
            assert_nothing_left(fake, layer)
            fake.latencies.clear()
            assert await get(store) == b"body"


@idle_time
async def test_two_responses_at_the_same_moment_leave_one_body() -> None:
    fake = Scripted()
    layer = Hedged(fake)
    async with opened(layer) as driver:
        await fill(fake, "bucket", "key")
        layer._latencies["get"].threshold = FAST - hedged.SLACK
        for _ in range(20):
            layer._budget._tokens = 1
            fake.latencies = [2 * FAST, FAST]
            async with driver.get("bucket", "key", GetOptions()) as reader:
                await settle()
                assert fake.open_readers == 1
                assert await reader.read(100) == b"key"
            await settle()
            assert_nothing_left(fake, layer)


@idle_time
async def test_store_can_be_closed_during_a_race() -> None:
    fake = Scripted()
    layer = Hedged(fake)
    async with store_of(layer, retry=ONE_ATTEMPT) as store:
        await warm_up(store, fake)
        fake.latencies = [3 * FAST, SLOW]
        task = OwnedTask(get(store))
        await asyncio.sleep(1.5 * FAST)
        await store.aclose()
        assert fake.in_flight <= 1  # the second request was cancelled
        await task.aclose()
    assert_nothing_left(fake, layer)


@idle_time
async def test_layer_can_be_opened_again_in_another_store() -> None:
    layer = Hedged(Scripted())
    for _ in range(2):
        async with opened(layer):
            assert not layer._tasks.closed


@idle_time
async def test_body_is_of_one_version_although_it_was_replaced_between_the_requests() -> None:
    fake = Scripted()
    old, new = content(2 * MiB, "old"), content(2 * MiB, "new")
    async with layered(fake) as store:
        await warm_up(store, fake)
        await store.put("bucket", "big", old)
        fake.latencies = [SLOW, 5 * FAST]
        task = OwnedTask(store.read("bucket", "big"))
        await asyncio.sleep(1.5 * FAST)
        await store.put("bucket", "big", new)
        assert await task.result() == new  # read by the second request


@idle_time
async def test_download_from_the_second_response_resumes() -> None:
    fake = Scripted()
    body = content(2 * MiB, "body")
    async with store_of(Hedged(fake), retry=RetryPolicy(base_delay=0.0)) as store:
        await warm_up(store, fake)
        await store.put("bucket", "big", body)
        fake.latencies = [SLOW, FAST]
        fake.cuts.append(MiB + 1)
        assert await store.read("bucket", "big") == body


# -- permits and events ------------------------------------------------------------------------------


def calls_of(fake: Scripted, store: Trove) -> Calls:
    """Return the calls of the leaf driver."""
    attached = store._core.backends._attached[id(fake)]
    return cast("ResilientDriver", attached).calls


@idle_time
async def test_second_request_takes_no_permit_that_another_request_waits_for() -> None:
    fake = Scripted(max_connections=1)
    events: list[Event] = []
    async with layered(fake) as store:
        await warm_up(store, fake)
        store.events.subscribe(events.append)
        fake.latencies = [0.5, FAST]
        first = OwnedTask(get(store))
        await asyncio.sleep(0.02)
        assert [event.kind for event in events if event.kind in {"hedge", "wait"}] == ["hedge"]
        assert calls_of(fake, store).read_permits.waiting == 0
        started = now()
        await head(store)  # heads have a permit of their own
        assert now() - started == pytest.approx(FAST)
        assert await first.result() == b"body"
        assert sent(fake) == 2  # the get and the head, and no second get


@idle_time
async def test_second_request_waits_for_no_permit_below_other_layers_either() -> None:
    fake = Scripted(max_connections=1)
    async with Trove(
        Hedged(Mapped(Mapped(fake, into="inner"), into="all")), retry=ONE_ATTEMPT
    ) as store:
        await store.create_bucket("bucket")
        await warm_up(store, fake)
        fake.latencies = [0.5, FAST]
        started = now()
        task = OwnedTask(get(store))
        await asyncio.sleep(0.02)
        assert calls_of(fake, store).read_permits.waiting == 0
        assert await task.result() == b"body"
        assert now() - started == pytest.approx(0.5)
        assert sent(fake) == 1


@idle_time
async def test_nested_layers_do_not_multiply_the_second_requests() -> None:
    fake = Scripted()
    async with store_of(Hedged(Hedged(fake)), retry=ONE_ATTEMPT) as store:
        await warm_up(store, fake)
        fake.latencies = [SLOW] * 10
        task = OwnedTask(get(store))
        await asyncio.sleep(SLOW / 2)
        assert sent(fake) == 3
        await task.aclose()


@idle_time
async def test_request_that_lost_counts_as_slow() -> None:
    fake = Scripted()
    layer = Hedged(fake)
    async with store_of(layer, retry=ONE_ATTEMPT) as store:
        await warm_up(store, fake)
        fake.latencies = [SLOW, FAST]
        await get(store)
        latest = list(layer._latencies["get"]._window)[-2:]
        assert sorted(latest) == pytest.approx([FAST, 2 * FAST], abs=0.002)


@idle_time
async def test_second_request_emits_an_event() -> None:
    fake = Scripted()
    events: list[Event] = []
    async with layered(fake) as store:
        await warm_up(store, fake)
        store.events.subscribe(events.append)
        fake.latencies = [SLOW, FAST]
        await get(store)
        start = next(event for event in events if event.kind == "start")
        hedges = [event for event in events if event.kind == "hedge"]
        assert [(e.operation, e.backend, e.bucket, e.key, e.operation_id) for e in hedges] == [
            ("get", "default", "bucket", "key", start.operation_id)
        ]


@idle_time
async def test_store_is_idle_after_many_races() -> None:
    fake = Scripted(max_connections=8)
    layer = Hedged(fake, after=0.5, budget=1)
    inner: list[Trove] = []
    async with store_of(layer, retry=ONE_ATTEMPT) as store:
        inner.append(store)
        await warm_up(store, fake)
        fake.latencies = [FAST * (1 + n * 7 % 5) for n in range(2000)]
        tasks = [OwnedTask(get(store)) for _ in range(300)]
        for number, task in enumerate(tasks):
            if number % 7 == 0:
                await task.aclose()
            else:
                assert await task.result() == b"body"
        await settle()
        assert_nothing_left(fake, layer)
        assert store.pool.statistics().leased == 0


# -- settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"after": 0}, {"after": 1}, {"after": float("nan")}, {"budget": -0.1}, {"budget": 1.1}],
)
def test_values_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Hedged(MemoryDriver(), **options)


@pytest.mark.parametrize("options", [{"after": "0.9"}, {"budget": None}, {"after": True}])
def test_values_of_the_wrong_type_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        Hedged(MemoryDriver(), **options)
    with pytest.raises(TypeError, match="driver of Hedged"):
        Hedged(object())  # type: ignore[arg-type]


async def test_member_may_be_a_url() -> None:
    layer = Hedged("mem://")
    assert isinstance(layer, Layer)
    assert layer.name == "memory"
    async with Trove(layer) as store:
        await store.create_bucket("bucket")
        assert not ReadOnly(layer).capabilities.writable


def test_large_quantiles_need_more_samples() -> None:
    for quantile, count in ((0.5, 50), (0.95, 50), (0.99, 100), (0.999, 1000)):
        latencies = Latencies(quantile)
        for _ in range(count - 1):
            latencies.add(1.0)
            assert latencies.threshold is None
        latencies.add(1.0)
        assert latencies.threshold == 1.0


def test_quantile_is_exact_and_the_window_is_bounded() -> None:
    latencies = Latencies(0.95)
    for number in range(1000):
        latencies.add(number)
    assert latencies.threshold == 949
    for _ in range(10_000):
        latencies.add(1.0)
    assert latencies.threshold == 1.0
    assert len(latencies._window) == _latencies.WINDOW

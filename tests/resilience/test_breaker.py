"""The circuit breaker of a driver: when it opens and closes, and what transfers in progress do."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.fakes import LARGE, Fake, assert_idle, content, store_of
from trove_async import (
    CircuitBreaker,
    ConfigError,
    Event,
    ObjectNotFoundError,
    PermissionDeniedError,
    PoolTimeoutError,
    RetryPolicy,
    TimedOutError,
    Timeout,
    Trove,
    UnavailableError,
)
from trove_async._concurrency import OwnedTask
from trove_async._resilience.breaker import Breaker, CircuitOpenError
from trove_async.drivers import MemoryDriver
from trove_async.errors import IntegrityError, TroveError
from trove_async.integrations import logs
from trove_async.layers import Mapped
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trove_async._resilience.driver import ResilientDriver

pytestmark = pytest.mark.idle_time

QUICK = CircuitBreaker(failures=3, duration=1.0, pause=1.0, max_pause=8.0)
ONE_ATTEMPT = RetryPolicy(attempts=1, breaker=QUICK)


def now() -> float:
    return asyncio.get_running_loop().time()


def breaker_of(store: Trove, backend: str = "default") -> Breaker:
    return store._core.backends[backend].breakers[0]


@pytest.fixture(autouse=True)
def whole_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every pause as long as its maximum."""
    monkeypatch.setattr(random, "uniform", lambda _low, high: high)


async def fail_until_open(store: Trove, fake: Fake, bucket: str = "bucket") -> None:
    """Let three heads fail, which opens the breaker, and leave them failing."""
    fake.before["head"] = unavailable
    for pause in (0.6, 0.6, 0.0):
        with pytest.raises(UnavailableError):
            await store.head(bucket, "key")
        await asyncio.sleep(pause)
    assert breaker_of(store).tripped is not fake.capabilities.embedded


async def unavailable() -> None:
    raise UnavailableError("connection refused")


# -- the states --------------------------------------------------------------------------------------


class Clock:
    """A breaker with a clock, and the log of its states."""

    def __init__(self, settings: CircuitBreaker | None = QUICK) -> None:
        self.time = 100.0
        self.states: list[str] = []
        self.breaker = Breaker(settings, lambda: self.time, self.log)

    def log(self, state: str, _error: TroveError | None) -> None:
        self.states.append(state)

    def fail(self, error: TroveError | None = None, *, probe: bool = False) -> None:
        self.breaker.failed(
            error or UnavailableError("refused"),
            successes=self.breaker.successes,
            started=self.time,
            probe=probe,
        )

    def open(self) -> None:
        for _ in range(3):
            self.fail()
            self.time += 0.5
        assert self.states[-1:] == ["open"]


async def test_opens_after_enough_failures_over_enough_time() -> None:
    clock = Clock()
    for _ in range(10):
        clock.fail()  # a burst
    assert not clock.breaker.tripped
    clock.time += 1.0
    clock.fail()
    assert clock.states == ["open"]


async def test_few_failures_do_not_open_it_however_long_they_take() -> None:
    clock = Clock()
    clock.fail()
    clock.time += 3600
    clock.fail()
    assert clock.states == []


async def test_success_between_failures_starts_again() -> None:
    clock = Clock()
    for _ in range(100):
        clock.fail()
        clock.fail()
        clock.time += 1
        clock.breaker.succeeded()
    assert clock.states == []


async def test_timeouts_count_from_the_start_of_their_attempts() -> None:
    clock = Clock()
    for _ in range(3):
        clock.breaker.failed(TimedOutError("late"), successes=0, started=clock.time - 30)
    assert clock.states == ["open"]


async def test_attempt_that_began_before_a_success_does_not_count() -> None:
    clock = Clock()
    clock.breaker.succeeded()
    for _ in range(10):
        clock.breaker.failed(TimedOutError("late"), successes=0, started=clock.time - 30)
    assert clock.breaker.failures == 0


@pytest.mark.parametrize(
    "error",
    [PoolTimeoutError("no permit"), IntegrityError("flipped"), CircuitOpenError("refused")],
)
async def test_errors_that_prove_nothing_are_ignored(error: TroveError) -> None:
    clock = Clock()
    for _ in range(2):
        clock.fail()
        clock.time += 1
    for _ in range(10):
        clock.fail(error)
    assert clock.breaker.failures == 2


@pytest.mark.parametrize("error", [ObjectNotFoundError("missing"), PermissionDeniedError("no")])
async def test_responses_that_are_errors_close_it(error: TroveError) -> None:
    clock = Clock()
    clock.open()
    clock.fail(error)
    assert clock.states == ["open", "closed"]


async def test_pauses_double_up_to_the_maximum_and_start_again_after_a_success() -> None:
    clock = Clock()
    for _ in range(2):
        clock.open()
        clock.time -= 0.5
        for pause in (1, 2, 4, 8, 8):
            clock.time += pause - 0.01
            with pytest.raises(CircuitOpenError) as caught:
                clock.breaker.admit()
            assert caught.value.retry_after == pytest.approx(0.01)
            clock.time += 0.01
            assert clock.breaker.admit()
            clock.fail(probe=True)
        clock.breaker.succeeded()
    assert clock.states == ["open", *["half-open", "open"] * 5, "closed"] * 2


async def test_only_one_probe_is_let_through() -> None:
    clock = Clock()
    clock.open()
    clock.time += 1
    assert clock.breaker.admit()
    with pytest.raises(CircuitOpenError, match="probes it is in progress") as caught:
        clock.breaker.admit()
    assert caught.value.retry_after == QUICK.pause  # not the time after which the probe is given up
    clock.time += QUICK.max_pause  # the probe takes too long: another one may try
    assert clock.breaker.admit()


async def test_failures_of_other_requests_do_not_prolong_the_pause() -> None:
    clock = Clock()
    clock.open()
    for _ in range(100):
        clock.fail()
    clock.time += 1
    assert clock.breaker.admit()


async def test_breaker_can_be_switched_off() -> None:
    clock = Clock(None)
    for _ in range(1000):
        clock.fail()
        clock.time += 1
    assert not clock.breaker.tripped


@pytest.mark.parametrize(
    "arguments",
    [
        {"failures": 0},
        {"duration": -1},
        {"pause": 0},
        {"pause": 2, "max_pause": 1},
        {"max_pause": float("inf")},
        {"duration": float("inf")},
        {"pause": float("nan")},
    ],
)
def test_settings_out_of_range_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        CircuitBreaker(**arguments)


@pytest.mark.parametrize("arguments", [{"failures": "3"}, {"pause": None}, {"failures": True}])
def test_settings_of_the_wrong_type_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        CircuitBreaker(**arguments)
    with pytest.raises(TypeError, match="CircuitBreaker or None"):
        RetryPolicy(breaker=True)  # type: ignore[arg-type]


# -- requests ----------------------------------------------------------------------------------------


async def test_dead_backend_costs_a_thousand_callers_no_time_and_no_request() -> None:
    fake = Fake(embedded=False)
    async with store_of(fake, retry=RetryPolicy(breaker=QUICK, base_delay=0.0)) as store:
        await fail_until_open(store, fake)
        fake.steps.clear()
        started, errors = now(), []

        async def call(number: int) -> None:
            call: Callable[[], Awaitable[object]] = [
                lambda: store.head("bucket", "key"),
                lambda: store.put("bucket", "key", b"body"),
                lambda: store.put("bucket", "key", LARGE),
                lambda: store.read("bucket", "key"),
                lambda: store.list("bucket").all(),
                lambda: store.delete("bucket", "key"),
                lambda: store.copy("bucket", "key", "bucket", "other"),
            ][number % 7]
            with pytest.raises(UnavailableError) as caught:
                await call()
            errors.append(caught.value)

        async with asyncio.TaskGroup() as group:
            for number in range(1000):
                group.create_task(call(number))
        assert fake.steps == []
        assert now() == started
        assert len(errors) == 1000
        assert {error.maybe_done for error in errors} == {False}
        message = str(errors[0])
        assert "considered unavailable" in message
        assert "UnavailableError: connection refused" in message
        assert "on backend 'default'" in message
        assert errors[0].retry_after is not None
        assert_idle(store, fake)


async def test_recovered_backend_is_found_by_one_probe() -> None:
    fake = Fake(embedded=False)
    async with store_of(fake, retry=ONE_ATTEMPT) as store:
        await store.put("bucket", "key", b"body")
        await fail_until_open(store, fake)
        del fake.before["head"]
        await asyncio.sleep(0.9)
        with pytest.raises(CircuitOpenError):
            await store.head("bucket", "key")
        await asyncio.sleep(0.2)
        await store.head("bucket", "key")
        assert breaker_of(store).state == "closed"
        for _ in range(10):
            await store.head("bucket", "key")


async def test_other_requests_fail_at_once_while_the_probe_is_under_way() -> None:
    fake = Fake(embedded=False)
    async with store_of(fake, retry=ONE_ATTEMPT) as store:
        await fail_until_open(store, fake)
        await asyncio.sleep(1)
        reached = fake.hang("head")
        probe = OwnedTask(store.head("bucket", "key"))
        await reached.wait()
        assert breaker_of(store).state == "half-open"
        started = now()
        with pytest.raises(CircuitOpenError):
            await store.head("bucket", "key")
        assert now() == started
        with pytest.raises(TimedOutError):
            await probe.result()
        assert breaker_of(store).state == "open"


async def test_cancelled_probe_gives_its_place_to_the_next_request() -> None:
    fake = Fake(embedded=False)
    async with store_of(fake, retry=ONE_ATTEMPT) as store:
        await store.put("bucket", "key", b"body")
        await fail_until_open(store, fake)
        await asyncio.sleep(1)
        reached = fake.hang("head")
        probe = OwnedTask(store.head("bucket", "key"))
        await reached.wait()
        await probe.aclose()
        assert breaker_of(store).state == "open"
        del fake.before["head"]
        await store.head("bucket", "key")
        assert breaker_of(store).state == "closed"


async def test_service_that_throttles_most_requests_stays_available() -> None:
    fake = Fake(embedded=False)
    async with store_of(fake, retry=RetryPolicy(breaker=QUICK)) as store:
        await store.put("bucket", "key", b"body")
        count = 0

        async def throttle() -> None:
            nonlocal count
            count += 1
            if count % 3:
                raise UnavailableError("slow down", retry_after=1)

        fake.before["head"] = throttle
        for _ in range(50):
            await store.head("bucket", "key")
        assert now() > 1050
        assert breaker_of(store).state == "closed"


async def test_backends_are_independent() -> None:
    dead, alive = Fake(embedded=False), Fake(embedded=False)
    async with store_of(dead, alive, retry=ONE_ATTEMPT) as store:
        await store.put("bucket", "b/key", b"body")
        await fail_until_open(store, dead)
        assert breaker_of(store).state == "open"
        assert await store.read("bucket", "b/key") == b"body"
        assert breaker_of(store, "b").state == "closed"


async def test_embedded_driver_has_no_breaker() -> None:
    fake = Fake()
    async with store_of(fake, retry=ONE_ATTEMPT) as store:
        await fail_until_open(store, fake)
        await fail_until_open(store, fake)
        assert breaker_of(store).state == "closed"


async def test_layer_passes_the_error_on() -> None:
    fake = Fake(embedded=False)
    async with Trove(Mapped(fake, into="all"), retry=ONE_ATTEMPT) as store:
        await store.create_bucket("bucket")
        await fail_until_open(store, fake)
        fake.steps.clear()
        with pytest.raises(UnavailableError, match="considered unavailable") as caught:
            await store.head("bucket", "key")
        assert (caught.value.bucket, caught.value.key) == ("bucket", "key")
        assert fake.steps == []
        assert (await store.health())["default"].breaker == "closed"  # the ping succeeds


async def test_user_cancels_do_not_open_it() -> None:
    fake = Fake(embedded=False)
    async with store_of(fake, retry=ONE_ATTEMPT) as store:
        fake.hang("head")
        for _ in range(10):
            task = OwnedTask(store.head("bucket", "key"))
            await asyncio.sleep(1)
            await task.aclose()
        assert breaker_of(store).failures == 0


async def test_call_whose_breaker_opens_is_not_retried_and_raises_its_own_error() -> None:
    fake = Fake(embedded=False)
    policy = RetryPolicy(attempts=50, base_delay=1.0, max_delay=1.0, breaker=QUICK)
    async with store_of(fake, retry=policy) as store:
        fake.before["put"] = unavailable
        with pytest.raises(UnavailableError, match="connection refused") as caught:
            await store.put("bucket", "key", b"body")
        assert not isinstance(caught.value, CircuitOpenError)
        assert fake.count("put") == 3
        assert caught.value.maybe_done


async def test_retry_that_meets_an_open_breaker_raises_the_error_of_its_last_attempt() -> None:
    fake = Fake(embedded=False)
    policy = RetryPolicy(attempts=2, base_delay=9.0, breaker=QUICK)
    async with store_of(fake, retry=policy) as store:
        fake.before["put"] = unavailable
        waiting = OwnedTask(store.put("bucket", "key", b"body"))
        await asyncio.sleep(1)
        breaker = breaker_of(store)
        for _ in range(2):  # what two other requests would do
            breaker.failed(UnavailableError("refused"), successes=breaker.successes, started=0)
        assert breaker.state == "open"
        breaker._due += 100
        with pytest.raises(UnavailableError, match="connection refused") as caught:
            await waiting.result()
        assert fake.count("put") == 1
        assert caught.value.maybe_done


async def test_requests_in_line_for_a_permit_fail_when_it_opens() -> None:
    fake = Fake(embedded=False, max_connections=3)
    timeout = Timeout(first_byte=10)
    async with store_of(fake, retry=ONE_ATTEMPT, timeout=timeout) as store:
        fake.hang("head")
        tasks = [OwnedTask(store.head("bucket", str(n))) for n in range(100)]
        started, errors = now(), []
        for task in tasks:
            with pytest.raises(UnavailableError) as caught:
                await task.result()
            errors.append(type(caught.value))
        assert errors == [TimedOutError] * 3 + [CircuitOpenError] * 97
        assert now() - started == pytest.approx(10, abs=0.1)
        assert fake.count("head") == 3
        assert_idle(store, fake)


async def test_requests_in_line_fail_when_others_open_it_although_every_permit_stays_taken() -> (
    None
):
    fake = Fake(embedded=False, max_connections=2)
    timeout = Timeout(first_byte=1000, permit=1000)
    async with store_of(fake, retry=ONE_ATTEMPT, timeout=timeout) as store:
        fake.hang("delete")
        holders = [OwnedTask(store.delete("bucket", str(n))) for n in range(2)]
        await asyncio.sleep(1)
        waiters = [OwnedTask(store.head("bucket", str(n))) for n in range(10)]
        fake.before["get"] = unavailable
        for _ in range(3):
            with pytest.raises(UnavailableError):
                await store.read("bucket", "key")
            await asyncio.sleep(0.6)
        started = now()
        for waiter in waiters:
            with pytest.raises(CircuitOpenError):
                await waiter.result()
        assert now() == started
        assert fake.count("head") == 0
        for holder in holders:
            await holder.aclose()
        assert_idle(store, fake)


async def test_request_cancelled_after_it_was_dismissed_leaves_the_permits_right() -> None:
    fake = Fake(embedded=False, max_connections=1)
    async with store_of(fake, retry=ONE_ATTEMPT) as store:
        hang = fake.hang("head")
        holder = OwnedTask(store.head("bucket", "a"))
        await hang.wait()
        waiter = OwnedTask(store.head("bucket", "b"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        calls = cast("ResilientDriver", store._core.backends["default"].driver).calls
        assert calls.request_permits.waiting == 1
        calls.request_permits.dismiss()
        await waiter.aclose()  # before it has run again
        await holder.aclose()
        assert_idle(store, fake)


# -- transfers in progress ---------------------------------------------------------------------------


async def open_by_other_requests(store: Trove, fake: Fake) -> None:
    await fail_until_open(store, fake)
    fake.steps.clear()


async def test_download_in_progress_waits_for_the_backend_to_recover() -> None:
    fake = Fake(embedded=False)
    body = content(3 * MiB)
    async with store_of(fake, retry=RetryPolicy(attempts=4, breaker=QUICK)) as store:
        await store.put("bucket", "key", body)
        async with store.get("bucket", "key") as obj:
            data = await obj.read(MiB)
            fake.cuts.append(MiB + 10)
            fake.before["get"] = unavailable
            await open_by_other_requests(store, fake)

            async def recover() -> None:
                await asyncio.sleep(2.5)
                del fake.before["get"]

            recovery = OwnedTask(recover())
            data += await obj.read()
            assert data == body
            assert fake.count("get") <= 3  # probes only
            assert breaker_of(store).state == "closed"
            await recovery.result()
        assert_idle(store, fake)


async def test_download_goes_on_as_soon_as_the_probe_of_another_request_succeeds() -> None:
    fake = Fake(embedded=False)
    body = content(3 * MiB)
    async with store_of(fake, retry=RetryPolicy(attempts=2, breaker=QUICK)) as store:
        await store.put("bucket", "key", body)
        async with store.get("bucket", "key") as obj:
            await obj.read(MiB)
            fake.cuts.append(MiB + 10)
            await open_by_other_requests(store, fake)
            fake.before["head"] = lambda: asyncio.sleep(3)
            await asyncio.sleep(1.0)
            probe = OwnedTask(store.head("bucket", "key"))
            await asyncio.sleep(0)
            started = now()
            assert len(await obj.read()) == 2 * MiB
            assert now() - started == pytest.approx(3, abs=0.2)
            await probe.result()
        assert_idle(store, fake)


async def test_download_of_a_dead_backend_fails_after_its_attempts() -> None:
    fake = Fake(embedded=False)
    async with store_of(fake, retry=RetryPolicy(attempts=4, breaker=QUICK)) as store:
        await store.put("bucket", "key", content(3 * MiB))
        async with store.get("bucket", "key") as obj:
            await obj.read(MiB)
            fake.cuts.append(MiB + 10)
            fake.before["get"] = unavailable
            await open_by_other_requests(store, fake)
            with pytest.raises(UnavailableError):
                await obj.read()
            assert fake.count("get") == 3
        assert_idle(store, fake)


async def test_many_downloads_in_progress_share_the_probes() -> None:
    fake = Fake(embedded=False)
    async with store_of(fake, retry=RetryPolicy(attempts=4, breaker=QUICK)) as store:
        await store.put("bucket", "key", content(3 * MiB))
        readers = [await store.get("bucket", "key").__aenter__() for _ in range(50)]
        for reader in readers:
            await reader.read(MiB)
        fake.cuts.extend([MiB + 10] * 50)
        fake.before["get"] = unavailable
        await open_by_other_requests(store, fake)
        for task in [OwnedTask(reader.read()) for reader in readers]:
            with pytest.raises(UnavailableError):
                await task.result()
        assert fake.count("get") <= 4  # instead of 150
        for reader in readers:
            await reader.aclose()
        assert_idle(store, fake)


async def test_broken_bodies_of_a_dying_backend_open_it() -> None:
    fake = Fake(embedded=False)
    async with store_of(fake, retry=ONE_ATTEMPT, timeout=Timeout(idle=10)) as store:
        await store.put("bucket", "key", content(3 * MiB))
        readers = [await store.get("bucket", "key").__aenter__() for _ in range(3)]
        fake.hang("read")
        for reader in readers:
            with pytest.raises(TimedOutError):
                await reader.read(MiB)
        # Each response had begun before the next one, which was a success, so only the last body counts.
        assert breaker_of(store).failures == 1
        for reader in readers:
            await reader.aclose()


async def test_upload_in_progress_survives_an_outage_that_its_policy_covers() -> None:
    fake = Fake(embedded=False, parallel_parts=1)
    async with store_of(fake, retry=RetryPolicy(attempts=4, breaker=QUICK)) as store:
        sent = 0

        async def fail_second_part() -> None:
            nonlocal sent
            sent += 1
            if sent == 2:
                breaker_of(store)._open(UnavailableError("refused"))
                breaker_of(store).failures = 3
                raise UnavailableError("refused")
            if sent == 3:
                raise UnavailableError("refused")

        fake.before["send"] = fail_second_part
        await store.put("bucket", "key", LARGE)
        assert await store.read("bucket", "key") == LARGE
        assert breaker_of(store).state == "closed"
        assert_idle(store, fake)


async def test_upload_to_a_dead_backend_is_aborted() -> None:
    fake = Fake(embedded=False)
    async with store_of(fake, retry=RetryPolicy(attempts=2, breaker=QUICK)) as store:
        fake.before["send"] = unavailable

        async def slow_body() -> Any:
            yield LARGE
            await fail_until_open(store, fake)
            yield LARGE

        with pytest.raises(UnavailableError):
            await store.put("bucket", "key", slow_body())
        assert "upload.exit" in fake.steps
        assert_idle(store, fake)


async def test_cancelled_wait_for_the_probe_leaves_nothing() -> None:
    fake = Fake(embedded=False)
    async with store_of(fake, retry=RetryPolicy(attempts=4, breaker=QUICK)) as store:
        await store.put("bucket", "key", content(3 * MiB))
        async with store.get("bucket", "key") as obj:
            await obj.read(MiB)
            fake.cuts.append(MiB + 10)
            fake.before["get"] = unavailable
            await open_by_other_requests(store, fake)
            task = OwnedTask(obj.read())
            await asyncio.sleep(0.3)
            await task.aclose()
            assert fake.steps.count("get") == 0
        assert_idle(store, fake)


# -- what it reports ---------------------------------------------------------------------------------


async def test_every_change_of_state_emits_an_event() -> None:
    fake = Fake(embedded=False)
    events: list[Event] = []
    async with store_of(fake, retry=ONE_ATTEMPT) as store:
        await store.put("bucket", "key", b"body")
        store.events.subscribe(events.append)
        await fail_until_open(store, fake)
        await asyncio.sleep(1)
        del fake.before["head"]
        await store.head("bucket", "key")
        changes = [event for event in events if event.kind == "breaker"]
        assert [(event.backend, event.state) for event in changes] == [
            ("default", "open"),
            ("default", "half-open"),
            ("default", "closed"),
        ]
        assert isinstance(changes[0].error, UnavailableError)
        assert changes[2].error is None


async def test_refused_request_is_no_attempt() -> None:
    fake = Fake(embedded=False)
    events: list[Event] = []
    async with store_of(fake, retry=ONE_ATTEMPT) as store:
        await fail_until_open(store, fake)
        store.events.subscribe(events.append)
        with pytest.raises(CircuitOpenError):
            await store.head("bucket", "key")
        assert [event.kind for event in events] == ["start", "operation"]


async def test_changes_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    fake = Fake(embedded=False)
    caplog.set_level(logging.INFO, "trove_async.store")
    async with store_of(fake, retry=ONE_ATTEMPT) as store:
        logs.log(store)
        await fail_until_open(store, fake)
        await store.health()
    lines = [(r.levelname, r.getMessage()) for r in caplog.records if "breaker" in r.getMessage()]
    assert lines == [
        ("WARNING", "breaker open on default: UnavailableError: connection refused"),
        ("INFO", "breaker closed on default"),
    ]


async def test_health_reports_the_state_and_its_ping_closes_it() -> None:
    fake = Fake(embedded=False)
    async with store_of(fake, retry=ONE_ATTEMPT) as store:
        assert (await store.health())["default"].breaker == "closed"
        await fail_until_open(store, fake)
        fake.before["ping"] = unavailable
        for _ in range(3):
            health = (await store.health())["default"]
            assert (health.ok, health.breaker) == (False, "open")
        del fake.before["ping"]
        assert (await store.health())["default"].breaker == "closed"
        del fake.before["head"]
        with pytest.raises(ObjectNotFoundError):
            await store.head("bucket", "key")


async def test_failed_pings_open_it() -> None:
    fake = Fake(embedded=False)
    async with store_of(fake, retry=ONE_ATTEMPT) as store:
        fake.before["ping"] = unavailable
        for _ in range(3):
            await store.health()
            await asyncio.sleep(0.6)
        assert (await store.health())["default"].breaker == "open"


async def test_health_of_a_layer_reports_the_worst_of_its_drivers() -> None:
    inner = Fake(embedded=False)
    async with Trove(
        MemoryDriver(), backends={"mapped": Mapped(inner, into="all")}, retry=ONE_ATTEMPT
    ) as store:
        await store.create_bucket("bucket", backends="all")
        inner.before["ping"] = unavailable
        for _ in range(3):
            await store.health()
            await asyncio.sleep(0.6)
        health = await store.health()
        assert (health["default"].breaker, health["mapped"].breaker) == ("closed", "open")


async def test_default_settings_open_after_one_wave_of_timeouts() -> None:
    fake = Fake(embedded=False)
    async with store_of(fake, retry=RetryPolicy(), timeout=Timeout(first_byte=30)) as store:
        fake.hang("head")
        started = now()
        tasks = [OwnedTask(store.head("bucket", str(n))) for n in range(100)]
        for task in tasks:
            with pytest.raises(UnavailableError):
                await task.result()
        assert now() - started < 31
        assert fake.count("head") == 100

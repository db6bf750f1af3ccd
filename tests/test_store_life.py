"""Opening and closing a store.

A store that is not open, or that was opened on a different event loop or before a fork, raises.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.concurrency.steps import let_tasks_run
from tests.drivers.gcs.service_account_key import service_account_key
from tests.fakes import CallLog, fill, single_attempt_store
from trove_async import ClosedError, ConfigError, Trove
from trove_async._concurrency import OwnedTask
from trove_async.driver import DriverInUseError
from trove_async.drivers import GCSDriver, LocalDriver, MemoryDriver, S3Driver
from trove_async.drivers.gcs import driver as gcs_driver
from trove_async.drivers.s3 import _components as s3_components
from trove_async.layers import Mapped
from trove_async.middlewares import Encryption, Keyring
from trove_async.scope import Scope

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from trove_async.driver import AsyncDriver, DriverContext

SIGNING_KEY = "secret-of-the-test"

CALLS: list[Callable[[Trove], Awaitable[Any]]] = [
    lambda store: store.put("data", "key", b""),
    lambda store: store.get("data", "key").__aenter__(),
    lambda store: store.read("data", "key"),
    lambda store: store.get_ranges("data", "key", [(0, 1)]),
    lambda store: store.head("data", "key"),
    lambda store: store.exists("data", "key"),
    lambda store: store.delete("data", "key"),
    lambda store: store.copy("data", "key", "data", "to"),
    lambda store: store.move("data", "key", "data", "to"),
    lambda store: store.list("data").all(),
    lambda store: anext(store.list("data")),
    lambda store: store.list_versions("data").all(),
    lambda store: store.misplaced("data").all(),
    lambda store: store.create_bucket("data"),
    lambda store: store.delete_bucket("data"),
    lambda store: store.list_buckets(),
    lambda store: store.presign_get("data", "key"),
    lambda store: store.health(),
    lambda store: store.backend("default").head("data", "key"),
]


async def assert_every_call_raises(store: Trove, advice: str) -> None:
    for call in CALLS:
        with pytest.raises(ClosedError, match=advice) as caught:
            await call(store)
        assert "\n" not in str(caught.value)
    with pytest.raises(ClosedError, match=advice):
        store.delete_many("data", [])


async def test_use_before_opening_raises_with_advice() -> None:
    await assert_every_call_raises(single_attempt_store(), "use it inside `async with Trove")


async def test_use_after_closing_raises_with_advice() -> None:
    driver = CallLog()
    async with single_attempt_store(driver) as store:
        pass
    await assert_every_call_raises(store, "create a new Trove")
    with pytest.raises(ClosedError, match="opened once: create a new Trove"):
        await store.__aenter__()
    assert driver.calls == ["open", "aclose"]
    await store.aclose()
    assert driver.calls == ["open", "aclose"]


async def test_use_on_a_different_loop_raises_with_advice() -> None:
    driver = CallLog()
    await fill(driver, "data", "key")
    driver.calls.clear()
    failures: list[BaseException] = []

    def run_new_loop() -> None:
        async def main() -> None:
            await assert_every_call_raises(store, "open a Trove in each loop")
            with pytest.raises(ClosedError):
                await store.aclose()

        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 - the test checks it
            failures.append(error)

    async with single_attempt_store(driver) as store:
        thread = threading.Thread(target=run_new_loop)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert failures == []
        assert driver.calls == ["open"]
        assert await store.read("data", "key") == b"key"


FORKING_PROGRAM = """
import asyncio, os, sys
from trove_async import ClosedError, Trove
from trove_async.drivers.memory import MemoryDriver

async def main():
    async with Trove(MemoryDriver()) as store:
        await store.create_bucket("data")
        child = os.fork()
        if child == 0:
            async def use():
                for call in (lambda: store.list_buckets(), lambda: store.list("data").all()):
                    try:
                        await call()
                    except ClosedError as error:
                        assert "before a fork" in str(error), error
                    else:
                        os._exit(3)
            try:
                asyncio.events._set_running_loop(None)
                asyncio.new_event_loop().run_until_complete(use())
            except BaseException as error:
                print(repr(error), file=sys.stderr)
                os._exit(2)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [info.name for info in await store.list_buckets()] == ["data"]

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_use_after_a_fork_raises_with_advice() -> None:
    result = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", FORKING_PROGRAM],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (result.returncode, result.stderr) == (0, "")


# -- opening and closing ---------------------------------------------------------------------------


async def test_store_can_be_closed_by_another_task() -> None:
    driver = CallLog()
    store = single_attempt_store(driver)
    for step in (store.__aenter__(), store.create_bucket("data"), store.aclose()):
        await asyncio.get_running_loop().create_task(step)
    assert driver.calls == ["open", "create_bucket", "aclose"]


async def test_each_distinct_driver_is_opened_and_closed_once() -> None:
    shared, below = CallLog(), CallLog()
    layers = [Mapped(below, buckets={"a": "b"}), Mapped(below, buckets={"c": "d"})]
    async with single_attempt_store(
        shared,
        backends={"duplicate": shared, "first": layers[0], "second": layers[1], "below": below},
    ):
        assert shared.calls == below.calls == ["open"]
    assert shared.calls == below.calls == ["open", "aclose"]


class FailingCloseDriver(CallLog):
    """A driver whose `aclose` raises a RuntimeError with the message that was passed."""

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message

    async def aclose(self) -> None:
        await super().aclose()
        raise RuntimeError(self.message)


async def test_failing_close_does_not_stop_the_others() -> None:
    default, bad, last = CallLog(), FailingCloseDriver("stuck"), CallLog()
    with pytest.raises(RuntimeError, match="stuck"):
        async with single_attempt_store(default, backends={"bad": bad, "last": last}):
            pass
    assert [driver.calls for driver in (default, bad, last)] == [["open", "aclose"]] * 3


async def test_several_failing_closes_raise_an_exception_group() -> None:
    default = CallLog()
    with pytest.raises(ExceptionGroup) as caught:
        async with single_attempt_store(
            default, backends={"one": FailingCloseDriver("one"), "two": FailingCloseDriver("two")}
        ):
            pass
    assert sorted(map(str, caught.value.exceptions)) == ["one", "two"]
    assert default.calls == ["open", "aclose"]


class ClosingKeys(Keyring):
    """Keys with connections.

    Attributes:
        calls: The calls of a driver, to which `aclose` is added.
    """

    __slots__ = ("calls", "error")

    def __init__(self, calls: list[str], error: Exception | None = None) -> None:
        super().__init__({"a": bytes(32)})
        self.calls, self.error = calls, error

    async def aclose(self) -> None:
        self.calls.append("close the keys")
        if self.error is not None:
            raise self.error


async def test_middlewares_are_closed_once_and_after_the_drivers() -> None:
    driver = CallLog()
    middleware = Encryption(ClosingKeys(driver.calls))
    scoped = [(middleware, Scope.keys("a")), (middleware, Scope.keys("b"))]
    store = Trove(driver, middleware=[Encryption(Keyring({"a": bytes(32)})), *scoped])
    async with store:
        pass
    await store.aclose()
    assert driver.calls == ["open", "aclose", "close the keys"]


async def test_failing_close_of_a_driver_or_middleware_does_not_stop_the_others() -> None:
    driver = FailingCloseDriver("driver")
    keys = [ClosingKeys(driver.calls, RuntimeError("keys")), ClosingKeys(driver.calls)]
    with pytest.raises(ExceptionGroup) as caught:
        async with Trove(driver, middleware=list(map(Encryption, keys))):
            pass
    assert list(map(str, caught.value.exceptions)) == ["driver", "keys"]
    assert driver.calls == ["open", "aclose", "close the keys", "close the keys"]


async def test_close_of_a_middleware_that_is_cancelled_is_continued() -> None:
    class HangingKeys(ClosingKeys):
        async def aclose(self) -> None:
            await super().aclose()
            if len(self.calls) < 4:
                await asyncio.Event().wait()

    driver = CallLog()
    store = Trove(driver, middleware=[Encryption(HangingKeys(driver.calls))])
    await store.open()
    closing = asyncio.get_running_loop().create_task(store.aclose())
    while "close the keys" not in driver.calls:
        await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    await store.aclose()
    await store.aclose()
    assert driver.calls == ["open", "aclose", "close the keys", "close the keys"]


async def test_open_that_fails_midway_closes_the_open_drivers() -> None:
    default, bad, never = CallLog(), CallLog(), CallLog()
    bad.fail("open", ConfigError("no such place"))
    store = single_attempt_store(default, backends={"bad": bad, "never": never})
    with pytest.raises(ConfigError, match="no such place"):
        await store.__aenter__()
    assert default.calls == ["open", "aclose"]
    assert bad.calls == ["open", "aclose"]  # closed, although its `open` failed
    assert never.calls == []
    await assert_every_call_raises(store, "create a new Trove")
    await store.aclose()
    assert default.calls == ["open", "aclose"]


@pytest.mark.parametrize("layered", [False, True])
@pytest.mark.parametrize("create", [LocalDriver, lambda _: Mapped(CallLog(), into="all")])
async def test_driver_of_an_open_store_cannot_be_opened_by_another_store(
    create: Callable[[Path], AsyncDriver], tmp_path: Path, *, layered: bool
) -> None:
    shared = create(tmp_path)
    if layered:
        shared = Mapped(shared, into="below")
    other = CallLog()
    async with single_attempt_store(shared) as store:
        await store.create_bucket("data")
        await store.put("data", "key", b"old")
        with pytest.raises(DriverInUseError, match=r"create (one|a new one)"):
            await single_attempt_store(other, backends={"shared": shared}).__aenter__()
        assert other.calls == ["open", "aclose"]
        assert await store.read("data", "key") == b"old"


async def test_open_that_raises_closed_error_closes_the_driver() -> None:
    # DriverInUseError is a ClosedError, too, but leaves the driver open, because another store uses it.
    default, bad = CallLog(), CallLog()
    bad.fail("open", ClosedError("the credential store is closed"))
    with pytest.raises(ClosedError, match="credential store") as caught:
        await single_attempt_store(default, backends={"bad": bad}).__aenter__()
    assert caught.value.backend == "bad"
    assert default.calls == ["open", "aclose"]
    assert bad.calls == ["open", "aclose"]


@pytest.mark.parametrize(
    "create",
    [
        LocalDriver,
        lambda _: GCSDriver(anonymous=True),
        lambda _: S3Driver(
            region="eu-west-1",
            dialect="s3",
            access_key_id="id",
            secret_access_key=SIGNING_KEY,
        ),
        lambda _: Mapped(CallLog(), into="all"),
    ],
    ids=["local", "gcs", "s3", "mapped"],
)
async def test_second_open_reports_that_the_driver_is_in_use(
    create: Callable[[Path], AsyncDriver], tmp_path: Path
) -> None:
    driver = create(tmp_path)
    async with single_attempt_store(driver):
        with pytest.raises(DriverInUseError):
            await single_attempt_store(driver).__aenter__()


@pytest.mark.parametrize(
    "create",
    [
        lambda path: LocalDriver(path / "root"),
        lambda path: GCSDriver(credentials=path / "key.json"),
        lambda _: Mapped(SlowOpenDriver(), into="all"),
    ],
    ids=["local", "gcs", "mapped"],
)
async def test_driver_opened_by_two_stores_concurrently_belongs_to_one(
    create: Callable[[Path], AsyncDriver], tmp_path: Path
) -> None:
    (tmp_path / "key.json").write_text(json.dumps(service_account_key()))
    driver = create(tmp_path)
    winners: list[Trove] = []
    errors: list[DriverInUseError] = []

    async def open_store() -> None:
        try:
            winners.append(await single_attempt_store(driver).open())
        except DriverInUseError as error:
            errors.append(error)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(open_store())
        tasks.create_task(open_store())
    [winner] = winners
    assert len(errors) == 1
    await winner.aclose()


async def test_store_closed_while_it_opens_closes_every_driver() -> None:
    first, second = CallLog(), CallLog()
    reached, gate = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        reached.set()
        await gate.wait()

    second.before["open"] = wait
    store = single_attempt_store(first, backends={"second": second})
    opening = OwnedTask(store.open())
    await reached.wait()
    await store.aclose()
    gate.set()
    with pytest.raises(ClosedError, match="while it was being opened"):
        await opening.result()
    assert first.calls == ["open", "aclose"]
    assert second.calls == ["open", "aclose"]


class SlowCloseTransport:
    """A transport whose first `aclose` waits for `gate`."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.is_closed = False
        self.close_count = 0

    async def aclose(self) -> None:
        self.close_count += 1
        if self.close_count == 1:
            await self.gate.wait()
        self.is_closed = True


@pytest.fixture(params=["s3", "gcs"])
def service_driver(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[AsyncDriver, list[SlowCloseTransport]]:
    """Return a driver, and the transports that it has opened."""
    transports: list[SlowCloseTransport] = []

    def make_transport(*_: object, **__: object) -> SlowCloseTransport:
        transports.append(SlowCloseTransport())
        return transports[-1]

    for module in (s3_components, gcs_driver):
        monkeypatch.setattr(module, "transport_over", make_transport)
    if request.param == "gcs":
        return GCSDriver(anonymous=True), transports
    driver = S3Driver(
        region="eu-west-1", dialect="s3", access_key_id="id", secret_access_key=SIGNING_KEY
    )
    return driver, transports


async def test_close_that_was_cancelled_is_continued_by_the_next_one(
    service_driver: tuple[AsyncDriver, list[SlowCloseTransport]],
) -> None:
    driver, transports = service_driver
    store = await single_attempt_store(driver).open()
    closing = OwnedTask(store.aclose())
    await let_tasks_run()
    await closing.aclose()
    assert not transports[0].is_closed
    with pytest.raises(DriverInUseError):  # it is not closed yet
        await single_attempt_store(driver).open()
    await store.aclose()
    assert transports[0].is_closed
    reopened = await single_attempt_store(driver).open()
    transports[1].gate.set()
    await reopened.aclose()


async def test_late_end_of_a_close_does_not_close_the_store_that_opened_the_driver_since(
    service_driver: tuple[AsyncDriver, list[SlowCloseTransport]],
) -> None:
    driver, transports = service_driver
    first = await single_attempt_store(driver).open()
    closings = [OwnedTask(first.aclose()), OwnedTask(first.aclose())]
    await let_tasks_run()
    await closings[1].result()
    second = await single_attempt_store(driver).open()
    transports[0].gate.set()
    await closings[0].result()
    assert not transports[1].is_closed
    with pytest.raises(DriverInUseError):
        await single_attempt_store(driver).open()
    transports[1].gate.set()
    await second.aclose()
    assert transports[1].is_closed


class SlowOpenDriver(MemoryDriver):
    """A driver that lets other tasks run while it opens."""

    async def open(self, context: DriverContext) -> None:
        await asyncio.sleep(0)
        await super().open(context)


async def test_cancelled_open_closes_the_open_drivers() -> None:
    default, stuck = CallLog(), CallLog()
    reached = asyncio.Event()

    async def hang() -> None:
        reached.set()
        await asyncio.Event().wait()

    stuck.before["open"] = hang
    store = single_attempt_store(default, backends={"stuck": stuck})
    task = asyncio.get_running_loop().create_task(store.__aenter__())
    await reached.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert default.calls == ["open", "aclose"]
    assert stuck.calls == ["open", "aclose"]


async def test_error_in_the_block_closes_the_store() -> None:
    driver = CallLog()
    with pytest.raises(LookupError):
        async with single_attempt_store(driver):
            raise LookupError
    assert driver.calls == ["open", "aclose"]


async def test_close_without_open_closes_nothing() -> None:
    driver = CallLog()
    store = single_attempt_store(driver)
    await store.aclose()
    assert driver.calls == []
    with pytest.raises(ClosedError):
        await store.__aenter__()

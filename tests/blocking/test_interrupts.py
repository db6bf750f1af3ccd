"""An interrupt of the waiting thread cancels the operation and waits for its cleanup."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Fake, content
from trove_async.models import MiB, ObjectInfo

if TYPE_CHECKING:
    from types import FrameType

    from trove_async import blocking


@pytest.fixture
def interrupt() -> Callable[[], None]:
    """Return a function that sends SIGINT to the main thread, as Ctrl-C does."""
    main = threading.main_thread().ident
    assert main is not None
    return lambda: signal.pthread_kill(main, signal.SIGINT)


async def hang_until_cancelled(interrupt: Callable[[], None], ended: list[str]) -> None:
    interrupt()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        for _ in range(10):
            await asyncio.sleep(0)
        ended.append("cleanup")
        raise


def test_interrupted_call_is_cancelled_and_cleaned_up_first(
    store: blocking.Trove, fake: Fake, interrupt: Callable[[], None]
) -> None:
    ended: list[str] = []
    fake.before["head"] = lambda: hang_until_cancelled(interrupt, ended)
    with pytest.raises(KeyboardInterrupt):
        store.head("data", "key")
    assert ended == ["cleanup"]
    assert fake.calls_under_way == 0
    store.put("data", "key", b"body")


def test_interrupted_put_leaves_the_old_object(
    store: blocking.Trove, fake: Fake, interrupt: Callable[[], None]
) -> None:
    store.put("data", "key", b"old")
    ended: list[str] = []
    fake.before["commit"] = lambda: hang_until_cancelled(interrupt, ended)
    with pytest.raises(KeyboardInterrupt):
        store.put("data", "key", iter([content(5 * MiB)]))
    assert ended
    fake.before.clear()
    assert store.read("data", "key") == b"old"
    assert (fake.open_uploads, fake.calls_under_way) == (0, 0)


def test_interrupted_write_of_a_file_stores_nothing(
    store: blocking.Trove, fake: Fake, interrupt: Callable[[], None]
) -> None:
    ended: list[str] = []
    fake.before["upload"] = lambda: hang_until_cancelled(interrupt, ended)
    with pytest.raises(KeyboardInterrupt), store.open("data", "key", "wb") as file:
        while True:
            file.write(bytes(1 * MiB))
    fake.before.clear()
    assert file.closed
    assert not store.exists("data", "key")
    assert (fake.open_uploads, fake.calls_under_way) == (0, 0)


def test_exception_of_another_signal_cancels_as_well(store: blocking.Trove, fake: Fake) -> None:
    # Celery raises its soft time limit from a signal handler.
    class TimeLimit(Exception):  # noqa: N818 - stands for Celery's
        pass

    def handle(*_: object) -> None:
        raise TimeLimit

    ended: list[str] = []
    main = threading.main_thread().ident
    assert main is not None
    fake.before["head"] = lambda: hang_until_cancelled(
        lambda: signal.pthread_kill(main, signal.SIGUSR1), ended
    )
    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        with pytest.raises(TimeLimit):
            store.head("data", "key")
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert ended == ["cleanup"]


def test_second_interrupt_does_not_wait(
    store: blocking.Trove, fake: Fake, interrupt: Callable[[], None]
) -> None:
    may_end: list[asyncio.Event] = []

    async def refuse_to_end() -> None:
        may_end.append(asyncio.Event())
        interrupt()
        try:
            await may_end[0].wait()
        except asyncio.CancelledError:
            interrupt()
            await may_end[0].wait()
            raise

    fake.before["head"] = refuse_to_end
    with pytest.raises(KeyboardInterrupt):
        store.head("data", "key")

    async def let_it_end() -> None:
        may_end[0].set()

    fake.before["list_buckets"] = let_it_end
    store.list_buckets()


# An interrupt before a call is handed over drops its coroutine.
@pytest.mark.filterwarnings("ignore:coroutine 'Trove.put' was never awaited:RuntimeWarning")
def test_interrupt_at_any_bytecode_of_the_hand_over_leaves_the_store_usable(
    store: blocking.Trove,
) -> None:
    interrupted = 0
    for number in itertools.count():
        interrupt = InterruptAt(number)
        try:
            with interrupt:
                store.put("data", "key", b"body")
        except KeyboardInterrupt:
            interrupted += 1
        assert store.list_buckets()
        if not interrupt.was_raised:
            break
    assert interrupted > 100
    assert store.read("data", "key") == b"body"


TAKE: dict[str, Callable[[blocking.ObjectIterator[ObjectInfo]], Sequence[ObjectInfo]]] = {
    "next": lambda entries: [next(entries)],
    "pages": lambda entries: next(entries.pages()),
    "all": lambda entries: entries.all(),
}


@pytest.mark.filterwarnings("ignore:coroutine 'Entries.*' was never awaited:RuntimeWarning")
@pytest.mark.parametrize("take", TAKE.values(), ids=TAKE)
def test_interrupt_of_a_listing_loses_no_entries(
    store: blocking.Trove,
    take: Callable[[blocking.ObjectIterator[ObjectInfo]], Sequence[ObjectInfo]],
) -> None:
    for key in "abcde":
        store.put("data", key, b"")
    interrupted = 0
    for number in itertools.count():
        interrupt = InterruptAt(number)
        entries = store.list("data", page_size=2)
        listed: list[ObjectInfo] = []
        try:
            with interrupt:
                listed += take(entries)
        except KeyboardInterrupt:
            interrupted += 1
        listed += entries
        assert [entry.key for entry in listed] == list("abcde")
        if not interrupt.was_raised:
            break
    assert interrupted > 20


class InterruptAt:
    """Raises KeyboardInterrupt in the block, at the n-th bytecode by which a call is handed to the loop."""

    def __init__(self, number: int) -> None:
        self._remaining = number

    @property
    def was_raised(self) -> bool:
        return self._remaining < 0

    def __enter__(self) -> None:
        self._previous = sys.gettrace()
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._previous)

    def _trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        if not frame.f_code.co_filename.endswith(("blocking/_loop.py", "asyncio/base_events.py")):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            self._remaining -= 1
            if self._remaining == -1:
                raise KeyboardInterrupt
        return self._trace

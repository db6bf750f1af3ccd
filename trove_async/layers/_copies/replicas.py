"""Runs the copies of a write on the replicas of a `Mirrored`.

The copies that must be acknowledged are waited for. The others go on in tasks of the layer, which use a
private copy of the body and end with the layer at the latest. The writes of one key reach a replica one
after another, in the order of the primary.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Hashable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, cast

from trove_async._concurrency import OwnedTask, OwnedTasks, in_thread, shielded, task_group
from trove_async.driver import AsyncDriver, Uploading
from trove_async.errors import (
    ClosedError,
    InvalidNameError,
    PoolTimeoutError,
    TroveError,
    UnavailableError,
)
from trove_async.models import MiB
from trove_async.options import PutOptions
from trove_async.pool import BufferPool, Lease

from .members import Members

MAX_BEHIND: Final = 256
"""Maximum number of writes that one replica may be behind. It misses further ones. Each costs a task."""

_INLINE_COPY: Final = 1 * MiB
"""Maximum number of bytes copied on the event loop. Copying more takes as long as a hop to a thread."""


_Name: TypeAlias = "tuple[int, str, str | None]"
"""A replica, a bucket and a key; None: the bucket itself."""


_MAX_USUAL_SEGMENT: Final = 200
"""The longest segment, in bytes, of a key that is not checked. File systems allow 255."""


def _is_usual(key: str) -> bool:
    """Return whether any service can store a key: services with directories cannot store some."""
    if "//" in key or "\\" in key or key.startswith("/") or key.endswith("/"):
        return False
    return len(key) <= _MAX_USUAL_SEGMENT // 4 or all(
        len(segment.encode()) <= _MAX_USUAL_SEGMENT for segment in key.split("/")
    )


class KeyLocks:
    """One lock for each key that is being written. The table holds only keys that are in use."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, _KeyLock] = {}

    @asynccontextmanager
    async def hold(self, bucket: str, key: str) -> AsyncIterator[None]:
        """Hold the lock of a key. Waiting for it is fair."""
        name = (bucket, key)
        lock = self._locks.setdefault(name, _KeyLock())
        lock.users += 1
        try:
            async with lock.lock:
                yield
        finally:
            lock.users -= 1
            if not lock.users:
                del self._locks[name]

    def __len__(self) -> int:
        return len(self._locks)


@dataclass(slots=True)
class _KeyLock:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class PrivateCopy:
    """A copy of a body or part for tasks that may outlive the call whose memory they copy.

    It is leased without waiting, and revoked if a transfer waits for memory once only tasks that need
    not be acknowledged use it. They are cancelled then.

    Attributes:
        views: The bytes.
        is_needed: Whether a call still waits for one of the tasks, so that it is not revoked.
    """

    def __init__(self, pool: BufferPool, size: int) -> None:
        self.is_needed = True
        self.views: Sequence[memoryview] = ()
        self._tasks: set[OwnedTask[Any]] = set()
        # More than half of the pool would keep a transfer from ever getting its part.
        fits = size <= pool.max_bytes // 2
        self._lease: Lease | None = pool.try_lease(size, self._revoke) if fits else None

    @classmethod
    async def of(cls, views: Sequence[memoryview], pool: BufferPool) -> PrivateCopy | None:
        """Copy the views. Return None if no memory is free."""
        size = sum(map(len, views))
        copy = cls(pool, size)
        if copy._lease is None:
            return None
        try:
            if size > _INLINE_COPY:
                copy.views = await in_thread(_copied, views, copy._lease.views)
            else:
                copy.views = _copied(views, copy._lease.views)
        except BaseException:
            copy.release()
            raise
        return copy

    def use(self, task: OwnedTask[Any]) -> None:
        """Keep the memory until the task has ended."""
        self._tasks.add(task)
        task.when_done(lambda: self._ended(task))

    def _ended(self, task: OwnedTask[Any]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self.release()

    def finish(self) -> None:
        """Record that no call waits for a task any more."""
        self.is_needed = False
        if not self._tasks:
            self.release()

    def release(self) -> None:
        """Release the memory. Idempotent."""
        self.views = ()
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def _revoke(self) -> bool:
        # The tasks use the memory until they have ended, which they do soon after a cancel.
        if not self.is_needed:
            for task in list(self._tasks):
                task.cancel()
        return False


def _copied(source: Sequence[memoryview], slots: Sequence[memoryview]) -> Sequence[memoryview]:
    """Copy the views into the slots, and return the slots, cut to the bytes copied."""
    filled: list[memoryview] = []
    free = list(slots)
    used = 0
    for view in source:
        rest = view
        while rest:
            slot = free[len(filled)]
            count = min(len(rest), len(slot) - used)
            slot[used : used + count] = rest[:count]
            used, rest = used + count, rest[count:]
            if used == len(slot):
                filled.append(slot)
                used = 0
    if used:
        filled.append(free[len(filled)][:used])
    return filled


@dataclass(slots=True)
class _Following:
    """A write of the primary that the replicas follow: their tasks, and those that failed."""

    operation: str
    bucket: str
    key: str | None
    tasks: dict[int, OwnedTask[object]] = field(default_factory=dict)
    failed: dict[int, BaseException | None] = field(default_factory=dict)

    @property
    def without_result(self) -> list[int]:
        """The replicas that have not done the write."""
        pending = [number for number, task in self.tasks.items() if not succeeded(task)]
        return sorted([*self.failed, *pending])


class Replicas:
    """The replicas of one layer.

    Args:
        members: The members of the layer.
        needed: The number of replicas that must acknowledge each write.
    """

    def __init__(self, members: Members, needed: int) -> None:
        self._members = members
        self.needed = needed
        self._tasks = OwnedTasks()
        self._pending: dict[_Name, list[OwnedTask[Any]]] = {}
        self._behind: dict[int, int] = {}

    def open(self) -> None:
        """Forget the tasks of an earlier use."""
        self._tasks = OwnedTasks()

    async def aclose(self) -> None:
        """Cancel the tasks and wait until they have ended."""
        await self._tasks.aclose()

    @property
    def numbers(self) -> range:
        """The numbers of the replicas among the members."""
        return self._members.numbers[1:]

    def start(
        self,
        number: int,
        bucket: str,
        keys: Sequence[str | None],
        work: Callable[[], Awaitable[object]],
    ) -> OwnedTask[object]:
        """Start a task on a replica. It begins once the earlier ones for the same keys have ended.

        It also waits for those for the bucket.

        Args:
            number: The number of the replica.
            bucket: The bucket.
            keys: The keys; None: the task concerns the bucket. Without keys it begins at once.
            work: The work.

        Raises:
            ClosedError: The layer is closed.
        """
        if self._tasks.closed:
            raise ClosedError("the store was closed during the operation")
        names = [(number, bucket, key) for key in keys]
        # The bucket itself may still be on its way to the replica.
        awaited = {*names, (number, bucket, None)}
        earlier = {task for name in awaited for task in self._pending.get(name, ())}

        async def run() -> object:
            for task in earlier:
                with suppress(Exception):  # reported by its own call
                    await task.result()
            return await work()

        task = self._tasks.start(run())
        for name in names:
            self._pending.setdefault(name, []).append(task)
        task.when_done(lambda: self._forget(names, task))
        return task

    def _forget(self, names: Sequence[_Name], task: OwnedTask[object]) -> None:
        for name in names:
            pending = self._pending[name]
            pending.remove(task)
            if not pending:
                del self._pending[name]

    async def check_key(self, bucket: str, key: str) -> None:
        """Raise InvalidNameError for a key that a replica cannot store, before the primary stores it.

        Only unusual keys are checked: an upload is opened on each replica, and aborted. If no replica is
        needed, one that cannot store the key misses the object.

        Raises:
            InvalidNameError: A replica cannot store the key. Nothing was stored.
        """
        if not self.needed or _is_usual(key):
            return

        async def check(number: int) -> None:
            driver = self._members.drivers[number]
            if not driver.capabilities.upload:
                return
            try:
                async with cast("Uploading", driver).upload(bucket, key, PutOptions()):
                    pass
            except InvalidNameError as error:
                error.add_note(f"({self._members.names[number]} cannot store this key)")
                raise
            except TroveError:
                pass  # the write itself finds out what this means for it

        async with task_group() as group:
            for number in self.numbers:
                group.start_soon(check, number)

    async def settle(self, bucket: str) -> None:
        """Wait until no task of the bucket is running."""
        while running := [
            task for name, tasks in self._pending.items() if name[1] == bucket for task in tasks
        ]:
            await any_ended(running)

    def missed(
        self,
        number: int,
        operation: str,
        bucket: str | None,
        key: str | None,
        error: BaseException | None,
    ) -> None:
        """Emit the event of a replica that has missed a write."""
        self._members.emit("missed", operation, bucket, key, member=number, error=error)

    async def follow(
        self,
        operation: str,
        bucket: str,
        key: str | None,
        work: Callable[[AsyncDriver, int, Sequence[memoryview]], Awaitable[object]],
        views: Sequence[memoryview] = (),
        *,
        keys: Sequence[str] | None = None,
        comes_first: bool = False,
    ) -> tuple[str, ...]:
        """Do on the replicas what the primary has done. Return the names of those that missed it.

        Replicas that need not acknowledge it may still be at work when this returns. Their failures
        are emitted as events only.

        Args:
            operation: The operation, for messages and events.
            bucket: The bucket.
            key: The key; None: the operation concerns the bucket.
            work: Makes the request to a replica, with its number and the body.
            views: The body, which belongs to the caller.
            keys: The keys, if there are several.
            comes_first: Whether the primary follows the replicas instead.

        Raises:
            UnavailableError: Fewer replicas than needed have done it.
        """
        write = _Following(operation, bucket, key)
        # 1. Copy the body for the replicas that need not be waited for.
        copy = None
        if views and self.needed < len(self.numbers):
            try:
                copy = await PrivateCopy.of(views, self._members.pool)
            except BaseException as error:
                self._report(write, self.numbers, error)
                raise
        # 2. Start the tasks, and wait for the acknowledgements.
        body = views if copy is None else copy.views
        uses_callers_memory = bool(views) and copy is None
        try:
            self._start_all(write, work, body, keys, copy)
            await wait_for(write.tasks, self.needed, all_of=uses_callers_memory)
        except BaseException as error:
            await close_all(write.tasks.values())
            self._report(write, write.without_result, error)
            raise
        finally:
            if copy is not None:
                copy.finish()
        # 3. Leave the others to their tasks, or cancel those that use the caller's memory.
        if uses_callers_memory:
            await close_all(write.tasks.values())
        for number, task in write.tasks.items():
            if not task.done:
                self.leave(number, task, operation, bucket, key)
            elif not succeeded(task):
                write.failed[number] = failure(task) or _no_memory()
        # 4. Report what failed.
        return self.result(operation, bucket, key, write.failed, stored=not comes_first)

    def _start_all(
        self,
        write: _Following,
        work: Callable[[AsyncDriver, int, Sequence[memoryview]], Awaitable[object]],
        body: Sequence[memoryview],
        keys: Sequence[str] | None,
        copy: PrivateCopy | None,
    ) -> None:
        """Start the task of each replica, unless it would only be cancelled, or is too far behind.

        If the store was closed after the primary's write, the replicas miss it.
        """
        for number in self.numbers:
            if body and copy is None and not self.needed:
                write.failed[number] = _no_memory()
            elif self._behind.get(number, 0) >= MAX_BEHIND and len(self.numbers) > self.needed:
                write.failed[number] = UnavailableError(f"it is {MAX_BEHIND} writes behind")
            else:

                async def request(number: int = number) -> object:
                    return await work(self._members.drivers[number], number, body)

                try:
                    task = self.start(
                        number, write.bucket, [write.key] if keys is None else keys, request
                    )
                except ClosedError as error:
                    write.failed[number] = error
                    continue
                write.tasks[number] = task
                if copy is not None:
                    copy.use(task)

    def result(
        self,
        operation: str,
        bucket: str,
        key: str | None,
        failed: Mapping[int, BaseException | None],
        *,
        stored: bool = True,
    ) -> tuple[str, ...]:
        """Report the replicas that failed, and return their names.

        Raises:
            UnavailableError: Fewer replicas than needed remain.
        """
        enough = len(self.numbers) - len(failed) >= self.needed
        if enough or stored:
            for number, error in failed.items():
                self.missed(number, operation, bucket, key, error)
        if not enough:
            raise not_acknowledged(operation, self._members.names, failed, stored=stored)
        return tuple(self._members.names[number] for number in sorted(failed))

    def _report(self, write: _Following, numbers: Iterable[int], error: BaseException) -> None:
        for number in numbers:
            self.missed(number, write.operation, write.bucket, write.key, error)

    def leave(
        self,
        number: int,
        task: OwnedTask[object],
        operation: str,
        bucket: str,
        key: str | None,
    ) -> None:
        """Let a task go on after its call has returned."""
        self._behind[number] = self._behind.get(number, 0) + 1

        def ended() -> None:
            self._behind[number] -= 1
            if not succeeded(task):
                self.missed(number, operation, bucket, key, failure(task))

        task.when_done(ended)


async def wait_for(
    tasks: Mapping[int, OwnedTask[object]], needed: int, *, all_of: bool = False
) -> None:
    """Wait until `needed` tasks have succeeded, or too many have failed.

    With `all_of`, wait in the latter case until all have ended.
    """
    while True:
        done = [task for task in tasks.values() if task.done]
        good = sum(map(succeeded, done))
        running = [task for task in tasks.values() if not task.done]
        if good >= needed or not running:
            return
        if good + len(running) < needed and not all_of:
            return
        await any_ended(running)


async def any_ended(tasks: Sequence[OwnedTask[object]]) -> None:
    """Wait until one of the tasks has ended."""
    ended = asyncio.Event()
    for task in tasks:
        task.when_done(ended.set)
    await ended.wait()


async def close_all(tasks: Iterable[OwnedTask[Any]]) -> None:
    """Cancel the tasks, and wait until all have ended, even if the caller is cancelled."""
    tasks = [task for task in tasks if not task.done]
    for task in tasks:
        task.cancel()
    cancelled: asyncio.CancelledError | None = None
    for task in tasks:
        try:
            # Without a shield, a cancelled scope of anyio would cancel again at every step of the loop.
            with shielded():
                await task.aclose()
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def succeeded(task: OwnedTask[object]) -> bool:
    """Return whether a task has returned."""
    return task.done and task.failure() is None and not task.cancelled


def failure(task: OwnedTask[object]) -> BaseException | None:
    """Return the error of a task that has ended; None: it was cancelled."""
    return None if task.cancelled else task.failure()


def not_acknowledged(
    operation: str,
    names: Sequence[str],
    failed: Mapping[int, BaseException | None],
    *,
    stored: bool,
) -> UnavailableError:
    """Return the error of a write that too few replicas have acknowledged."""
    reasons = ", ".join(
        f"{names[number]}: {_reason(error)}" for number, error in sorted(failed.items())
    )
    state = (
        "the primary has done it, so readers see it: do it again, or run the repair job"
        if stored
        else "nothing was stored"
    )
    error = UnavailableError(
        f"too few replicas acknowledged the {operation} ({reasons}); {state}", operation=operation
    )
    error.maybe_done = stored
    error.__cause__ = next((cause for cause in failed.values() if cause is not None), None)
    return error


def _reason(error: BaseException | None) -> str:
    if error is None:
        return "it was not finished in time"
    message = error.message if isinstance(error, TroveError) else str(error)
    return f"{type(error).__name__}: {message}"


def _no_memory() -> PoolTimeoutError:
    return PoolTimeoutError(
        "it was not finished in time, and no memory was free for a private copy"
    )

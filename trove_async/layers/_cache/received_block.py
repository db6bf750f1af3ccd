"""The memory and the bytes of a block that is being received from the origin of `ReadThrough`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from trove_async._checksums import running_crc32c
from trove_async._views import take
from trove_async.errors import UnavailableError
from trove_async.pool import SLOT, BufferPool, Lease


class RevokedError(UnavailableError):
    """A fill gave up its memory. Its readers continue without it."""


class Waiters:
    """Readers that wait for the same thing."""

    __slots__ = ("_waiters",)

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Wait for the next `wake`. The caller then runs before anything that the event loop receives later."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def wake(self) -> None:
        """Let all that wait now continue."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():  # otherwise its reader was cancelled
                waiter.set_result(None)


class ReceivedBlock:
    """The bytes of a block, and the readers that wait for them.

    They are in slots of the store's pool. They stay leased while a call may still read or write them, even if
    the block was given up.

    Attributes:
        start: The offset of its first byte in the object.
        size: Its bytes.
        received: The bytes that have arrived.
        crc32c: Their checksum.
        error: Why it will not be completed; None if it was or may be.
        is_done: Whether it was stored, or cannot be.
        is_dropped: Whether readers can no longer take its bytes.
    """

    __slots__ = (
        "_lease",
        "_slots",
        "_uses",
        "_waiters",
        "crc32c",
        "error",
        "is_done",
        "is_dropped",
        "received",
        "size",
        "start",
    )

    def __init__(self, start: int, size: int) -> None:
        self.start = start
        self.size = size
        self.received = 0
        self.crc32c = 0
        self.error: BaseException | None = None
        self.is_done = False
        self.is_dropped = False
        self._lease: Lease | None = None
        self._slots: Sequence[memoryview] = ()
        self._uses = 0
        self._waiters = Waiters()

    def cancel_request(self) -> None:
        """Cancel the request that receives it, without waiting for its end."""
        raise NotImplementedError

    def drop(self) -> None:
        """Let no reader take its bytes any more, and release the memory. Idempotent."""
        self.is_dropped = True
        self._waiters.wake()
        self._release()

    # -- memory ----------------------------------------------------------------------------------

    def lease(self, pool: BufferPool) -> bool:
        """Lease memory. Return False if none is free, or a transfer waits for some."""
        self._lease = pool.try_lease(self.size, self._revoke)
        self._slots = () if self._lease is None else self._lease.views
        return self._lease is not None

    @contextmanager
    def use(self) -> Iterator[None]:
        """Keep the memory leased during a call that reads or writes it."""
        self._uses += 1
        try:
            yield
        finally:
            self._uses -= 1
            self._release()

    def _release(self) -> None:
        if self.is_dropped and not self._uses and self._lease is not None:
            lease, self._lease, self._slots = self._lease, None, ()
            lease.release()

    def _revoke(self) -> bool:
        """Give up the memory for a transfer that waits for it. Return whether it was released."""
        if not self.is_done and self.received < self.size:
            self.error = RevokedError("the memory of a cache fill was needed for a transfer")
            self.drop()
            self.cancel_request()  # it may be writing to the memory
        elif self.is_done:
            self.drop()
        return self._lease is None

    # -- bytes -----------------------------------------------------------------------------------

    @property
    def views(self) -> list[memoryview]:
        """The bytes, once all have arrived."""
        return take(self._slots, self.size)

    @property
    def unfilled(self) -> memoryview:
        """The memory for the next bytes. Not empty before all have arrived."""
        index, offset = divmod(self.received, SLOT)
        return self._slots[index][offset : offset + self.size - self.received]

    def append(self, count: int) -> None:
        """Record that bytes were written to the start of `unfilled`."""
        self.crc32c = running_crc32c([self.unfilled[:count]], self.crc32c)
        self.received += count
        self._waiters.wake()

    def take(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes at a position of the object; ``b""`` if they are not there."""
        index, offset = divmod(position - self.start, SLOT)
        available = self.received - (position - self.start)
        if self.is_dropped or available <= 0:
            return b""
        return bytes(self._slots[index][offset : offset + min(size, available)])

    async def wait(self) -> None:
        """Wait until more bytes have arrived, or the block was given up."""
        await self._waiters.wait()

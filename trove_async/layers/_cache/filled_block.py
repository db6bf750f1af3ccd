"""A block that is being received from the origin of `ReadThrough`, and then stored in the cache."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trove_async._checksums import running_crc32c
from trove_async._views import take
from trove_async.errors import UnavailableError
from trove_async.pool import SLOT, BufferPool, Lease

from .versions import Version

if TYPE_CHECKING:
    from .fills import Fill


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


class FilledBlock:
    """A block that is being received, and then stored.

    Its bytes are in slots of the store's pool. They stay leased while a call may still read or write them, even if
    the block was given up.

    Attributes:
        version: The version that it belongs to.
        number: The position of the block in the object.
        start: The offset of its first byte.
        size: Its bytes.
        received: The bytes that have arrived.
        crc32c: Their checksum.
        fill: The fill that receives it.
        error: Why it will not be completed; None if it was or may be.
        is_dropped: Whether readers can no longer take its bytes.
    """

    __slots__ = (
        "_is_done",
        "_lease",
        "_readers",
        "_slots",
        "_uses",
        "_waiters",
        "crc32c",
        "error",
        "fill",
        "is_dropped",
        "number",
        "received",
        "size",
        "start",
        "version",
    )

    def __init__(self, fill: Fill, version: Version, number: int) -> None:
        block_size = fill.core.block_size
        self.fill = fill
        self.version = version
        self.number = number
        self.start = number * block_size
        self.size = min(block_size, version.info.stored_size - self.start)
        self.received = 0
        self.crc32c = 0
        self.error: BaseException | None = None
        self.is_dropped = False
        self._lease: Lease | None = None
        self._slots: Sequence[memoryview] = ()
        self._uses = 0
        self._readers = 0
        self._is_done = False
        self._waiters = Waiters()

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
        if not self._is_done and self.received < self.size:
            self.error = RevokedError("the memory of a cache fill was needed for a transfer")
            self.drop()
            self.fill.cancel()  # its request may be writing to the memory
        elif self._is_done:
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

    # -- readers ---------------------------------------------------------------------------------

    @property
    def can_be_dropped(self) -> bool:
        """Whether only slow readers still need it. They can read from the cache or from the origin."""
        return self._is_done and not self.is_dropped

    def attach(self) -> None:
        """Count a reader that takes bytes of this block."""
        self._readers += 1

    def detach(self) -> None:
        """Stop counting a reader."""
        self._readers -= 1
        self.drop_if_unneeded()

    def done(self) -> None:
        """Record that the block was stored, or cannot be. Readers that are near may still take its bytes."""
        self._is_done = True
        self.drop_if_unneeded()

    def drop_if_unneeded(self) -> None:
        """Drop it if it was stored, and no reader is in it or about to reach it."""
        if self._is_done and not self._readers and not self.fill.is_near(self):
            self.drop()

    def fail(self, error: BaseException) -> None:
        """Give the block up."""
        self.error = error
        self.drop()

    def drop(self) -> None:
        """Let no reader take its bytes any more, and release the memory. Idempotent."""
        self.is_dropped = True
        self.fill.core.forget_filling(self)
        self._waiters.wake()
        self._release()

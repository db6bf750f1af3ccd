"""Decodes a body while it is read: the reverse of `encoding`.

A `DecodedBody` reads encoded blocks from another body and returns the decoded bytes. If several middlewares
were applied, several of them are chained. A cancelled read loses no bytes. After a block that cannot be
decoded, every read raises the same error.
"""

from __future__ import annotations

from array import array
from functools import partial
from typing import Final, Protocol, cast

from trove_async._concurrency import Turns
from trove_async.errors import ClosedError, IntegrityError, StreamError
from trove_async.middleware import MAX_BLOCK, MAX_EXPANSION, Plan
from trove_async.models import KiB, ObjectInfo

from .block_workers import INLINE_WORK, BlockJob, BlockJobs, BlockWorkers
from .checked_decoder import CheckedDecoder

_READ: Final = 256 * KiB
"""Bytes to read at a time while the size of the next encoded block is unknown."""


class Body(Protocol):
    """A body that is read once, from the start of its range."""

    info: ObjectInfo
    range: tuple[int, int]

    @property
    def remaining(self) -> int:
        """The number of bytes not returned yet."""
        ...

    async def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes, or ``b""`` at the end."""
        ...


class _ReadingInto(Protocol):
    """A body that reads into memory."""

    async def readinto(self, buffer: memoryview) -> int: ...


class DecodedBody:
    """A range of a body, decoded by one decoder.

    Args:
        encoded: The encoded bytes: those of `plan`, or the whole encoded form.
        decoder: The decoder, with its index loaded if a plan is passed.
        range: The range of the decoded body.
        plan: The plan of that range. None: the range is the whole body, and `encoded` is the whole form
            including its header and trailer, which are then verified as well.
        workers: The workers for parallel blocks, and buffers.
    """

    __slots__ = (
        "_block_start",
        "_decoder",
        "_encoded",
        "_encoded_sizes",
        "_encoded_start",
        "_failure",
        "_has_borders",
        "_header",
        "_index",
        "_is_reading",
        "_is_whole",
        "_jobs",
        "_offset",
        "_pending",
        "_piece",
        "_position",
        "_received",
        "_receiving",
        "_skip",
        "_turns",
        "_workers",
        "info",
        "range",
    )

    def __init__(
        self,
        encoded: Body,
        decoder: CheckedDecoder,
        range: tuple[int, int],
        plan: Plan | None,
        workers: BlockWorkers,
    ) -> None:
        self.info = encoded.info
        self.range = range
        self._encoded = encoded
        self._decoder = decoder
        self._workers = workers
        self._is_whole = plan is None
        self._index = 0 if plan is None else plan.first  # of the next block to read
        self._skip = 0 if plan is None else plan.skip
        self._position = range[0]
        self._header = decoder.header if plan is None else b""  # not verified yet
        self._block_start = range[0] - self._skip  # of the next block to return
        self._encoded_start = len(self._header) if plan is None else plan.encoded[0]
        self._has_borders = decoder.has_borders
        self._encoded_sizes = array("I")
        self._pending = _Pending()
        self._turns = Turns()
        self._receiving: memoryview | None = None  # the memory of the next block
        self._received = 0  # bytes of it
        self._jobs = BlockJobs[bytes](workers)
        self._piece = b""  # a decoded block, of which `_offset` bytes were returned
        self._offset = 0
        self._is_reading = False
        self._failure: Exception | None = None  # every further read raises it

    @property
    def remaining(self) -> int:
        """The number of bytes not returned yet."""
        return self.range[1] - self._position

    async def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes, or ``b""`` at the end.

        Raises:
            IntegrityError: The encoded bytes were altered, or there are fewer or more.
            StreamError: Another task is reading the body. Both reads would take parts of one block.
        """
        self._check_usable()
        if self._is_reading:
            raise StreamError("another task is reading this body: use a reader for each task")
        self._is_reading = True
        try:
            return await self._read(size)
        except IntegrityError as error:
            info = self.info
            error.located(
                operation="get", backend=info.backend or None, bucket=info.bucket, key=info.key
            )
            self._failure = error
            raise
        finally:
            self._is_reading = False

    async def _read(self, size: int) -> bytes:
        while not self._piece:
            if self._is_complete:
                return b""
            block = await self._next_block()
            # No await from here on: a cancelled read loses no bytes.
            skipped, self._skip = self._skip, 0
            if skipped and skipped >= len(block):
                raise self._damaged("a block is shorter than planned")
            self._piece = block[skipped : skipped + self.remaining]
        data = self._piece[self._offset : self._offset + size]
        self._offset += len(data)
        if self._offset == len(self._piece):
            self._piece, self._offset = b"", 0
        self._position += len(data)
        return data

    @property
    def _is_complete(self) -> bool:
        """Whether all bytes were returned and verified. An empty body has a block to verify as well."""
        if self.remaining:
            return False
        return not self._is_whole or (self._index >= self._decoder.block_count and not self._jobs)

    async def aclose(self) -> None:
        """Wait for the workers, and drop the blocks that were not read. Idempotent.

        Any task may call this. A read of another task then raises ClosedError.
        """
        self._failure = self._failure or ClosedError(
            "the reader was closed while the body was being read"
        )
        await self._jobs.discard()

    # -- blocks ------------------------------------------------------------------------------------

    async def _next_block(self) -> bytes:
        """Return the next decoded block. It may be empty only in an empty body."""
        # 1. Start as many jobs as there are workers. A block that was decoded on the loop is returned at
        # once: an idle reader would keep the workers of those after it.
        while self._has_blocks and not (self._jobs and self._jobs.first.is_inline):
            with self._jobs.room() as is_free:
                if not is_free:
                    break
                if self._turns.is_due:  # many small blocks may come from one read
                    await self._turns.give()
                    self._check_usable()
                encoded = await self._next_encoded()
                self._check_usable()
                is_large = max(len(encoded), self._decoder.mean_block) > self._decoder.inline_size
                work = partial(self._decoder.decode, self._index, encoded)
                self._jobs.add(BlockJob(work, encoded, self._workers.start if is_large else None))
                self._index += 1
        # 2. Return the oldest block.
        if not self._jobs:
            raise self._damaged("it has fewer bytes than its size")
        job = self._jobs.first
        try:
            block = await job.result()
        except Exception as error:
            self._failure = self._failure or error
            raise
        self._check_usable()
        self._jobs.remove_first()
        self._workers.return_buffer(job.memory)  # if the block was received into one
        self._check_sizes(len(job.memory), len(block))
        return block

    def _check_sizes(self, encoded_size: int, size: int) -> None:
        """Raise if the blocks after the one with these sizes cannot be the rest of the body."""
        decoder = self._decoder
        self._block_start += size
        index = self._index - len(self._jobs)  # of the next block to return
        blocks = decoder.block_count - index
        rest = (decoder.size or 0) - self._block_start
        if not blocks <= rest <= blocks * MAX_BLOCK:
            relation = "more" if rest < blocks else "fewer"
            raise self._damaged(f"it has {relation} bytes than its size")
        if self._has_borders:
            self._encoded_start += encoded_size
            if blocks:
                decoder.check_border(index, self._block_start, self._encoded_start)

    def _check_usable(self) -> None:
        """Raise if the body was closed by another task during an await."""
        if self._failure is not None:
            raise self._failure

    @property
    def _has_blocks(self) -> bool:
        """Whether more encoded blocks follow."""
        if self._is_whole:
            return self._index < self._decoder.block_count
        return bool(self._pending or self._encoded.remaining)

    async def _next_encoded(self) -> memoryview:
        """Return the next encoded block. After the last one of a whole body, verify the trailer."""
        if self._header:
            await self._expect(self._header, "its header was altered")
            self._header = b""
        is_last = self._is_whole and self._index == self._decoder.block_count - 1
        # Receive a large block directly. A block that was received in part is always received to its end.
        if self._receiving is None and (whole := self._receivable_size(is_last=is_last)):
            self._receiving, self._received = self._workers.take_buffer(whole)[:whole], 0
        if self._receiving is not None:
            return await self._receive_block(self._receiving)
        # 1. Find the size of the block, which may depend on its first bytes.
        while (size := self._decoder.encoded_block_size(self._index, self._pending.view)) is None:
            if len(self._pending) > MAX_BLOCK + MAX_EXPANSION:
                raise self._damaged("an encoded block is too large")
            await self._read_more(MAX_BLOCK if isinstance(self._encoded, DecodedBody) else _READ)
        # 2. Read the block.
        await self._read_up_to(size)
        # 3. Verify the trailer before the last block is returned.
        if is_last:
            sizes = self._encoded_sizes + array("I", [size])
            trailer = await self._decoder.trailer(sizes, self._workers)
            await self._read_up_to(size + len(trailer))
            # As bytes: views are compared byte by byte.
            if bytes(self._pending.view[size:]) != trailer or self._encoded.remaining:
                raise self._damaged("its trailer was altered")
        if self._is_whole:
            self._encoded_sizes.append(size)
        return self._pending.take(size)

    def _receivable_size(self, *, is_last: bool) -> int:
        """Return the size of the next block if it can be received into memory, else 0."""
        # The last block is followed by the trailer, and bytes that are pending would have to be copied.
        if is_last or self._pending or not getattr(self._encoded, "reads_into", False):
            return 0
        size = self._decoder.encoded_block_size(self._index, self._pending.view)
        return size if size is not None and INLINE_WORK < size <= MAX_BLOCK else 0

    async def _receive_block(self, block: memoryview) -> memoryview:
        """Receive a whole encoded block into memory that is used again."""
        body = cast("_ReadingInto", self._encoded)
        while self._received < len(block):
            count = await body.readinto(block[self._received :])
            if not count:
                raise self._damaged("it ended early")
            self._received += count
        self._receiving = None
        if self._is_whole:
            self._encoded_sizes.append(len(block))
        return block

    async def _expect(self, expected: bytes, problem: str) -> None:
        await self._read_up_to(len(expected))
        if self._pending.view[: len(expected)] != expected:
            raise self._damaged(problem)
        self._pending.take(len(expected))

    async def _read_up_to(self, size: int) -> None:
        """Read until `size` bytes are pending."""
        self._pending.reserve(size)
        while len(self._pending) < size:
            await self._read_more(size - len(self._pending))

    async def _read_more(self, size: int) -> None:
        data = await self._encoded.read(size)
        if not data:
            raise self._damaged("it ended early")
        self._pending.append(data)

    def _damaged(self, problem: str) -> IntegrityError:
        return self._decoder.broken(problem)


class _Pending:
    """The encoded bytes that were read and do not make a block yet."""

    __slots__ = ("_buffer", "_reserved", "view")

    def __init__(self) -> None:
        self.view = memoryview(b"")
        self._buffer: bytearray | None = None  # what `view` refers to, if it was copied together
        self._reserved = 0

    def __len__(self) -> int:
        return len(self.view)

    def reserve(self, size: int) -> None:
        """Prepare for `size` bytes in total, so that they are copied only once."""
        self._reserved = size

    def append(self, data: bytes) -> None:
        """Add bytes at the end."""
        if not self.view:
            self.view, self._buffer = memoryview(data), None  # most blocks are one chunk
            return
        size = len(self.view) + len(data)
        if self._buffer is None or size > len(self._buffer):
            # A new buffer, because views of the old one may exist.
            buffer = bytearray(max(size, self._reserved))
            buffer[: len(self.view)] = self.view
            self._buffer = buffer
        self._buffer[len(self.view) : size] = data
        self.view = memoryview(self._buffer)[:size]

    def take(self, size: int) -> memoryview:
        """Remove and return the first `size` bytes."""
        taken, rest = self.view[:size], self.view[size:]
        self._buffer = None  # its start was taken
        self.view = rest or memoryview(b"")  # an empty slice would keep the whole buffer alive
        return taken

"""Encodes a body with the middlewares of its object, between its source and the upload.

Each middleware is a *stage*, which reads the output of the one before. Every stage implements `Source`, and
so does the result, so an upload does not know whether its body is encoded.

A stage holds one block and its encoded form. It encodes more blocks in parallel while permits are free
(`BlockWorkers`).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple, Protocol

from trove_async._concurrency import shielded, wait_until_done
from trove_async._views import BytesLike
from trove_async.errors import ClosedError
from trove_async.middleware import MAX_BLOCK, MAX_EXPANSION, Middleware, ObjectContext
from trove_async.models import MiB

from .block_workers import INLINE_WORK, BlockJob, BlockJobs, BlockWorkers
from .body_file import IOV_MAX
from .checked_encoder import CheckedEncoder
from .file_input import FileInput
from .file_sources import PathSource
from .intake import Intake
from .records import Applied, format_records
from .sources import Source, source_of

_BATCH: Final = 4 * MiB
"""Bytes that are encoded into memory per thread hop. With 1 MiB, a hop takes as long as fast encodings."""

_EXPANSION: Final = 16
"""One additional byte is planned for this number of bytes of a body: `MAX_EXPANSION` per `MAX_BLOCK`."""

_EMPTY: Final = memoryview(b"")


class _Input(Protocol):
    """The input of a stage: an `Intake` or the stage before."""

    async def ready(self) -> bool: ...

    async def take(self, limit: int) -> BytesLike: ...

    async def fill(self, views: Sequence[memoryview]) -> int: ...


class EncodedSource:
    """The encoded form of a body, as the source of an upload.

    Args:
        source: The body.
        intake: The body's intake, which has been read up to the first block.
        output: The output of the last stage.
        stages: The stages, in order.
        applied: The middlewares that were applied, in order: a stage, or the name of a middleware that has
            left the body as it was.
        size: The encoded size, if it is known.
    """

    def __init__(
        self,
        source: Source,
        intake: Intake,
        output: _Input,
        *,
        stages: Sequence[_Stage],
        applied: Sequence[_Stage | str],
        size: int | None,
    ) -> None:
        self.memory: memoryview | None = None
        self.size = size
        self._source = source
        self._intake = intake
        self._output = output
        self._stages = stages
        self._applied = applied

    @property
    def body_size(self) -> int:
        """The number of bytes of the body that have been read; its size, once it is stored."""
        return self._intake.byte_count

    @property
    def planned_size(self) -> int | None:
        """The encoded size to plan parts for: an estimate that is rarely exceeded. None: unknown."""
        if self.size is not None or self._intake.size is None:
            return self.size
        return self._intake.size + self._intake.size // _EXPANSION + MAX_EXPANSION

    def records(self) -> str | None:
        """Return the records to store with the object. Called when the first request is about to be sent."""
        if not self._applied:
            return None
        return format_records(
            [
                Applied(item, None)
                if isinstance(item, str)
                else Applied(item.name, item.encoder.record(item.input_size))
                for item in self._applied
            ]
        )

    async def ready(self) -> bool:
        """Wait until a byte can be taken."""
        return await self._output.ready()

    async def take(self, limit: int) -> BytesLike:
        """Return the next bytes."""
        return await self._output.take(limit)

    async def fill(self, views: Sequence[memoryview]) -> int:
        """Fill `views` in part or in full."""
        return await self._output.fill(views)

    async def load(self) -> None:
        """Encode the whole body into `memory`, and close it. The body must be small."""
        pieces: list[BytesLike] = []
        while await self._output.ready():
            # Copied, because a piece may be a view of a buffer that is used again.
            pieces.append(bytes(await self._output.take(MiB)))
        encoded = source_of(b"".join(pieces))
        self.memory, self.size, self._output = encoded.memory, encoded.size, encoded
        # An upload does not close a body in memory.
        with shielded():
            await self._source.aclose()

    async def aclose(self) -> None:
        """Wait for the workers, and close the body. Idempotent."""
        async with AsyncExitStack() as stack:  # a cancel keeps none of them open
            stack.push_async_callback(self._source.aclose)
            for stage in self._stages:
                stack.push_async_callback(stage.aclose)

    async def rewind(self) -> None:
        """Seek the body back, after a put that failed."""
        await self._source.rewind()


async def encode_source(
    source: Source,
    declared_size: int | None,
    middlewares: Sequence[Middleware],
    context: ObjectContext,
    workers: BlockWorkers,
) -> EncodedSource | None:
    """Read the first block of a body, and return the source of its encoded form.

    None: no middleware encodes this body, and none of it was read. After an error, the caller closes
    `source`.

    Args:
        source: The body.
        declared_size: The size that the user has passed, if any.
        middlewares: The middlewares to apply, in order.
        context: The object.
        workers: The workers for parallel blocks, and buffers.

    Raises:
        IntegrityError: The body does not have the declared size, or an encoder breaks its contract.
        TroveError: A middleware has no key, for example.
    """
    stages: list[_Stage] = []
    async with AsyncExitStack() as stack:
        # 1. Find the size of the body. A small body is read to its end for this.
        intake = Intake(source, declared_size, checksum=False)
        output: _Input = intake
        size = intake.size if await intake.ready() else 0
        if size is None:
            output = await _read_start(intake)
            size = intake.ended_at
        elif isinstance(source, PathSource) and (file := await intake.file()) is not None:
            output = FileInput(file, intake)
        body = output
        # 2. Make the stages. Each encodes its first block, because the encoder may leave the body as it is.
        applied: list[_Stage | str] = []
        for middleware in middlewares:
            encoder = await middleware.encoder(replace(context, size=size))
            if encoder is None:
                continue
            in_memory = output is intake and source.memory is not None
            checked = CheckedEncoder(middleware.name, encoder)
            stage = _Stage(checked, output, size, workers, in_memory=in_memory)
            stages.append(stage)
            stack.push_async_callback(stage.aclose)
            if await stage.start():
                applied.append(stage)
                output = stage
                size = stage.output_size
            else:
                applied.append(middleware.name)
                output = stage.as_it_is()
        if not applied and output is body and not isinstance(body, _Prefixed):
            return None
        encoded = EncodedSource(source, intake, output, stages=stages, applied=applied, size=size)
        # 3. Encode a small body as a whole, so that it is sent from memory as if it were not encoded.
        if (body_size := _known_size(intake)) is not None and body_size <= INLINE_WORK:
            await encoded.load()
        stack.pop_all()  # closed by `EncodedSource.aclose` from now on
    return encoded


async def _read_start(intake: Intake) -> _Input:
    """Read a body up to the size below which it is encoded as a whole. Return it from its start."""
    start = memoryview(bytearray(INLINE_WORK))
    start = start[: await _gather(intake, start)]
    await intake.ready()
    return _Prefixed(start, intake)


def _known_size(intake: Intake) -> int | None:
    return intake.size if intake.size is not None else intake.ended_at


class _Stage:
    """Encodes its input block by block. A `Source` of the encoded form.

    Args:
        encoder: The encoder of this body.
        input: The body, or the stage before.
        size: The size of the input, if known.
        workers: The workers for parallel blocks, and buffers.
        in_memory: Whether the input is memory of the user, so that blocks are views of it.
    """

    def __init__(
        self,
        encoder: CheckedEncoder,
        input: _Input,
        size: int | None,
        workers: BlockWorkers,
        *,
        in_memory: bool,
    ) -> None:
        self.name = encoder.name
        self._in_memory = in_memory
        self.encoder = encoder
        self.input_size = size
        self.output_size: int | None = None
        self._input = input
        self._file = input if isinstance(input, FileInput) else None
        self._workers = workers
        inline_size = encoder.inline_size
        self._inline_size = INLINE_WORK if inline_size is None else inline_size
        # Blocks that are encoded on the loop are encoded one at a time, while they are in the CPU's cache.
        in_thread = inline_size is None or self._file is not None
        self._batch = _BATCH if in_thread else self._inline_size
        self._jobs = BlockJobs[BytesLike | None](workers)
        self._next_index = 0  # of the next block to read
        self._input_bytes = 0
        self._output_bytes = 0
        self._input_ended = False
        self._sizes = array("I")  # of the encoded blocks, for the trailer
        self._pending: memoryview = _EMPTY
        self._left: memoryview | None = None
        self._trailer_taken = False
        self._abandoned = False  # threads read no further block

    async def start(self) -> bool:
        """Encode the first block. Return False if the body is better left as it is (`as_it_is`)."""
        job, block = await self._next_job()
        encoded = await job.result(self._abandon)
        if encoded is None:
            self._left = block
            return False
        self._sizes.append(len(encoded))
        header = self.encoder.header
        if self.input_size is not None:
            self.output_size = self.encoder.encoded_size(self.input_size)
        self._pending = memoryview(b"".join((header, encoded)) if header else encoded)
        self._count_output(len(self._pending))
        self._workers.return_buffer(job.memory)
        return True

    def as_it_is(self) -> _Input:
        """Return the input, including the first block. Called after `start` has returned False."""
        left, self._left = self._left, None
        assert left is not None  # noqa: S101 - set by start
        return _Prefixed(left, self._input)

    async def ready(self) -> bool:
        # Every block that is not empty has an encoded form of at least one byte.
        return bool(self._pending or self._jobs or not self._input_ended) or await self._load()

    async def _load(self) -> bool:
        """Make sure that bytes are pending. Return False at the end."""
        while not self._pending:
            piece = await self._next_piece()
            if piece is None:
                return False
            self._pending = memoryview(piece)
        return True

    async def take(self, limit: int) -> BytesLike:
        if not self._pending and not await self._load():
            return b""
        piece, self._pending = _split(self._pending, limit)
        return piece

    async def fill(self, views: Sequence[memoryview]) -> int:
        if not self._pending:
            if self.encoder.overhead is not None and (filled := await self._fill_directly(views)):
                return filled
            if not await self._load():
                return 0
        filled = 0
        for view in views:
            piece, self._pending = _split(self._pending, len(view))
            view[: len(piece)] = piece
            filled += len(piece)
            if not self._pending:
                break
        return filled

    async def aclose(self) -> None:
        """Wait for the workers, which may use memory of the user. Idempotent."""
        self._input_ended = True
        self._abandon()
        await self._jobs.discard()

    # -- blocks ------------------------------------------------------------------------------------

    async def _next_piece(self) -> BytesLike | None:
        """Return the next encoded block, the trailer, or None at the end."""
        # 1. Start as many jobs as there are workers.
        while not self._input_ended:
            with self._jobs.room() as is_free:
                if not is_free:
                    break
                job, _ = await self._next_job()
                self._jobs.add(job)
        # 2. Return the oldest block.
        if self._jobs:
            job = self._jobs.first
            encoded = await job.result(self._abandon)
            assert encoded is not None  # noqa: S101 - only the first block may be left as it is
            self._jobs.remove_first()
            self._workers.return_buffer(job.memory)
            self._sizes.append(len(encoded))
            self._count_output(len(encoded))
            return encoded
        # 3. Return the trailer.
        if self._trailer_taken:
            return None
        trailer = await self.encoder.trailer(self._sizes, self._input_bytes, self._workers)
        self._trailer_taken = True
        self._count_output(len(trailer), ended=True)
        return trailer

    def _count_output(self, size: int, *, ended: bool = False) -> None:
        """Count encoded bytes, and compare them with the size that the encoder has computed."""
        self._output_bytes += size
        got, expected = self._output_bytes, self.output_size
        if expected is not None and (got > expected or (ended and got < expected)):
            raise self.encoder.broken(
                f"encoded_size({self.input_size}) is {expected}, but the encoded form has"
                f" {'only' if got < expected else 'at least'} {got} bytes"
            )

    async def _next_job(self) -> tuple[BlockJob[BytesLike | None], memoryview]:
        """Read the next block, and start to encode it. Return the job and the block."""
        index = self._next_index
        size = self.encoder.block_size(index)
        if self.input_size is not None:
            size = min(size, self.input_size - self._input_bytes)
        if self._in_memory:
            buffer, block = _EMPTY, memoryview(await self._input.take(size)) if size else _EMPTY
        else:
            buffer = self._workers.take_buffer(size)
            block = buffer[:size]
        file = self._file
        if file is not None and size > INLINE_WORK:
            offset = file.reserve(size)
            last = self._input_ended = not await file.ready()
            self._count(1, size)
            encode = partial(self.encoder.encode, index, block, last=last)
            start = partial(self._workers.start_after, partial(self._read, file, offset, block))
            return BlockJob(encode, buffer, start), block
        if not self._in_memory:
            block = block[: await _gather(self._input, block)]
        last = self._input_ended = not await self._input.ready()
        self._count(1, len(block))
        encode = partial(self.encoder.encode, index, block, last=last)
        in_thread = len(block) > self._inline_size
        return BlockJob(encode, buffer, self._workers.start if in_thread else None), block

    def _read(self, file: FileInput, offset: int, block: memoryview) -> None:
        """Read a block, in a thread."""
        if self._abandoned:
            raise ClosedError("the put was given up")
        file.read(offset, [block])

    def _count(self, blocks: int, size: int) -> None:
        self._next_index += blocks
        self._input_bytes += size
        if self._input_ended:
            self.input_size = self._input_bytes

    # -- without copies ----------------------------------------------------------------------------

    async def _fill_directly(self, views: Sequence[memoryview]) -> int:
        """Read whole blocks into `views`, and encode them there. Return 0 if no block fits.

        A block is read into the place of the encoded block after it, and moves one place forward when it is
        encoded. The last block is read into a buffer.
        """
        encoder, overhead = self.encoder, self.encoder.overhead
        assert overhead is not None  # noqa: S101 - checked by the caller
        if self._jobs or self._input_ended:
            return 0
        # 1. Find the places of the next encoded blocks: contiguous, and each within one view.
        places = self._places(views, overhead)
        if not places:
            return 0
        # 2. Read the blocks. The end of the input is known only once it was waited for.
        index = self._next_index
        buffer = self._workers.take_buffer(len(places[-1]) - overhead)
        blocks = [
            held[: len(place) - overhead]
            for place, held in zip(places, [*places[1:], buffer], strict=True)
        ]
        file, offset = self._file, 0
        if file is None:
            filled = await _gather_into(self._input, blocks)
        else:
            filled = min(sum(map(len, blocks)), file.remaining)
            offset = file.reserve(filled)
        self._input_ended = not await self._input.ready()
        # 3. Encode them.
        work: list[_Work] = []
        unassigned = filled
        for number, (block, place) in enumerate(zip(blocks, places, strict=True), index):
            size = min(unassigned, len(block))
            if not size:
                break
            unassigned -= size
            last = self._input_ended and not unassigned
            work.append(_Work(number, block[:size], place[: size + overhead], last))
        self._count(len(work), filled)
        encoded = filled + overhead * len(work)
        if file is not None:
            reading = self._workers.start_with_file(
                partial(self._read_and_encode_all, file, offset, work)
            )
            await wait_until_done(reading, on_cancel=self._abandon)
        elif encoded > self._inline_size:
            await wait_until_done(self._workers.start(partial(_encode_all, encoder, work)))
        else:
            _encode_all(encoder, work)
        self._workers.return_buffer(buffer)
        self._sizes.extend(len(item.output) for item in work)
        self._count_output(encoded)
        return encoded

    def _read_and_encode_all(self, file: FileInput, offset: int, work: Sequence[_Work]) -> None:
        """Read blocks and encode them, in a thread: up to 1 MiB at a time, which fits in the CPU's cache."""
        start = 0
        while start < len(work) and not self._abandoned:
            end, size = start, 0
            while (
                end < min(len(work), start + IOV_MAX) and size + len(work[end].block) <= MAX_BLOCK
            ):
                size += len(work[end].block)
                end += 1
            group = work[start:end]
            file.read(offset, [item.block for item in group])
            _encode_all(self.encoder, group)
            start, offset = end, offset + size

    def _abandon(self) -> None:
        self._abandoned = True

    def _places(self, views: Sequence[memoryview], overhead: int) -> Sequence[memoryview]:
        places: list[memoryview] = []
        planned = 0
        for view in views:
            position = 0
            while planned < self._batch:
                size = self.encoder.block_size(self._next_index + len(places)) + overhead
                # A place must have room for the block before it.
                too_small = bool(places) and size < len(places[-1]) - overhead
                if too_small or position + size > len(view):
                    break
                places.append(view[position : position + size])
                position += size
                planned += size
            if position < len(view):
                break
        return places


class _Work(NamedTuple):
    """A block to encode into memory."""

    number: int
    block: memoryview
    output: memoryview
    last: bool


def _encode_all(encoder: CheckedEncoder, work: Sequence[_Work]) -> None:
    # In order: an output may be in the place of an earlier block.
    for number, block, output, last in work:
        encoder.encode_into(number, block, output, last=last)


class _Prefixed:
    """An input whose first bytes have been read already."""

    def __init__(self, prefix: memoryview, rest: _Input) -> None:
        self._prefix = prefix
        self._rest = rest

    async def ready(self) -> bool:
        return bool(self._prefix) or await self._rest.ready()

    async def take(self, limit: int) -> BytesLike:
        if not self._prefix:
            return await self._rest.take(limit)
        piece, self._prefix = _split(self._prefix, limit)
        return piece

    async def fill(self, views: Sequence[memoryview]) -> int:
        if not self._prefix:
            return await self._rest.fill(views)
        piece = await self.take(len(views[0]))
        views[0][: len(piece)] = piece
        return len(piece)


def _split(view: memoryview, size: int) -> tuple[memoryview, memoryview]:
    """Return the first `size` bytes, and the rest. An empty rest does not keep the memory of the view."""
    return view[:size], view[size:] if len(view) > size else _EMPTY


async def _gather(feed: _Input, buffer: memoryview) -> int:
    """Fill a buffer, unless the input ends before. Return the number of bytes."""
    filled = 0
    while filled < len(buffer) and (count := await feed.fill([buffer[filled:]])):
        filled += count
    return filled


async def _gather_into(feed: _Input, views: Sequence[memoryview]) -> int:
    """Fill several buffers in order, unless the input ends before. Return the number of bytes."""
    filled = 0
    for view in views:
        count = await _gather(feed, view)
        filled += count
        if count < len(view):
            break
    return filled

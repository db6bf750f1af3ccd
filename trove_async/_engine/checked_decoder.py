"""Checks the results of decoders, so that a bug in a user's middleware ends in an IntegrityError.

Without these checks, a wrong plan would return the wrong bytes of an object, a block count of zero would raise
an untyped exception, and an index without an end would be read forever.

The checks need no additional requests. They cannot detect a decoder whose errors are consistent, for example
one that assumes a wrong size of the first block in every plan. `trove_async.testing` detects such errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from trove_async._concurrency import wait_until_done
from trove_async.errors import IntegrityError, TroveError
from trove_async.middleware import (
    MAX_BLOCK,
    MAX_EXPANSION,
    Decoder,
    Middleware,
    Plan,
    Record,
    Span,
)

from .block_workers import INLINE_INDEX, INLINE_SIZES, INLINE_WORK, BlockWorkers

MAX_INDEX_LOADS: Final = 2
"""The maximum number of ranges that make up an index. Each costs a request."""

_MAX_ENCODED: Final = MAX_BLOCK + MAX_EXPANSION

_OWN: Final = "trove_async.middlewares."


class CheckedDecoder:
    """The decoder of a middleware. Every method returns a result that the contract allows, or raises.

    An exception of the decoder that is not a TroveError becomes the cause of an IntegrityError. A parser of
    altered bytes may raise any exception, and callers handle altered objects as TroveErrors.

    Args:
        name: The name of the middleware.
        decoder: Its decoder of one object.
        encoded_size: The size of the encoded form in bytes.

    Attributes:
        name: The name of the middleware.
        size: The size of the body in bytes. None: not known until the index is loaded.
        block_count: The number of blocks. 0 until `size` is known.
        mean_block: The mean size of a block, which estimates the work of decoding one.
        inline_size: The size of the largest block to decode on the event loop.

    Raises:
        IntegrityError: The decoder breaks its contract.
    """

    __slots__ = (
        "_decoder",
        "_encoded_size",
        "_has_correct_ends",
        "_header",
        "_is_own",
        "_least",
        "_loads",
        "_most",
        "block_count",
        "inline_size",
        "mean_block",
        "name",
        "size",
    )

    def __init__(self, name: str, decoder: Decoder, encoded_size: int) -> None:
        self.name = name
        self._decoder = decoder
        self._encoded_size = encoded_size
        self._header: bytes | None = None
        # The library's own decoders verify each block, and their plans have tests.
        self._is_own = type(decoder).__module__.startswith(_OWN)
        self._has_correct_ends = False  # not checked yet
        self._loads = 0
        self._least = 0  # the minimum size of a block and of its encoded form
        self._most = 0  # the maximum size of a block
        self.size: int | None = None
        self.block_count = 0
        self.mean_block = 0
        self.inline_size: int = self._get("inline_size", INLINE_WORK)  # see `RunsInline`
        if type(self.inline_size) is not int:
            raise self.broken("inline_size must be an int")
        self._read_size()

    def _read_size(self) -> None:
        size = self._get("size")
        if size is None:
            return
        if type(size) is not int or size < 0:
            raise self.broken(f"size must be None or at least 0, got {shown(size)}")
        count = self._get("block_count")
        # A block has 1 byte to `MAX_BLOCK`, and at least 1 encoded byte. An empty body has one empty block.
        least, most = max(1, -(-size // MAX_BLOCK)), max(1, min(size, self._encoded_size))
        if type(count) is not int or not least <= count <= most:
            raise self.broken(f"a body of {shown(size)} bytes cannot have {shown(count)} blocks")
        self.size, self.block_count, self.mean_block = size, count, size // count
        self._least, self._most = min(1, size), min(size, MAX_BLOCK)

    # -- the index ---------------------------------------------------------------------------------

    @property
    def index(self) -> Span | None:
        """The encoded range to pass to `load_index` next. None: the index is loaded."""
        span = self._get("index")
        if span is None:
            if self.size is None:
                raise self.broken("the index is loaded, and size is None")
            return None
        if self._loads == MAX_INDEX_LOADS:
            raise self.broken(f"index must be None after {MAX_INDEX_LOADS} calls of load_index")
        if not self._is_span(span):
            raise self.broken(f"index must be a range of {self._encoded_size} bytes")
        return (span[0], span[1])

    async def load_index(self, data: bytes, workers: BlockWorkers) -> None:
        """Load the encoded range `index`, in a worker thread if it is large."""
        self._loads += 1
        if len(data) > INLINE_INDEX:
            await wait_until_done(workers.start(partial(self._call, "load_index", data)))
        else:
            self._call("load_index", data)
        if self.size is None:
            self._read_size()

    # -- ranges ------------------------------------------------------------------------------------

    def plan(self, start: int, end: int) -> Plan:
        """Return the blocks of a range of the body. The index is loaded.

        The plan of a user's decoder is compared with those of other bytes: around the start of its first
        block, and at both ends of the body. So a plan that contradicts the others is detected, although the
        sizes of the blocks before it are not known.
        """
        plan = self._plan(start, end)
        if not self._is_own:
            first, (encoded_start, _), skip = plan
            block_start = start - skip
            self.check_border(first, block_start, encoded_start)
            if block_start:
                before = self._plan(block_start - 1, block_start)
                if (before.first, before.encoded[1]) != (first - 1, encoded_start):
                    raise self.broken(f"plan({start}, {end}) contradicts plan(…, {block_start})")
            self._check_ends()
        return plan

    def _check_ends(self) -> None:
        """Raise if the plans of a user's decoder are wrong at the ends of the body."""
        if self._has_correct_ends:
            return
        assert self.size is not None  # noqa: S101 - known once the index is loaded
        self.check_border(0, 0, len(self.header))
        if self._plan(self.size - 1, self.size).first != self.block_count - 1:
            raise self.broken(f"plan(…, {self.size}) is not the last block")
        self._has_correct_ends = True

    @property
    def has_borders(self) -> bool:
        """Whether to call `check_border` between two blocks. It needs the index."""
        return not self._is_own and self.index is None

    def check_border(self, index: int, start: int, encoded_start: int) -> None:
        """Raise if a block of a user's middleware starts elsewhere, according to its plan.

        Args:
            index: The number of the block.
            start: Its start in the body.
            encoded_start: Its start in the encoded form.
        """
        plan = self._plan(start, start + 1)
        if (plan.first, plan.encoded[0], plan.skip) != (index, encoded_start, 0):
            raise self.broken(f"plan({start}, …) contradicts the blocks before it")

    def _plan(self, start: int, end: int) -> Plan:
        plan = self._call("plan", start, end)
        if isinstance(plan, Plan):
            first, encoded, skip = plan
            if (
                type(first) is type(skip) is int
                and 0 <= first < self.block_count
                and 0 <= skip < MAX_BLOCK
                and first <= start - skip <= first * MAX_BLOCK
                and self._is_span(encoded)
            ):
                return plan
        raise self.broken(f"plan({start}, {end}) is not possible")

    def _is_span(self, span: object) -> bool:
        """Return whether a value is a range of the encoded form that is not empty."""
        if not isinstance(span, tuple) or len(span) != 2:  # noqa: PLR2004 - a pair
            return False
        start, end = span
        return type(start) is type(end) is int and 0 <= start < end <= self._encoded_size

    # -- blocks ------------------------------------------------------------------------------------

    @property
    def header(self) -> bytes:
        """The bytes that must precede the first encoded block."""
        if self._header is None:
            self._header = self._bytes("header", self._get("header"))
        return self._header

    def encoded_block_size(self, index: int, data: memoryview) -> int | None:
        """Return the size in bytes of an encoded block. None: this needs more of its bytes."""
        if index >= self.block_count:
            raise self.broken(f"more blocks are planned than the {self.block_count} of the body")
        size: int | None = self._call("encoded_block_size", index, data)
        # Blocks without bytes would be read endlessly if their number is wrong.
        if size is not None and not (type(size) is int and self._least <= size <= _MAX_ENCODED):
            raise self.broken(f"encoded block {index} of {shown(size)} bytes is not possible")
        return size

    def decode(self, index: int, data: memoryview) -> bytes:
        """Return a block, after verifying it. Called in any thread."""
        block = self._bytes("a block", self._call("decode", index, data))
        if not self._least <= len(block) <= self._most:
            raise self.broken(f"block {index} of {len(block)} bytes is not possible")
        return block

    async def trailer(self, encoded_sizes: Sequence[int], workers: BlockWorkers) -> bytes:
        """Return the bytes that must follow the last encoded block. A large one is made in a thread."""
        make = partial(self._call, "trailer", encoded_sizes)
        if len(encoded_sizes) > INLINE_SIZES:
            return self._bytes("trailer", await wait_until_done(workers.start(make)))
        return self._bytes("trailer", make())

    # -- calls -------------------------------------------------------------------------------------

    def broken(self, problem: str) -> IntegrityError:
        """Return the error of an object that the middleware does not decode correctly."""
        cause = "the object was altered"
        if not self._is_own:
            cause += (
                ", or the middleware has a bug: test it with trove_async.testing.MiddlewareSuite"
            )
        return IntegrityError(
            f"the middleware {self.name!r} cannot decode the object: {problem}; {cause}"
        )

    def _get(self, name: str, *default: object) -> Any:  # noqa: ANN401 - of any type, if it is broken
        try:
            return getattr(self._decoder, name, *default)
        except (TroveError, MemoryError):
            raise
        except Exception as error:
            raise self._raised(name, error) from error

    def _call(self, name: str, *args: object) -> Any:  # noqa: ANN401 - of any type, if it is broken
        try:
            return getattr(self._decoder, name)(*args)
        except (TroveError, MemoryError):
            raise
        except Exception as error:
            raise self._raised(name, error) from error

    def _raised(self, name: str, error: Exception) -> IntegrityError:
        # Without the text of the exception, which may contain bytes of the object.
        return self.broken(f"{name} raised {type(error).__name__}")

    def _bytes(self, name: str, data: object) -> bytes:
        if not isinstance(data, bytes):
            raise self.broken(f"{name} must be bytes, got {type(data).__name__}")
        return data


def checked_decoded_size(middleware: Middleware, record: Record, encoded_size: int) -> int | None:
    """Return the size that `Middleware.decoded_size` returns.

    Raises:
        IntegrityError: The record is malformed, or the middleware breaks its contract.
    """
    try:
        size: Any = middleware.decoded_size(record, encoded_size)
    except (TroveError, MemoryError):
        raise
    except Exception as error:
        raise IntegrityError(
            f"the middleware {middleware.name!r} cannot read the record of the object: decoded_size raised"
            f" {type(error).__name__}"
        ) from error
    if size is not None and (type(size) is not int or size < 0):
        raise IntegrityError(
            f"the middleware {middleware.name!r} cannot read the record of the object: decoded_size must"
            f" return None or at least 0, got {shown(size)}"
        )
    return size


def shown(value: object) -> str:
    """Return a value for a message: a number, or the type of anything else."""
    return str(value) if type(value) is int and abs(value) < 1 << 64 else type(value).__name__

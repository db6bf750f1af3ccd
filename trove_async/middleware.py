"""The contract between the store and a middleware: a transform of bodies, such as compression.

A middleware encodes the body of a put before it is sent, and decodes it when it is read. It does no
I/O on bodies: the store passes it bytes that are in memory, and stores or returns the results.

**Blocks.** An encoded body is a header, one or more encoded blocks, and a trailer::

    body      | block 0 | block 1 | ... | last block |
    encoded   header | encoded 0 | encoded 1 | ... | encoded last | trailer

Each block is encoded and decoded by itself, so a range of the body needs only the blocks that overlap
it, and several blocks can be processed in parallel. A body has at least one block. Only the last block
may be shorter than `Encoder.block_size`, and it is empty only if the whole body is.

**The record.** The parameters that decoding needs (sizes, the id of a key) are a `Record`, which is
stored in the object's metadata. An object is always decoded by its record, never by the current
configuration, so the configuration may change at any time. A record must not contain a secret, because
it can be read wherever the object's metadata can be read.

**Several middlewares.** Each one encodes the output of the one before. The stored bytes are the output
of the last one. In this module, *encoded* refers to one middleware: its encoded form may be the body
of the next one.

==========================================  ======================================================
The store                                   The middleware
==========================================  ======================================================
decides which objects are transformed       encodes and decodes single blocks
splits bodies into blocks                   plans which encoded bytes a range needs
runs large blocks in worker threads         keeps no state that depends on the order of calls
stores the records, and hides them          validates records, which may be forged
checks header, trailer and total size       raises IntegrityError for any block that was altered
==========================================  ======================================================

`trove_async.testing` tests this contract. A middleware is complete when it passes these tests.

**Bugs.** The store checks the sizes, positions and types that encoders and decoders return. A contradiction
raises an IntegrityError that names the middleware: a put stores nothing, and a read returns no wrong bytes. An
exception of a decoder that is not a TroveError becomes the cause of an IntegrityError. An exception of an encoder
ends the put as it is. The store cannot detect a wrong block of the right size, or sizes that are wrong in the same
way in every plan, so a decoder must verify each block.

**Inspections.** An `Inspecting` object is listed like a middleware, but transforms nothing. Its
inspectors receive the bytes that a user puts, and may block them. `trove_async.middlewares.inspection`
has an implementation for users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeAlias, runtime_checkable

from ._views import BytesLike
from .models import KiB, MiB

MAX_BLOCK: Final = 1 * MiB
"""The maximum size of a block in bytes. Beside the pool, the store holds at most one block and its encoded
form for each middleware of a body, the first 256 KiB of a body of unknown size, and a few more blocks for
parallel work on all bodies."""

MAX_EXPANSION: Final = 64 * KiB
"""The maximum number of bytes by which an encoded block may exceed its block."""

Record: TypeAlias = Mapping[str, str | int | bool]
"""The parameters that a decoder needs. Names are identifiers, and numbers have at most 64 bits. A record is
stored as JSON and counts against the backend's limit on metadata (2 KiB on S3), so it must be small."""

Span: TypeAlias = tuple[int, int]
"""A range of bytes ``(start, end)``, with an exclusive end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectContext:
    """The object whose body is encoded or decoded.

    Attributes:
        bucket: The bucket, under the name that the user passed.
        key: The key.
        backend: The name of the backend.
        content_type: The media type without parameters, in lower case (``"text/csv"``). None: unknown.
        size: The size of the body in bytes, if known. On a read, None.
    """

    bucket: str
    key: str
    backend: str
    content_type: str | None = None
    size: int | None = None


@runtime_checkable
class Middleware(Protocol):
    """A transform of bodies. Implementations need not inherit from this protocol.

    The constructor does no I/O. One instance serves many stores and objects concurrently. The coroutines
    may do I/O, for example to request a key. They run on the event loop of the store's caller, with the
    caller's context variables. A middleware that keeps connections implements `Closing` as well.
    """

    @property
    def name(self) -> str:
        """The name of the format in the record and in `ObjectInfo.transforms`, such as ``"zstd"``.

        It identifies the format, not the instance: two instances with equal names must be able to
        interpret each other's records.
        """
        ...

    @property
    def required(self) -> bool:
        """Whether the store must not read an object in scope that this middleware has not encoded."""
        ...

    async def encoder(self, context: ObjectContext) -> Encoder | None:
        """Return an encoder for one body. None: this body is better stored as it is.

        Return None only for reasons that `is_current` can find again from the context alone, such as
        the size or the media type.

        Raises:
            NotSupportedError: The body is too large for the format.
            TroveError: There is no key, for example.
        """
        ...

    def decoded_size(self, record: Record, encoded_size: int) -> int | None:
        """Return the size of the body. Does no I/O and needs no key.

        Args:
            record: The record of the object.
            encoded_size: The size of the encoded form in bytes.

        Returns:
            The size in bytes. None: only the encoded form contains it (`Decoder.index`).

        Raises:
            IntegrityError: The record is malformed, or no body has an encoded form of this size.
        """
        ...

    async def decoder(self, context: ObjectContext, record: Record, encoded_size: int) -> Decoder:
        """Return a decoder for one object.

        Args:
            context: The object.
            record: The record of the object. It may be malformed or forged.
            encoded_size: The size of the encoded form in bytes.

        Raises:
            DecryptionError: The key is unknown. The store then tries the next middleware of this name,
                those in scope first. If one of these is `required`, it tries no others.
            IntegrityError: The record is malformed, or does not fit the size.
        """
        ...

    async def is_current(
        self, context: ObjectContext, record: Record | None, *, renamed: bool
    ) -> bool:
        """Return whether an object is encoded as a put would encode it today.

        A copy of such an object keeps the encoded bytes; any other is decoded and encoded again.

        Args:
            context: The destination of the copy, with the size of the body if that is known.
            record: The record of this middleware. Empty: it has left the body as it was, after encoding
                the first block. None: it was not applied.
            renamed: Whether the copy has a different bucket or key.

        Raises:
            IntegrityError: The record is malformed.
        """
        ...


@runtime_checkable
class Inspecting(Protocol):
    """Inspects the bodies of puts. Implementations need not inherit from this protocol.

    The constructor does no I/O. One instance serves many stores and objects concurrently.
    """

    async def inspector(self, context: ObjectContext) -> Inspector:
        """Return an inspector for one body. Called before any of the body is read.

        An exception ends the put, and nothing is stored.

        Args:
            context: The object that is put.
        """
        ...


@runtime_checkable
class Inspector(Protocol):
    """Inspects one body, as the user passed it: before any middleware encodes it.

    The store awaits one call at a time, in the task that called put. An exception ends the put: nothing
    is stored, and the caller receives the exception. Retried requests are not inspected again.
    """

    async def update(self, data: bytes) -> None:
        """Receive the next bytes of the body, in order and each byte once.

        Args:
            data: 1 byte to 1 MiB.

        Raises:
            ContentBlockedError: The body must not be stored.
        """
        ...

    async def finish(self) -> None:
        """Receive the end of the body. The last part is sent only after this call has returned.

        Raises:
            ContentBlockedError: The body must not be stored.
        """
        ...


@runtime_checkable
class ClosableInspector(Protocol):
    """Optional: an inspector that holds a resource, such as a connection."""

    async def aclose(self) -> None:
        """Release the resource. Called once, after `finish`, or after an error or a cancel.

        No cancel interrupts it, and it is itself cancelled after 10 seconds. If it raises after
        `finish`, the put fails and nothing is stored. After an error, its own exceptions are dropped.
        """
        ...


@runtime_checkable
class Closing(Protocol):
    """Optional: a middleware with connections. A store that closes calls `aclose` after its drivers.

    Other stores may share the middleware and still be open. So it must remain usable after `aclose`, and
    connect again when it is next used.
    """

    async def aclose(self) -> None:
        """Close the connections that belong to the running event loop. Idempotent."""
        ...


class Encoder(Protocol):
    """Encodes one body. `encode` may be called by several threads at once, and out of order.

    Its results must not depend on the order of the calls. Encoding the same block twice must return
    the same bytes. Results have exactly the types below.
    """

    @property
    def header(self) -> bytes:
        """The bytes before the first encoded block."""
        ...

    def block_size(self, index: int) -> int:
        """Return the size in bytes of block `index`, from 1 to `MAX_BLOCK`, if it is not the last."""
        ...

    def encoded_size(self, size: int) -> int | None:
        """Return the exact size of the encoded form of a body of `size` bytes. None: it depends on the bytes."""
        ...

    def encode(self, index: int, block: memoryview, *, last: bool) -> BytesLike | None:
        """Return the encoded form of a block, at most `MAX_EXPANSION` bytes longer.

        Args:
            index: The number of the block, from 0.
            block: The block. The result must not refer to it.
            last: Whether this is the last block.

        Returns:
            The encoded block, at least a byte unless the block is empty. None, allowed only for block 0:
            the object is better stored as it is. The store records this decision.
        """
        ...

    def trailer(self, encoded_sizes: Sequence[int], size: int) -> bytes:
        """Return the bytes after the last encoded block.

        Called in a worker thread if there are many blocks.

        Args:
            encoded_sizes: The size of each encoded block.
            size: The size of the body.
        """
        ...

    def record(self, size: int | None) -> Record:
        """Return the parameters that a decoder needs. Called once the first block is encoded.

        Args:
            size: The size of the body. None: not known yet, because the body is still being read.
        """
        ...


@runtime_checkable
class EncodesInto(Protocol):
    """Optional: an encoder whose encoded blocks are longer than their blocks by a constant.

    The store then reads blocks into the memory of the part that will be sent, and encodes them there.
    This saves two copies.
    """

    @property
    def overhead(self) -> int:
        """The number of bytes that encoding adds to every block, from 0 to `MAX_EXPANSION`."""
        ...

    def encode_into(self, index: int, block: memoryview, output: memoryview, *, last: bool) -> None:
        """Write the encoded form of a block, as `Encoder.encode` returns it, to memory.

        Args:
            index: The number of the block, from 0.
            block: The block.
            output: The memory to fill: the size of the block and `overhead` bytes. It does not overlap
                the block.
            last: Whether this is the last block.
        """
        ...


@runtime_checkable
class RunsInline(Protocol):
    """Optional: an encoder or decoder that is much faster or slower than 1 GB/s.

    Other encoders and decoders process blocks of more than 256 KiB in worker threads.
    """

    @property
    def inline_size(self) -> int:
        """The size in bytes up to which blocks are processed on the event loop: at most 200 µs of work."""
        ...


@runtime_checkable
class Segmented(Protocol):
    """Optional: a middleware whose encoded blocks have a known size.

    The index of the middleware before it is inside the last encoded blocks, which are decoded as a whole.
    From this size, the store computes how many bytes at the end of an object contain the index.
    """

    @property
    def segment_size(self) -> int:
        """The size in bytes of an encoded block that is not the last."""
        ...


class Plan(NamedTuple):
    """The encoded blocks that a range of the body needs.

    Attributes:
        first: The number of the first block.
        encoded: The range of the encoded form that contains these blocks, and nothing else.
        skip: The number of bytes of the first block before the range.
    """

    first: int
    encoded: Span
    skip: int


class Decoder(Protocol):
    """Decodes one object. It may be shared by several readers and threads.

    Encoded bytes may have been altered by an attacker. Every method must end in a result or an
    IntegrityError, and allocate at most `MAX_BLOCK` bytes for a block. Results have exactly the types below.
    """

    @property
    def size(self) -> int | None:
        """The size of the body in bytes. None: not known until the index is loaded."""
        ...

    @property
    def index(self) -> Span | None:
        """The encoded range to pass to `load_index` next. None: the index is loaded, or there is none.

        The store loads it before it calls `plan` for a part of the body, and if `size` is None. A whole
        body of known size is decoded without it. After `load_index` it may be a second range, but not a
        third. It is inside the encoded form.
        """
        ...

    def load_index(self, data: bytes) -> None:
        """Load the encoded range `index`. One task at a time calls this.

        A range of more than 64 KiB is loaded in a worker thread.

        Raises:
            IntegrityError: The index is malformed, or contradicts the record or the size.
        """
        ...

    def plan(self, start: int, end: int) -> Plan:
        """Return the blocks of a range of the body. ``0 <= start < end <= size``; `index` is loaded."""
        ...

    @property
    def header(self) -> bytes:
        """The bytes that must precede the first encoded block."""
        ...

    @property
    def block_count(self) -> int:
        """The number of blocks. Valid once `size` is known."""
        ...

    def encoded_block_size(self, index: int, data: memoryview) -> int | None:
        """Return the size in bytes of an encoded block. None: this needs more of its bytes.

        The size is at most ``MAX_BLOCK + MAX_EXPANSION``.

        Args:
            index: The number of the block.
            data: The first bytes of the encoded block, possibly none, or with bytes that follow the block.

        Raises:
            IntegrityError: No encoded block begins with these bytes.
        """
        ...

    def decode(self, index: int, data: memoryview) -> bytes:
        """Return a block, after verifying it.

        Args:
            index: The number of the block.
            data: The encoded block, `encoded_block_size` bytes.

        Raises:
            IntegrityError: The bytes are not the encoded form of this block. A format without a key cannot
                distinguish a block from an equally long one of the same or another object.
        """
        ...

    def trailer(self, encoded_sizes: Sequence[int]) -> bytes:
        """Return the bytes that must follow the last encoded block, given the sizes of all of them.

        Called in a worker thread if there are many blocks.
        """
        ...

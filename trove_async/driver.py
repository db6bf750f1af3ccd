"""The contract between the store and a backend: what a driver promises, and what it may rely on.

A driver moves *one* request at a time: it knows nothing of routes, of other backends, of users'
bodies. Everything that is hard in common is done once, above it:

==========================================  =====================================================
the store does                              the driver does
==========================================  =====================================================
names are checked before any I/O            maps bucket and key to its own address, reversibly
bodies are pulled, cut into parts, hashed   stores the views it is given, atomically
retries, backs off, resumes a download      tells a passing failure (``retryable``) from a final one
limits connections, arms timeouts           makes every call cancellable, leaving nothing behind
refuses what `Capabilities` do not name     honours what they do name
==========================================  =====================================================

**Errors.** A driver raises the classes of `trove_async.errors` and no others for what goes wrong in
the backend, chained to the SDK's own (``raise … from error``). Cancellation passes through it
untouched, always.

**Cancellation.** Every coroutine may be cancelled at every await. When it has raised, the driver no
longer touches the views it was given, holds no connection, file or task for the call, and nothing
of a put is visible, unless the cancel came when the backend had stored it already: then all is. What it could not undo at the far side is at most litter.

**Memory.** Views are borrowed: a driver may read them until its call returns or raises, and copies
what it keeps. It allocates no more than a fixed window beside them.

Only `AsyncDriver` is required. The other protocols are optional, each announced by its field of
`Capabilities`, and the engine does without where one is missing. `trove_async.testing` is this
contract as tests: a driver is done when it passes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from .errors import ConfigError, NotSupportedError, TroveError
from .events import Events
from .models import BucketInfo, DeleteResult, MiB, ObjectInfo, TiB, Timeout
from .options import (
    CopyOptions,
    DeleteOptions,
    GetOptions,
    ListOptions,
    Page,
    Part,
    PresignOptions,
    PutOptions,
    VersionPage,
)
from .pool import BufferPool


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backend can honour, as data. The store refuses the rest before any I/O.

    The defaults describe the least that a driver may do, so a short driver names little.

    Attributes:
        put_if_none_match: put honours ``if_none_match="*"``, decided where the object is stored.
        put_if_match: put honours ``if_match``, likewise.
        commit_conditions: An upload's commit honours those of the two that put honours. Without
            it, the store sends a conditional body in one request, whatever its size.
        copy_conditions: A server-side copy honours those of the two that put honours. Without it,
            the body of a conditional copy passes through the store.
        get_conditions: get honours ``if_match`` and ``if_none_match``.
        delete_if_match: delete honours ``if_match``.
        ranges: get honours ``range``. Without it a broken download cannot resume.
        checksums: The kinds of checksum that head reports for what was put with them.
        metadata: User metadata is kept.
        headers: content_type, cache_control, content_disposition, content_encoding and
            content_language are kept.
        expires: expires is kept.
        tags: Tags are kept.
        upload_tags: Tags of an object that is uploaded in parts are kept, where tags are.
        copy_tags: Tags that a server-side copy is given are kept, where tags are.
        storage_class: A storage class may be chosen.
        upload: `Uploading` is implemented.
        parallel_parts: Parts of one upload that may be sent at once; 1: each after the one before.
        parallel_reads: Ranges of one body that may be fetched at once, where one connection is slow
            and the version can be pinned.
        min_part: The least bytes of a part that is not the last.
        max_part: The most bytes of a part.
        part_multiple: Parts but the last are a multiple of so many bytes.
        max_parts: The most parts of an upload.
        streamed_parts: The uploads are `StreamedUpload`s: a part may be larger than memory holds.
        max_put: The most bytes of one `AsyncDriver.put`.
        max_object: The most bytes of an object.
        server_copy: `Copying` is implemented.
        max_copy: The most bytes of an object that a server-side copy takes.
        bulk_delete: `BulkDeleting` is implemented: the most keys of one call; 0: it is not.
        presign: `Presigning` is implemented.
        settles_doubt: put, delete and copy heed ``in_doubt_since``: they find out what became of
            the earlier try, and replace or delete nothing that may be newer than it. Without it,
            another try is sent as the first one was.
        versions: version_id is honoured by get, head and delete, and `Versioned` is implemented.
        ordered: list_page is in bytewise order of UTF-8 keys.
        exact_keys: Two keys of a bucket are always two objects. Without it the service may store
            some under one name (``a//b`` as ``a/b``, say), and a move looks again at its source
            before it deletes it.
        private_namespace: Bucket names are this backend's own, so a missing bucket may be made.
        embedded: Calls wait for no network: no timeouts are armed around them.
        max_reads: Readers that may be open at once; None: any number.
        max_writes: Calls of put and send that may be under way at once; None: any number.
        max_requests: Other calls that may be under way at once; None: any number.
        max_key_bytes: The most bytes of a key in UTF-8, at most 1,024.
        max_metadata_bytes: The most bytes of user metadata, names and values together.
        dot_segments: Keys with ``.`` and ``..`` segments, which only other tools write, can be
            read and deleted. Without it, no method is called with such a key.
    """

    put_if_none_match: bool = False
    put_if_match: bool = False
    commit_conditions: bool = True
    copy_conditions: bool = True
    get_conditions: bool = False
    delete_if_match: bool = False
    ranges: bool = False
    checksums: frozenset[str] = frozenset()
    metadata: bool = False
    headers: bool = False
    expires: bool = False
    tags: bool = False
    upload_tags: bool = True
    copy_tags: bool = True
    storage_class: bool = False
    upload: bool = False
    parallel_parts: int = 1
    parallel_reads: int = 1
    min_part: int = 1
    max_part: int = 5 * 1024 * MiB
    part_multiple: int = 1
    max_parts: int = 10_000
    streamed_parts: bool = False
    max_put: int = 5 * 1024 * MiB
    max_object: int = 5 * TiB
    server_copy: bool = False
    max_copy: int = 5 * TiB
    bulk_delete: int = 0
    presign: bool = False
    settles_doubt: bool = False
    versions: bool = False
    ordered: bool = True
    exact_keys: bool = False
    private_namespace: bool = False
    embedded: bool = False
    max_reads: int | None = None
    max_writes: int | None = None
    max_requests: int | None = None
    max_key_bytes: int = 1024
    max_metadata_bytes: int = 2048
    dot_segments: bool = False

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:  # with none of it, a put or a get would wait for ever
            count: int | None = getattr(self, name)
            if count is not None and count < 1:
                raise ConfigError(f"{name} is at least 1, not {count}")


_AT_LEAST_ONE = (
    "parallel_parts",
    "parallel_reads",
    "min_part",
    "max_part",
    "part_multiple",
    "max_parts",
    "max_reads",
    "max_writes",
    "max_requests",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverContext:
    """What a driver is handed when it is opened. A layer opens its inner drivers by `attach`.

    Attributes:
        backend: The name under which the store knows the backend (the first, if it has several).
            A driver may put it into `ObjectInfo.backend`, which saves the store a copy a key in
            listings; the store corrects it where it is another's.
        pool: The store's memory, for a driver that must hold bytes back.
        events: Where to tell what happens.
        timeout: The limits that a network driver sets on its sockets.
        attach: Opens an inner driver, once however many layers share it, and returns it as the
            layer is to use it: with permits, retries and timeouts around it where it is a leaf.
            The store closes what was attached; a layer's `aclose` leaves its inner drivers alone.
    """

    backend: str
    pool: BufferPool
    events: Events
    timeout: Timeout
    attach: Callable[[AsyncDriver], Awaitable[AsyncDriver]] = field(repr=False)


class DriverReader(Protocol):
    """The body of one get, from the moment its response has begun. Read by one task at a time."""

    @property
    def info(self) -> ObjectInfo:
        """The object as of this response: the version that the bytes belong to."""
        ...

    @property
    def range(self) -> tuple[int, int]:
        """The absolute ``(start, end)`` that the body covers; ``(0, 0)`` for an empty object."""
        ...

    async def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes, or ``b""`` at the end of the range.

        A body that ends early is an UnavailableError, never an end. After a cancel the reader may
        only be closed.
        """
        ...


@runtime_checkable
class ReadsInto(Protocol):
    """A DriverReader that can fill the pool's own memory."""

    async def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` from its start with the next bytes; return how many, 0 at the end.

        When it returns or raises, a cancel included, nothing writes to `buffer` any more.
        """
        ...


@runtime_checkable
class AsyncDriver(Protocol):
    """One backend. Implementations do not inherit from this; they look like it.

    The constructor does no I/O. Every method but the constructor, `name`, `capabilities` and
    `place` is called between `open` and `aclose`, from one event loop, many at once.
    """

    @property
    def name(self) -> str:
        """The service's name, for messages: ``"memory"``, ``"local"``, ``"s3"``."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can honour; constant once the driver is open."""
        ...

    async def open(self, context: DriverContext) -> None:
        """Get ready: called once, before anything else.

        Raises:
            ClosedError: Another store has it open, and goes on using it: nothing was done here, and
                `aclose` is not called. (A driver that stores may share does not raise this.)
            ConfigError: The settings can never work here (a root that is no directory, say).
        """
        ...

    async def aclose(self) -> None:
        """Let go of everything. Idempotent, and safe after an `open` that failed midway."""
        ...

    async def ping(self) -> None:
        """Return if the backend answers; raise as any call would if not."""
        ...

    def place(self, bucket: str, key: str) -> Hashable:
        """Tell where the object lies physically: equal for two names of one place, else not.

        No I/O. Copy and move compare places, so that a move onto itself does not delete.
        """
        ...

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store the concatenation of `views` as the object, atomically.

        Readers see the old object or the new one, whole, with its own metadata. The views do not
        change during the call and may be sent again: a retry calls this again with the same.

        Args:
            bucket: An existing bucket.
            key: A key that passed the store's checks.
            views: Filled memory, none of them empty; no views: an empty object.
            options: Only what the capabilities name is set.

        Returns:
            The object as stored, with the checksums that the backend itself reports, and the
            write_id where it was recorded.

        Raises:
            BucketNotFoundError: There is no such bucket. Never made on the way.
            ObjectExistsError: ``if_none_match="*"`` and the key exists.
            PreconditionFailedError: ``if_match`` and another version, or none, is there.
            StorageFullError: No room; nothing was stored.
        """
        ...

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """Open the object's body. Entering sends the request and returns once it is answered.

        Leaving gives the connection back, at once, however much of the body was read. It may
        happen in another task than entering did (a reader is closed by whoever is last to hold
        it), so no cancel scope and no task group may be open in between.

        Raises:
            ObjectNotFoundError: There is no such object. BucketNotFoundError: no such bucket.
            PreconditionFailedError: ``if_match`` and another version is there, or
                ``if_none_match`` and this one is.
            RangeError: The range selects nothing (`ByteRange.resolve`); never the whole object.
        """
        ...

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """Return what is known of the object, with `ObjectInfo.complete` True.

        Raises:
            ObjectNotFoundError: There is no such object. BucketNotFoundError: no such bucket.
        """
        ...

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete the object. One that is not there is no error, unless ``if_match`` is set.

        Raises:
            BucketNotFoundError: There is no such bucket.
            PreconditionFailedError: ``if_match`` and another version, or none, is there.
        """
        ...

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        """Return one page of the bucket's objects; `paging.paginate` does it for sorted keys.

        Entries are in bytewise order where the capabilities say so, each key and prefix once. An
        object that exists during the whole listing is in it. Nothing is held between pages.

        Raises:
            BucketNotFoundError: There is no such bucket.
        """
        ...

    async def create_bucket(self, bucket: str) -> None:
        """Make the bucket.

        Raises:
            BucketExistsError: It exists, whoever owns it.
        """
        ...

    async def delete_bucket(self, bucket: str) -> None:
        """Delete the empty bucket.

        Raises:
            BucketNotFoundError: There is no such bucket.
            BucketNotEmptyError: It has objects; nothing was deleted.
        """
        ...

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return what is known of the bucket.

        Raises:
            BucketNotFoundError: There is no such bucket.
        """
        ...

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets that these credentials own, sorted by name."""
        ...


class Upload(Protocol):
    """One upload in parts, open."""

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        """Store one part. Parts arrive in any order, several at once, and again after a retry.

        Where the capabilities claim that one is sent at a time, they arrive in the body's order.
        """
        ...

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        """Make the object of all parts sent, atomically, under the conditions of the options.

        May be called again after an UnavailableError: if the first call did succeed, the second
        says so, or raises ObjectNotFoundError and the engine looks for the write_id. A cancel of
        the put waits for it, within a deadline.

        Args:
            checksums: Of the whole body, by algorithm: to be recorded, and compared where the
                backend can.

        Raises:
            As `AsyncDriver.put`.
        """
        ...


class PartSource(Protocol):
    """A part too large to be held: read where it lies, through a small window, as often as needed.

    It is a file that is ours to read, never a user's code, and the same bytes every time: a pass
    that finds others raises before it has given the last of them. One pass at a time.
    """

    @property
    def size(self) -> int:
        """Its bytes; never none."""
        ...

    @property
    def checksums(self) -> Mapping[str, str]:
        """Of its bytes, by algorithm: ``"crc32c"``."""
        ...

    async def digest(self, algorithm: str) -> str:
        """Return its hash in hexadecimal, by one of hashlib's algorithms; the first time by a pass.

        Raises:
            IntegrityError: The file has changed. OSError: it cannot be read.
        """
        ...

    def pieces(self) -> AbstractAsyncContextManager[AsyncIterator[memoryview]]:
        """Open it to be sent, from its start: iterate for its bytes, in pieces that are not empty.

        A piece is the driver's until it asks for the next one; the last, until its call ends.
        What was asked beyond counts as sent, and once only, however often it is opened.

        Raises:
            IntegrityError: The file has changed. OSError: it cannot be read. Neither is to be
                translated.
        """
        ...


class StreamedUpload(Upload, Protocol):
    """Optional: an upload whose parts need not be held. `Capabilities.streamed_parts`."""

    async def send_stream(self, part: Part, source: PartSource) -> None:
        """Store one part, as `send` does, reading it while it is sent. A retry opens it again."""
        ...


class Uploading(Protocol):
    """Optional: objects larger than one request, in parts. `Capabilities.upload`."""

    def upload(
        self, bucket: str, key: str, options: PutOptions
    ) -> AbstractAsyncContextManager[Upload]:
        """Open an upload. Left without a commit, by error or cancel, it is aborted.

        The abort runs under a shield with a deadline; what it cannot reach is litter, not damage.
        An upload whose commit was begun, and not answered, may have become the object: it is not
        aborted before that was found out (by the write_id, say), and stays where it cannot be.

        Raises:
            BucketNotFoundError: There is no such bucket; raised on entering, before any part.
        """
        ...


class CannotCopyError(NotSupportedError):
    """The service cannot make a copy as it was asked for; nothing was copied."""


class Copying(Protocol):
    """Optional: copies that do not pass through this process. `Capabilities.server_copy`."""

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy the version that `options.source` describes; source and destination may be one.

        Raises:
            CannotCopyError: The store has to copy through itself.
            ObjectChangedError: The source is no longer that version.
            Otherwise as `AsyncDriver.get` and `AsyncDriver.put`.
        """
        ...


class BulkDeleting(Protocol):
    """Optional: many deletes in one request. `Capabilities.bulk_delete`."""

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete the keys, at most `Capabilities.bulk_delete` of them; tell what became of each.

        Raises:
            BucketNotFoundError: There is no such bucket.
        """
        ...


class Presigning(Protocol):
    """Optional: URLs that carry a signature. `Capabilities.presign`."""

    async def presign(
        self, method: str, bucket: str, key: str, expires: float, options: PresignOptions
    ) -> str:
        """Return a URL that allows one method (``"GET"`` or ``"PUT"``) for `expires` seconds.

        Raises:
            NotSupportedError: It cannot fix one of the options; none of them is ever dropped.
        """
        ...


class Versioned(Protocol):
    """Optional: what a key had before, too, where its bucket keeps that. `Capabilities.versions`."""

    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        """Return one page of all versions of the bucket's objects, delete markers among them.

        Keys come in the order of `AsyncDriver.list_page`; the versions of one come together, also
        across pages, the newest first. At most one of a key is the latest. A bucket that keeps no
        versions has one of each object. Nothing is held between pages.

        Args:
            bucket: An existing bucket.
            options: All but the delimiter, which is never set. A page may have more entries than
                ``limit`` only where they are of one key: a backend may tell its oldest first.

        Raises:
            BucketNotFoundError: There is no such bucket.
        """
        ...


@runtime_checkable
class Redacting(Protocol):
    """Optional: a driver that has credentials, and removes them from what a service quotes."""

    def redact(self, error: TroveError) -> None:
        """Remove this driver's secrets from the error's message and its chained exceptions.

        Called with every error that a call of the driver raises, before anybody else sees it.
        """
        ...


@runtime_checkable
class Layer(Protocol):
    """A driver made of drivers, all of which it opens by `DriverContext.attach`.

    It sees settled results: retries, permits and resuming happen around the leaves below it.
    """

    @property
    def inner(self) -> Sequence[AsyncDriver]:
        """The drivers that it is made of, as they were given to it."""
        ...

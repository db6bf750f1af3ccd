"""The contract between the store and the driver of a backend.

A driver translates single requests. It knows nothing of routes, other backends or the bodies that users
pass.
Everything that is common to all backends is implemented once, above the drivers:

==========================================  =====================================================
The store                                   The driver
==========================================  =====================================================
checks names before any I/O                 maps bucket and key to its own address, reversibly
reads bodies, splits and hashes them        stores the views that it is given, atomically
retries, backs off, resumes downloads       marks temporary failures as ``retryable``
limits connections, applies timeouts        lets every call be cancelled, without leftovers
rejects what `Capabilities` do not claim    honours everything that they claim
==========================================  =====================================================

**Errors.** For a failure in the backend a driver raises only the classes of `trove_async.errors`. It
chains them to the SDK's exception (``raise … from error``), unless that may show credentials. It never
catches a cancellation without raising it again.

**Cancellation.** Every coroutine may be cancelled at every await. Once it has raised,

* the driver no longer uses the views that were passed to the call;
* the driver holds no connection, file or task for the call;
* a put is either not visible at all, or, if the backend had stored it already, visible as a whole.

If the driver cannot undo a change in the backend, no object may be affected. Only unused data may stay
behind, such as the parts of an upload that was not aborted.

**Memory.** The caller owns the views. A driver may read them until its call returns or raises. It
copies the bytes that it needs after that. Apart from such copies, it allocates at most a buffer of
fixed size.

Only `AsyncDriver` is required. The other protocols are optional: a driver claims each of them with a
field of `Capabilities`, and the store works without them. `trove_async.testing` tests this contract. A
driver is complete when it passes these tests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from io import FileIO
from types import TracebackType
from typing import NamedTuple, Protocol, TypeAlias, cast, runtime_checkable

from ._own_methods import has_with
from .errors import ClosedError, ConfigError, NotSupportedError, TroveError
from .events import Events
from .models import BucketInfo, DeleteResult, MiB, ObjectInfo, TiB, Timeout
from .options import (
    ComparedPage,
    CopyOptions,
    DeleteOptions,
    GetOptions,
    ListOptions,
    Page,
    Part,
    PresignOptions,
    PutOptions,
    Repaired,
    VersionPage,
)
from .pool import BufferPool


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The features and limits of a backend.

    The store works around missing features, or rejects options that need them before any I/O. Sizes
    are in bytes. The defaults describe the minimum, so a simple driver sets few fields.

    Attributes:
        put_if_none_match: put honours ``if_none_match="*"``. The backend must check the condition
            and store the object in one atomic step.
        put_if_match: put honours ``if_match``, in one atomic step as well.
        commit_conditions: The commit of an upload honours the conditions that put honours, in one atomic
            step as well. If False, the store sends a conditional body in one request, of up to `max_put`
            bytes, and requests no conditional server-side copy of a larger object.
        copy_conditions: A server-side copy honours the conditions that put honours. If False, the
            body of a conditional copy passes through the store.
        get_conditions: get honours ``if_match`` and ``if_none_match``.
        delete_if_match: delete honours ``if_match``.
        ranges: get honours ``range``. If False, a broken download cannot resume.
        checksums: The kinds of checksums that put records and head reports.
        metadata: User metadata is stored.
        headers: content_type, cache_control, content_disposition, content_encoding and
            content_language are stored.
        expires: The Expires header is stored.
        tags: Tags are stored.
        upload_tags: Tags of an object uploaded in parts are stored, if `tags` is True. If False, the
            store sends a body with tags in one request, of up to `max_put` bytes.
        copy_tags: Tags passed to a server-side copy are stored, if `tags` is True. If False, the body
            of an object with tags passes through the store.
        storage_class: A storage class can be chosen.
        upload: `Uploading` is implemented.
        parallel_parts: The maximum number of parts of one upload to send concurrently. With 1, parts
            are sent in order, one after the other. An upload starts with 8 parts at once, or half of this
            if that is more. It sends more only if that is faster and enough memory is free.
        parallel_reads: The maximum number of ranges of one body to fetch concurrently. Several are
            fetched only if one connection is slow and requests can be restricted to one version.
        min_part: The minimum size of a part, except the last.
        max_part: The maximum size of a part.
        part_multiple: The size of every part except the last is a multiple of this.
        uneven_parts: The parts of an upload may differ in size. If False, all except the last have the same
            size. If True, the store sends a part that has fewer bytes than planned when it has no memory
            for more.
        max_parts: The maximum number of parts of an upload.
        streamed_parts: Uploads implement `StreamedUpload`, so a part may be larger than the memory
            available for it.
        max_put: The maximum size of the body of one `AsyncDriver.put`.
        max_object: The maximum size of an object.
        server_copy: `Copying` is implemented.
        max_copy: The maximum size of an object that a server-side copy accepts.
        bulk_delete: The maximum number of keys of one `BulkDeleting.delete_many`; 0: not implemented.
        presign: `Presigning` is implemented.
        presign_requires: If `presign` is False only because of the driver's settings or credentials:
            what presigning requires, for the error's message (``"the key file of a service account"``).
        settles_doubt: put, delete and copy honour ``in_doubt_since``, which is set on a retry if an
            earlier attempt may have succeeded without its response arriving. They determine whether
            that attempt succeeded, and never replace or delete an object that may be newer than it.
            If False, a retry is sent like the first attempt.
        versions: get, head and delete honour version_id, and `Versioned` is implemented.
        ordered: list_page returns keys in bytewise order of their UTF-8 encoding. The store checks
            the order, because a merged listing relies on it.
        exact_keys: Different keys always name different objects. If False, the service may store two
            keys under one name (``a//b`` as ``a/b``, for example). A move then checks its source
            again before it deletes it.
        private_namespace: Bucket names are not shared with other users of the service, so the store
            may create a missing bucket.
        embedded: Calls do not wait for a network, so the ``first_byte`` and ``idle`` limits of
            `Timeout` do not apply to them.
        own_timeouts: put, get, head and delete apply the ``first_byte`` and ``idle`` limits of `Timeout`
            to each wait for the service themselves. If False, the store applies them to the calls, which
            takes longer. A subclass or a wrapper that waits for anything else must not claim it.
        max_reads: The maximum number of open readers; None: no limit.
        max_writes: The maximum number of concurrent calls of put, send and send_stream; None: no
            limit.
        max_requests: The maximum number of other concurrent calls; None: no limit.
        max_key_bytes: The maximum length of a key in UTF-8, at most 1,024.
        max_metadata_bytes: The maximum size of user metadata, names and values together.
        writable: The backend accepts writes. If False, the store refuses each of them before any I/O, and
            reads no body for it. See `layers.ReadOnly`.
        dot_segments: Keys with ``.`` and ``..`` segments, which only other tools write, can be read
            and deleted. If False, the store passes no such key to the driver.
        replicated: `Replicated` is implemented.
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
    uneven_parts: bool = False
    max_parts: int = 10_000
    streamed_parts: bool = False
    max_put: int = 5 * 1024 * MiB
    max_object: int = 5 * TiB
    server_copy: bool = False
    max_copy: int = 5 * TiB
    bulk_delete: int = 0
    presign: bool = False
    presign_requires: str = ""
    settles_doubt: bool = False
    versions: bool = False
    ordered: bool = True
    exact_keys: bool = False
    private_namespace: bool = False
    embedded: bool = False
    own_timeouts: bool = False
    max_reads: int | None = None
    max_writes: int | None = None
    max_requests: int | None = None
    max_key_bytes: int = 1024
    max_metadata_bytes: int = 2048
    writable: bool = True
    dot_segments: bool = False
    replicated: bool = False

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:  # with 0, a put or a get would wait forever
            count: int | None = getattr(self, name)
            if count is not None and count < 1:
                raise ConfigError(f"{name} must be at least 1, got {count}")


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
    """The parts of the store that a driver may use. Passed to `AsyncDriver.open`.

    Attributes:
        backend: The backend's name in the store (the first of them, if the driver has several). A driver may set
            it as `ObjectInfo.backend`, which saves the store a copy per key in listings. The store
            corrects a name that differs.
        pool: The store's memory, for a driver that must buffer bytes.
        events: Emits events to the store's listeners.
        timeout: The time limits that a network driver sets on its sockets.
        attach: Opens an inner driver of a layer, and returns the driver that the layer must use: the
            driver of a service is wrapped with permits, retries and timeouts. A driver that several
            layers share is opened once. The store closes attached drivers, so a layer's `aclose` must not.
        writable: Whether the store may write through the driver. If False, the driver is only read, and
            creates and changes nothing when it is opened.
    """

    backend: str
    pool: BufferPool
    events: Events
    timeout: Timeout
    attach: Callable[[AsyncDriver], Awaitable[AsyncDriver]] = field(repr=False)
    writable: bool = True


class DriverReader(Protocol):
    """The body of one get, once its response has begun. Only one task reads it at a time."""

    @property
    def info(self) -> ObjectInfo:
        """The object as described by this response: the version that the bytes belong to."""
        ...

    @property
    def range(self) -> tuple[int, int]:
        """The absolute ``(start, end)`` that the body covers; ``(0, 0)`` for an empty object."""
        ...

    async def read(self, size: int) -> bytes:
        """Return the next 1 to `size` bytes, or ``b""`` at the end of the range.

        After a cancel the reader can only be closed.

        Raises:
            UnavailableError: The body broke or ended early. A short body is never reported as
                complete.
        """
        ...


@runtime_checkable
class ReadsInto(Protocol):
    """Optional: a DriverReader that can receive into memory that the caller owns."""

    async def readinto(self, buffer: memoryview) -> int:
        """Read the next bytes into the start of `buffer`. Return their number, 0 at the end.

        Once the call has returned or raised, even because of a cancel, nothing writes to `buffer`.
        """
        ...


class OpenReader(DriverReader, Protocol):
    """A `DriverReader` that `Fetching.fetch` has opened. The caller closes it with `__aexit__`."""

    @property
    def whole(self) -> bytes | None:
        """All bytes of the range, if they have arrived with the response. None: read them.

        The reader then holds no connection. `read` returns the same bytes.
        """
        ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the connection. Idempotent."""
        ...


Fetch: TypeAlias = Callable[[str, str, GetOptions], Awaitable[OpenReader]]
"""The type of `Fetching.fetch`."""


@runtime_checkable
class Fetching(Protocol):
    """Optional: a driver that opens a body with one call, and receives small bodies at once.

    The store reads small objects in less time than with `AsyncDriver.get`. It uses `fetch` only if no
    subclass overrides `get` without it.
    """

    async def fetch(self, bucket: str, key: str, options: GetOptions) -> OpenReader:
        """Open the object's body, as `AsyncDriver.get` does. Raises the same errors."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSpan:
    """The next bytes of a body as a range of an open file, for sendfile(2).

    Attributes:
        file: The file. The caller of `SpansFile.file_span` closes it. It stays open when the reader is closed.
            Its position is undefined.
        offset: The position of the first byte in the file.
        size: The number of bytes.
        crc32c: The running CRC-32C up to the end of the span, or None if it was not requested.
    """

    file: FileIO
    offset: int
    size: int
    crc32c: int | None


@runtime_checkable
class SpansFile(Protocol):
    """Optional: a DriverReader whose body is the content of a file, which sendfile(2) can send."""

    async def file_span(self, size: int, crc32c: int | None) -> FileSpan | None:
        """Return the next bytes as a range of a file, and advance as if they had been read.

        Return None if that is not possible now. The caller then uses `DriverReader.read`. The last bytes of
        the body are always read in that way, so that the last chunk is checked as usual.

        The span was read once, so that its bytes are in the page cache, and the file has not changed since it
        was opened. The path may lead to a newer version meanwhile.

        After a cancel the reader can only be closed.

        Args:
            size: The maximum number of bytes. Less than the body has left.
            crc32c: The CRC-32C of the earlier bytes of the body, which is continued over the span. None: no
                checksum is needed.

        Raises:
            UnavailableError: The file was changed in place, or is shorter than it was.
        """
        ...


async def file_span_of(reader: object, size: int, crc32c: int | None) -> FileSpan | None:
    """Return the next span of any reader, or None if it has none. See `SpansFile.file_span`."""
    file_span = getattr(reader, "file_span", None)
    if file_span is None:
        return None
    return await cast("SpansFile", reader).file_span(size, crc32c)


def fetch_of(driver: AsyncDriver) -> Fetch | None:
    """Return `Fetching.fetch` of a driver, or None if it has none that agrees with its `get`."""
    return cast("Fetching", driver).fetch if has_with(driver, "fetch", "get") else None


def saves_copy(reader: DriverReader) -> bool:
    """Return whether `readinto` of a reader receives into the buffer, so that it saves a copy.

    A reader that wraps another one has an attribute `reads_into`, which is the value of the other one.
    """
    return hasattr(reader, "readinto") and bool(getattr(reader, "reads_into", True))


@runtime_checkable
class AsyncDriver(Protocol):
    """The driver of one backend. Implementations need not inherit from this protocol.

    The constructor does no I/O. All methods except `place` are called between `open` and `aclose`, on
    one event loop. Calls may run concurrently.
    """

    @property
    def name(self) -> str:
        """The service's name, for messages: ``"memory"``, ``"local"``, ``"s3"``."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """The features and limits of the backend; constant once the driver is open."""
        ...

    async def open(self, context: DriverContext) -> None:
        """Open the driver. Called once by each store, before any other method except `place`.

        Raises:
            DriverInUseError: The driver is open in another store, or can be opened only once.
                Nothing was changed, and `aclose` is not called. A driver that several stores
                may share does not raise this. After any other error `aclose` is called.
            ConfigError: The settings cannot work, such as a root that is not a directory.
        """
        ...

    async def aclose(self) -> None:
        """Release all resources. Idempotent, and safe after an `open` that failed midway."""
        ...

    async def ping(self) -> None:
        """Check that the backend responds. If it does not, raise an error as any other call would."""
        ...

    def place(self, bucket: str, key: str) -> Hashable:
        """Return the physical location of an object. Does no I/O.

        Two names have equal places if and only if they name the same object. Copy and move compare
        places, so that moving an object onto itself does not delete it.
        """
        ...

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store the concatenation of `views` as the object, atomically.

        Readers see either the old object or the new one, complete and with its own metadata. The
        views do not change during the call. A retry calls this method again with the same views.

        After a cancel the object is stored completely or not at all, and the driver no longer uses
        the views.

        Args:
            bucket: The bucket. A missing bucket must not be created.
            key: A key that passed the store's checks.
            views: The body, in views that are not empty. An empty sequence creates an empty object.
            options: The options. Fields that require a capability are set only if it is claimed.

        Returns:
            The stored object, with the checksums reported by the backend itself, and with the
            write_id if it was recorded.

        Raises:
            BucketNotFoundError: The bucket does not exist.
            ObjectExistsError: ``if_none_match="*"`` is set and the key exists.
            PreconditionFailedError: ``if_match`` is set, and the object is a different version or
                does not exist.
            StorageFullError: The backend has no space left; nothing was stored.
        """
        ...

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """Return a context manager that opens the object's body.

        Entering it sends the request and returns once the response has begun. Leaving it releases
        the connection immediately, even if the body was not read to its end. One task may open a
        reader and another may close it, so no cancel scope or task group may be open in between.

        Raises:
            ObjectNotFoundError: The object does not exist.
            BucketNotFoundError: The bucket does not exist.
            PreconditionFailedError: ``if_match`` is set and the object is a different version, or
                ``if_none_match`` is set and the object is this version.
            RangeError: The range selects no bytes (`ByteRange.resolve`). The whole object is never
                returned instead.
        """
        ...

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """Return the object's metadata, with `ObjectInfo.complete` True.

        Raises:
            ObjectNotFoundError: The object does not exist.
            BucketNotFoundError: The bucket does not exist.
        """
        ...

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete the object. A missing object is not an error, unless ``if_match`` is set.

        Raises:
            BucketNotFoundError: The bucket does not exist.
            PreconditionFailedError: ``if_match`` is set, and the object is a different version or
                does not exist.
        """
        ...

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        """Return one page of the bucket's objects. `paging.paginate` builds pages from sorted keys.

        A listing contains each key and each common prefix once, in bytewise order if
        `Capabilities.ordered` is True. It contains every object that exists during the whole
        listing. The driver holds nothing between two pages.

        Raises:
            BucketNotFoundError: The bucket does not exist.
        """
        ...

    async def create_bucket(self, bucket: str) -> None:
        """Create the bucket.

        Raises:
            BucketExistsError: The bucket already exists, even if it belongs to the same account.
        """
        ...

    async def delete_bucket(self, bucket: str) -> None:
        """Delete the empty bucket.

        Raises:
            BucketNotFoundError: The bucket does not exist.
            BucketNotEmptyError: The bucket contains objects; nothing was deleted.
        """
        ...

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return the bucket's metadata.

        Raises:
            BucketNotFoundError: The bucket does not exist.
        """
        ...

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets of the account that the credentials belong to, sorted by name."""
        ...


class Upload(Protocol):
    """One open upload in parts."""

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        """Store one part.

        Parts are sent in any order, up to `Capabilities.parallel_parts` concurrently. If that is 1,
        they are sent in the order of the body. A retry sends a part again. The caller owns the
        views. The driver may read them until the call returns or raises.
        """
        ...

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        """Create the object from the parts sent, atomically, under the conditions of the options.

        The call is repeated after an UnavailableError. If the first call had succeeded, the second
        one returns the object or raises ObjectNotFoundError. After that error, the engine looks for an
        object with the write_id. A cancelled put waits for the commit, up to a deadline.

        Args:
            checksums: The checksums of the whole body, by algorithm. The driver records them, and
                compares them if the backend can.

        Raises:
            TroveError: As `AsyncDriver.put`.
        """
        ...


class PartSource(Protocol):
    """A part that is too large for memory. It is read from a file, through a small window.

    The file is read by the library, never by user code. It may be read several times, but never
    concurrently. Each pass yields the same bytes: if the file has changed, it raises before it yields its
    last bytes.
    """

    @property
    def size(self) -> int:
        """The bytes of the part; at least 1."""
        ...

    @property
    def checksums(self) -> Mapping[str, str]:
        """The checksums of the part, by algorithm: ``"crc32c"``."""
        ...

    async def digest(self, algorithm: str) -> str:
        """Return the part's hash in hexadecimal. The first call for an algorithm reads the file.

        Args:
            algorithm: The name of an algorithm of hashlib.

        Raises:
            IntegrityError: The file has changed.
            OSError: The file cannot be read.
        """
        ...

    def pieces(self) -> AbstractAsyncContextManager[AsyncIterator[memoryview]]:
        """Open the part and iterate over its bytes from the start, in pieces that are not empty.

        The driver may use a piece until it requests the next one, and the last piece until its call
        ends. A request for a piece means that the earlier ones were sent. Bytes are counted as sent
        once, even if the part is opened several times.

        Raises:
            IntegrityError: The file has changed. The driver must not translate it.
            OSError: The file cannot be read. The driver must not translate it.
        """
        ...


class StreamedUpload(Upload, Protocol):
    """Optional: an upload whose parts need not fit in memory. `Capabilities.streamed_parts`."""

    async def send_stream(self, part: Part, source: PartSource) -> None:
        """Store one part, as `send` does. Read it while it is sent. A retry opens it again."""
        ...


class Uploading(Protocol):
    """Optional: objects uploaded in parts, by several requests. `Capabilities.upload`."""

    def upload(
        self, bucket: str, key: str, options: PutOptions
    ) -> AbstractAsyncContextManager[Upload]:
        """Return a context manager that opens an upload, and aborts it on exit unless it was committed.

        The abort runs under a shield with a deadline. If it fails, parts of the upload stay behind.
        They use space, but no object is affected.

        If a commit was sent and its response did not arrive, the object may exist. The driver must
        check, for example by the write_id, before it aborts the upload. If it cannot determine
        whether the object exists, it leaves the upload as it is.

        Raises:
            BucketNotFoundError: The bucket does not exist. Raised on entering, before any part.
        """
        ...


class DriverInUseError(ClosedError):
    """The driver is open in another store, which continues to use it, or can be opened only once."""


class CannotCopyError(NotSupportedError):
    """The service cannot make this copy. Nothing was copied."""


class Copying(Protocol):
    """Optional: copies that do not pass through this process. `Capabilities.server_copy`."""

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy the version described by `options.source`. The destination may be the source.

        Raises:
            CannotCopyError: The service cannot make this copy. The store then copies the body.
            ObjectChangedError: The source is now a different version.
            TroveError: Otherwise as `AsyncDriver.get` and `AsyncDriver.put`.
        """
        ...


class Origin(NamedTuple):
    """An object on an open driver, which is the source of `CopyingFrom.copy_from`.

    Attributes:
        driver: The driver.
        bucket: The object's bucket on this driver.
        key: The object's key on this driver.
    """

    driver: AsyncDriver
    bucket: str
    key: str


class CopyingFrom(Protocol):
    """Optional: copies from another open driver, which do not pass through the store.

    A store uses it if `Capabilities.server_copy` is True, `copies_from` accepts the source's driver, and the
    class itself defines both methods: a subclass may store bodies in a different form.
    """

    def copies_from(self, source: AsyncDriver) -> bool:
        """Return whether `copy_from` accepts this open driver as the source."""
        ...

    async def copy_from(
        self, source: Origin, bucket: str, key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy the version described by `options.source` from another driver.

        `copies_from` has accepted the source's driver. The copied bytes are compared with the source's
        checksum, if it has one, before the object is created.

        Returns:
            The stored object. Its checksums are those of the bytes that were read, and are not taken from
            the source's metadata.

        Raises:
            CannotCopyError: This copy is not possible. The store then copies the body.
            ObjectChangedError: The source is now a different version, or does not exist.
            IntegrityError: The bytes differ from the source's checksum. Nothing was stored.
            TroveError: Otherwise as `AsyncDriver.put`.
        """
        ...


class Unwrapping(Protocol):
    """Optional: a layer that reads each object, unchanged, from one other driver. For `CopyingFrom`.

    A store uses it only if the class itself defines the method: a subclass may change what is read.
    """

    def unwrap(self, bucket: str, key: str) -> Origin:
        """Return the open driver that has the object, and the object's names there.

        Raises:
            BucketNotFoundError: The layer does not know the bucket.
        """
        ...


class BulkDeleting(Protocol):
    """Optional: many deletes in one request. `Capabilities.bulk_delete`."""

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete up to `Capabilities.bulk_delete` keys, and return one result for each.

        Raises:
            BucketNotFoundError: The bucket does not exist.
        """
        ...


class Presigning(Protocol):
    """Optional: URLs that carry a signature. `Capabilities.presign`."""

    async def presign(
        self, method: str, bucket: str, key: str, expires: float, options: PresignOptions
    ) -> str:
        """Return a URL that allows one method (``"GET"`` or ``"PUT"``) for `expires` seconds.

        Raises:
            NotSupportedError: The signature cannot cover one of the options. An option must never be
                dropped.
        """
        ...


class Versioned(Protocol):
    """Optional: earlier versions of objects, in buckets with versioning. `Capabilities.versions`."""

    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        """Return one page of all versions of the bucket's objects, including delete markers.

        Keys are in the order of `AsyncDriver.list_page`. The versions of a key follow one another,
        also across pages, newest first. At most one version of a key is the latest. A bucket that
        does not keep versions has one version of each object. The driver holds nothing between two
        pages.

        Args:
            bucket: The bucket.
            options: The page to return; the delimiter is never set. A page may have more than
                ``limit`` entries only if they all belong to one key, because a backend may list the
                oldest version of a key first.

        Raises:
            BucketNotFoundError: The bucket does not exist.
        """
        ...


class Replicated(Protocol):
    """Optional: a driver that stores copies of each object on several members. `Capabilities.replicated`.

    The first member is the *primary*: its objects are the right ones. The other members are
    *replicas*, which should have the same objects. These methods find and repair the differences, for
    example the writes that a replica missed while it was unavailable::

        options = ListOptions(prefix="logs/", limit=1000)
        while True:
            page = await driver.compare(bucket, options)
            for difference in page.differences:
                await driver.repair(bucket, difference.key)
            if page.token is None:
                break
            options = replace(options, token=page.token)

    Both may run while objects are read and written.
    """

    async def compare(
        self, bucket: str, options: ListOptions, *, deep: bool = False
    ) -> ComparedPage:
        """Compare the members' listings, and return the differences of one page of keys.

        A difference may be due to a write in flight, so `repair` looks again. A bucket that a replica
        lacks counts as empty there. The driver holds nothing between two pages.

        Args:
            bucket: The bucket.
            options: The page to compare; the delimiter is not used. `ListOptions.limit` bounds the keys
                that are compared. A page may have fewer, or none, although it has a token.
            deep: Also head each object on all members, and compare write_ids, checksums and metadata.
                Otherwise keys and sizes are compared, and what else the listings contain.

        Raises:
            BucketNotFoundError: The primary lacks the bucket.
            UnavailableError: A member is not available. Differences cannot be told.
        """
        ...

    async def repair(self, bucket: str, key: str) -> Repaired:
        """Make the replicas' copies of an object like the primary's. Idempotent.

        An object that the primary lacks is deleted on the replicas. The body is copied in bounded
        memory, with its metadata, tags and write_id, and verified by its checksums. Replicas that
        already have the same object are not written. Writes of the key through this driver wait
        meanwhile; a concurrent write by another process is detected, and the repair starts again.

        After a cancel each replica has its earlier object, or the repaired one.

        Raises:
            BucketNotFoundError: The primary lacks the bucket. Nothing is changed.
            ObjectChangedError: Other processes replaced the object again and again.
            TroveError: A member failed. The other replicas were repaired nevertheless.
        """
        ...


@runtime_checkable
class ManyPlaces(Protocol):
    """Optional: a driver that may have an object at several places, such as a layer of several drivers."""

    def places(self, bucket: str, key: str, *, written: bool = False) -> Sequence[Hashable]:
        """Return all places of an object, that of `AsyncDriver.place` first. Does no I/O.

        Copies, moves and jobs compare them, so that a move between a layer and one of its members does
        not delete the only copy.

        Args:
            bucket: The bucket.
            key: The key.
            written: Whether to return only the places that a put replaces.
        """
        ...


def places_of(
    driver: AsyncDriver, bucket: str, key: str, *, written: bool = False
) -> Sequence[Hashable]:
    """Return the places of an object on any driver. See `ManyPlaces.places`."""
    places = getattr(driver, "places", None)  # faster than isinstance
    if places is None:
        return (driver.place(bucket, key),)
    return cast("ManyPlaces", driver).places(bucket, key, written=written)


@runtime_checkable
class RefusesDeletions(Protocol):
    """Optional: a driver that refuses to delete some objects, such as a layer with a read-only member."""

    async def check_deletable(self, bucket: str, key: str) -> None:
        """Raise the error of a deletion that would be refused. A move calls this before it copies.

        Raises:
            NotSupportedError: The object cannot be deleted.
            TroveError: That cannot be found out.
        """
        ...


async def check_deletable(driver: AsyncDriver, bucket: str, key: str) -> None:
    """Check a deletion on any driver. See `RefusesDeletions.check_deletable`."""
    check = getattr(driver, "check_deletable", None)
    if check is not None:
        await cast("RefusesDeletions", driver).check_deletable(bucket, key)


@runtime_checkable
class ReadsNow(Protocol):
    """Optional: a driver that can sometimes read a small range without waiting, such as from the page cache."""

    def read_now(
        self, bucket: str, key: str, start: int, end: int, if_match: str | None = None
    ) -> bytes | None:
        """Return the bytes from `start` to `end` of an object, all of one version.

        Return None if that would wait or fail, if the object ends before `end`, or if its etag differs from
        `if_match`. The caller then uses `AsyncDriver.get`, which waits or raises. Does not block the event loop.
        """
        ...


@runtime_checkable
class HasStatistics(Protocol):
    """Optional: a driver with counters, which the store shows as `BackendInfo.statistics`."""

    def statistics(self) -> object:
        """Return the current counters, as an immutable value. Does no I/O."""
        ...


@runtime_checkable
class Redacting(Protocol):
    """Optional: a driver with credentials, which removes them from errors of the service."""

    def redact(self, error: TroveError) -> None:
        """Remove the driver's secrets from an error's message and its chained exceptions.

        Called for every error that a call of the driver raises, before any other code handles it.
        """
        ...


@runtime_checkable
class Layer(Protocol):
    """A driver that wraps other drivers, which it opens with `DriverContext.attach`.

    Retries, permits and resumed reads happen below a layer, around the drivers of services. A layer
    handles only final results.
    """

    @property
    def inner(self) -> Sequence[AsyncDriver]:
        """The wrapped drivers, as they were passed to the layer."""
        ...

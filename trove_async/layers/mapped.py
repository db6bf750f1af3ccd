"""`Mapped`: stores buckets under different physical names, or all of them in one bucket."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    contextmanager,
    nullcontext,
)
from dataclasses import replace
from types import TracebackType
from typing import cast

from trove_async._concurrency import Entered
from trove_async._own_methods import defines
from trove_async.driver import (
    AsyncDriver,
    BulkDeleting,
    Capabilities,
    Copying,
    CopyingFrom,
    DriverContext,
    DriverReader,
    FileSpan,
    OpenReader,
    Origin,
    PartSource,
    Presigning,
    ReadsInto,
    Replicated,
    StreamedUpload,
    Upload,
    Uploading,
    Versioned,
    check_deletable,
    fetch_of,
    file_span_of,
    places_of,
    saves_copy,
)
from trove_async.errors import (
    BucketNotFoundError,
    ConfigError,
    NotSupportedError,
    ObjectNotFoundError,
    TroveError,
)
from trove_async.models import BucketInfo, DeleteResult, ObjectInfo, Prefix, VersionInfo
from trove_async.options import (
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

from ._attachment import Attachment, repr_of
from ._namespaces import Folders, Namespace, RenamedBuckets


class Mapped:
    """A layer that maps logical buckets to physical ones.

    This is useful because bucket names are global on public clouds.

    With `buckets`, each logical bucket is one physical bucket. A bucket that is not in the mapping
    does not exist (BucketNotFoundError; InvalidNameError from create_bucket), so a typo never
    reaches a bucket of another account. list_buckets returns only mapped buckets.

    With `into`, all logical buckets share one physical bucket: object ``key`` of bucket ``data``
    is stored as ``<prefix>data/key``. The physical bucket must exist, except on backends with a
    private namespace (such as memory and local), where create_bucket creates it. All keys under
    ``<prefix>name/`` belong to bucket ``name``, even if other tools wrote them. create_bucket
    stores a marker, an empty object that is not listed, so a bucket can be empty. The maximum key
    length is reduced by the lengths of the prefix and of the longest bucket name. If another
    process deletes a bucket, a later write through this layer may create it again.

    Args:
        driver: The driver that stores the objects, which may be a layer.
        buckets: The physical name of each logical bucket.
        into: The physical bucket that holds all logical buckets.
        prefix: With `into`: the prefix of all keys. A missing ``/`` at the end is added.

    Raises:
        ConfigError: Neither or both of `buckets` and `into` are passed, `prefix` is passed with
            `buckets`, a name or the prefix is not valid, or two buckets are mapped to one.
        TypeError: An argument has the wrong type.

    Example:
        >>> from trove_async.drivers import MemoryDriver
        >>> cold = Mapped(MemoryDriver(), buckets={"data": "acme-data-cold"})
        >>> archive = Mapped(MemoryDriver(), into="acme-archive", prefix="2024/")
    """

    def __init__(
        self,
        driver: AsyncDriver,
        *,
        buckets: Mapping[str, str] | None = None,
        into: str | None = None,
        prefix: str = "",
    ) -> None:
        self._attachment = Attachment("Mapped", [driver])
        if not isinstance(prefix, str):
            raise TypeError(f"prefix must be a str, got {type(prefix).__name__}")
        self._namespace: Namespace
        if buckets is not None and into is None:
            if prefix:
                raise ConfigError("Mapped: prefix requires into='…'")
            self._namespace = RenamedBuckets(buckets)
        elif into is not None and buckets is None:
            self._namespace = Folders(into, prefix)
        else:
            raise ConfigError("Mapped requires either buckets={…} or into='…'")
        self._capabilities: Capabilities | None = None

    def __repr__(self) -> str:
        return repr_of(self)

    @property
    def inner(self) -> Sequence[AsyncDriver]:
        """The wrapped driver."""
        return self._attachment.inner

    @property
    def name(self) -> str:
        """The service name of the wrapped driver."""
        return self._attachment.inner[0].name

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the wrapped driver.

        With `into`, the maximum key length is smaller, and the namespace is private.

        Raises:
            ConfigError: The prefix leaves no room for keys.
        """
        if self._capabilities is not None:
            return self._capabilities
        return self._namespace.capabilities(self._attachment.inner[0].capabilities)

    async def open(self, context: DriverContext) -> None:
        """Open the wrapped driver. See `AsyncDriver.open`.

        Raises:
            DriverInUseError: The layer is open, or being opened, in another store.
            ConfigError: The prefix leaves no room for keys, or a setting of the wrapped driver is
                not valid.
        """
        await self._attachment.open(context)
        self._namespace.forget()
        self._capabilities = self._namespace.capabilities(self._driver.capabilities)

    async def aclose(self) -> None:
        """Detach from the wrapped driver, which the store closes. Idempotent."""
        self._attachment.close()

    async def ping(self) -> None:
        """Ping the wrapped driver. See `AsyncDriver.ping`."""
        await self._driver.ping()

    def place(self, bucket: str, key: str) -> Hashable:
        """Return the place of the object in the wrapped driver. See `AsyncDriver.place`."""
        try:
            names = _Names(self._namespace, bucket, key)
        except BucketNotFoundError:
            return (self, bucket, key)  # not mapped: the operation itself raises
        return self._attachment.inner[0].place(names.physical_bucket, names.physical_key)

    def places(self, bucket: str, key: str, *, written: bool = False) -> Sequence[Hashable]:
        """Return the places of the object in the wrapped driver. See `ManyPlaces.places`."""
        try:
            names = _Names(self._namespace, bucket, key)
        except BucketNotFoundError:
            return (self.place(bucket, key),)
        inner = self._attachment.inner[0]
        return places_of(inner, names.physical_bucket, names.physical_key, written=written)

    def physical_bucket(self, bucket: str) -> str:
        """Return the physical bucket that holds a logical one.

        Raises:
            BucketNotFoundError: The bucket is not in the mapping.
        """
        return _Names(self._namespace, bucket, "").physical_bucket

    async def put(
        self, bucket: str, key: str, views: Sequence[memoryview], options: PutOptions
    ) -> ObjectInfo:
        """Store the object. See `AsyncDriver.put`."""
        names = _Names(self._namespace, bucket, key)
        with _logical_names_in_errors(names):
            await self._namespace.require(self._driver, bucket)
            return names.logical_info(await self._driver.put(*names.physical, views, options))

    def get(
        self, bucket: str, key: str, options: GetOptions
    ) -> AbstractAsyncContextManager[DriverReader]:
        """Open the object's body. See `AsyncDriver.get`."""
        return _Get(self, bucket, key, options)

    async def fetch(self, bucket: str, key: str, options: GetOptions) -> OpenReader:
        """Open the object's body. See `Fetching.fetch`."""
        names = _Names(self._namespace, bucket, key)
        driver = self._driver
        with _logical_names_in_errors(names):
            try:
                context: Entered
                reader: DriverReader
                fetch = fetch_of(driver)
                if fetch is not None:
                    context = reader = await fetch(*names.physical, options)
                else:
                    context = entering = driver.get(*names.physical, options)
                    reader = await entering.__aenter__()
            except ObjectNotFoundError:
                await self._namespace.require(driver, bucket)
                raise
        kind = _ReadIntoReader if isinstance(reader, ReadsInto) else _Reader
        return kind(context, reader, names)

    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        """Return the object's info. See `AsyncDriver.head`."""
        names = _Names(self._namespace, bucket, key)
        with _logical_names_in_errors(names):
            try:
                return names.logical_info(await self._driver.head(*names.physical, version_id))
            except ObjectNotFoundError:
                # With `into`, a missing object may mean that the logical bucket is missing.
                await self._namespace.require(self._driver, bucket)
                raise

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete the object. See `AsyncDriver.delete`."""
        names = _Names(self._namespace, bucket, key)
        with _logical_names_in_errors(names):
            await self._namespace.require(self._driver, bucket)
            await self._driver.delete(*names.physical, options)

    async def check_deletable(self, bucket: str, key: str) -> None:
        """Check a deletion on the wrapped driver. See `RefusesDeletions.check_deletable`."""
        names = _Names(self._namespace, bucket, key)
        with _logical_names_in_errors(names):
            await check_deletable(self._driver, *names.physical)

    async def list_page(self, bucket: str, options: ListOptions) -> Page:
        """Return one page, with logical names. See `AsyncDriver.list_page`."""
        names = _Names(self._namespace, bucket)
        with _logical_names_in_errors(names):
            page = await self._driver.list_page(
                names.physical_bucket, names.physical_options(options)
            )
            if not page.entries:
                await self._namespace.require(self._driver, bucket)
        return Page(
            entries=[names.logical_entry(entry) for entry in page.entries], token=page.token
        )

    async def create_bucket(self, bucket: str) -> None:
        """Create the bucket, or its marker. See `AsyncDriver.create_bucket`."""
        with self._logical_bucket_in_errors(bucket):
            await self._namespace.create(self._driver, bucket)

    async def delete_bucket(self, bucket: str) -> None:
        """Delete the empty bucket, or its marker. See `AsyncDriver.delete_bucket`."""
        with self._logical_bucket_in_errors(bucket):
            await self._namespace.delete(self._driver, bucket)

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return the bucket's info. See `AsyncDriver.head_bucket`."""
        with self._logical_bucket_in_errors(bucket):
            return await self._namespace.head(self._driver, bucket)

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the logical buckets, sorted by name."""
        return await self._namespace.list(self._driver)

    def upload(
        self, bucket: str, key: str, options: PutOptions
    ) -> AbstractAsyncContextManager[Upload]:
        """Open an upload in the wrapped driver. See `Uploading.upload`."""
        self._require_feature(self.capabilities.upload, "uploads in parts")
        return _Upload(self, bucket, key, options)

    async def copy(
        self, src_bucket: str, src_key: str, dst_bucket: str, dst_key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy in the wrapped driver. See `Copying.copy`."""
        self._require_feature(self.capabilities.server_copy, "server-side copies")
        # `options.source` must have physical names, as if the wrapped driver had returned it.
        src = _Names(self._namespace, src_bucket, src_key)
        dst = _Names(self._namespace, dst_bucket, dst_key)
        source = options.source.located(bucket=src.physical_bucket, key=src.physical_key)
        with _logical_names_in_errors(dst):
            await self._namespace.require(self._driver, dst_bucket)
        with _logical_names_in_errors(src, dst):
            try:
                info = await cast("Copying", self._driver).copy(
                    *src.physical, *dst.physical, replace(options, source=source)
                )
            except ObjectNotFoundError:
                await self._namespace.require(self._driver, src_bucket)
                raise
        return dst.logical_info(info)

    def copies_from(self, source: AsyncDriver) -> bool:
        """Return whether the wrapped driver copies from this open driver. See `CopyingFrom`."""
        driver = self._driver
        return defines(driver, "copies_from") and cast("CopyingFrom", driver).copies_from(source)

    async def copy_from(
        self, source: Origin, bucket: str, key: str, options: CopyOptions
    ) -> ObjectInfo:
        """Copy from another driver to the wrapped one. See `CopyingFrom.copy_from`."""
        driver = cast("CopyingFrom", self._driver)
        names = _Names(self._namespace, bucket, key)
        with _logical_names_in_errors(names):
            await self._namespace.require(self._driver, bucket)
            info = await driver.copy_from(source, *names.physical, options)
        return names.logical_info(info)

    def unwrap(self, bucket: str, key: str) -> Origin:
        """Return the wrapped driver, and the physical names. See `Unwrapping`."""
        return Origin(self._driver, *_Names(self._namespace, bucket, key).physical)

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete the keys, and return one result for each. See `BulkDeleting.delete_many`."""
        self._require_feature(bool(self.capabilities.bulk_delete), "bulk deletes")
        names = _Names(self._namespace, bucket)
        with _logical_names_in_errors(names):
            await self._namespace.require(self._driver, bucket)
            results = await cast("BulkDeleting", self._driver).delete_many(
                names.physical_bucket, [names.folder + key for key in keys]
            )
        return [names.logical_result(result) for result in results]

    async def presign(
        self, method: str, bucket: str, key: str, expires: float, options: PresignOptions
    ) -> str:
        """Return a URL with the physical names. See `Presigning.presign`."""
        self._require_feature(self.capabilities.presign, "presigned URLs")
        names = _Names(self._namespace, bucket, key)
        with _logical_names_in_errors(names):
            return await cast("Presigning", self._driver).presign(
                method, *names.physical, expires, options
            )

    async def version_page(self, bucket: str, options: ListOptions) -> VersionPage:
        """Return one page, with logical names. See `Versioned.version_page`."""
        self._require_feature(self.capabilities.versions, "versions")
        names = _Names(self._namespace, bucket)
        with _logical_names_in_errors(names):
            # A deleted bucket does not exist, even if old versions of its objects remain.
            await self._namespace.require(self._driver, bucket)
            page = await cast("Versioned", self._driver).version_page(
                names.physical_bucket, names.physical_options(options)
            )
        return VersionPage(
            entries=[names.logical_version(entry) for entry in page.entries], token=page.token
        )

    async def compare(
        self, bucket: str, options: ListOptions, *, deep: bool = False
    ) -> ComparedPage:
        """Compare the replicas of one page, with logical names. See `Replicated.compare`."""
        self._require_feature(self.capabilities.replicated, "replicas")
        names = _Names(self._namespace, bucket)
        with _logical_names_in_errors(names):
            await self._namespace.require(self._driver, bucket)
            page = await cast("Replicated", self._driver).compare(
                names.physical_bucket, names.physical_options(options), deep=deep
            )
        found = [replace(one, key=one.key[len(names.folder) :]) for one in page.differences]
        return replace(page, differences=found)

    async def repair(self, bucket: str, key: str) -> Repaired:
        """Make the replicas of an object equal. See `Replicated.repair`."""
        self._require_feature(self.capabilities.replicated, "replicas")
        names = _Names(self._namespace, bucket, key)
        with _logical_names_in_errors(names):
            await self._namespace.require(self._driver, bucket)
            return await cast("Replicated", self._driver).repair(*names.physical)

    def _logical_bucket_in_errors(self, bucket: str) -> AbstractContextManager[None]:
        """Return a context manager that replaces the physical bucket in errors."""
        try:
            return _logical_names_in_errors(_Names(self._namespace, bucket))
        except BucketNotFoundError:
            return nullcontext()  # not mapped: the driver is not called

    @property
    def _driver(self) -> AsyncDriver:
        return self._attachment.drivers[0]

    def _require_feature(self, supported: bool, feature: str) -> None:  # noqa: FBT001 - private
        if not supported:
            raise NotSupportedError(f"the {self.name} backend does not support {feature}")


class _Names:
    """The logical and physical names of one object or bucket, and translations between them."""

    __slots__ = ("bucket", "folder", "inside", "key", "physical_bucket", "physical_key")

    def __init__(self, namespace: Namespace, bucket: str, key: str = "") -> None:
        self.bucket = bucket
        self.key = key
        self.inside = namespace.inside
        self.physical_bucket, self.folder = namespace.locate(bucket)
        self.physical_key = self.folder + key

    @property
    def physical(self) -> tuple[str, str]:
        return self.physical_bucket, self.physical_key

    def physical_options(self, options: ListOptions) -> ListOptions:
        if not self.folder:
            return options
        # Starting after the folder's own key skips the marker.
        return replace(
            options,
            prefix=self.folder + options.prefix,
            start_after=self.folder + (options.start_after or ""),
        )

    def logical_info(self, info: ObjectInfo) -> ObjectInfo:
        return info.located(bucket=self.bucket, key=info.key[len(self.folder) :])

    def logical_version(self, version: VersionInfo) -> VersionInfo:
        return version.located(bucket=self.bucket, key=version.key[len(self.folder) :])

    def logical_entry(self, entry: ObjectInfo | Prefix) -> ObjectInfo | Prefix:
        if isinstance(entry, Prefix):
            return replace(entry, bucket=self.bucket, prefix=entry.prefix[len(self.folder) :])
        return self.logical_info(entry)

    def logical_result(self, result: DeleteResult) -> DeleteResult:
        if isinstance(result.error, TroveError):
            self.put_logical_names(result.error)
        return replace(result, key=result.key[len(self.folder) :])

    def put_logical_names(self, error: TroveError) -> bool:
        """Replace the physical names in an error with the logical ones.

        Return False, and keep the names, if the error is about a different object or already has
        the logical bucket. In either case, set `TroveError.inside` in errors about the logical or
        the physical bucket.
        """
        if error.bucket in {self.bucket, self.physical_bucket} and error.inside is None:
            error.inside = self.inside
        # An error about a different object, such as the source of a copy, keeps its names.
        if error.bucket not in {None, self.physical_bucket}:
            return False
        key = error.key
        if key is not None and not key.startswith(self.folder):
            return False
        # An operator needs the physical names to find the object in the service.
        if error.bucket is not None:
            error.add_note(f"(physical names: bucket {error.bucket!r}, key {key!r})")
            error.bucket = self.bucket
        if key is not None:
            error.key = key[len(self.folder) :] or None
        return True


@contextmanager
def _logical_names_in_errors(*names: _Names) -> Iterator[None]:
    """Replace physical names in the errors of a block with logical ones."""
    try:
        yield
    except TroveError as error:
        for candidate in names:
            if candidate.put_logical_names(error):
                break
        raise


class _Get:
    """The context manager of one get. It opens and closes a body."""

    __slots__ = ("_layer", "_name", "_reader")

    def __init__(self, layer: Mapped, bucket: str, key: str, options: GetOptions) -> None:
        self._layer = layer
        self._name = (bucket, key, options)

    async def __aenter__(self) -> DriverReader:
        self._reader = await self._layer.fetch(*self._name)
        return self._reader

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._reader.__aexit__(kind, error, traceback)


class _Reader:
    """A reader of the wrapped driver, with logical names."""

    __slots__ = ("_context", "_names", "_wrapped", "info", "range", "whole")

    def __init__(
        self,
        context: Entered,
        wrapped: DriverReader,
        names: _Names,
    ) -> None:
        self._context = context
        self._wrapped = wrapped
        self._names = names
        self.info = names.logical_info(wrapped.info)
        self.range = wrapped.range
        self.whole: bytes | None = getattr(wrapped, "whole", None)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._context.__aexit__(kind, error, traceback)

    async def read(self, size: int) -> bytes:
        """Read from the wrapped reader. See `DriverReader.read`."""
        with _logical_names_in_errors(self._names):
            return await self._wrapped.read(size)

    async def file_span(self, size: int, crc32c: int | None) -> FileSpan | None:
        """Return a span of the wrapped reader, if it has one. See `SpansFile.file_span`."""
        with _logical_names_in_errors(self._names):
            return await file_span_of(self._wrapped, size, crc32c)


class _ReadIntoReader(_Reader):
    """A reader that supports `readinto`."""

    __slots__ = ()

    @property
    def reads_into(self) -> bool:
        """Whether `readinto` saves a copy. See `saves_copy`."""
        return saves_copy(self._wrapped)

    async def readinto(self, buffer: memoryview) -> int:
        """Read into the buffer from the wrapped reader. See `ReadsInto.readinto`."""
        with _logical_names_in_errors(self._names):
            return await cast("ReadsInto", self._wrapped).readinto(buffer)


class _Upload:
    """One upload with logical names. It is also its context manager."""

    __slots__ = ("_bucket", "_context", "_key", "_layer", "_names", "_options", "_upload")

    def __init__(self, layer: Mapped, bucket: str, key: str, options: PutOptions) -> None:
        self._layer = layer
        self._bucket = bucket
        self._key = key
        self._options = options

    async def __aenter__(self) -> Upload:
        namespace, driver = self._layer._namespace, self._layer._driver  # noqa: SLF001 - same module
        self._names = names = _Names(namespace, self._bucket, self._key)
        with _logical_names_in_errors(names):
            await namespace.require(driver, self._bucket)
            self._context = cast("Uploading", driver).upload(*names.physical, self._options)
            self._upload = await self._context.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._context.__aexit__(kind, error, traceback)

    async def send(self, part: Part, views: Sequence[memoryview]) -> None:
        """Send the part to the wrapped driver. See `Upload.send`."""
        with _logical_names_in_errors(self._names):
            await self._upload.send(part, views)

    async def send_stream(self, part: Part, source: PartSource) -> None:
        """Send the part to the wrapped driver. See `StreamedUpload.send_stream`."""
        with _logical_names_in_errors(self._names):
            await cast("StreamedUpload", self._upload).send_stream(part, source)

    async def commit(self, checksums: Mapping[str, str]) -> ObjectInfo:
        """Commit in the wrapped driver. See `Upload.commit`."""
        with _logical_names_in_errors(self._names):
            return self._names.logical_info(await self._upload.commit(checksums))

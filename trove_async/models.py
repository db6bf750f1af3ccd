"""The values that users, the store and the drivers exchange. All are frozen dataclasses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from ._settings import check_ints, check_numbers
from .errors import ConfigError, RangeError

T = TypeVar("T")

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB
TiB = 1024 * GiB

RECORDS = "trove-transforms"
"""The reserved metadata name of `ObjectInfo.records`."""


class _LazyAttributes:
    """Slots for the arguments of `ObjectInfo.listed` that compute attributes on first access.

    They are not dataclass fields, so `dataclasses.asdict` and pickles contain only the attributes.
    """

    __slots__ = ("_lazy_find", "_lazy_raw")

    _lazy_find: Callable[[Any, str], object] | None
    _lazy_raw: object


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class ObjectInfo(_LazyAttributes):
    """The metadata of one object.

    Attributes:
        bucket: The bucket, under the name that the caller uses.
        key: The key.
        size: The number of bytes that a reader returns.
        stored_size: The number of bytes that the backend stores. It equals `size` unless a middleware
            has transformed the body.
        etag: An opaque strong validator: different contents have different etags. ``if_match``
            accepts it. None if the service returns no etag, or a weak one.
        last_modified: Time of the last write, in UTC.
        content_type: The media type, or None.
        metadata: The user's metadata, with names in lower case.
        tags: The user's tags.
        storage_class: The backend's name for the storage class, or None if it has none.
        cache_control: As passed to put.
        content_disposition: As passed to put.
        content_encoding: As passed to put.
        content_language: As passed to put.
        expires: As passed to put, in UTC and whole seconds. An invalid Expires header means a time in
            the past (RFC 9111, 5.3), and is returned as 1970-01-01.
        checksums: Checksums of the whole content by algorithm (``crc32c``, ``crc64nvme``,
            ``sha256``, ``md5``): base64 of the big-endian bytes, as S3 and GCS write them. Empty for a
            transformed object, because the backend's checksums are those of the stored bytes.
        version_id: The backend's id of this version, if it keeps versions.
        backend: The name of the backend, set by the store.
        complete: False if this comes from a listing that lacks some attributes, such as the
            metadata, or the `size` of a transformed object. `head` returns all attributes.
        write_id: The id of the write that created the object, if the backend can record one. It
            identifies the store's own write if the response was lost.
        records: What the middlewares need to decode the object, as stored in its metadata. None: it is
            stored as it is. The store reads and writes this value.
        as_of: The service's time when it sent the response. Drivers set it for objects without an
            etag: it determines whether `last_modified` identifies one version
            (`trove_async._version_identity`).
        missed_replicas: The names of the replicas that are known to have missed this write, in the
            result of a put or a copy to a `layers.Mirrored`. Empty otherwise.
    """

    bucket: str
    key: str
    size: int
    stored_size: int
    etag: str | None
    last_modified: datetime
    content_type: str | None
    metadata: Mapping[str, str] = field(hash=False)
    tags: Mapping[str, str] = field(hash=False)
    storage_class: str | None
    cache_control: str | None
    content_disposition: str | None
    content_encoding: str | None
    content_language: str | None
    expires: datetime | None
    checksums: Mapping[str, str] = field(hash=False)
    version_id: str | None
    backend: str
    complete: bool
    write_id: str | None = field(repr=False)
    records: str | None = field(repr=False)
    as_of: datetime | None = field(repr=False, compare=False)
    missed_replicas: tuple[str, ...] = field(repr=False, compare=False)

    def __init__(  # noqa: C901, PLR0912 - one branch per attribute
        self,
        *,
        bucket: str,
        key: str,
        size: int,
        etag: str | None,
        last_modified: datetime,
        stored_size: int | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        storage_class: str | None = None,
        cache_control: str | None = None,
        content_disposition: str | None = None,
        content_encoding: str | None = None,
        content_language: str | None = None,
        expires: datetime | None = None,
        checksums: Mapping[str, str] | None = None,
        version_id: str | None = None,
        backend: str = "",
        complete: bool = True,
        write_id: str | None = None,
        records: str | None = None,
        as_of: datetime | None = None,
        missed_replicas: tuple[str, ...] = (),
    ) -> None:
        # Set only the slots whose values differ from the defaults, through the slots' own setters.
        # This takes 2 µs, and the __init__ of a frozen dataclass 6 µs. `_default_of` returns the
        # defaults.
        _set_bucket(self, bucket)
        _set_key(self, key)
        _set_size(self, size)
        _set_etag(self, etag)
        _set_last_modified(self, last_modified)
        _set_backend(self, backend)
        _set_complete(self, complete)
        if stored_size is not None:
            _set_stored_size(self, stored_size)
        if content_type is not None:
            _set_content_type(self, content_type)
        if metadata:
            if RECORDS in metadata:
                # Drivers store the records as metadata. Separating them here hides them from every
                # user of the metadata.
                records = metadata[RECORDS]
                metadata = {name: text for name, text in metadata.items() if name != RECORDS}
            _set_metadata(self, metadata)
        # Always set, because listings read it of every object.
        _set_records(self, records)
        if tags:
            _set_tags(self, tags)
        if storage_class is not None:
            _set_storage_class(self, storage_class)
        if cache_control is not None:
            _set_cache_control(self, cache_control)
        if content_disposition is not None:
            _set_content_disposition(self, content_disposition)
        if content_encoding is not None:
            _set_content_encoding(self, content_encoding)
        if content_language is not None:
            _set_content_language(self, content_language)
        if expires is not None:
            _set_expires(self, expires)
        if checksums:
            _set_checksums(self, checksums)
        if version_id is not None:
            _set_version_id(self, version_id)
        if write_id is not None:
            _set_write_id(self, write_id)
        if as_of is not None:
            _set_as_of(self, as_of)
        if missed_replicas:
            _set_missed_replicas(self, missed_replicas)

    @classmethod
    def listed(
        cls,
        bucket: str,
        key: str,
        size: int,
        *,
        backend: str,
        find: Callable[[T, str], object],
        raw: T,
    ) -> ObjectInfo:
        """Return the metadata of an object in a listing. Some of it is computed on first access.

        Most users of a listing never read the etag and the date, and computing both takes longer
        than this call.

        Args:
            bucket: The bucket.
            key: The key.
            size: Size in bytes.
            backend: The backend's name.
            find: Called as ``find(raw, name)`` for ``etag``, ``last_modified`` and
                ``storage_class``, at most once each. Returns None if the object has none.
            raw: The argument for `find`.
        """
        draft = _Draft()
        draft.bucket, draft.key, draft.size = bucket, key, size
        draft.backend, draft.complete, draft.records = backend, False, None
        draft._lazy_find, draft._lazy_raw = find, raw  # noqa: SLF001 - same module
        draft.__class__ = ObjectInfo  # type: ignore[assignment]  # see `_Draft`
        return draft  # type: ignore[return-value]

    @classmethod
    def listed_page(
        cls,
        bucket: str,
        keys: Iterable[str],
        sizes: Iterable[int],
        *,
        backend: str,
        etags: Iterable[str | None],
        dates: Iterable[datetime],
        storage_classes: Iterable[str | None],
    ) -> list[ObjectInfo]:
        """Return the metadata of all objects on a page of a listing. This makes no call for each of them.

        Args:
            bucket: The bucket of all objects.
            keys: The key of each object.
            sizes: The size of each object in bytes.
            backend: The backend's name.
            etags: The etag of each object.
            dates: The date of the last write of each object, in UTC.
            storage_classes: The storage class of each object. ``""`` means None.
        """
        infos: list[ObjectInfo] = []
        for key, size, etag, date, storage_class in zip(
            keys, sizes, etags, dates, storage_classes, strict=True
        ):
            draft = _Draft()
            draft.bucket, draft.key, draft.size, draft.backend = bucket, key, size, backend
            draft.etag, draft.last_modified = etag, date
            draft.storage_class = storage_class or None
            draft.complete, draft.records = False, None
            draft.__class__ = ObjectInfo  # type: ignore[assignment]  # see `_Draft`
            infos.append(draft)  # type: ignore[arg-type]
        return infos

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            """Return the default of a slot that is not set."""
            return _default_of(self, name)

    def located(
        self, *, backend: str | None = None, bucket: str | None = None, key: str | None = None
    ) -> ObjectInfo:
        """Return this info with a different backend, bucket or key."""
        if (
            (backend is None or backend == self.backend)
            and (bucket is None or bucket == self.bucket)
            and (key is None or key == self.key)
        ):
            return self
        return self._changed(
            bucket=self.bucket if bucket is None else bucket,
            key=self.key if key is None else key,
            backend=self.backend if backend is None else backend,
            size=self.size,
            checksums=self.checksums,
            complete=self.complete,
        )

    def decoded(self, size: int | None) -> ObjectInfo:
        """Return the public metadata of a transformed object. The store calls this.

        The checksums are omitted, because they are those of the stored bytes.

        Args:
            size: The size of the decoded body. None: unknown, so the info is not complete.
        """
        return self._changed(
            bucket=self.bucket,
            key=self.key,
            backend=self.backend,
            size=self.stored_size if size is None else size,
            checksums={},
            complete=self.complete and size is not None,
        )

    def _changed(
        self,
        *,
        bucket: str,
        key: str,
        backend: str,
        size: int,
        checksums: Mapping[str, str],
        complete: bool,
    ) -> ObjectInfo:
        # Not `dataclasses.replace`, which takes a fifth longer.
        return ObjectInfo(
            bucket=bucket,
            key=key,
            size=size,
            stored_size=self.stored_size,
            etag=self.etag,
            last_modified=self.last_modified,
            content_type=self.content_type,
            metadata=self.metadata,
            tags=self.tags,
            storage_class=self.storage_class,
            cache_control=self.cache_control,
            content_disposition=self.content_disposition,
            content_encoding=self.content_encoding,
            content_language=self.content_language,
            expires=self.expires,
            checksums=checksums,
            version_id=self.version_id,
            backend=backend,
            complete=complete,
            write_id=self.write_id,
            records=self.records,
            as_of=self.as_of,
            missed_replicas=self.missed_replicas,
        )

    @property
    def transforms(self) -> tuple[str, ...]:
        """The names of the transforms that were applied to the body, in this order.

        ``"zstd"`` is Zstandard, and ``"aes256-gcm-hkdf"`` is encryption.
        """
        return () if self.records is None else transforms_in(self.records)


@lru_cache(maxsize=256)
def transforms_in(records: str) -> tuple[str, ...]:
    """Return the names of the transforms in an object's records. Malformed records have none."""
    with suppress(ValueError, TypeError, RecursionError):  # the metadata may be forged
        return tuple(str(name) for name, record in json.loads(records) if record is not None)
    return ()


(
    _set_bucket,
    _set_key,
    _set_size,
    _set_stored_size,
    _set_etag,
    _set_last_modified,
    _set_content_type,
    _set_metadata,
    _set_tags,
    _set_storage_class,
    _set_cache_control,
    _set_content_disposition,
    _set_content_encoding,
    _set_content_language,
    _set_expires,
    _set_checksums,
    _set_version_id,
    _set_backend,
    _set_complete,
    _set_write_id,
    _set_records,
    _set_as_of,
    _set_missed_replicas,
) = (vars(ObjectInfo)[slot.name].__set__ for slot in fields(ObjectInfo))


class _Draft(_LazyAttributes):
    """An `ObjectInfo` that is not frozen yet. It becomes one by the assignment of its class.

    Only a call of a slot's setter can fill a frozen dataclass, and each takes 55 ns. A draft has the
    same slots, and an assignment to one of them takes 5 ns. `ObjectInfo.listed` takes half the time.
    """

    __slots__ = ObjectInfo.__slots__

    bucket: str
    key: str
    size: int
    etag: str | None
    last_modified: datetime
    storage_class: str | None
    backend: str
    complete: bool
    records: str | None


def _default_of(info: ObjectInfo, name: str) -> object:
    if name == "stored_size":
        return info.size
    if name in {"metadata", "tags", "checksums"}:
        return {}
    if name == "missed_replicas":
        return ()
    if name in _LAZY and info._lazy_find is not None:  # noqa: SLF001 - same module
        value = info._lazy_find(info._lazy_raw, name)  # noqa: SLF001 - same module
        _LAZY[name](info, value)
        return value
    if name == "_lazy_find" or name in ObjectInfo.__slots__:
        return None
    raise AttributeError(f"ObjectInfo has no attribute {name!r}", name=name, obj=info)


_LAZY: Mapping[str, Callable[[ObjectInfo, Any], None]] = {
    "etag": _set_etag,
    "last_modified": _set_last_modified,
    "storage_class": _set_storage_class,
}
"""The attributes that `ObjectInfo.listed` computes on first access, and their slots' setters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """A common prefix of keys in a listing with a delimiter."""

    bucket: str
    prefix: str
    backend: str = ""

    @property
    def key(self) -> str:
        """The prefix, by which a listing sorts."""
        return self.prefix


Entry: TypeAlias = ObjectInfo | Prefix
"""An item of a listing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionInfo:
    """One version of an object in a listing of versions.

    Attributes:
        bucket: The bucket, under the name that the caller uses.
        key: The key.
        version_id: The value to pass as ``version_id`` to get, head and delete.
        size: Size in bytes on the backend; 0 for a delete marker.
        etag: As `ObjectInfo.etag`; None for a delete marker.
        last_modified: Time of the write, in UTC.
        storage_class: The backend's name for the storage class, or None if it has none.
        latest: Whether this is the latest version of its key. A get without a version_id reads it; if
            it is a delete marker, the object is not found.
        deleted: Whether this is a delete marker: a version without content, which some backends
            create when an object is deleted without a version_id. On other backends, a deleted key
            has no latest version.
        backend: The name of the backend, set by the store.
    """

    bucket: str
    key: str
    version_id: str
    size: int
    etag: str | None
    last_modified: datetime
    storage_class: str | None = None
    latest: bool
    deleted: bool = False
    backend: str = ""

    def located(
        self, *, backend: str | None = None, bucket: str | None = None, key: str | None = None
    ) -> VersionInfo:
        """Return this info with a different backend, bucket or key."""
        return replace(
            self,
            backend=self.backend if backend is None else backend,
            bucket=self.bucket if bucket is None else bucket,
            key=self.key if key is None else key,
        )


Listed: TypeAlias = Entry | VersionInfo
"""An item of a listing of objects or of versions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketInfo:
    """The metadata of one bucket.

    Attributes:
        name: The name.
        created: Time of the bucket's creation, in UTC, or None if the backend does not record it.
        backends: The names of the backends that have the bucket, set by the store.
    """

    name: str
    created: datetime | None = None
    backends: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A range of an object's bytes: ``[start, end)``, ``[start, …)`` or the last n bytes.

    Args:
        start: The first byte, from 0. Negative only in a range that `last` returned.
        end: The byte after the last one, clamped to the object's size. None: the end.

    Raises:
        RangeError: The range is empty for every object (``start >= end``, or the last 0 bytes), or
            its start is negative.
        TypeError: A bound is not an int.
    """

    start: int
    end: int | None = None
    _suffix: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        for bound in (self.start, 0 if self.end is None else self.end):
            if not isinstance(bound, int) or isinstance(bound, bool):
                raise TypeError(f"the bounds of a range must be ints, got {type(bound).__name__}")
        if self._suffix:
            if self.start >= 0:
                raise RangeError(f"n of ByteRange.last(n) must be at least 1, got {-self.start}")
        elif self.start < 0:
            raise RangeError(
                f"a range must start at 0 or later, got {self.start}: ByteRange.last(n) counts from"
                " the end"
            )
        elif self.end is not None and self.end <= self.start:
            raise RangeError(
                f"a range must end after its start, got ({self.start}, {self.end}): the end is"
                " exclusive"
            )

    @classmethod
    def last(cls, count: int) -> ByteRange:
        """Return the range of the last `count` bytes, or of all bytes of a shorter object."""
        check_ints(count=count)
        return cls(-count, None, True)  # noqa: FBT003 - a private argument

    @classmethod
    def of(cls, range: ByteRange | tuple[int, int | None]) -> ByteRange:
        """Return a ByteRange for a ByteRange or a tuple.

        Raises:
            TypeError: The argument is neither.
        """
        if isinstance(range, ByteRange):
            return range
        if isinstance(range, tuple) and len(range) == 2:  # noqa: PLR2004 - a pair
            return cls(*range)
        raise TypeError(
            f"a range must be (start, end), (start, None) or ByteRange.last(n), got {range!r}"
        )

    @property
    def suffix(self) -> int | None:
        """The number of last bytes, or None if the range counts from the start."""
        return -self.start if self._suffix else None

    def resolve(self, size: int) -> tuple[int, int]:
        """Return the absolute ``(start, end)`` in an object of `size` bytes.

        Raises:
            RangeError: The range starts at or after the end of the object.
        """
        start = max(size + self.start, 0) if self._suffix else self.start
        if start >= size:
            raise RangeError(
                f"the range must start within the object's {size} bytes, got a start at byte {start}"
            )
        return start, size if self.end is None else min(self.end, size)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteDecision:
    """The backend of a key, and why the router chose it.

    Attributes:
        backend: The backend's name.
        rule: The rule that matched; None for the default and for a pinned handle.
        reason: The reason, as a sentence.
        middleware: The middlewares and inspections that would apply to a put of this key, in order. Their
            scopes are evaluated with the media type that is guessed from the key.
    """

    backend: str
    rule: str | None
    reason: str
    middleware: Sequence[str] = ()


BreakerState = Literal["closed", "half-open", "open"]
"""The states of a circuit breaker: requests are sent, one request is sent as a probe, none is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Misplaced:
    """An object that is on a different backend from the one that its key is routed to.

    Attributes:
        info: The object, as its backend lists it. `ObjectInfo.backend` is where it is.
        belongs_to: The name of the backend that the key is routed to.
        shadowed: Whether that backend has an object of this key as well, which a get returns instead.
            None: unknown, because one of the two backends does not list in key order.
    """

    info: ObjectInfo
    belongs_to: str
    shadowed: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The result of a ping to one backend.

    Attributes:
        ok: Whether the backend responded.
        latency: Seconds until the response, or until the failure.
        error: The failure, or None.
        breaker: The state of the backend's circuit breaker after the ping (`CircuitBreaker`). For a
            layer: the worst state of its drivers. ``closed`` if there is none.
    """

    ok: bool
    latency: float
    error: Exception | None = None
    breaker: BreakerState = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteResult:
    """The result for one key of a `delete_many`. `error` is None if the object no longer exists."""

    key: str
    error: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout:
    """Time limits in seconds. All except `permit` and `total` limit the time without progress.

    Attributes:
        connect: To establish a connection (network drivers).
        first_byte: From the last byte of a request until the head of its response is complete.
            Interim responses (1xx) do not extend the limit.
        idle: Between two chunks of a body, in either direction.
        permit: Until one of the driver's connections is free.
        total: For a whole operation. None (the default): no limit for a transfer that makes progress.
            Time that a caller spends between reads never counts.

    Raises:
        ConfigError: A limit is not positive.
        TypeError: A limit is not a number. Only `total` may be None.
    """

    connect: float = 10.0
    first_byte: float = 30.0
    idle: float = 30.0
    permit: float = 60.0
    total: float | None = None

    def __post_init__(self) -> None:
        for limit in fields(self):
            seconds = getattr(self, limit.name)
            if seconds is None and limit.name == "total":
                continue
            check_numbers(**{limit.name: seconds})
            if not seconds > 0:
                raise ConfigError(f"{limit.name} must be more than 0 seconds, got {seconds}")


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the type of any name in `options`
    """Return a name of `trove_async.options`, for drivers that import it from here."""
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("trove_async.options"), name)


_MOVED = frozenset(
    {
        "CopyOptions",
        "DeleteOptions",
        "GetOptions",
        "ListOptions",
        "NOTHING_FIXED",
        "Page",
        "Part",
        "PresignOptions",
        "PutOptions",
        "VersionPage",
        "is_earlier",
    }
)

"""The values that pass between users, the store and the drivers. All are frozen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from ._settings import check_numbers
from .errors import ConfigError, RangeError

T = TypeVar("T")

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB
TiB = 1024 * GiB


class _Listed:
    """Where `ObjectInfo.listed` keeps how to work out the rest: no fact, so no field of the value.

    So neither `asdict` tells it nor a pickle holds it, which has the facts themselves.
    """

    __slots__ = ("_later",)

    _later: tuple[Callable[[Any, str], object], object] | None


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class ObjectInfo(_Listed):
    """What is known of one object.

    Attributes:
        bucket: Its bucket's name, as the caller knows it.
        key: Its key.
        size: Bytes of its content, as a reader gets them.
        stored_size: Bytes that the backend keeps for it; differs from `size` under a transform.
        etag: The driver's opaque strong validator: two contents never share one. What a driver
            returns it accepts back as ``if_match``. None where the service gives none, or only a
            weak one.
        last_modified: When it was written, in UTC.
        content_type: Its media type, None where none was given.
        metadata: The user's own names (lower case) and values.
        tags: The user's tags.
        storage_class: The backend's name of its class, None where the backend has none.
        cache_control: As given to put.
        content_disposition: As given to put.
        content_encoding: As given to put.
        content_language: As given to put.
        expires: As given to put, in UTC and whole seconds. An Expires header that is no valid date
            stands for a moment in the past (RFC 9111, 5.3) and is given as 1970-01-01.
        checksums: Checksums of the whole content, by algorithm (``crc32c``, ``crc64nvme``,
            ``sha256``, ``md5``), in base64 of their big-endian bytes as S3 and GCS write them.
        version_id: The backend's id of this version, where it keeps versions.
        backend: The name of the backend that holds it, filled in by the store.
        complete: False where a listing's page told only names, sizes and dates; `head` tells all.
        write_id: The id of the write that made it, where the backend could record one: how our
            own write is recognised after its answer was lost.
        as_of: When the service gave these facts, by its own clock. Drivers fill it in where there is
            no etag: it shows whether `last_modified` can name one version
            (`trove_async._version_identity`).
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
    as_of: datetime | None = field(repr=False, compare=False)

    def __init__(  # noqa: C901, PLR0912 - a line an attribute
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
        as_of: datetime | None = None,
    ) -> None:
        # Only what was given is stored, by the slots' own setters: 2 µs, where a frozen dataclass's
        # generated __init__ takes 6. `_unset` has the rest.
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
            _set_metadata(self, metadata)
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
        """Return what a listing tells of an object: the rest is worked out when it is asked for.

        Most users of a listing never ask, and making an etag and a date takes longer than this.

        Args:
            bucket: Its bucket.
            key: Its key.
            size: Its bytes.
            backend: The backend's name.
            find: Called as ``find(raw, name)`` for ``etag``, ``last_modified`` and
                ``storage_class``, once each; None: the backend has none.
            raw: Whatever `find` needs.
        """
        info = object.__new__(cls)
        _set_bucket(info, bucket)
        _set_key(info, key)
        _set_size(info, size)
        _set_backend(info, backend)
        _set_complete(info, False)  # noqa: FBT003 - a slot's setter
        _set_later(info, (find, raw))
        return info

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            """Return what a slot that was not set stands for."""
            return _unset(self, name)

    def located(
        self, *, backend: str | None = None, bucket: str | None = None, key: str | None = None
    ) -> ObjectInfo:
        """Return the same facts under another backend's, bucket's or key's name."""
        if (
            (backend is None or backend == self.backend)
            and (bucket is None or bucket == self.bucket)
            and (key is None or key == self.key)
        ):
            return self
        return ObjectInfo(
            bucket=self.bucket if bucket is None else bucket,
            key=self.key if key is None else key,
            size=self.size,
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
            checksums=self.checksums,
            version_id=self.version_id,
            backend=self.backend if backend is None else backend,
            complete=self.complete,
            write_id=self.write_id,
            as_of=self.as_of,
        )


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
    _set_as_of,
) = (vars(ObjectInfo)[slot.name].__set__ for slot in fields(ObjectInfo))
_set_later = vars(_Listed)["_later"].__set__


def _unset(info: ObjectInfo, name: str) -> object:
    if name == "stored_size":
        return info.size
    if name in {"metadata", "tags", "checksums"}:
        return {}
    if name in _LATER and info._later is not None:  # noqa: SLF001 - of this very room
        find, raw = info._later  # noqa: SLF001 - likewise
        value = find(raw, name)
        _LATER[name](info, value)
        return value
    if name == "_later" or name in ObjectInfo.__slots__:
        return None
    raise AttributeError(f"ObjectInfo has no attribute {name!r}", name=name, obj=info)


_LATER: Mapping[str, Callable[[ObjectInfo, Any], None]] = {
    "etag": _set_etag,
    "last_modified": _set_last_modified,
    "storage_class": _set_storage_class,
}
"""What is worked out when it is asked for (`ObjectInfo.listed`), and where it is kept then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """A common prefix of keys, where a listing was asked to stop at a delimiter."""

    bucket: str
    prefix: str
    backend: str = ""

    @property
    def key(self) -> str:
        """The prefix itself: what a listing sorts by."""
        return self.prefix


Entry: TypeAlias = ObjectInfo | Prefix
"""What a listing has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionInfo:
    """What a listing of versions tells of one of them.

    Attributes:
        bucket: Its bucket's name, as the caller knows it.
        key: Its key.
        version_id: What get and delete take as ``version_id``.
        size: Bytes that the backend keeps for it; 0 of a delete marker.
        etag: As in `ObjectInfo.etag`; None for a delete marker, too.
        last_modified: When it was written, in UTC.
        storage_class: The backend's name of its class, None where it has none.
        latest: Whether it is what its key has now: what get reads without an id or, of a delete
            marker, why there is nothing to read.
        deleted: Whether it is a delete marker, which has no content: what a delete without an id
            leaves on backends that mark so. Others only cease to have a latest version.
        backend: The name of the backend that holds it, filled in by the store.
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
        """Return the same facts under another backend's, bucket's or key's name."""
        return replace(
            self,
            backend=self.backend if backend is None else backend,
            bucket=self.bucket if bucket is None else bucket,
            key=self.key if key is None else key,
        )


Listed: TypeAlias = Entry | VersionInfo
"""What a listing has, of objects or of their versions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketInfo:
    """What is known of one bucket.

    Attributes:
        name: Its name.
        created: When it was made, in UTC, where the backend knows.
        backends: The names of the backends that have it, filled in by the store.
    """

    name: str
    created: datetime | None = None
    backends: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A part of an object's bytes: ``[start, end)``, ``[start, …)`` or the last so many.

    Args:
        start: The first byte wanted, from 0; negative only as `last` makes it.
        end: The first byte not wanted; beyond the object's end means up to it. None: to the end.

    Raises:
        RangeError: It can select nothing, whatever the object: ``start >= end``, a negative start,
            the last 0 bytes.
    """

    start: int
    end: int | None = None
    _suffix: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        for bound in (self.start, 0 if self.end is None else self.end):
            if not isinstance(bound, int):
                raise TypeError(f"a range's bounds are ints, not {type(bound).__name__}")
        if self._suffix:
            if self.start >= 0:
                raise RangeError(f"the last {-self.start} bytes are nothing: ask for at least 1")
        elif self.start < 0:
            raise RangeError(
                f"a range starts at 0 or later, not {self.start}; ByteRange.last(n) counts from the end"
            )
        elif self.end is not None and self.end <= self.start:
            raise RangeError(f"range ({self.start}, {self.end}) is empty: the end is exclusive")

    @classmethod
    def last(cls, count: int) -> ByteRange:
        """Select the last `count` bytes, or all of a shorter object."""
        if not isinstance(count, int):
            raise TypeError(f"count must be an int, got {type(count).__name__}")
        return cls(-count, None, True)  # noqa: FBT003 - private, and its name would say no more

    @classmethod
    def of(cls, range: ByteRange | tuple[int, int | None]) -> ByteRange:
        """Return the range that a user wrote as a tuple, or as a ByteRange.

        Raises:
            TypeError: It is neither.
        """
        if isinstance(range, ByteRange):
            return range
        if isinstance(range, tuple) and len(range) == 2:  # noqa: PLR2004 - a pair
            return cls(*range)
        raise TypeError(
            f"a range is (start, end), (start, None) or ByteRange.last(n), not {range!r}"
        )

    @property
    def suffix(self) -> int | None:
        """How many last bytes, if that is what the range says."""
        return -self.start if self._suffix else None

    def resolve(self, size: int) -> tuple[int, int]:
        """Return the absolute ``(start, end)`` in an object of `size` bytes.

        Raises:
            RangeError: The object has no byte there; always so for an empty one.
        """
        start = max(size + self.start, 0) if self._suffix else self.start
        if start >= size:
            raise RangeError(f"the object has {size} bytes, and none at {start} or later")
        return start, size if self.end is None else min(self.end, size)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteDecision:
    """Where the router sends a key, and why.

    Attributes:
        backend: The backend's name.
        rule: The rule that decided, as it was written; None for the default and a pinned handle.
        reason: A sentence for people.
    """

    backend: str
    rule: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How one backend answered a ping.

    Attributes:
        ok: Whether it answered.
        latency: Seconds that the answer, or the failure, took.
        error: What went wrong, if anything.
    """

    ok: bool
    latency: float
    error: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteResult:
    """What became of one key of a `delete_many`: `error` is None where it is gone."""

    key: str
    error: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeout:
    """How long a transfer may go without progress, in seconds each.

    Attributes:
        connect: For a connection to stand (network drivers).
        first_byte: From a request's last byte until the head of its response is complete. Interim
            responses (1xx) do not prolong it.
        idle: Between two chunks of a body, in either direction.
        permit: For a connection of the driver's limited number to become free.
        total: For a whole operation; None, the default, lets a transfer that moves go on. A
            reader's time in its user's hands is never counted.

    Raises:
        ConfigError: A limit is not positive.
        TypeError: A limit is no number; only `total` may be None.
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
                raise ConfigError(f"{limit.name} is more than 0 seconds, not {seconds}")


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever `options` has
    """Return what moved to `trove_async.options`, for drivers that import it from here."""
    options = import_module("trove_async.options")
    if name in _MOVED:
        return getattr(options, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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

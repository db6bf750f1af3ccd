"""The options that a store passes to its drivers, and the pages that drivers return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from .models import ByteRange, ObjectInfo, Prefix, VersionInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of an upload.

    Attributes:
        number: The number of the part, from 1, in the order of the body.
        offset: The offset of its first byte in the body.
        size: Its size in bytes.
        last: Whether this is the last part. Only the last part may be smaller than the others, unless
            `Capabilities.uneven_parts` is True.
        checksums: The checksums of its bytes, by algorithm, if they are known. A driver that needs one
            may use it instead of reading the bytes.
    """

    number: int
    offset: int
    size: int
    last: bool
    checksums: Mapping[str, str] = field(default_factory=dict, hash=False)


# Without slots, so that defaults need not be set: most puts set 6 of 15 attributes. This saves 2 µs of a put.
@dataclass(frozen=True, kw_only=True)
class PutOptions:
    """The options of a put. `Trove.put` describes the other fields.

    Attributes:
        size: The size of the whole body in bytes, if known.
        if_match: Replace only the version with this etag.
        if_none_match: ``"*"``: create the object, never replace it.
        checksums: The checksums of the whole body, if known in advance. The driver records them, and
            compares them if the backend can.
        write_id: The id of this write, to be recorded with the object (`ObjectInfo.write_id`).
        in_doubt_since: An earlier attempt may have succeeded although its response did not arrive.
            This is the time at which the first such attempt was sent, on the event loop's clock.
            None: there was none. See `Capabilities.settles_doubt`.
    """

    size: int | None = None
    content_type: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    storage_class: str | None = None
    cache_control: str | None = None
    content_disposition: str | None = None
    content_encoding: str | None = None
    content_language: str | None = None
    expires: datetime | None = None
    if_match: str | None = None
    if_none_match: str | None = None
    checksums: Mapping[str, str] = field(default_factory=dict, hash=False)
    write_id: str | None = None
    in_doubt_since: float | None = None

    @property
    def conditional(self) -> bool:
        """Whether the put depends on the current version of the object."""
        return self.if_match is not None or self.if_none_match is not None

    def complete(self, size: int, checksums: Mapping[str, str]) -> None:
        """Set the size of the body and its checksums, in options that nothing else refers to."""
        # Options are immutable once they are passed on. A copy would take as long as all checks of a put.
        values = self.__dict__
        values["size"] = size
        values["checksums"] = checksums

    def of_body(self, size: int, checksums: Mapping[str, str]) -> PutOptions:
        """Return these options with the size of the body and additional checksums."""
        # A frozen dataclass sets its attributes one by one, which takes five times as long.
        options = object.__new__(PutOptions)
        options.__dict__.update(self.__dict__, size=size, checksums={**self.checksums, **checksums})
        return options


@dataclass(frozen=True, slots=True, kw_only=True)
class GetOptions:
    """The range, version and conditions of a get. See `Trove.get`."""

    range: ByteRange | None = None
    version_id: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None


LATEST = GetOptions()
"""The options of a get of the latest version, as a whole and without conditions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOptions:
    """The version and conditions of a delete. `Trove.delete` describes the other fields.

    Attributes:
        write_id: The id of this deletion, which orders it among the store's writes (`is_earlier`).
        in_doubt_since: As in `PutOptions`.
    """

    version_id: str | None = None
    if_match: str | None = None
    write_id: str | None = None
    in_doubt_since: float | None = None


def is_earlier(one: str | None, other: str | None) -> bool:
    """Return whether two write_ids are from the same store, and `one` is the earlier of them."""
    # A write_id is "<store>-<number>". Ids of two stores cannot be ordered.
    if one is None or other is None:
        return False
    one, other = without_mark(one), without_mark(other)
    (store, _, number), (other_store, _, other_number) = one.rpartition("-"), other.rpartition("-")
    # Hexadecimal without leading zeros: the shorter number is the smaller one.
    return (
        bool(store)
        and store == other_store
        and (len(number), number) < (len(other_number), other_number)
    )


def without_mark(write_id: str) -> str:
    """Return a write_id without the mark of a job's copy, ``m<16 digits>.``, if it has one."""
    mark, dot, rest = write_id.partition(".")
    is_mark = dot and len(mark) == _MARK_SIZE and mark[0] == "m"  # a store's id is hexadecimal
    return rest if is_mark else write_id


_MARK_SIZE = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """The source version and the destination of a server-side copy.

    Attributes:
        source: The version to copy. If the source's etag differs, the driver raises
            ObjectChangedError. Without an etag, the version_id or else last_modified identifies the
            version.
        put: The metadata, storage class and conditions of the destination, including the values
            that it inherits from the source.
        version_id: Copy this version, which `source` describes, even if it is no longer the latest.
            None: the source must be the latest version. See `Capabilities.versions`.
    """

    source: ObjectInfo
    put: PutOptions
    version_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PresignOptions:
    """The options that a signed URL covers. See `Trove.presign_get` and `Trove.presign_put`.

    Attributes:
        version_id: For a GET: the version. See `Capabilities.versions`.
        response_content_type: For a GET: the Content-Type of the response.
        response_content_disposition: For a GET: the Content-Disposition of the response.
        content_type: For a PUT: the Content-Type that the request must have.
    """

    version_id: str | None = None
    response_content_type: str | None = None
    response_content_disposition: str | None = None
    content_type: str | None = None


NOTHING_FIXED = PresignOptions()
"""The options of a signed URL that covers only the object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOptions:
    """The options of one page of a listing.

    Attributes:
        prefix: List only keys that start with this.
        delimiter: Keys that contain this after the prefix are listed as one `Prefix`, which ends
            with the delimiter.
        start_after: List only keys greater than this, bytewise in UTF-8.
        token: The `Page.token` of the previous page. It takes precedence over `start_after`.
        limit: The maximum number of entries. A driver may return fewer, but a page with a token must
            have at least one.
    """

    prefix: str = ""
    delimiter: str | None = None
    start_after: str | None = None
    token: str | None = None
    limit: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a listing: its entries, and the token of the next page, if any."""

    entries: Sequence[ObjectInfo | Prefix]
    token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionPage:
    """One page of a listing of versions, and the token of the next page, if any."""

    entries: Sequence[VersionInfo]
    token: str | None = None


DifferenceKind = Literal["missing", "surplus", "different"]
"""How a replica differs from the primary: it lacks the object, has one that the primary lacks, or has a
different one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A key whose object is not the same on all members of a mirror. See `driver.Replicated`.

    Attributes:
        key: The key.
        replicas: How each replica differs, by the replica's name. Replicas that have the same object
            as the primary are omitted.
        size: The number of bytes that the primary stores for the object; 0 if it has none.
    """

    key: str
    replicas: Mapping[str, DifferenceKind] = field(hash=False)
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedPage:
    """The differences among one page of keys, and the token of the next page, if any.

    Attributes:
        differences: The differences, in the order in which they were found.
        keys: The number of keys that were compared.
        token: As `Page.token`.
    """

    differences: Sequence[Difference]
    keys: int
    token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """The result of a repair. Both sequences are empty if all replicas had the primary's object.

    Attributes:
        copied: The names of the replicas to which the object was copied.
        deleted: The names of the replicas on which an object that the primary lacks was deleted.
        size: The number of bytes that the primary stores for the object; 0 if it has none.
    """

    copied: Sequence[str] = ()
    deleted: Sequence[str] = ()
    size: int = 0

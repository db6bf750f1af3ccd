"""The values that a store passes to its drivers, one for each call, and the pages that they return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime

from .models import ByteRange, ObjectInfo, Prefix, VersionInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One piece of an upload.

    Attributes:
        number: From 1 on, in the order of the body.
        offset: Where its first byte stands in the body.
        size: Its bytes.
        last: Whether the body ends with it. Only the last may be smaller than the others.
    """

    number: int
    offset: int
    size: int
    last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PutOptions:
    """What a put says of an object beside its body; see `Trove.put` for the meanings.

    Attributes:
        size: The whole body's bytes, where known.
        if_match: Replace only the version with this etag.
        if_none_match: ``"*"``: create only, never replace.
        checksums: Of the whole body, where it is known up front; to be recorded, and compared by
            a backend that can.
        write_id: To be recorded with the object (`ObjectInfo.write_id`).
        in_doubt_since: When the earliest try of this very write was begun that may have been done
            unheard, in the event loop's time; None: there was none. `Capabilities.settles_doubt`.
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
        """Whether the put may be refused because of what is there."""
        return self.if_match is not None or self.if_none_match is not None

    def of_body(self, size: int, checksums: Mapping[str, str]) -> PutOptions:
        """Return the same of a body that is known by now: `replace`, in a fifth of its time."""
        options = object.__new__(PutOptions)
        for get, set_to in _PUT_SLOTS:
            set_to(options, get(self))
        _set_put_size(options, size)
        _set_put_checksums(options, {**self.checksums, **checksums})
        return options


_PUT_SLOTS = [
    (slot.__get__, slot.__set__)
    for slot in (vars(PutOptions)[one.name] for one in fields(PutOptions))
]
_set_put_size = vars(PutOptions)["size"].__set__
_set_put_checksums = vars(PutOptions)["checksums"].__set__


@dataclass(frozen=True, slots=True, kw_only=True)
class GetOptions:
    """Which bytes of which version a get is after; see `Trove.get` for the meanings."""

    range: ByteRange | None = None
    version_id: str | None = None
    if_match: str | None = None
    if_none_match: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOptions:
    """Which version a delete is after; see `Trove.delete` for the meanings.

    Attributes:
        write_id: Its place among the store's writes (`models.is_earlier`).
        in_doubt_since: As a put's.
    """

    version_id: str | None = None
    if_match: str | None = None
    write_id: str | None = None
    in_doubt_since: float | None = None


def is_earlier(one: str | None, other: str | None) -> bool:
    """Tell whether a write_id is of the same store as another one, and was given out before it."""
    if one is None or other is None:
        return False
    (store, _, place), (others, _, others_place) = one.rpartition("-"), other.rpartition("-")
    # Numbers in hex, without leading zeros.
    return (
        bool(store) and store == others and (len(place), place) < (len(others_place), others_place)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """What a server-side copy pins of its source and changes in its destination.

    Attributes:
        source: The version to copy: its etag must still hold, else ObjectChangedError. Without
            an etag its version_id or, failing that, its last_modified names it.
        put: What the destination gets: metadata, class and conditions, complete (the engine has
            carried over from the source what the caller did not change).
        version_id: Copy this version, which `source` describes, even where it is no longer the
            latest; None: the source must be the latest version. `Capabilities.versions`.
    """

    source: ObjectInfo
    put: PutOptions
    version_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PresignOptions:
    """What a signed URL fixes; see `Trove.presign_get` and `Trove.presign_put` for the meanings.

    Attributes:
        version_id: Of a GET: the version. `Capabilities.versions`.
        response_content_type: Of a GET: the Content-Type of the response.
        response_content_disposition: Of a GET: the Content-Disposition of the response.
        content_type: Of a PUT: the Content-Type that the request must have.
    """

    version_id: str | None = None
    response_content_type: str | None = None
    response_content_disposition: str | None = None
    content_type: str | None = None


NOTHING_FIXED = PresignOptions()
"""A signed URL that fixes nothing but the object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListOptions:
    """One page of a listing.

    Attributes:
        prefix: Only keys that begin so.
        delimiter: Keys that hold it after the prefix are told as one `Prefix`, up to and with it.
        start_after: Only keys greater than this, bytewise in UTF-8.
        token: Where the page before ended (`Page.token`); overrules `start_after`.
        limit: At most so many entries; a driver may return fewer, though never none with a token.
    """

    prefix: str = ""
    delimiter: str | None = None
    start_after: str | None = None
    token: str | None = None
    limit: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of a listing: its entries, and the token of the next page if there is one."""

    entries: Sequence[ObjectInfo | Prefix]
    token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionPage:
    """One page of a listing of versions, and the token of the next page if there is one."""

    entries: Sequence[VersionInfo]
    token: str | None = None

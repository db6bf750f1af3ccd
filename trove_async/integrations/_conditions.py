"""Evaluation of conditional requests (RFC 9110, section 13). No I/O.

The conditions are evaluated against an `ObjectInfo`. `entity_tag` makes the entity tag on the wire
from the driver's opaque etag. The tags of requests are compared with that; they are never decoded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TypeAlias
from urllib.parse import quote

from trove_async import ObjectInfo
from trove_async._http_dates import parse_http_date

Header: TypeAlias = "Callable[[str], str | None]"
"""Returns a header by its lower-case name, with its lines joined by commas, or None if absent."""

READING = frozenset({"GET", "HEAD"})

# RFC 9110, section 8.8.3: entity-tag = [ "W/" ] DQUOTE *etagc DQUOTE
_ENTITY_TAG = re.compile(r'(W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_ETAGC = "".join(map(chr, range(0x21, 0x7F))).replace('"', "").replace("%", "")
_SEPARATOR = re.compile(r"[ \t]*(?:,[ \t]*|$)")


class Verdict(Enum):
    """The result of evaluating the conditions of a request."""

    PROCEED = "perform the method"
    NOT_MODIFIED = "304"
    FAILED = "412"


def entity_tag(etag: str) -> str:
    """Return a driver's strong validator as a strong entity tag.

    An etag that already is an entity tag is returned unchanged. In others, characters that an
    entity tag may not hold are percent-encoded, so that different etags stay different.
    """
    if _ENTITY_TAG.fullmatch(etag) and etag.isascii() and not etag.startswith("W/"):
        return etag
    return f'"{quote(etag, safe=_ETAGC)}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The conditional headers of one request; None for a header that is absent."""

    if_match: str | None
    if_none_match: str | None
    if_modified_since: str | None
    if_unmodified_since: str | None
    if_range: str | None

    @classmethod
    def of(cls, header: Header) -> Conditions:
        """Return the conditions of a request."""
        return cls(
            if_match=header("if-match"),
            if_none_match=header("if-none-match"),
            if_modified_since=header("if-modified-since"),
            if_unmodified_since=header("if-unmodified-since"),
            if_range=header("if-range"),
        )

    @property
    def on_writing(self) -> bool:
        """Whether a PUT or POST depends on the existing object."""
        return not (
            self.if_match is None
            and self.if_none_match is None
            and self.if_unmodified_since is None
        )

    @property
    def revalidate(self) -> bool:
        """Whether the client has a copy, so that the response is likely to have no body."""
        return not (self.if_none_match is None and self.if_modified_since is None)

    def verdict(self, method: str, info: ObjectInfo | None) -> Verdict:
        """Evaluate the conditions in the order of RFC 9110, section 13.2.2, steps 1 to 4.

        Args:
            method: The method of the request.
            info: The existing object, or None.
        """
        if self.if_match is not None:
            if not _lists(self.if_match, info, weak=False):
                return Verdict.FAILED
        elif self.if_unmodified_since is not None and info is not None:
            limit = parse_http_date(self.if_unmodified_since)
            if limit is not None and _second(info) > limit:
                return Verdict.FAILED
        if self.if_none_match is not None:
            if _lists(self.if_none_match, info, weak=True):
                return Verdict.NOT_MODIFIED if method in READING else Verdict.FAILED
        elif self.if_modified_since is not None and info is not None and method in READING:
            limit = parse_http_date(self.if_modified_since)
            if limit is not None and _second(info) <= limit:
                return Verdict.NOT_MODIFIED
        return Verdict.PROCEED

    def range_applies(self, info: ObjectInfo) -> bool:
        """Return whether If-Range permits the Range (RFC 9110, 13.2.2, step 5, and 13.1.5).

        A weak tag never does. A date does if it equals the Last-Modified of the object: a client
        may use a date only if it got it at least a second later (section 8.8.2.2) and has no
        entity tag.
        """
        if self.if_range is None:
            return True
        value = self.if_range.strip(" \t")
        if _ENTITY_TAG.fullmatch(value):
            return value == entity_tag(info.etag) if info.etag else False
        return parse_http_date(value) == _second(info)


def _second(info: ObjectInfo) -> datetime:
    return info.last_modified.astimezone(UTC).replace(microsecond=0)


def _lists(header: str, info: ObjectInfo | None, *, weak: bool) -> bool:
    """Return whether a list of entity tags, or ``*``, matches the object (section 8.8.3.2)."""
    if info is None:
        return False
    if header.strip(" \t") == "*":
        return True
    if not info.etag:
        return False  # no tag matches an object without an etag
    ours = entity_tag(info.etag)
    return any(
        tag == ours or (weak and tag.removeprefix("W/") == ours) for tag in _entity_tags(header)
    )


def _entity_tags(header: str) -> list[str]:
    """Return the tags of a list; ignore the rest of the list from the first malformed one."""
    tags = []
    position = len(header) - len(header.lstrip(" \t,"))
    while tag := _ENTITY_TAG.match(header, position):
        separator = _SEPARATOR.match(header, tag.end())
        if separator is None:
            break
        tags.append(tag[0])
        position = separator.end()
        while header[position : position + 1] in {",", " ", "\t"}:  # empty elements, section 5.6.1
            position += 1
    return tags

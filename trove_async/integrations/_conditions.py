"""Evaluation of conditional requests (RFC 9110, section 13).

The conditions are evaluated against an `ObjectInfo`. `entity_tag` converts the opaque etag of a driver
to the entity tag on the wire. The tags of a request are compared with this tag, and never decoded.

An object with a zstd form has two entity tags, one for each form. A read is conditional on the tag of the
form that is sent. A write replaces both forms, so either tag identifies the object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TypeAlias
from urllib.parse import quote

from trove_async import ObjectInfo
from trove_async._http_dates import parse_http_date

from ._content_coding import has_zstd_form

Header: TypeAlias = "Callable[[str], str | None]"
"""Returns a header by its lower-case name, with its lines joined by commas, or None if absent."""

READ_METHODS = frozenset({"GET", "HEAD"})

# RFC 9110, section 8.8.3: entity-tag = [ "W/" ] DQUOTE *etagc DQUOTE
_ENTITY_TAG = re.compile(r'(W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_ETAGC = "".join(map(chr, range(0x21, 0x7F))).replace('"', "").replace("%", "")
_PLAIN_ETAG = re.compile(r"[\x21\x23\x24\x26-\x7e]+")
"""An etag without ``"`` and ``%``, which is the content of its entity tag as it is. Most backends have such etags."""

_SEPARATOR = re.compile(r"[ \t]*(?:,[ \t]*|$)")

_ZSTD_SUFFIX = "%zstd"
"""The end of the tag of a zstd form. The tag of a decoded form contains ``%`` only before two hexadecimal
digits, so the two never collide."""


class ConditionResult(Enum):
    """The result of evaluating the conditions of a request."""

    PROCEED = "perform the method"
    NOT_MODIFIED = "304"
    FAILED = "412"


def entity_tag(etag: str, *, zstd: bool = False) -> str:
    """Return the etag of a driver, which is a strong validator, as a strong entity tag.

    An etag that already is an entity tag without ``%`` is returned unchanged. Otherwise, ``%`` and
    characters that an entity tag must not contain are percent-encoded, so that different etags stay
    different.

    Args:
        etag: The etag.
        zstd: Return the tag of the object's zstd form.
    """
    if _PLAIN_ETAG.fullmatch(etag):
        return f'"{etag}{_ZSTD_SUFFIX}"' if zstd else f'"{etag}"'
    tag = f'"{quote(etag, safe=_ETAGC)}"'
    is_tag = _ENTITY_TAG.fullmatch(etag) and etag.isascii() and not etag.startswith("W/")
    if is_tag and "%" not in etag:
        tag = etag
    return f'{tag[:-1]}{_ZSTD_SUFFIX}"' if zstd else tag


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The conditional headers of one request. An absent header is None."""

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
    def restrict_writes(self) -> bool:
        """Whether a PUT or POST depends on the existing object."""
        return not (
            self.if_match is None
            and self.if_none_match is None
            and self.if_unmodified_since is None
        )

    @property
    def client_has_copy(self) -> bool:
        """Whether the client seems to have a copy. The response is then likely to have no body."""
        return not (self.if_none_match is None and self.if_modified_since is None)

    def names_decoded_form(self, info: ObjectInfo) -> bool:
        """Return whether the conditions name the decoded form of an object, and not its zstd form.

        The client then has the decoded form, such as the object that it has uploaded.
        """
        if not info.etag:
            return False
        decoded, zstd = entity_tag(info.etag), entity_tag(info.etag, zstd=True)
        for header in (self.if_match, self.if_none_match):
            tags = {tag.removeprefix("W/") for tag in _entity_tags(header or "")}
            if decoded in tags or zstd in tags:
                return zstd not in tags
        return False

    def evaluate(
        self, method: str, info: ObjectInfo | None, *, zstd: bool = False
    ) -> ConditionResult:
        """Evaluate the conditions in the order of RFC 9110, section 13.2.2, steps 1 to 4.

        Args:
            method: The method of the request.
            info: The existing object, or None.
            zstd: Whether a read is of the zstd form of the object.
        """
        both = method not in READ_METHODS
        if self.if_match is not None:
            tags = _tags(info, zstd=zstd, both=both)
            if not _matches(self.if_match, info, tags, weak=False):
                return ConditionResult.FAILED
        elif self.if_unmodified_since is not None and info is not None:
            date = parse_http_date(self.if_unmodified_since)
            if date is not None and _modified_second(info) > date:
                return ConditionResult.FAILED
        if self.if_none_match is not None:
            tags = _tags(info, zstd=zstd, both=both)
            if _matches(self.if_none_match, info, tags, weak=True):
                return (
                    ConditionResult.NOT_MODIFIED
                    if method in READ_METHODS
                    else ConditionResult.FAILED
                )
        elif self.if_modified_since is not None and info is not None and method in READ_METHODS:
            date = parse_http_date(self.if_modified_since)
            if date is not None and _modified_second(info) <= date:
                return ConditionResult.NOT_MODIFIED
        return ConditionResult.PROCEED

    def range_applies(self, info: ObjectInfo) -> bool:
        """Return whether If-Range permits the Range (RFC 9110, 13.2.2, step 5, and 13.1.5).

        Ranges are of the decoded form, so the tag of the zstd form does not permit one. A weak tag never
        does. A date permits it if it equals the Last-Modified of the object: a client may send a date
        only if it has no entity tag, and only if it received the date at least a second after the
        modification (section 8.8.2.2). If the object has two forms, the date identifies neither.
        """
        if self.if_range is None:
            return True
        value = self.if_range.strip(" \t")
        if _ENTITY_TAG.fullmatch(value):
            return value == entity_tag(info.etag) if info.etag else False
        return parse_http_date(value) == _modified_second(info) and not has_zstd_form(info)


def _modified_second(info: ObjectInfo) -> datetime:
    """Return the time of the last modification in whole seconds, like HTTP dates."""
    return info.last_modified.astimezone(UTC).replace(microsecond=0)


def _tags(info: ObjectInfo | None, *, zstd: bool, both: bool) -> Collection[str]:
    """Return the entity tags of one form of an object, or of both forms. None match without an etag."""
    if info is None or not info.etag:
        return ()
    if both and has_zstd_form(info):
        return entity_tag(info.etag), entity_tag(info.etag, zstd=True)
    return (entity_tag(info.etag, zstd=zstd),)


def _matches(
    header: str, info: ObjectInfo | None, expected: Collection[str], *, weak: bool
) -> bool:
    """Return whether a list of entity tags, or ``*``, matches the object (section 8.8.3.2).

    Args:
        header: The value of the header.
        info: The existing object, or None.
        expected: The entity tags of the object.
        weak: Whether weak tags match.
    """
    if info is None:
        return False
    if header.strip(" \t") == "*":
        return True
    return any(
        (tag.removeprefix("W/") if weak else tag) in expected for tag in _entity_tags(header)
    )


def _entity_tags(header: str) -> list[str]:
    """Return the tags of a list, up to the first malformed one."""
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

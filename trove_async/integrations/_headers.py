"""The header fields of an answer that carries an object; no I/O.

Objects are often somebody else's uploads: what a browser would run in the service's own origin is
offered as a download unless the service says that it trusts its objects.
"""

from __future__ import annotations

import mimetypes
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from ._conditions import entity_tag, http_date

if TYPE_CHECKING:
    from trove_async import ObjectInfo

OCTETS = "application/octet-stream"

_ACTIVE = frozenset(
    {
        "text/html",
        "application/xhtml+xml",
        "image/svg+xml",
        "text/xml",
        "application/xml",
        "text/xsl",
        "multipart/x-mixed-replace",
        "message/rfc822",
    }
)
"""Types that a browser shows as documents with scripts; so is any ``…+xml``. PDF, which it shows in a
viewer of its own, is none."""

_SCRIPT = re.compile(
    r"(?:text|application)/(?:x-)?(?:javascript|ecmascript|jscript|livescript)[0-9.]*"
)
"""WHATWG MIME Sniffing, "JavaScript MIME type": nosniff keeps a script from running as another."""

_TYPES = mimetypes.MimeTypes()
"""Python's own table, the same on every system."""

_ATTR_CHAR = "!#$&+-.^_`|~"  # RFC 8187, section 3.2.1, beside letters and digits
_UNSAFE = re.compile(r"[^\x20-\x7e]|[\"\\%]")  # RFC 6266, appendix D


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """How a service shows its objects.

    Attributes:
        download_name: Offer them as downloads of this name.
        cache_control: In place of their own.
        trusted: Serve active types as what they are.
    """

    download_name: str | None = None
    cache_control: str | None = None
    trusted: bool = False

    def __post_init__(self) -> None:
        if self.cache_control is not None and not _sendable(self.cache_control):
            raise ValueError(f"cache_control is printable ASCII, not {self.cache_control!r}")

    def of(self, info: ObjectInfo) -> dict[str, str]:
        """Return the fields that describe an object: of a 200, a 206 and a HEAD."""
        kind = media_type(info)
        script = bool(_SCRIPT.fullmatch(essence(kind)))
        held_back = not self.trusted and (script or is_active(kind))
        fields = {
            **self.validators(info),
            # Section 8.8.2.1: never later than Date; a backend's clock may be ahead of ours.
            "Last-Modified": http_date(min(info.last_modified, datetime.now(UTC))),
            "Accept-Ranges": "bytes",
            "Content-Type": OCTETS if held_back and script else kind,
            "X-Content-Type-Options": "nosniff",
        }
        if info.content_encoding and _sendable(info.content_encoding):
            fields["Content-Encoding"] = info.content_encoding
        if info.content_language and _sendable(info.content_language):
            fields["Content-Language"] = info.content_language
        if self.download_name is not None:
            fields["Content-Disposition"] = content_disposition(self.download_name)
        elif held_back:
            fields["Content-Disposition"] = content_disposition(info.key)
        elif said := info.content_disposition:
            # One that cannot be sent was most likely to name a download.
            known = _sendable(said)
            fields["Content-Disposition"] = said if known else content_disposition(info.key)
        if held_back:
            fields["Content-Security-Policy"] = "sandbox"
        return fields

    def validators(self, info: ObjectInfo) -> dict[str, str]:
        """Return the fields of a 304: those that a cache needs (RFC 9110, section 15.4.5)."""
        fields = {} if info.etag is None else {"ETag": entity_tag(info.etag)}
        if cache := self.cache_control or info.cache_control:
            fields["Cache-Control"] = cache if _sendable(cache) else "no-store"
        if self.cache_control is None and info.expires is not None:
            fields["Expires"] = http_date(info.expires)
        return fields


def media_type(info: ObjectInfo) -> str:
    """Return the object's type, or what its name says, or octets: of a type that cannot be sent too."""
    if info.content_type:
        return info.content_type if _sendable(info.content_type) else OCTETS
    kind, encoding = _TYPES.guess_type(info.key.rpartition("/")[2])
    return OCTETS if kind is None or encoding is not None else kind


def _sendable(value: str) -> bool:
    """Tell whether every server sends it alike, as RFC 9110, section 5.5, advises.

    Of other characters, some send Latin-1 and some UTF-8; of control characters, some nothing at all.
    """
    return value.isascii() and value.replace("\t", " ").isprintable()


def essence(kind: str) -> str:
    """Return a media type without its parameters, in lower case."""
    return kind.partition(";")[0].strip(" \t").lower()


def is_active(kind: str) -> bool:
    """Tell whether a browser that shows a type may run what is in it, or load what it names.

    What is no proper type at all is taken for active: browsers guess.
    """
    name = essence(kind)
    return (
        name in _ACTIVE or name.endswith("+xml") or not re.fullmatch(r"[!-.0-~]+/[!-.0-~]+", name)
    )


def content_disposition(name: str) -> str:
    """Return the field that offers a download of this name (RFC 6266, RFC 8187).

    A name that is plain ASCII is sent as it is. Others get a fallback beside the exact one, without
    what old browsers unescape, and neither has a path.
    """
    name = re.sub(r"[\x00-\x1f\x7f]", "_", re.split(r"[/\\]", name)[-1]) or "download"
    plain = _UNSAFE.sub("_", name)
    if plain == name:
        return f'attachment; filename="{name}"'
    exact = quote(name, safe=_ATTR_CHAR, errors="replace")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}"

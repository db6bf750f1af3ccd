"""The header fields of a response that carries an object; no I/O.

Objects are often uploads of strangers. Unless the service trusts them, a response makes sure that no
browser runs them in the service's origin: only types that hold no script are shown, all others are
downloads, and every response is sandboxed.
"""

from __future__ import annotations

import mimetypes
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from trove_async import ObjectInfo
from trove_async._http_dates import format_http_date

from ._conditions import entity_tag
from ._parameters import file_name, parse_media_type

OCTETS = "application/octet-stream"

_INLINE = frozenset(
    {
        "application/json",
        "application/pdf",  # in a viewer of the browser's own, where the sandbox holds as well
        "image/apng",
        "image/avif",
        "image/bmp",
        "image/gif",
        "image/heic",
        "image/heif",
        "image/jpeg",
        "image/jxl",
        "image/png",
        "image/tiff",
        "image/vnd.microsoft.icon",
        "image/webp",
        "image/x-icon",
        "text/plain",
    }
)
"""Types that browsers show without running anything. Audio and video are shown too."""

_PLAYED = re.compile(r"(?:audio|video)/[^+]+")  # a browser runs the scripts of any ...+xml

_SCRIPT = re.compile(
    r"(?:text|application)/(?:x-)?(?:javascript|ecmascript|jscript|livescript)[0-9.]*"
)
"""WHATWG MIME Sniffing, "JavaScript MIME type": nosniff keeps a script from running as another."""

_SANDBOX = "default-src 'none'; sandbox"
"""Content Security Policy, "sandbox": no scripts, forms or plugins, and an origin of its own. It has
no effect on a page that embeds the object."""

_MEDIA_SANDBOX = "default-src 'none'; media-src 'self'; sandbox allow-same-origin"
"""The same for audio and video. The document in which Chromium plays a file loads it a second time,
which fails from another origin. Scripts stay forbidden."""

_TYPES = mimetypes.MimeTypes()
"""Python's own table, the same on every system."""

_ATTR_CHAR = "!#$&+-.^_`|~"  # RFC 8187, section 3.2.1, beside letters and digits
_UNSAFE = re.compile(r"[^\x20-\x7e]|[\"\\%]")  # RFC 6266, appendix D


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """How a service shows its objects.

    Attributes:
        download_name: Offer them as downloads of this name.
        cache_control: Sent in place of their own; None: their own, or ``private``.
        trusted: Serve every type as what it is, and without a sandbox.
    """

    download_name: str | None = None
    cache_control: str | None = None
    trusted: bool = False

    def __post_init__(self) -> None:
        if self.cache_control is not None and not _sendable(self.cache_control):
            raise ValueError(f"cache_control must be printable ASCII, got {self.cache_control!r}")

    def of(self, info: ObjectInfo) -> dict[str, str]:
        """Return the fields that describe an object: those of a 200, a 206 and a HEAD response."""
        kind = media_type(info)
        name = parse_media_type(kind)
        inline = self.trusted or (name is not None and is_inline(name))
        if not self.trusted and (name is None or _SCRIPT.fullmatch(name)):
            kind = OCTETS
        fields = {
            **self.validators(info),
            # Section 8.8.2.1: never later than Date; a backend's clock may be ahead of ours.
            "Last-Modified": format_http_date(min(info.last_modified, datetime.now(UTC))),
            "Accept-Ranges": "bytes",
            "Content-Type": kind,
            "X-Content-Type-Options": "nosniff",
        }
        if not self.trusted:
            played = name is not None and _PLAYED.fullmatch(name)
            fields["Content-Security-Policy"] = _MEDIA_SANDBOX if played else _SANDBOX
        if info.content_encoding and _sendable(info.content_encoding):
            fields["Content-Encoding"] = info.content_encoding
        if info.content_language and _sendable(info.content_language):
            fields["Content-Language"] = info.content_language
        disposition = self._disposition(info, inline=inline)
        if disposition is not None:
            fields["Content-Disposition"] = disposition
        return fields

    def _disposition(self, info: ObjectInfo, *, inline: bool) -> str | None:
        """Return the Content-Disposition; an attachment, whatever is stored, if not `inline`."""
        if self.download_name is not None:
            return content_disposition(self.download_name)
        stored = info.content_disposition or ""
        if inline and (not stored or _sendable(stored)):
            return stored or None
        return content_disposition(file_name(stored) or info.key)

    def validators(self, info: ObjectInfo) -> dict[str, str]:
        """Return the fields of a 304: those that a cache needs (RFC 9110, section 15.4.5)."""
        fields = {"ETag": entity_tag(info.etag)} if info.etag else {}
        # What only this client may see must not come to another from a shared cache.
        cache = self.cache_control or info.cache_control or "private"
        fields["Cache-Control"] = cache if _sendable(cache) else "no-store"
        if self.cache_control is None and info.expires is not None:
            fields["Expires"] = format_http_date(info.expires)
        return fields


def media_type(info: ObjectInfo) -> str:
    """Return the object's type, or one by its name, or octets: also for a type that cannot be sent."""
    if info.content_type:
        return info.content_type.strip(" \t") if _sendable(info.content_type) else OCTETS
    kind, encoding = _TYPES.guess_type(info.key.rpartition("/")[2])
    return OCTETS if kind is None or encoding is not None else kind


def accepted_type(said: str | None) -> str | None:
    """Return the type to store for an uploader's Content-Type: octets if that is malformed."""
    if not said:
        return None
    return OCTETS if parse_media_type(said) is None else said


def _sendable(value: str) -> bool:
    """Return whether every server sends it alike, as RFC 9110, section 5.5, advises.

    Of other characters, some send Latin-1 and some UTF-8; of control characters, some nothing at all.
    """
    return value.isascii() and value.replace("\t", " ").isprintable()


def essence(kind: str) -> str:
    """Return a media type without its parameters, in lower case."""
    return kind.partition(";")[0].strip(" \t").lower()


def is_inline(name: str) -> bool:
    """Return whether a browser may show objects of this type: it has no scripts to run."""
    return name in _INLINE or _PLAYED.fullmatch(name) is not None


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

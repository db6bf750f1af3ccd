"""Response headers for an object. No I/O.

Objects often come from untrusted uploaders. Unless the service trusts them, the headers keep
browsers from running objects in the service's origin: only types that cannot hold a script are
shown inline, all others are downloads, and every response is sandboxed.
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
        "application/pdf",  # shown in the browser's viewer, where the sandbox applies as well
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
"""Types that browsers show without running scripts. Audio and video are shown as well."""

_PLAYED = re.compile(r"(?:audio|video)/[^+]+")  # no "+": browsers run scripts in any ...+xml

_SCRIPT = re.compile(
    r"(?:text|application)/(?:x-)?(?:javascript|ecmascript|jscript|livescript)[0-9.]*"
)
"""WHATWG MIME Sniffing, "JavaScript MIME type". With nosniff, scripts of other types do not run."""

_SANDBOX = "default-src 'none'; sandbox"
"""Content Security Policy, "sandbox": no scripts, forms or plugins, and a unique origin. It does
not affect a page that embeds the object."""

_MEDIA_SANDBOX = "default-src 'none'; media-src 'self'; sandbox allow-same-origin"
"""The policy for audio and video. Chromium plays a file in a document that loads it a second time,
which fails from another origin. Scripts are still forbidden."""

_TYPES = mimetypes.MimeTypes()
"""Python's built-in table, which is the same on every system."""

_ATTR_CHAR = "!#$&+-.^_`|~"  # RFC 8187, section 3.2.1: besides letters and digits
_UNSAFE = re.compile(r"[^\x20-\x7e]|[\"\\%]")  # RFC 6266, appendix D


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """How a service serves its objects.

    Attributes:
        download_name: Serve an object as a download of this name.
        cache_control: The Cache-Control of the response; None uses that of the object, or
            ``private``.
        trusted: Serve every object with its own type and without a sandbox.
    """

    download_name: str | None = None
    cache_control: str | None = None
    trusted: bool = False

    def __post_init__(self) -> None:
        if self.cache_control is not None and not _sendable(self.cache_control):
            raise ValueError(f"cache_control must be printable ASCII, got {self.cache_control!r}")

    def of(self, info: ObjectInfo) -> dict[str, str]:
        """Return the headers of an object in a 200, a 206 or a HEAD response."""
        kind = media_type(info)
        name = parse_media_type(kind)
        inline = self.trusted or (name is not None and is_inline(name))
        if not self.trusted and (name is None or _SCRIPT.fullmatch(name)):
            kind = OCTETS
        fields = {
            **self.validators(info),
            # RFC 9110, section 8.8.2.1: never later than Date. A backend's clock may be ahead.
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
        """Return the Content-Disposition. It is an attachment unless `inline` is set."""
        if self.download_name is not None:
            return content_disposition(self.download_name)
        stored = info.content_disposition or ""
        if inline and (not stored or _sendable(stored)):
            return stored or None
        return content_disposition(file_name(stored) or info.key)

    def validators(self, info: ObjectInfo) -> dict[str, str]:
        """Return the headers that a cache needs, as in a 304 (RFC 9110, section 15.4.5)."""
        fields = {"ETag": entity_tag(info.etag)} if info.etag else {}
        # A shared cache must not serve a private object to another client.
        cache = self.cache_control or info.cache_control or "private"
        fields["Cache-Control"] = cache if _sendable(cache) else "no-store"
        if self.cache_control is None and info.expires is not None:
            fields["Expires"] = format_http_date(info.expires)
        return fields


def media_type(info: ObjectInfo) -> str:
    """Return the object's type, or a type guessed from its key.

    Without either, and for a type that cannot be sent, return ``application/octet-stream``.
    """
    if info.content_type:
        return info.content_type.strip(" \t") if _sendable(info.content_type) else OCTETS
    kind, encoding = _TYPES.guess_type(info.key.rpartition("/")[2])
    return OCTETS if kind is None or encoding is not None else kind


def accepted_type(said: str | None) -> str | None:
    """Return the type to store for an uploader's Content-Type.

    It is ``application/octet-stream`` if the Content-Type is malformed, and None if there is none.
    """
    if not said:
        return None
    return OCTETS if parse_media_type(said) is None else said


def _sendable(value: str) -> bool:
    """Return whether all servers send the value alike, as RFC 9110, section 5.5, advises.

    For non-ASCII characters, some send Latin-1 and some UTF-8. For control characters, some send
    nothing.
    """
    return value.isascii() and value.replace("\t", " ").isprintable()


def essence(kind: str) -> str:
    """Return a media type without its parameters, in lower case."""
    return kind.partition(";")[0].strip(" \t").lower()


def is_inline(name: str) -> bool:
    """Return whether a browser may show objects of this type: it runs no scripts in them."""
    return name in _INLINE or _PLAYED.fullmatch(name) is not None


def content_disposition(name: str) -> str:
    """Return the Content-Disposition for a download of this name (RFC 6266, RFC 8187).

    A plain ASCII name is sent unchanged. Other names are sent encoded, with an ASCII fallback that
    omits the characters that old browsers unescape. Neither name contains a path.
    """
    name = re.sub(r"[\x00-\x1f\x7f]", "_", re.split(r"[/\\]", name)[-1]) or "download"
    plain = _UNSAFE.sub("_", name)
    if plain == name:
        return f'attachment; filename="{name}"'
    exact = quote(name, safe=_ATTR_CHAR, errors="replace")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}"

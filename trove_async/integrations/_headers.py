"""Response headers for an object.

Objects often come from untrusted uploaders. Unless the service trusts them, the headers keep
browsers from running objects in the service's origin: only types that browsers show without running
scripts are shown inline, all others are downloads, and every response is sandboxed.
"""

from __future__ import annotations

import mimetypes
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from trove_async import ObjectInfo
from trove_async._http_dates import format_http_date
from trove_async._settings import check_switches, check_texts

from ._conditions import entity_tag
from ._content_coding import VARY, ZSTD, has_zstd_form
from ._parameters import parse_file_name, parse_media_type

OCTET_STREAM = "application/octet-stream"

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
"""Types that browsers show without running scripts, in addition to audio and video."""

_AUDIO_VIDEO = re.compile(r"(?:audio|video)/[^+]+")  # no "+": browsers run scripts in any ...+xml

_SCRIPT = re.compile(
    r"(?:text|application)/(?:x-)?(?:javascript|ecmascript|jscript|livescript)[0-9.]*"
)
"""Types of scripts (WHATWG MIME Sniffing, "JavaScript MIME type"). With nosniff, browsers run no others."""

_SANDBOX = "default-src 'none'; sandbox"
"""A policy without scripts, forms or plugins, and with a unique origin (Content Security Policy,
"sandbox"). It does not affect a page that embeds the object."""

_MEDIA_SANDBOX = "default-src 'none'; media-src 'self'; sandbox allow-same-origin"
"""The policy for audio and video. Chromium plays a file in a document that loads the file again, which
would fail from a unique origin. Scripts are still forbidden."""

_TYPES = mimetypes.MimeTypes()
"""Python's built-in table, which is the same on every system."""

_ATTR_CHAR = "!#$&+-.^_`|~"  # RFC 8187, section 3.2.1: in addition to letters and digits
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_PLAIN_NAME = re.compile(r"[\x20\x21\x23\x24\x26-\x5b\x5d-\x7e]+")  # the reverse of _UNSAFE
_UNSAFE = re.compile(r"[^\x20-\x7e]|[\"\\%]")  # RFC 6266, appendix D


@dataclass(frozen=True, slots=True, kw_only=True)
class Presentation:
    """How a service presents an object.

    Attributes:
        download_name: Serve the object as a download with this file name.
        cache_control: The Cache-Control of the response; None uses that of the object, or
            ``private``.
        trusted: Serve the object with its own type and without a sandbox.
    """

    download_name: str | None = None
    cache_control: str | None = None
    trusted: bool = False

    def __post_init__(self) -> None:
        check_texts(download_name=self.download_name, cache_control=self.cache_control)
        check_switches(trusted=self.trusted)
        if self.cache_control is not None and not _is_sendable(self.cache_control):
            raise ValueError(f"cache_control must be printable ASCII, got {self.cache_control!r}")

    def headers(self, info: ObjectInfo, *, zstd: bool = False) -> dict[str, str]:
        """Return the headers of an object in a 200, a 206 or a HEAD response.

        Args:
            info: The object.
            zstd: Whether its zstd form is sent.
        """
        content_type = media_type(info)
        name = parse_media_type(content_type)
        inline = self.trusted or (name is not None and is_inline(name))
        # Another page can still run an attachment as a script. Browsers disagree about malformed types.
        if not self.trusted and (name is None or _SCRIPT.fullmatch(name)):
            content_type = OCTET_STREAM
        fields = {
            **self.validators(info, zstd=zstd),
            # The clock of the backend may be ahead, but Last-Modified must not be later than Date
            # (RFC 9110, section 8.8.2.1).
            "Last-Modified": format_http_date(min(info.last_modified, datetime.now(UTC))),
            "Content-Type": content_type,
            "X-Content-Type-Options": "nosniff",
        }
        if zstd:
            fields["Content-Encoding"] = ZSTD
        else:
            fields["Accept-Ranges"] = "bytes"  # a range is always one of the decoded form
        if not self.trusted:
            is_media = name is not None and _AUDIO_VIDEO.fullmatch(name)
            fields["Content-Security-Policy"] = _MEDIA_SANDBOX if is_media else _SANDBOX
        if info.content_encoding and _is_sendable(info.content_encoding):
            fields["Content-Encoding"] = info.content_encoding
        if info.content_language and _is_sendable(info.content_language):
            fields["Content-Language"] = info.content_language
        disposition = self._disposition(info, inline=inline)
        if disposition is not None:
            fields["Content-Disposition"] = disposition
        return fields

    def _disposition(self, info: ObjectInfo, *, inline: bool) -> str | None:
        """Return the Content-Disposition, or None to send none. Without `inline`, it is an attachment."""
        if self.download_name is not None:
            return content_disposition(self.download_name)
        stored = info.content_disposition or ""
        if inline and (not stored or _is_sendable(stored)):
            return stored or None
        return content_disposition(parse_file_name(stored) or info.key)

    def validators(self, info: ObjectInfo, *, zstd: bool = False) -> dict[str, str]:
        """Return the headers that a cache needs, as in a 304 (RFC 9110, section 15.4.5).

        Args:
            info: The object.
            zstd: Whether they are those of its zstd form.
        """
        fields = {"ETag": entity_tag(info.etag, zstd=zstd)} if info.etag else {}
        if has_zstd_form(info):
            fields.update(VARY)
        # A shared cache must not serve a private object to another client.
        cache = self.cache_control or info.cache_control or "private"
        fields["Cache-Control"] = cache if _is_sendable(cache) else "no-store"
        # The Cache-Control of the service replaces both caching headers of the object.
        if self.cache_control is None and info.expires is not None:
            fields["Expires"] = format_http_date(info.expires)
        return fields


def media_type(info: ObjectInfo) -> str:
    """Return the object's type, or a type guessed from its key.

    Return ``application/octet-stream`` if neither exists, or if the object's type cannot be sent.
    Return it also if there is no type and the key names a compressed file, such as ``a.tar.gz``.
    """
    if info.content_type:
        return info.content_type.strip(" \t") if _is_sendable(info.content_type) else OCTET_STREAM
    name = info.key.rpartition("/")[2]
    if "." not in name:
        return OCTET_STREAM
    content_type, encoding = _TYPES.guess_type(name)
    return OCTET_STREAM if content_type is None or encoding is not None else content_type


def type_to_store(header: str | None) -> str | None:
    """Return the type to store for the Content-Type of an upload.

    Return ``application/octet-stream`` if it is malformed, and None if it is absent.
    """
    if not header:
        return None
    # White space around the value of a header is not part of it (RFC 9110, section 5.5).
    return OCTET_STREAM if parse_media_type(header) is None else header.strip(" \t")


def _is_sendable(value: str) -> bool:
    """Return whether every server sends a header value unchanged (RFC 9110, section 5.5).

    Servers encode non-ASCII characters as Latin-1 or as UTF-8, and some drop control characters.
    """
    return value.isascii() and value.replace("\t", " ").isprintable()


def essence(content_type: str) -> str:
    """Return a media type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip(" \t").lower()


def is_inline(name: str) -> bool:
    """Return whether browsers show objects of this type without running scripts."""
    return name in _INLINE or _AUDIO_VIDEO.fullmatch(name) is not None


def content_disposition(name: str) -> str:
    """Return the Content-Disposition for a download with this file name (RFC 6266, RFC 8187).

    A plain ASCII name is sent unchanged. Other names are encoded, with an ASCII fallback for old
    browsers. The directories of a path are removed.
    """
    name = name[max(name.rfind("/"), name.rfind("\\")) + 1 :]
    if _PLAIN_NAME.fullmatch(name):
        return f'attachment; filename="{name}"'
    name = _CONTROLS.sub("_", name) or "download"
    fallback = _UNSAFE.sub("_", name)
    if fallback == name:
        return f'attachment; filename="{name}"'
    encoded = quote(name, safe=_ATTR_CHAR, errors="replace")
    return f"attachment; filename=\"{fallback}\"; filename*=UTF-8''{encoded}"

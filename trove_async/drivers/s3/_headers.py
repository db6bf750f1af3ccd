"""What is said of an object in headers: `PutOptions` on the way out, `ObjectInfo` on the way back.

User metadata travels as ``x-amz-meta-*``. A value that is not ASCII is encoded as S3 itself does it
(RFC 2047; S3 User Guide, "Working with object metadata", user-defined metadata). Those documents
say that S3 decodes such values before it stores them, and returns as they are those that then are
ASCII: so an ASCII value that a header would change (blanks at its ends, for one), or that looks
encoded, cannot be protected in that way. It is kept, percent-encoded, with others of its kind in one
reserved name, `EXACT`.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from quopri import decodestring
from types import MappingProxyType
from typing import Final

from trove_async import _http
from trove_async._http_dates import format_http_date, parse_service_date
from trove_async.models import ObjectInfo
from trove_async.options import PutOptions

from ._encoding import (
    bare_etag,
    decode_value,
    encode_path,
    encode_query,
    encode_value,
    quoted_etag,
    strong_etag,
)
from ._xml import MalformedResponse

META: Final = "x-amz-meta-"
WRITE_ID: Final = "trove-write-id"
EXACT: Final = "trove-exact"
"""Reserved metadata (`trove_async._names.RESERVED_METADATA`): the write's id, and what headers
would change."""

NO_TYPE: Final = "binary/octet-stream"
"""What S3 calls the type of an object that was given none (S3 API Reference, "PutObject"). It is
sent in so many words, as others guess one, and read as none."""

STANDARD: Final = "STANDARD"
"""The class of which S3 says nothing. S3 API Reference, "HeadObject": x-amz-storage-class."""

CHECKSUMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "crc32c": "x-amz-checksum-crc32c",
        "crc64nvme": "x-amz-checksum-crc64nvme",
        "sha256": "x-amz-checksum-sha256",
        "crc32": "x-amz-checksum-crc32",
        "sha1": "x-amz-checksum-sha1",
    }
)
"""Our names of checksums and S3's headers for them, the one to send first: it takes only one."""


# -- out -------------------------------------------------------------------------------------------


def put_headers(options: PutOptions, *, summed: bool = True) -> dict[str, str]:
    """Return the headers of a request that makes an object of its body, `summed` its checksums too."""
    headers = object_headers(options)
    if summed and options.checksums:
        headers.update(checksum_headers(options.checksums))
    if options.conditional:
        headers.update(condition_headers(options))
    return headers


def object_headers(options: PutOptions) -> dict[str, str]:
    """Return the headers that say what is kept with an object: of puts, uploads and copies."""
    headers = {"content-type": options.content_type or NO_TYPE}
    if options.write_id is not None:
        headers[META + WRITE_ID] = options.write_id
    if options.cache_control is not None:
        headers["cache-control"] = options.cache_control
    if options.content_disposition is not None:
        headers["content-disposition"] = options.content_disposition
    if options.content_encoding is not None:
        headers["content-encoding"] = options.content_encoding
    if options.content_language is not None:
        headers["content-language"] = options.content_language
    if options.expires is not None:
        headers["expires"] = format_http_date(options.expires)
    if options.storage_class is not None:
        headers["x-amz-storage-class"] = options.storage_class
    if options.metadata:
        _add_metadata(headers, options.metadata)
    if options.tags:
        headers["x-amz-tagging"] = "&".join(
            [f"{encode_value(name)}={encode_value(tag)}" for name, tag in options.tags.items()]
        )
    return headers


def condition_headers(options: PutOptions) -> dict[str, str]:
    """Return the headers on which a put or the completion of an upload may be refused."""
    headers = {}
    if options.if_match is not None:
        headers["if-match"] = quoted_etag(options.if_match)
    if options.if_none_match is not None:
        headers["if-none-match"] = options.if_none_match
    return headers


def checksum_headers(checksums: Mapping[str, str]) -> dict[str, str]:
    """Return the headers by which the service compares a body: the best one, and MD5 if known."""
    headers = {}
    for algorithm, header in CHECKSUMS.items():
        if algorithm in checksums:
            headers[header] = checksums[algorithm]
            break
    if "md5" in checksums:
        headers["content-md5"] = checksums["md5"]
    return headers


NO_VERSION = "null"
"""The version id of what was written while the bucket kept no versions, whichever content that is.
S3 User Guide, "Adding objects to versioning-suspended buckets"."""


def source_headers(source: ObjectInfo, owner: str | None) -> dict[str, str]:
    """Return the headers that name one version of a copy's source, and its expected owner."""
    place = f"/{encode_path(source.bucket)}/{encode_path(source.key)}"
    if source.version_id is not None:
        place = f"{place}?{encode_query({'versionId': source.version_id})}"
    headers = {"x-amz-copy-source": place}
    if source.etag is not None:
        headers["x-amz-copy-source-if-match"] = quoted_etag(source.etag)
    elif source.version_id in {None, NO_VERSION}:
        # S3 API Reference, "CopyObject": the other condition that a later version fails.
        headers["x-amz-copy-source-if-unmodified-since"] = format_http_date(source.last_modified)
    if owner is not None:
        headers["x-amz-source-expected-bucket-owner"] = owner
    return headers


_WORDS = re.compile(r"[!-~]++(?: [!-~]++)*+").fullmatch


def _add_metadata(headers: dict[str, str], metadata: Mapping[str, str]) -> None:
    exact = []
    for name, value in metadata.items():
        if _WORDS(value) and "=?" not in value:
            headers[META + name] = value
        elif value.isascii():
            exact.append(f"{encode_value(name)}={encode_value(value)}")
        else:
            headers[META + name] = f"=?UTF-8?B?{b64encode(value.encode()).decode()}?="
    if exact:
        headers[META + EXACT] = "&".join(exact)


def exactly(headers: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Return headers of user metadata with some of them kept in `EXACT` instead, name and value.

    Args:
        headers: As `object_headers` writes them.
        names: The headers to move, each of user metadata.
    """
    kept = {name: value for name, value in headers.items() if name not in names}
    exact = [kept[META + EXACT]] if META + EXACT in kept else []
    for name in names:
        value = headers[name]
        value = _decoded(value) if "=?" in value else value
        exact.append(f"{encode_value(name[len(META) :])}={encode_value(value)}")
    kept[META + EXACT] = "&".join(exact)
    return kept


# -- back ------------------------------------------------------------------------------------------


def info_from(
    headers: Mapping[str, str],
    *,
    bucket: str,
    key: str,
    backend: str = "",
    tags: Mapping[str, str] | None = None,
) -> ObjectInfo:
    """Return what the answer to a HEAD or GET, of a range as well, tells of the object.

    Args:
        headers: By name in lower case, or in a mapping that minds no case.
        bucket: For `ObjectInfo.bucket`.
        key: For `ObjectInfo.key`.
        backend: For `ObjectInfo.backend`.
        tags: Which S3 tells in an answer of their own.

    Raises:
        MalformedResponse: A size or a date is missing.
    """
    size, whole = _size(headers)
    get = headers.get
    metadata, write_id = _metadata(headers)
    content_type = _text(headers, "content-type")
    etag = strong_etag(get("etag"))
    return ObjectInfo(
        bucket=bucket,
        key=key,
        size=size,
        etag=etag,
        last_modified=read_date(get("last-modified", "")),
        content_type=None if content_type == NO_TYPE else content_type,
        metadata=metadata,
        tags=tags,
        storage_class=_text(headers, "x-amz-storage-class") or STANDARD,
        cache_control=_text(headers, "cache-control"),
        content_disposition=_text(headers, "content-disposition"),
        content_encoding=_content_encoding(_text(headers, "content-encoding")),
        content_language=_text(headers, "content-language"),
        expires=_http.expires_of(headers),
        checksums=checksums_from(headers) if whole else None,
        version_id=_text(headers, "x-amz-version-id"),
        backend=backend,
        complete=get("x-amz-missing-meta", "0") == "0",
        write_id=write_id,
        as_of=_as_of(headers) if etag is None else None,
    )


def _content_encoding(value: str | None) -> str | None:
    """Return the content's encoding, without that of the request that stored it.

    S3 removes ``aws-chunked`` (S3 API Reference, "Transferring Payload in Multiple Chunks"); other
    services store it, and hand out content that is not encoded so.
    """
    if value is None or "aws-chunked" not in value.lower():
        return value
    codings = [coding.strip() for coding in value.split(",")]
    return ", ".join([coding for coding in codings if coding.lower() != "aws-chunked"]) or None


def _text(headers: Mapping[str, str], name: str) -> str | None:
    value = headers.get(name)
    return value if value is None or value.isascii() else _http.field_text(value)


def stored_etag(headers: Mapping[str, str]) -> str:
    """Return the etag of what a PUT stored, as in `ObjectInfo.etag`.

    Raises:
        MalformedResponse: There is none: a success, but no S3's (S3 API Reference, "PutObject"). A
            portal in front of the network says so, for one.
    """
    etag = bare_etag(headers.get("etag", ""))
    if not etag:
        raise MalformedResponse("nothing tells the ETag of what was stored")
    return etag


def put_info(
    headers: Mapping[str, str],
    *,
    bucket: str,
    key: str,
    size: int,
    options: PutOptions,
    backend: str = "",
) -> ObjectInfo:
    """Return what is known of an object after the answer to the PUT of all of it.

    Its date is the response's own unless the service tells the object's, which S3 does not.

    Args:
        headers: As for `info_from`.
        bucket: For `ObjectInfo.bucket`.
        key: For `ObjectInfo.key`.
        size: The body's bytes.
        options: What the PUT said.
        backend: For `ObjectInfo.backend`.
    """
    return ObjectInfo(
        bucket=bucket,
        key=key,
        size=size,
        etag=strong_etag(headers.get("etag")),
        last_modified=_stored_at(headers),
        content_type=options.content_type,
        metadata=dict(options.metadata),
        tags=dict(options.tags),
        storage_class=options.storage_class or STANDARD,
        cache_control=options.cache_control,
        content_disposition=options.content_disposition,
        content_encoding=options.content_encoding,
        content_language=options.content_language,
        expires=options.expires,
        checksums=checksums_from(headers),
        version_id=headers.get("x-amz-version-id"),
        backend=backend,
        write_id=options.write_id,
    )


def checksums_from(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the checksums of the whole content that an answer tells."""
    kind = headers.get("x-amz-checksum-type")
    return {
        algorithm: value
        for algorithm, header in CHECKSUMS.items()
        if (value := headers.get(header)) is not None and of_whole(value, kind)
    }


def of_whole(checksum: str, kind: str | None) -> bool:
    """Return whether a checksum is the whole content's, not one of its parts' checksums.

    S3 User Guide, "Checking object integrity": the latter is COMPOSITE, and ends with ``-`` and
    the number of parts.
    """
    return "-" not in checksum and kind in {None, "FULL_OBJECT"}


def has_size(headers: Mapping[str, str]) -> bool:
    """Return whether a response to a HEAD or GET tells the object's size.

    A proxy that sends a body in chunks tells none (RFC 9112, 6.2).
    """
    return "content-length" in headers or "content-range" in headers


_LENGTH = re.compile(r"[0-9]{1,19}")


def read_content_range(
    headers: Mapping[str, str], status: int = HTTPStatus.OK
) -> tuple[int, int, int] | None:
    """Return start, end (exclusive) and the object's size as a partial answer tells them.

    Raises:
        MalformedResponse: There is a Content-Range that tells no such thing, or none with a 206.
    """
    try:
        return _http.parse_content_range(headers, partial=status == HTTPStatus.PARTIAL_CONTENT)
    except ValueError as error:
        raise MalformedResponse(str(error)) from None


def _size(headers: Mapping[str, str]) -> tuple[int, bool]:
    """Return the object's size, and whether the answer is of all of it.

    S3 tells a part's checksum where a range happens to be a part.
    """
    part = read_content_range(headers)
    if part is not None:
        start, end, size = part
        return size, end - start == size
    length = headers.get("content-length", "")
    if not _LENGTH.fullmatch(length):
        raise MalformedResponse(f"Content-Length {length[:40]!r}")
    return int(length), True


def _stored_at(headers: Mapping[str, str]) -> datetime:
    """Return when an object was stored, as the response to its PUT tells it, or about when.

    A date that makes no sense is no failure: the object is stored.
    """
    for name in ("last-modified", "date"):
        date = headers.get(name)
        if date is not None:
            with suppress(MalformedResponse):
                return read_date(date)
    return datetime.now(UTC)


def response_time(headers: Mapping[str, str]) -> datetime:
    """Return when the service answered by its own clock, or by ours where it does not say.

    Raises:
        MalformedResponse: Its date is none.
    """
    date = headers.get("date")
    return datetime.now(UTC) if date is None else read_date(date)


def _as_of(headers: Mapping[str, str]) -> datetime | None:
    """Return when the service sent a response by its own clock, None where it does not say."""
    try:
        return parse_service_date(headers.get("date", ""))
    except ValueError:
        return None


def read_date(text: str) -> datetime:
    """Return the moment that an HTTP date names, in UTC.

    Raises:
        MalformedResponse: It names none.
    """
    try:
        return parse_service_date(text)
    except ValueError as error:
        raise MalformedResponse(str(error)) from None


def _metadata(headers: Mapping[str, str]) -> tuple[dict[str, str], str | None]:
    """Return the user's metadata, and the write's id."""
    metadata = {}
    for header, value in headers.items():
        if header[0] in "xX" and (name := header.lower()).startswith(META):
            metadata[name[len(META) :]] = (
                value if "=?" not in value and value.isascii() else _decoded(value)
            )
    if not metadata:
        return metadata, None
    exact = metadata.pop(EXACT, "")
    for pair in exact.split("&") if exact else ():
        name, _, value = pair.partition("=")
        with suppress(UnicodeDecodeError):  # we did not write it
            name, value = decode_value(name), decode_value(value)
            if _NAME(name):
                metadata[name] = value
    return metadata, metadata.pop(WRITE_ID, None)


_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]++").fullmatch
"""What we write as the name of metadata: a token (RFC 9110, 5.6.2) in lower case."""

_WORD = re.compile(r"=\?([^?\s]+)\?([BbQq])\?([^?\s]*)\?=")
_BETWEEN_WORDS = re.compile(r"(?<=\?=)\s+(?==\?)")  # RFC 2047, 6.2: not part of the text


def _decoded(value: str) -> str:
    """Return a foreign value as it was meant; as it is, where it is not encoded well."""
    if not value.isascii():
        return _http.field_text(value)
    try:
        return _WORD.sub(_word, _BETWEEN_WORDS.sub("", value))
    except (LookupError, ValueError, Base64Error):
        return value


def _word(found: re.Match[str]) -> str:
    charset, encoding, text = found.groups()
    if encoding in "Bb":
        raw = b64decode(text, validate=True)
    else:
        raw = decodestring(text.replace("_", " "), header=True)
    text = raw.decode(charset.partition("*")[0])  # RFC 2231, 5: a language may follow
    text.encode()  # some charsets have surrogates, which nothing can carry
    return text

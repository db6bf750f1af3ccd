"""Object headers: convert `PutOptions` to request headers and response headers to `ObjectInfo`.

User metadata is sent as ``x-amz-meta-*``. A value that is not ASCII is encoded as S3 encodes it
(RFC 2047; S3 User Guide, "Working with object metadata", user-defined metadata). According to the
guide, S3 decodes such values before it stores them, and returns the decoded text if that is ASCII.
The encoding therefore cannot protect an ASCII value that looks encoded, or one that a header would
change, such as a value with leading or trailing spaces. These values are percent-encoded and stored
together under one reserved name, `EXACT`.
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
from typing import Any, Final

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
    plain_etag,
    quoted_etag,
    strong_etag,
)
from ._xml import MalformedResponse

META: Final = "x-amz-meta-"
WRITE_ID: Final = "trove-write-id"
EXACT: Final = "trove-exact"
"""Reserved metadata names (`trove_async._names.RESERVED_METADATA`): of the write's id, and of the
values that are percent-encoded."""

NO_TYPE: Final = "binary/octet-stream"
"""The default content type of S3 (S3 API Reference, "PutObject"). It is sent explicitly, because
other services guess a type. In a response it means that the object has no type."""

STANDARD: Final = "STANDARD"
"""The storage class that S3 omits. S3 API Reference, "HeadObject": x-amz-storage-class."""

CHECKSUMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "crc32c": "x-amz-checksum-crc32c",
        "crc64nvme": "x-amz-checksum-crc64nvme",
        "sha256": "x-amz-checksum-sha256",
        "crc32": "x-amz-checksum-crc32",
        "sha1": "x-amz-checksum-sha1",
    }
)
"""S3's header of each checksum algorithm, in order of preference: a request may send only one."""


# -- requests --------------------------------------------------------------------------------------


def put_headers(options: PutOptions, *, with_checksums: bool = True) -> dict[str, str]:
    """Return the headers of a PUT request.

    Args:
        options: The options of the put.
        with_checksums: Whether to include the checksums.
    """
    headers = object_headers(options)
    checksums = options.checksums
    if with_checksums and checksums:
        if len(checksums) == 1 and "crc32c" in checksums:  # nearly every put
            headers["x-amz-checksum-crc32c"] = checksums["crc32c"]
        else:
            headers.update(checksum_headers(checksums))
    if options.if_match is not None or options.if_none_match is not None:
        headers.update(condition_headers(options))
    return headers


def object_headers(options: PutOptions) -> dict[str, str]:
    """Return the headers that describe an object, for puts, uploads and copies."""
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
    """Return the precondition headers of a put or of the completion of an upload."""
    headers = {}
    if options.if_match is not None:
        headers["if-match"] = quoted_etag(options.if_match)
    if options.if_none_match is not None:
        headers["if-none-match"] = options.if_none_match
    return headers


def checksum_headers(checksums: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that let the service verify a body: one checksum, and MD5 if known."""
    headers = {}
    for algorithm, header in CHECKSUMS.items():
        if algorithm in checksums:
            headers[header] = checksums[algorithm]
            break
    if "md5" in checksums:
        headers["content-md5"] = checksums["md5"]
    return headers


NO_VERSION = "null"
"""The version id of an object that was written without versioning. The next such write replaces
the content under the same id. S3 User Guide, "Adding objects to versioning-suspended buckets"."""


def source_headers(source: ObjectInfo, owner: str | None) -> dict[str, str]:
    """Return the headers that select a copy's source, with conditions on its version and owner."""
    name = f"/{encode_path(source.bucket)}/{encode_path(source.key)}"
    if source.version_id is not None:
        name = f"{name}?{encode_query({'versionId': source.version_id})}"
    headers = {"x-amz-copy-source": name}
    if source.etag is not None:
        headers["x-amz-copy-source-if-match"] = quoted_etag(source.etag)
    elif source.version_id in {None, NO_VERSION}:
        # S3 API Reference, "CopyObject": without an ETag, this condition excludes a later version.
        headers["x-amz-copy-source-if-unmodified-since"] = format_http_date(source.last_modified)
    if owner is not None:
        headers["x-amz-source-expected-bucket-owner"] = owner
    return headers


_UNCHANGED_BY_HEADERS = re.compile(r"[!-~]++(?: [!-~]++)*+").fullmatch
"""Matches ASCII words with single spaces between them, which servers keep unchanged."""


def _add_metadata(headers: dict[str, str], metadata: Mapping[str, str]) -> None:
    exact = []
    for name, value in metadata.items():
        if _UNCHANGED_BY_HEADERS(value) and "=?" not in value:
            headers[META + name] = value
        elif value.isascii():
            exact.append(f"{encode_value(name)}={encode_value(value)}")
        else:
            headers[META + name] = f"=?UTF-8?B?{b64encode(value.encode()).decode()}?="
    if exact:
        headers[META + EXACT] = "&".join(exact)


def move_to_exact(headers: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """Return the headers with the names and values of some metadata moved to `EXACT`.

    Args:
        headers: The headers of a write.
        names: The headers to move. Each must be a user metadata header.
    """
    result = {name: value for name, value in headers.items() if name not in names}
    exact = [result[META + EXACT]] if META + EXACT in result else []
    for name in names:
        value = headers[name]
        value = _decode_metadata_value(value) if "=?" in value else value
        exact.append(f"{encode_value(name[len(META) :])}={encode_value(value)}")
    result[META + EXACT] = "&".join(exact)
    return result


# -- responses -------------------------------------------------------------------------------------


def object_info(
    headers: Mapping[str, str],
    *,
    bucket: str,
    key: str,
    backend: str = "",
    tags: Mapping[str, str] | None = None,
) -> ObjectInfo:
    """Return information about an object from the response to a HEAD, a GET or a range request.

    Args:
        headers: The response headers: lower-case names, or a case-insensitive mapping.
        bucket: The value of `ObjectInfo.bucket`.
        key: The value of `ObjectInfo.key`.
        backend: The value of `ObjectInfo.backend`.
        tags: The object's tags, which S3 returns in a separate response.

    Raises:
        MalformedResponse: The size or the date is missing or invalid.
    """
    # Every get and head runs through this function, so it calls others only for unusual fields.
    get = headers.get
    # 1. The size, and whether the response covers the whole object. If it does not, its checksums may be
    # those of a part: S3 returns them for a range that is exactly one part.
    length = get("content-length", "")
    covers_object = "content-range" not in headers
    if covers_object and _LENGTH(length):
        size = int(length)
    else:
        size, covers_object = _size(headers)
    # 2. The fields that are text. Most objects have only a content type.
    content_type = get("content-type")
    if content_type is not None:
        if not content_type.isascii():
            content_type = _http.field_text(content_type)
        elif content_type == NO_TYPE:
            content_type = None
    texts = _USUAL_TEXTS
    if type(headers) is not dict or not _TEXT_FIELDS.keys().isdisjoint(headers):
        texts = _texts(headers)
    # 3. The others.
    metadata, write_id, checksums = _prefixed_fields(headers)
    if checksums and not (covers_object and get("x-amz-checksum-type") in _WHOLE_TYPES):
        checksums = {}
    etag = get("etag")
    if etag is not None:
        match = plain_etag(etag)
        etag = match[1] if match else strong_etag(etag)
    try:
        last_modified = parse_service_date(get("last-modified", ""))
    except ValueError:
        last_modified = read_date("Last-Modified", get("last-modified", ""))
    return ObjectInfo(
        bucket=bucket,
        key=key,
        size=size,
        stored_size=size,
        etag=etag,
        last_modified=last_modified,
        content_type=content_type,
        metadata=metadata,
        tags=tags,
        expires=_http.expires_of(headers) if "expires" in headers else None,
        checksums=checksums,
        backend=backend,
        complete=get("x-amz-missing-meta", "0") == "0",
        write_id=write_id,
        as_of=_response_date(headers) if etag is None else None,
        **texts,
    )


_TEXT_FIELDS: Final = {
    "cache-control": "cache_control",
    "content-disposition": "content_disposition",
    "content-encoding": "content_encoding",
    "content-language": "content_language",
    "x-amz-storage-class": "storage_class",
    "x-amz-version-id": "version_id",
}
"""Header fields whose texts are attributes of `ObjectInfo`, and the names of the attributes."""

_USUAL_TEXTS: Final[Mapping[str, Any]] = MappingProxyType({"storage_class": STANDARD})


def _texts(headers: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the attributes of `_TEXT_FIELDS`."""
    texts = dict(_USUAL_TEXTS)
    for field, attribute in _TEXT_FIELDS.items():
        value = headers.get(field)
        if value is not None:
            texts[attribute] = value if value.isascii() else _http.field_text(value)
    texts["storage_class"] = texts["storage_class"] or STANDARD
    if "content_encoding" in texts:
        _remove_chunking(texts)
    return texts


def _remove_chunking(texts: dict[str, str]) -> None:
    """Remove ``aws-chunked`` from a Content-Encoding. It only describes the request of a write.

    S3 removes it (S3 API Reference, "Transferring Payload in Multiple Chunks"). Other services
    store it, although they return the content without that encoding.
    """
    value = texts["content_encoding"]
    if "aws-chunked" not in value.lower():
        return
    codings = [coding.strip() for coding in value.split(",")]
    kept = ", ".join([coding for coding in codings if coding.lower() != "aws-chunked"])
    if kept:
        texts["content_encoding"] = kept
    else:
        del texts["content_encoding"]


def stored_etag(headers: Mapping[str, str]) -> str:
    """Return the ETag in the response to the PUT of a part, without its quotes.

    Raises:
        MalformedResponse: There is no ETag. S3 always sends one (S3 API Reference, "UploadPart").
            The response may come from another server, for example a captive portal.
    """
    etag = bare_etag(headers.get("etag", ""))
    if not etag:
        raise MalformedResponse("the response has no ETag header")
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
    """Return information about an object from the options of its write and the response to it.

    S3's response to a write has no Last-Modified. Without one, the response's Date is used, or the
    local time.

    Args:
        headers: As for `object_info`.
        bucket: The value of `ObjectInfo.bucket`.
        key: The value of `ObjectInfo.key`.
        size: The object's size in bytes.
        options: The options of the write.
        backend: The value of `ObjectInfo.backend`.
    """
    etag = headers.get("etag")
    if etag is not None:
        match = plain_etag(etag)
        etag = match[1] if match else strong_etag(etag)
    return ObjectInfo(
        bucket=bucket,
        key=key,
        size=size,
        stored_size=size,
        etag=etag,
        last_modified=_write_time(headers),
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
    """Return the checksums of the whole content from the headers of a response."""
    checksum_type = headers.get("x-amz-checksum-type")
    checksums = {}
    for algorithm, header in _CHECKSUM_HEADERS:
        value = headers.get(header)
        if value is not None and "-" not in value and checksum_type in _WHOLE_TYPES:
            checksums[algorithm] = value
    return checksums


_CHECKSUM_HEADERS: Final = tuple(CHECKSUMS.items())
_ALGORITHMS: Final = {header: algorithm for algorithm, header in CHECKSUMS.items()}


def covers_whole_object(checksum: str, checksum_type: str | None) -> bool:
    """Return whether a checksum covers the whole content.

    Otherwise it is a checksum of the parts' checksums. S3 User Guide, "Checking object integrity":
    its type is COMPOSITE, and it ends with ``-`` and the number of parts.
    """
    return "-" not in checksum and checksum_type in _WHOLE_TYPES


_WHOLE_TYPES: Final = (None, "FULL_OBJECT")


def has_size(headers: Mapping[str, str]) -> bool:
    """Return whether the response to a HEAD or GET has the object's size.

    A proxy that sends a chunked body omits it (RFC 9112, 6.2).
    """
    return "content-length" in headers or "content-range" in headers


_LENGTH = re.compile(r"[0-9]{1,19}").fullmatch


def read_content_range(
    headers: Mapping[str, str], status: int = HTTPStatus.OK
) -> tuple[int, int, int] | None:
    """Return the start, the exclusive end and the object's size from a Content-Range, if any.

    Raises:
        MalformedResponse: The Content-Range is invalid, or a 206 response has none.
    """
    try:
        return _http.parse_content_range(headers, partial=status == HTTPStatus.PARTIAL_CONTENT)
    except ValueError as error:
        raise MalformedResponse(str(error)) from None


def _size(headers: Mapping[str, str]) -> tuple[int, bool]:
    """Return the object's size, and whether the response covers the whole object.

    If it does not, its checksums may be those of a part: S3 returns them for a range that is exactly
    one part.
    """
    part = read_content_range(headers)
    if part is not None:
        start, end, size = part
        return size, end - start == size
    length = headers.get("content-length", "")
    if not _LENGTH(length):
        raise MalformedResponse(f"Content-Length must be a number of bytes, got {length[:40]!r}")
    return int(length), True


def _write_time(headers: Mapping[str, str]) -> datetime:
    """Return the time of a write from its response, or the local time.

    An invalid date is ignored, because the object is stored.
    """
    for name in ("last-modified", "date"):
        date = headers.get(name)
        if date is not None:
            try:
                return parse_service_date(date)
            except ValueError:
                continue
    return datetime.now(UTC)


def response_time(headers: Mapping[str, str]) -> datetime:
    """Return a response's date, or the local time if it has none.

    Raises:
        MalformedResponse: The date is invalid.
    """
    date = headers.get("date")
    return datetime.now(UTC) if date is None else read_date("Date", date)


def _response_date(headers: Mapping[str, str]) -> datetime | None:
    """Return a response's date by the service's clock, or None if it has no valid date."""
    try:
        return parse_service_date(headers.get("date", ""))
    except ValueError:
        return None


def read_date(name: str, text: str) -> datetime:
    """Parse the date in a header field. The result is in UTC.

    Raises:
        MalformedResponse: The date is invalid.
    """
    try:
        return _http.date_field(name, text)
    except ValueError as error:
        raise MalformedResponse(str(error)) from None


def _prefixed_fields(
    headers: Mapping[str, str],
) -> tuple[dict[str, str], str | None, dict[str, str]]:
    """Return the user metadata, the id of the write, and the checksums, which may be those of a part."""
    # One pass over the headers. `checksums_from` would look each algorithm up.
    metadata, checksums = {}, {}
    for header, value in headers.items():
        if header[0] not in "xX":
            continue
        name = header.lower()
        if name.startswith(META):
            metadata[name[len(META) :]] = (
                value if "=?" not in value and value.isascii() else _decode_metadata_value(value)
            )
        elif name in _ALGORITHMS and "-" not in value:
            checksums[_ALGORITHMS[name]] = value
    if not metadata:
        return metadata, None, checksums
    exact = metadata.pop(EXACT, "")
    for pair in exact.split("&") if exact else ():
        name, _, value = pair.partition("=")
        with suppress(UnicodeDecodeError):  # another program wrote the pair
            name, value = decode_value(name), decode_value(value)
            if _IS_METADATA_NAME(name):
                metadata[name] = value
    return metadata, metadata.pop(WRITE_ID, None), checksums


_IS_METADATA_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]++").fullmatch
"""Matches a metadata name as this library writes it: a lower-case token (RFC 9110, 5.6.2)."""

_ENCODED_WORD = re.compile(r"=\?([^?\s]+)\?([BbQq])\?([^?\s]*)\?=")
_BETWEEN_WORDS = re.compile(r"(?<=\?=)\s+(?==\?)")  # not part of the text (RFC 2047, 6.2)


def _decode_metadata_value(value: str) -> str:
    """Decode a metadata value. Return it unchanged if its encoding is invalid."""
    if not value.isascii():
        return _http.field_text(value)
    try:
        return _ENCODED_WORD.sub(_decode_word, _BETWEEN_WORDS.sub("", value))
    except (LookupError, ValueError, Base64Error):
        return value


def _decode_word(word: re.Match[str]) -> str:
    charset, encoding, text = word.groups()
    if encoding in "Bb":
        raw = b64decode(text, validate=True)
    else:
        raw = decodestring(text.replace("_", " "), header=True)
    text = raw.decode(charset.partition("*")[0])  # RFC 2231, 5: a language may follow
    text.encode()  # raises for lone surrogates, which some charsets produce
    return text

"""Converts `PutOptions` to JSON resources, and resources and headers to `ObjectInfo`.

The etag and the version id of an object are its *generation*: the number that the service assigns to
each version of a key (Cloud Storage documentation, "Object generations and metagenerations"). Reads and
writes in both APIs support the condition that the generation matches. The service's own etags are
unsuitable: they differ between the JSON and the XML API, and change with the metadata.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeGuard

from trove_async._http import date_field, parse_content_range
from trove_async.errors import PreconditionFailedError, UnavailableError
from trove_async.models import BucketInfo, ObjectInfo
from trove_async.options import PutOptions

WRITE_ID: Final = "trove-write-id"
EXACT: Final = "trove-exact"
"""Reserved metadata names. `WRITE_ID` stores the id of the write. `EXACT` marks an object with metadata that
headers cannot carry unchanged; a reader of such an object requests its resource."""

DEFAULT_TYPE: Final = "application/octet-stream"
"""The media type of an object that is stored without one. It is sent because servers' defaults differ."""

CHECKSUMS: Final = {"crc32c": "crc32c", "md5": "md5Hash"}
"""The names of checksums in this library and in a resource. The values are in base64. An object that was
composed, or uploaded in parts through the XML API, has no MD5 (Cloud Storage documentation, "Data
validation")."""

_DIGESTS: Final = {
    "crc32c": re.compile(r"[A-Za-z0-9+/]{6}==").fullmatch,
    "md5": re.compile(r"[A-Za-z0-9+/]{22}==").fullmatch,
}

_HEADER_FIELDS: Final = {
    "storage_class": "storageClass",
    "cache_control": "cacheControl",
    "content_disposition": "contentDisposition",
    "content_encoding": "contentEncoding",
    "content_language": "contentLanguage",
}

FIELDS: Final = (
    "name,size,generation,updated,contentType,metadata,storageClass,cacheControl,"
    "contentDisposition,contentEncoding,contentLanguage,crc32c,md5Hash"
)
"""The fields of a resource that `info_from_resource` reads."""

_EMPTY_CRC32C: Final = "AAAAAA=="
"""The CRC-32C of an empty body."""

_UNKNOWN_DATE: Final = datetime.fromtimestamp(0, UTC)
"""A placeholder for a missing date until the object's resource is read."""

_HEADER_SAFE = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)").fullmatch
_DIGITS = re.compile(r"[0-9]{1,19}").fullmatch
_GENERATION = re.compile(r"[1-9][0-9]{0,18}").fullmatch

_DEFAULT_CACHE_CONTROLS: Final = frozenset({"private, max-age=0", "public, max-age=3600"})
"""The Cache-Control of responses for objects that have none. Cloud Storage documentation,
"Cache-Control": default values."""


def encode_resource(
    options: PutOptions, key: str | None = None, *, custom_time: str | None = None
) -> bytes:
    """Return the JSON resource of an object.

    Args:
        options: The metadata and the checksums.
        key: The key. None: the path of the request contains it.
        custom_time: The custom time in the service's format. None: the object has none.
    """
    document: dict[str, Any] = {"contentType": options.content_type or DEFAULT_TYPE}
    if key is not None:
        document["name"] = key
    if custom_time is not None:
        document["customTime"] = custom_time
    if options.metadata or options.write_id is not None:
        metadata = document["metadata"] = dict(options.metadata)
        if not all(map(_is_header_safe, options.metadata.values())):
            metadata[EXACT] = "json"
        if options.write_id is not None:
            metadata[WRITE_ID] = options.write_id
    for name, field in _HEADER_FIELDS.items():
        value = getattr(options, name)
        if value is not None:
            document[field] = value
    for name, field in CHECKSUMS.items():
        if name in options.checksums:
            document[field] = options.checksums[name]
    return _encode_json(document)


def _encode_json(document: Mapping[str, Any]) -> bytes:
    try:
        return _encode(document).encode()
    except UnicodeEncodeError:  # a lone surrogate, which must be escaped
        return json.dumps(document).encode()


_encode = json.JSONEncoder(ensure_ascii=False).encode
"""Encodes a document. `json.dumps` would create an encoder for each."""


def _is_header_safe(value: str) -> bool:
    """Return whether a header carries a value unchanged. An RFC 2047 encoded word might be decoded."""
    return _HEADER_SAFE(value) is not None and "=?" not in value


def lower_names(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata with names in lower case, because the case of headers has no meaning.

    The service preserves case. Names that differ only in case keep their spelling, because otherwise all
    but one of them would be lost.

    Raises:
        TypeError: A value is not a string.
    """
    lowered: dict[str, str] = {}
    for name, value in metadata.items():
        if not isinstance(value, str):
            raise TypeError("a metadata value is not a string")
        lowered[name.lower()] = value
    if len(lowered) == len(metadata):
        return lowered
    spellings = Counter(name.lower() for name in metadata)
    return {
        (name.lower() if spellings[name.lower()] == 1 else name): value
        for name, value in metadata.items()
    }


def stored_size(document: Mapping[str, Any]) -> int:
    """Return the size in a resource. Some servers omit it if it is 0.

    Raises:
        KeyError: There is no size, and the checksum is not that of an empty body.
        ValueError: The size is not a number.
    """
    if "size" not in document and document.get("crc32c") == _EMPTY_CRC32C:
        return 0
    return parse_number("size", document["size"])


def info_from_resource(document: Mapping[str, Any], *, bucket: str, backend: str) -> ObjectInfo:
    """Return the metadata in the resource of an object.

    Raises:
        UnavailableError: The resource is malformed.
    """
    try:
        key, generation = document["name"], document["generation"]
        if not (isinstance(key, str) and isinstance(generation, str)):
            raise TypeError("the name or the generation is not a string")  # noqa: TRY301 - translated below
        stored_metadata = document.get("metadata")
        metadata = lower_names(stored_metadata) if stored_metadata else {}
        write_id = metadata.pop(WRITE_ID, None)
        metadata.pop(EXACT, None)
        checksums = {
            name: _checksum(name, optional_text(document, field))
            for name, field in CHECKSUMS.items()
            if document.get(field)  # emulators may send an empty string
        }
        return ObjectInfo(
            bucket=bucket,
            key=key,
            size=stored_size(document),
            etag=generation,
            last_modified=parse_time("updated", document["updated"]),
            content_type=optional_text(document, "contentType"),
            metadata=metadata,
            storage_class=optional_text(document, "storageClass"),
            cache_control=optional_text(document, "cacheControl") or None,
            content_disposition=optional_text(document, "contentDisposition") or None,
            content_encoding=optional_text(document, "contentEncoding") or None,
            content_language=optional_text(document, "contentLanguage") or None,
            checksums=checksums,
            version_id=generation,
            backend=backend,
            write_id=write_id,
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UnavailableError(f"the service's response is malformed: {error!r}") from error


def parse_number(name: str, value: object) -> int:
    """Return a number in a resource. The service sends numbers as strings if they may need 64 bits.

    Raises:
        ValueError: The value is not a number, or is negative.
    """
    digits = str(value) if type(value) in {int, str} else ""
    if not _DIGITS(digits):
        raise ValueError(f"{name} must be a number, got {str(value)[:40]!r}")
    return int(digits)


def parse_time(name: str, value: object) -> datetime:
    """Return a time in a resource.

    Raises:
        ValueError: The value is not a time, or has no time zone.
    """
    try:
        if isinstance(value, str) and (time := datetime.fromisoformat(value)).tzinfo is not None:
            return time
    except ValueError:
        pass
    raise ValueError(f"{name} must be a time with a time zone, got {str(value)[:40]!r}")


def optional_text(document: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - str | None, but some fields are mandatory
    """Return a string in a resource, or None if it is missing.

    Raises:
        TypeError: The value is not a string.
    """
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} is not a string")
    return value


def info_from_headers(
    headers: Mapping[str, str], *, bucket: str, key: str, backend: str, partial: bool = False
) -> tuple[ObjectInfo, bool]:
    """Return the metadata in the headers of a response with a body, and whether it is exact.

    It is not exact if a header cannot carry a value, if a header may be the joined values of two names
    that differ only in case, or if the date is missing. The caller then reads the object's resource.

    Raises:
        UnavailableError: The headers are malformed.
    """
    # 1. Collect the metadata and the checksums.
    metadata: dict[str, str] = {}
    checksums: dict[str, str] = {}
    exact, may_be_joined = True, False
    for name, value in headers.items():
        if name[0] not in "xX":
            continue
        lowered = name.lower()
        if lowered.startswith("x-goog-meta-"):
            may_be_joined = may_be_joined or ", " in value or lowered[12:] in metadata
            metadata[lowered[12:]] = value
            exact = exact and _is_header_safe(value)
        elif lowered == "x-goog-hash":  # one header with all checksums, or one per checksum
            checksums.update(parse_hashes(value))
    # 2. Decide whether the metadata is exact.
    exact = metadata.pop(EXACT, None) is None and exact
    write_id = metadata.pop(WRITE_ID, None)
    modified = headers.get("last-modified")
    # An object that this library wrote (write_id) has one spelling of each name, so a comma is part of
    # a value. In other objects it may join the values of two names.
    exact = exact and modified is not None and (write_id is not None or not may_be_joined)
    # 3. Read the other fields.
    encoding = headers.get("x-goog-stored-content-encoding") or headers.get("content-encoding")
    cache_control = headers.get("cache-control")
    try:
        generation = str(parse_number("x-goog-generation", headers["x-goog-generation"]))
        part = content_part(headers, partial=partial)
        length = headers.get("content-length")
        size = headers.get("x-goog-stored-content-length") or length
        if (
            part is None
            and length != size
            and parse_number("Content-Length", length or "0")
            > parse_number("the stored length", size or "0")
        ):
            # For example, a proxy decompressed the body. Reading only the stored size would truncate it.
            raise ValueError(f"a body of {length} bytes for an object of {size} bytes")  # noqa: TRY301 - translated below
        info = ObjectInfo(
            bucket=bucket,
            key=key,
            size=parse_number("the length", size or "") if part is None else part[2],
            etag=generation,
            last_modified=_UNKNOWN_DATE
            if modified is None
            else date_field("Last-Modified", modified),
            content_type=headers.get("content-type"),
            metadata=metadata,
            storage_class=headers.get("x-goog-storage-class"),
            cache_control=None if cache_control in _DEFAULT_CACHE_CONTROLS else cache_control,
            content_disposition=headers.get("content-disposition"),
            content_encoding=None if encoding == "identity" else encoding,
            content_language=headers.get("content-language"),
            checksums=checksums,
            version_id=generation,
            backend=backend,
            write_id=write_id,
        )
    except (KeyError, ValueError) as error:
        raise UnavailableError(f"the service's response is malformed: {error!r}") from error
    return info, exact


def content_part(headers: Mapping[str, str], *, partial: bool) -> tuple[int, int, int] | None:
    """Return the start and end (exclusive) of a partial body and the object's size; None: a whole body.

    Args:
        headers: The headers of the response.
        partial: Whether the status is 206. Otherwise a Content-Range has no meaning (RFC 9110,
            14.4), and some servers send an invalid one for an empty object.

    Raises:
        ValueError: A partial response has no valid Content-Range.
    """
    try:
        return parse_content_range(headers, partial=partial)
    except ValueError:
        if partial:
            raise
        return None


def parse_hashes(value: str) -> dict[str, str]:
    """Return the checksums in an x-goog-hash header: ``crc32c=…,md5=…``."""
    pairs = (pair.strip().partition("=") for pair in value.split(","))
    return {
        name: _checksum(name, digest) for name, _, digest in pairs if digest and name in CHECKSUMS
    }


def _checksum(name: str, digest: str) -> str:
    if not _DIGESTS[name](digest):
        raise UnavailableError(
            f"the service's response is malformed: {digest[:40]!r} is not a {name} in base64"
        )
    return digest


def is_generation(etag: str | None) -> TypeGuard[str]:
    """Return whether an etag has the form of a generation."""
    return etag is not None and _GENERATION(etag) is not None


def require_generation(etag: str | None) -> str:
    """Return an etag that has the form of a generation.

    Raises:
        PreconditionFailedError: The etag does not have this form, so no object matches it. Zero is
            not a generation either: to the service it means "no object".
    """
    if not is_generation(etag):
        raise PreconditionFailedError("if_match: no object of this backend can have this etag")
    return etag


def condition_query(options: PutOptions) -> dict[str, str]:
    """Return the condition of a write as query parameters.

    JSON API, "Objects: insert": with "ifGenerationMatch=0", the write succeeds only if the object has no
    live version.
    """
    if options.if_none_match is not None:
        return {"ifGenerationMatch": "0"}
    if options.if_match is not None:
        return {"ifGenerationMatch": require_generation(options.if_match)}
    return {}


def _required_name(document: Mapping[str, Any]) -> str:
    name = document["name"]
    if not isinstance(name, str):
        raise TypeError("the name is not a string")
    return name


def bucket_from_resource(document: Mapping[str, Any]) -> BucketInfo:
    """Return the metadata in the resource of a bucket.

    Raises:
        UnavailableError: The resource is malformed.
    """
    try:
        created = document.get("timeCreated")
        return BucketInfo(
            name=_required_name(document),
            created=None if created is None else parse_time("timeCreated", created),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UnavailableError(f"the service's response is malformed: {error!r}") from error

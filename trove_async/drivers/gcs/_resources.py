"""What is said of an object: `PutOptions` to the service's resource, and its answers to `ObjectInfo`.

An object's etag here is its *generation*: the number that the service gives to each content that a
key has ever had (Cloud Storage documentation, "Object generations and metagenerations"), and the one
condition that it keeps on every kind of request. The service's own etags differ between JSON and
XML, and change with the metadata. A generation is also the version's id, where versions are kept.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeGuard

from trove_async._http import parse_content_range
from trove_async._http_dates import parse_service_date
from trove_async.errors import PreconditionFailedError, UnavailableError
from trove_async.models import BucketInfo, ObjectInfo
from trove_async.options import PutOptions

WRITE_ID: Final = "trove-write-id"
EXACT: Final = "trove-exact"
"""Reserved metadata. The second is set where headers do not carry some of the others as they are:
whoever reads them there then asks for the resource."""

DEFAULT_TYPE: Final = "application/octet-stream"
"""What an object without a type is served as; said outright, as not all servers do so."""

CHECKSUMS: Final = {"crc32c": "crc32c", "md5": "md5Hash"}
"""Our names of checksums and the resource's; both in base64. An object that was composed, or sent
through the XML API in parts, has no MD5 (Cloud Storage documentation, "Data validation")."""

_DIGESTS: Final = {
    "crc32c": re.compile(r"[A-Za-z0-9+/]{6}==").fullmatch,
    "md5": re.compile(r"[A-Za-z0-9+/]{22}==").fullmatch,
}

_HEADERS: Final = {
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
"""What is asked for of an object's resource: all that `info_of` looks at, and nothing else."""

_NOTHING: Final = "AAAAAA=="
"""The CRC-32C of no bytes."""

_UNTOLD: Final = datetime.fromtimestamp(0, UTC)
"""Stands for a date that headers lack, until the object's resource is asked."""

_HEADER_SAFE = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)").fullmatch
_WHOLE = re.compile(r"[0-9]{1,19}").fullmatch
_NUMBER = re.compile(r"[1-9][0-9]{0,18}").fullmatch

_SERVED_BY_DEFAULT: Final = frozenset({"private, max-age=0", "public, max-age=3600"})
"""The Cache-Control of answers for objects that have none. Cloud Storage documentation,
"Cache-Control": default values."""


def resource_of(
    options: PutOptions, key: str | None = None, *, custom_time: str | None = None
) -> bytes:
    """Return the document that says of an object what the options do.

    Args:
        options: What the object is to have.
        key: Its key, where the request's path does not name it.
        custom_time: Its custom time, as the service writes it.
    """
    said: dict[str, Any] = {"contentType": options.content_type or DEFAULT_TYPE}
    if key is not None:
        said["name"] = key
    if custom_time is not None:
        said["customTime"] = custom_time
    if options.metadata or options.write_id is not None:
        metadata = said["metadata"] = dict(options.metadata)
        if not all(map(_plain, options.metadata.values())):
            metadata[EXACT] = "json"
        if options.write_id is not None:
            metadata[WRITE_ID] = options.write_id
    for ours, theirs in _HEADERS.items():
        value = getattr(options, ours)
        if value is not None:
            said[theirs] = value
    for ours, theirs in CHECKSUMS.items():
        if ours in options.checksums:
            said[theirs] = options.checksums[ours]
    return _encoded(said)


def _encoded(said: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(said, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # JSON can tell lone surrogates, in escapes, and UTF-8 cannot
        return json.dumps(said).encode()


def _plain(value: str) -> bool:
    """Tell whether a header carries the value, and nobody takes it for an encoded one."""
    return _HEADER_SAFE(value) is not None and "=?" not in value


def in_lower_case(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return metadata with its names in lower case, as headers carry them.

    The service keeps names as they were given. Of two that differ in case only, both stay as they
    are: neither is lost.

    Raises:
        TypeError: A name or a value is no string.
    """
    made: dict[str, str] = {}
    for name, value in metadata.items():
        if not isinstance(value, str):
            raise TypeError("metadata that is no string")
        made[name.lower()] = value
    if len(made) == len(metadata):
        return made
    spellings = Counter(name.lower() for name in metadata)
    return {
        (name.lower() if spellings[name.lower()] == 1 else name): value
        for name, value in metadata.items()
    }


def stored_size(said: Mapping[str, Any]) -> int:
    """Return the size that an object's resource has; some servers omit it where it is 0.

    Raises:
        KeyError: It has none, and its checksum is not that of nothing.
        ValueError: It is no number.
    """
    if "size" not in said and said.get("crc32c") == _NOTHING:
        return 0
    return number(said["size"])


def info_of(said: Mapping[str, Any], *, bucket: str, backend: str) -> ObjectInfo:
    """Return the facts in an object's resource.

    Raises:
        UnavailableError: It is no such resource.
    """
    try:
        key, generation = said["name"], said["generation"]
        if not (isinstance(key, str) and isinstance(generation, str)):
            raise TypeError("a name or a generation that is no string")  # noqa: TRY301 - told below
        given = said.get("metadata")
        metadata = in_lower_case(given) if given else {}
        write_id = metadata.pop(WRITE_ID, None)
        metadata.pop(EXACT, None)
        checksums = {
            ours: _checksum(ours, text(said, name))
            for ours, name in CHECKSUMS.items()
            if said.get(name)  # an emulator's may be empty
        }
        return ObjectInfo(
            bucket=bucket,
            key=key,
            size=stored_size(said),
            etag=generation,
            last_modified=moment(said["updated"]),
            content_type=text(said, "contentType"),
            metadata=metadata,
            storage_class=text(said, "storageClass"),
            cache_control=text(said, "cacheControl") or None,
            content_disposition=text(said, "contentDisposition") or None,
            content_encoding=text(said, "contentEncoding") or None,
            content_language=text(said, "contentLanguage") or None,
            checksums=checksums,
            version_id=generation,
            backend=backend,
            write_id=write_id,
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UnavailableError(f"the service's answer makes no sense: {error!r}") from error


def number(said: object) -> int:
    """Return a number of a resource, which JSON has as a string: it may have 64 bits.

    Raises:
        ValueError: It is none, or below zero.
    """
    written = str(said) if type(said) in {int, str} else ""
    if not _WHOLE(written):
        raise ValueError(f"{str(said)[:40]!r} is no number")
    return int(written)


def moment(said: object) -> datetime:
    """Return a time of a resource.

    Raises:
        ValueError: It is none, or in no time zone.
    """
    if not isinstance(said, str) or (when := datetime.fromisoformat(said)).tzinfo is None:
        raise ValueError(f"{str(said)[:40]!r} is no time")
    return when


def text(said: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - a str, or None where it may lack
    """Return a text of a resource, None if it has none.

    Raises:
        TypeError: It is something else.
    """
    value = said.get(name)
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} is no string")
    return value


def info_from(
    headers: Mapping[str, str], *, bucket: str, key: str, backend: str, partial: bool = False
) -> tuple[ObjectInfo, bool]:
    """Return the facts in the headers of a body, and whether they are exact.

    They are not where a header cannot carry the metadata, where two names of it may differ in case
    only, which one header then carries both of, or where there is no date. The object's resource is
    to be asked then.

    Raises:
        UnavailableError: They make no sense.
    """
    metadata: dict[str, str] = {}
    checksums: dict[str, str] = {}
    exact, several = True, False
    for name, value in headers.items():
        if name[0] not in "xX":
            continue
        lowered = name.lower()
        if lowered.startswith("x-goog-meta-"):
            several = several or ", " in value or lowered[12:] in metadata
            metadata[lowered[12:]] = value
            exact = exact and _plain(value)
        elif lowered == "x-goog-hash":  # once with all of them, or once each
            checksums.update(hashes_in(value))
    exact = metadata.pop(EXACT, None) is None and exact
    write_id = metadata.pop(WRITE_ID, None)
    modified = headers.get("last-modified")
    # What this library wrote has one spelling of each name. Equal names are joined by a comma.
    exact = exact and modified is not None and (write_id is not None or not several)
    encoding = headers.get("x-goog-stored-content-encoding") or headers.get("content-encoding")
    cache_control = headers.get("cache-control")
    try:
        generation = str(number(headers["x-goog-generation"]))
        part = part_in(headers, partial=partial)
        length = headers.get("content-length")
        size = headers.get("x-goog-stored-content-length") or length
        if part is None and length != size and number(length or "0") > number(size or "0"):
            # Somebody on the way has unpacked it, say: its beginning is no object.
            raise ValueError(f"{length} bytes of an object of {size}")  # noqa: TRY301 - told below
        info = ObjectInfo(
            bucket=bucket,
            key=key,
            size=number(size or "") if part is None else part[2],
            etag=generation,
            last_modified=_UNTOLD if modified is None else parse_service_date(modified),
            content_type=headers.get("content-type"),
            metadata=metadata,
            storage_class=headers.get("x-goog-storage-class"),
            cache_control=None if cache_control in _SERVED_BY_DEFAULT else cache_control,
            content_disposition=headers.get("content-disposition"),
            content_encoding=None if encoding == "identity" else encoding,
            content_language=headers.get("content-language"),
            checksums=checksums,
            version_id=generation,
            backend=backend,
            write_id=write_id,
        )
    except (KeyError, ValueError) as error:
        raise UnavailableError(f"the service's answer makes no sense: {error!r}") from error
    return info, exact


def part_in(headers: Mapping[str, str], *, partial: bool) -> tuple[int, int, int] | None:
    """Return start, end (exclusive) and the whole size as headers tell them; None: all of it.

    Args:
        headers: The response's.
        partial: Whether its status says that it is a part. Elsewhere a Content-Range has no meaning
            (RFC 9110, 14.4), and servers write one that makes no sense for an empty object.

    Raises:
        ValueError: It is a part, and does not say which.
    """
    try:
        return parse_content_range(headers, partial=partial)
    except ValueError:
        if partial:
            raise
        return None


def hashes_in(value: str) -> dict[str, str]:
    """Return the checksums that a value of x-goog-hash tells: ``crc32c=…,md5=…``."""
    pairs = (pair.strip().partition("=") for pair in value.split(","))
    return {
        name: _checksum(name, digest) for name, _, digest in pairs if digest and name in CHECKSUMS
    }


def _checksum(name: str, digest: str) -> str:
    if not _DIGESTS[name](digest):
        raise UnavailableError(
            f"the service's answer makes no sense: {digest[:40]!r} is no {name} in base64"
        )
    return digest


def is_generation(etag: str | None) -> TypeGuard[str]:
    """Tell whether an etag can be one of ours: a generation."""
    return etag is not None and _NUMBER(etag) is not None


def generation_of(etag: str | None) -> str:
    """Return the generation that an etag of ours stands for.

    Raises:
        PreconditionFailedError: It stands for none, so no object has it. Zero, to the service, would
            mean "no object", which is not what an etag says.
    """
    if not is_generation(etag):
        raise PreconditionFailedError("if_match: this backend has given no object that etag")
    return etag


def precondition(options: PutOptions) -> dict[str, str]:
    """Return a write's condition as the query has it.

    JSON API, "Objects: insert": "ifGenerationMatch=0" succeeds only if there is no live version.
    """
    if options.if_none_match is not None:
        return {"ifGenerationMatch": "0"}
    if options.if_match is not None:
        return {"ifGenerationMatch": generation_of(options.if_match)}
    return {}


def _named(said: Mapping[str, Any]) -> str:
    name = said["name"]
    if not isinstance(name, str):
        raise TypeError("a name that is no string")
    return name


def bucket_of(said: Mapping[str, Any]) -> BucketInfo:
    """Return what a bucket's resource tells.

    Raises:
        UnavailableError: It is no such resource.
    """
    try:
        created = said.get("timeCreated")
        return BucketInfo(name=_named(said), created=None if created is None else moment(created))
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UnavailableError(f"the service's answer makes no sense: {error!r}") from error

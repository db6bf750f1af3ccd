"""Encodes buckets, keys and queries in URLs, and checks names.

The driver uses the JSON API for documents. It uses the XML API, if the service has one, for reading
bodies: only the XML API returns an object's metadata together with its body.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from trove_async.errors import InvalidNameError

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]").fullmatch
"""Matches a bucket name with valid characters and a valid length. The service has more rules. Cloud Storage
documentation, "About Cloud Storage buckets"."""

_FORBIDDEN_IN_KEYS = re.compile(r"[\r\n]").search
"""Finds a forbidden character in a key. Cloud Storage documentation, "About Cloud Storage objects"."""

_UNRESERVED_ONLY = re.compile(r"[A-Za-z0-9\-._~]*+").fullmatch
UNRESERVED: Final = "-._~"
"""The characters that are not encoded, in addition to letters and digits (RFC 3986, 2.3). The dots of a key
that is a dot segment are encoded."""


def check_bucket(bucket: str) -> str:
    """Return the bucket name if it is valid.

    Raises:
        InvalidNameError: The name is not valid.
    """
    if not _BUCKET(bucket):
        raise InvalidNameError(
            "a bucket name must have 3 to 222 lower-case letters, digits, dots, hyphens and underscores,"
            " and must start and end with a letter or digit",
            bucket=bucket,
        )
    return bucket


def is_valid_key(key: str) -> bool:
    """Return whether a key has none of the characters that the service forbids."""
    return not _FORBIDDEN_IN_KEYS(key)


def check_key(bucket: str, key: str) -> None:
    """Raise InvalidNameError if a key has a character that the service forbids."""
    if not is_valid_key(key):
        raise InvalidNameError("a key must not contain a line break", bucket=bucket, key=key)


_DOT_SEGMENTS: Final = {".": "%2E", "..": "%2E%2E"}
"""The encoded forms of the keys that have a special meaning as a path segment (RFC 3986, 3.3)."""


def is_dot_segment(key: str) -> bool:
    """Return whether a key is ``.`` or ``..``, which some servers resolve even if it is encoded.

    Google's service does not store such keys. Other servers may.
    """
    return key in _DOT_SEGMENTS


def encode(text: str) -> str:
    """Encode a key as a path segment, or a value in a query.

    Slashes are encoded as well, so that no proxy removes a key's empty segments or resolves its dot
    segments. Cloud Storage documentation, "Cloud Storage request endpoints": encoding URI path parts.
    """
    if _UNRESERVED_ONLY(text):
        return _DOT_SEGMENTS.get(text, text)
    return quote(text, safe=UNRESERVED)


def encode_query(values: Mapping[str, str]) -> str:
    """Return an encoded query that starts with ``?``, or an empty string if there are no values."""
    pairs = "&".join([f"{name}={encode(value)}" for name, value in values.items()])
    return f"?{pairs}" if pairs else ""


def append_query(query: Mapping[str, str]) -> str:
    """Return encoded parameters to append to a query that is not empty."""
    return "".join([f"&{name}={encode(value)}" for name, value in query.items()])


def bucket_path(bucket: str) -> str:
    """Return the path of a bucket in the JSON API."""
    return f"/storage/v1/b/{check_bucket(bucket)}"


def object_path(bucket: str, key: str) -> str:
    """Return the path of an object in the JSON API."""
    return f"{bucket_path(bucket)}/o/{encode(key)}"


def upload_path(bucket: str) -> str:
    """Return the path for uploads to a bucket in the JSON API."""
    return f"/upload{bucket_path(bucket)}/o"


def media_path(bucket: str, key: str) -> str:
    """Return the path of an object in the XML API."""
    return f"/{check_bucket(bucket)}/{encode(key)}"

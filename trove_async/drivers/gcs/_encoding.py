"""How buckets and keys stand in a request, and which of them the service cannot hold.

Both of the service's languages are spoken: JSON for all that is small, XML for reading bodies, as
only it tells an object's metadata together with its body.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from trove_async.errors import InvalidNameError

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]").fullmatch
"""What a bucket may be called. Cloud Storage documentation, "About Cloud Storage buckets"."""

_UNHOLDABLE = re.compile(r"[\r\n]").search
"""What no key may have. Cloud Storage documentation, "About Cloud Storage objects"."""

_PLAIN = re.compile(r"[A-Za-z0-9\-._~]*+").fullmatch
UNRESERVED: Final = "-._~"
"""What stays as it is, with letters and digits (RFC 3986, 2.3)."""


def check_bucket(bucket: str) -> str:
    """Return the name, if there can be such a bucket.

    Raises:
        InvalidNameError: There cannot.
    """
    if not _BUCKET(bucket):
        raise InvalidNameError(
            "a bucket's name is 3 to 222 lower-case letters, digits, dots, hyphens and underscores",
            bucket=bucket,
        )
    return bucket


def can_hold(key: str) -> bool:
    """Tell whether there can be an object of that key."""
    return not _UNHOLDABLE(key)


def check_key(bucket: str, key: str) -> None:
    """Raise InvalidNameError for a key that the service cannot hold."""
    if not can_hold(key):
        raise InvalidNameError(
            "the service cannot hold a key with a line break", bucket=bucket, key=key
        )


_DOTS: Final = {".": "%2E", "..": "%2E%2E"}
"""Keys that are a path's segment with a meaning of its own (RFC 3986, 3.3)."""


def is_dots(key: str) -> bool:
    """Return whether a key may be taken for a step in a path, however it is encoded.

    Google's service holds no such object; others may.
    """
    return key in _DOTS


def encode(text: str) -> str:
    """Return a name or a value as a path's segment or a query has it.

    Slashes are encoded as well (Cloud Storage documentation, "Cloud Storage request endpoints":
    encoding URI path parts), so nothing on the way takes a key's empty segments for litter, nor its
    segments of dots for steps.
    """
    if _PLAIN(text):
        return _DOTS.get(text, text)
    return quote(text, safe=UNRESERVED)


def encode_query(values: Mapping[str, str]) -> str:
    """Return a query, with its ``?`` unless it is empty."""
    pairs = "&".join([f"{name}={encode(value)}" for name, value in values.items()])
    return f"?{pairs}" if pairs else ""


def bucket_path(bucket: str) -> str:
    """Return where JSON has a bucket."""
    return f"/storage/v1/b/{check_bucket(bucket)}"


def object_path(bucket: str, key: str) -> str:
    """Return where JSON has an object."""
    return f"{bucket_path(bucket)}/o/{encode(key)}"


def upload_path(bucket: str) -> str:
    """Return where JSON takes bodies."""
    return f"/upload{bucket_path(bucket)}/o"


def media_path(bucket: str, key: str) -> str:
    """Return where XML has an object."""
    return f"/{check_bucket(bucket)}/{encode(key)}"

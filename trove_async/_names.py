"""Which names of buckets, keys and headers are refused on every backend alike.

The rules are the strictest common part of what S3, GCS, Azure and a POSIX file system can keep, so
that an object can move to another backend under its own name. They are checked by the store before
any I/O; drivers may rely on them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .errors import InvalidNameError

MAX_KEY_BYTES = 1024
"""S3 User Guide, "Naming Amazon S3 objects"; GCS documentation, "About Cloud Storage objects"."""

MAX_BUCKET_BYTES = 222
"""GCS documentation, "About Cloud Storage buckets": a name with dots may have 222 characters."""

RESERVED_METADATA = "trove-"
"""User metadata may not begin so (in any case): the library records its own facts there."""

_HEADER_BREAKING = re.compile(r"[\r\n\0]")
_METADATA_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2: token
_DOT_SEGMENT = re.compile(r"(?:^|/)\.{1,2}(?:/|$)")


def check(bucket: str, key: str) -> tuple[str, str]:
    """Return both names, if an object of that key may be written to a bucket of that name."""
    check_bucket(bucket)
    check_key(bucket, key)
    return bucket, key


def check_address(bucket: str, key: str) -> tuple[str, str]:
    """Return both names, if another tool may have written an object of that key.

    Some backends can address keys that the library refuses to write
    (`Capabilities.dot_segments`). Listings show them, and they can be read and deleted.
    """
    check_bucket(bucket)
    check_addressed_key(bucket, key)
    return bucket, key


def check_bucket(bucket: str) -> None:
    """Raise InvalidNameError if no bucket may have this name, TypeError if it is no string."""
    if not isinstance(bucket, str):
        raise TypeError(f"a bucket's name is a str, not {type(bucket).__name__}")
    if not bucket:
        raise InvalidNameError("a bucket's name is empty")
    if "/" in bucket or "\0" in bucket or bucket in {".", ".."}:
        raise InvalidNameError(
            "a bucket's name may hold no '/' or NUL and is not '.' or '..'", bucket=bucket
        )
    if len(_utf8(bucket, "a bucket's name")) > MAX_BUCKET_BYTES:
        raise InvalidNameError(f"a bucket's name is longer than {MAX_BUCKET_BYTES} bytes")


def check_key(bucket: str, key: str, max_bytes: int = MAX_KEY_BYTES) -> None:
    """Raise InvalidNameError if no object may be written under this key, TypeError if it is no str."""
    check_addressed_key(bucket, key, max_bytes)
    if has_dot_segment(key):
        raise InvalidNameError("a key may have no '.' or '..' segment", bucket=bucket, key=key)


def check_addressed_key(bucket: str, key: str, max_bytes: int = MAX_KEY_BYTES) -> None:
    """Raise InvalidNameError if no object can have this key, TypeError if it is no string."""
    if not isinstance(key, str):
        raise TypeError(f"a key is a str, not {type(key).__name__}")
    if not key:
        raise InvalidNameError("a key is empty: name an object", bucket=bucket)
    if "\0" in key:
        raise InvalidNameError("a key may hold no NUL", bucket=bucket, key=key)
    size = len(key) if key.isascii() else len(_utf8(key, "a key"))
    if size > max_bytes:
        raise InvalidNameError(
            f"a key may have {max_bytes} bytes of UTF-8, this one has {size}", bucket=bucket
        )


def has_dot_segment(key: str) -> bool:
    """Return whether a segment of the key is ``.`` or ``..``, which URLs and paths resolve."""
    # The regular expression is run only on the few keys that have a dot beside a slash or an end.
    return "." in key and _DOT_SEGMENT.search(key) is not None


def check_text(what: str, text: str) -> None:
    """Raise InvalidNameError if no key can hold the text, TypeError if it is none.

    Args:
        what: What it is, for the message.
        text: A prefix, a delimiter, a key to start after.
    """
    if not isinstance(text, str):
        raise TypeError(f"{what} is a str, not {type(text).__name__}")
    _utf8(text, what)


def check_prefix(prefix: str) -> None:
    """Raise InvalidNameError if no key can begin so."""
    check_text("a prefix", prefix)
    if "\0" in prefix:
        raise InvalidNameError("a prefix may hold no NUL: no key does")


def check_header(name: str, value: str | None) -> None:
    """Raise InvalidNameError if the value of a header-bound option would break a header."""
    if value is None:
        return
    check_text(name, value)
    if _HEADER_BREAKING.search(value):
        raise InvalidNameError(f"{name} may hold no CR, LF or NUL")


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raise InvalidNameError for metadata that cannot travel as headers, or names of our own."""
    for name, value in metadata.items():
        check_text("a metadata name", name)
        if not _METADATA_NAME.fullmatch(name):
            raise InvalidNameError(f"metadata name {name!r} is no HTTP token (RFC 9110)")
        if name.lower().startswith(RESERVED_METADATA):
            raise InvalidNameError(f"metadata name {name!r}: {RESERVED_METADATA}* is reserved")
        check_text(f"metadata {name!r}", value)
        check_header(f"metadata {name!r}", value)


def _utf8(text: str, what: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidNameError(f"{what} has no UTF-8 form: {text!r}") from error

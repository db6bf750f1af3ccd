"""Checks of the names of buckets, keys and headers.

A key may be written if S3, GCS, Azure and a POSIX file system can all store it, so that an object can
move to any of them under its own key. Cloud services allow fewer bucket names than these checks. The
store checks names before any I/O, and drivers rely on that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .errors import InvalidNameError

MAX_KEY_BYTES = 1024
"""Maximum length of a key (S3 User Guide, "Naming Amazon S3 objects"; GCS documentation, "About
Cloud Storage objects")."""

MAX_BUCKET_BYTES = 222
"""Maximum length of a bucket name: that of a name with dots on GCS (GCS documentation, "About Cloud
Storage buckets")."""

RESERVED_METADATA = "trove-"
"""The prefix, in upper or lower case, of the metadata names that the library uses itself."""

_LINE_BREAKING = re.compile(r"[\r\n\0]")
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # RFC 9110, 5.5: controls except tabs
_METADATA_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2: token
_DOT_SEGMENT = re.compile(r"(?:\A|/)\.{1,2}(?:/|\Z)")


def check(bucket: str, key: str) -> tuple[str, str]:
    """Return both names if such an object may be written. Raise InvalidNameError otherwise."""
    # Every put runs through this function, and nearly every name is like this.
    is_usual = type(bucket) is type(key) is str and _USUAL_BUCKET(bucket) and _USUAL_KEY(key)
    if not is_usual or ("." in key and _DOT_SEGMENT.search(key)):
        check_bucket(bucket)
        check_key(bucket, key)
    return bucket, key


def check_address(bucket: str, key: str) -> tuple[str, str]:
    """Return both names if such an object may be read or deleted.

    Other tools can write keys that this library does not. Backends that can address such keys
    (`Capabilities.dot_segments`) list them, and can read and delete them.
    """
    if not (type(bucket) is type(key) is str and _USUAL_BUCKET(bucket) and _USUAL_KEY(key)):
        check_bucket(bucket)
        check_addressed_key(bucket, key)
    return bucket, key


is_usual_header = re.compile(r"[!-~]++(?: [!-~]++)*+").fullmatch
"""Matches header values of ASCII characters that `check_header` accepts."""

_USUAL_KEY = re.compile(r"[\x01-\x7f]{1,1024}").fullmatch
"""Matches keys of ASCII characters that `check_addressed_key` accepts."""

_USUAL_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,62}").fullmatch
"""Matches the names of buckets that all services accept, and some others that `check_bucket` accepts."""


def check_bucket(bucket: str) -> None:
    """Raise InvalidNameError if the bucket name is not allowed, TypeError if it is not a str."""
    if not isinstance(bucket, str):
        raise TypeError(f"a bucket name must be a str, got {type(bucket).__name__}")
    if not bucket:
        raise InvalidNameError("a bucket name must not be empty")
    if "/" in bucket or "\0" in bucket or bucket in {".", ".."}:
        raise InvalidNameError(
            "a bucket name must not contain '/' or NUL, and must not be '.' or '..'", bucket=bucket
        )
    size = len(_utf8(bucket, "a bucket name"))
    if size > MAX_BUCKET_BYTES:
        raise InvalidNameError(
            f"a bucket name must have at most {MAX_BUCKET_BYTES} bytes of UTF-8, got {size}"
        )


def check_key(bucket: str, key: str, max_bytes: int = MAX_KEY_BYTES) -> None:
    """Raise InvalidNameError if the key may not be written, TypeError if it is not a str."""
    check_addressed_key(bucket, key, max_bytes)
    if has_dot_segment(key):
        raise InvalidNameError("a key must not have a '.' or '..' segment", bucket=bucket, key=key)


def check_addressed_key(bucket: str, key: str, max_bytes: int = MAX_KEY_BYTES) -> None:
    """Raise InvalidNameError if no object can have this key, TypeError if it is not a str."""
    if not isinstance(key, str):
        raise TypeError(f"a key must be a str, got {type(key).__name__}")
    if not key:
        raise InvalidNameError("a key must not be empty", bucket=bucket)
    if "\0" in key:
        raise InvalidNameError("a key must not contain NUL", bucket=bucket, key=key)
    # An ASCII key has as many bytes as characters, so it need not be encoded to be measured.
    size = len(key) if key.isascii() else len(_utf8(key, "a key"))
    if size > max_bytes:
        raise InvalidNameError(
            f"a key must have at most {max_bytes} bytes of UTF-8, got {size}", bucket=bucket
        )


def has_dot_segment(key: str) -> bool:
    """Return whether a segment of the key is ``.`` or ``..``, which URLs and paths resolve."""
    # Searching for a dot first is faster for the keys that have none.
    return "." in key and _DOT_SEGMENT.search(key) is not None


def check_text(name: str, text: str) -> None:
    """Raise InvalidNameError if the text has no UTF-8 form, TypeError if it is not a str.

    Args:
        name: The name of the argument, for the message.
        text: The value of the argument, such as a prefix or a metadata value.
    """
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str, got {type(text).__name__}")
    _utf8(text, name)


def check_prefix(prefix: str) -> None:
    """Raise InvalidNameError if the prefix has no UTF-8 form, or contains NUL."""
    check_text("a prefix", prefix)
    if "\0" in prefix:
        raise InvalidNameError("a prefix must not contain NUL, because no key does")


def check_header(name: str, value: str | None) -> None:
    """Raise InvalidNameError if HTTP cannot carry an option's value unchanged in a header.

    Non-ASCII characters are allowed: drivers send them as UTF-8.
    """
    if value is None or (type(value) is str and is_usual_header(value)):
        return
    check_text(name, value)
    control = _UNSENDABLE.search(value)
    if control is not None:
        raise InvalidNameError(f"{name} must not contain control characters, got {control[0]!r}")
    if value.strip(" \t") != value:  # RFC 9110, 5.5: not part of the value
        raise InvalidNameError(
            f"{name} must not start or end with a space or a tab, which HTTP does not keep"
        )


def check_line(name: str, text: str) -> None:
    """Raise InvalidNameError for text with CR, LF or NUL.

    Drivers encode metadata values and tags, so every other character is stored unchanged.
    """
    check_text(name, text)
    if _LINE_BREAKING.search(text):
        raise InvalidNameError(f"{name} must not contain CR, LF or NUL")


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raise InvalidNameError for names that are reserved or not HTTP tokens, and for bad values."""
    for name, value in metadata.items():
        check_text("a metadata name", name)
        if not _METADATA_NAME.fullmatch(name):
            raise InvalidNameError(f"metadata name {name!r} must be an HTTP token (RFC 9110)")
        if name.lower().startswith(RESERVED_METADATA):
            raise InvalidNameError(
                f"metadata name {name!r} must not start with {RESERVED_METADATA!r}, which is reserved"
            )
        check_line(f"metadata {name!r}", value)


def _utf8(text: str, name: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidNameError(
            f"{name} must have a UTF-8 form, got {text!r}: remove its lone surrogates"
        ) from error

"""Encode and decode keys, query values and ETags.

``encoding-type=url`` requests a listing with percent-encoded keys, because XML 1.0 cannot contain
every character of a key. The HTTP data plane first requests each page with it. Without it, SeaweedFS
returns U+FFFD for a control character, and AWS and moto return invalid XML. Services encode differently:

==============================  ========  ========  ================================================
service                         space     ``+``     other
==============================  ========  ========  ================================================
AWS (as botocore decodes it)    ``+``     ``%2B``   ``/`` kept
SeaweedFS 4.48 (observed)       ``+``     ``%2B``   ``/`` kept, the token not encoded
moto 5.2 (observed)             ``%20``   ``%2B``   ``/`` kept
==============================  ========  ========  ================================================

An unescaped ``+`` always means a space, so one decoder serves all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote, unquote_plus

from trove_async.errors import InvalidNameError

UNRESERVED: Final = "-._~"
"""Characters that, like letters and digits, are not encoded. RFC 3986, 2.3; S3 API Reference,
"Signature Calculations for the Authorization Header": UriEncode."""

is_plain_path = re.compile(r"[A-Za-z0-9\-._~/]*+").fullmatch
"""Matches a key that `encode_path` leaves as it is."""

_ETAG = re.compile(r"[!#-~][ !#-~]*+").fullmatch
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9\-._~]*+").fullmatch


def encode_path(key: str) -> str:
    """Percent-encode a key for a request's path. Slashes and unreserved characters are kept."""
    return key if is_plain_path(key) else quote(key, safe="/" + UNRESERVED)


_DOTS = re.compile(r"(?<=/)\.{1,2}(?=/|$)")


def sent_target(target: str) -> str:
    """Return a request's target with the dots of ``.`` and ``..`` segments encoded.

    A proxy or server may resolve these segments (RFC 3986, 5.2.4), which selects a different key. An
    encoded dot is equivalent. The signature covers the target with plain dots, because services
    decode a path before they encode it for the signature (S3 API Reference, "Signature Calculations
    for the Authorization Header": UriEncode).
    """
    if "/." not in target:
        return target
    path, mark, query = target.partition("?")
    return _DOTS.sub(_encoded_dots, path) + mark + query


def _encoded_dots(match: re.Match[str]) -> str:
    return match[0].replace(".", "%2E")


def encode_value(text: str) -> str:
    """Percent-encode a name or value of a query. Slashes are encoded too."""
    return text if _PLAIN_VALUE(text) else quote(text, safe=UNRESERVED)


def encode_query(values: Mapping[str, str]) -> str:
    """Return an encoded query without its ``?``, sorted as the signature requires.

    Args:
        values: The values by name. An empty value yields the name alone, as for S3's subresources.
    """
    pairs = sorted((encode_value(name), encode_value(value)) for name, value in values.items())
    return "&".join([f"{name}={value}" if value else name for name, value in pairs])


def decode_value(text: str) -> str:
    """Decode a key or prefix in a response to ``encoding-type=url``.

    Raises:
        UnicodeDecodeError: The decoded bytes are not UTF-8.
    """
    if "%" in text or "+" in text:
        return unquote_plus(text, errors="strict")
    return text


def decode_values(texts: Sequence[str]) -> Sequence[str]:
    """Decode keys or prefixes. See `decode_value`."""
    joined = "".join(texts)
    return [*map(decode_value, texts)] if "%" in joined or "+" in joined else texts


def bare_etag(text: str) -> str:
    """Return an ETag without its quotes, which some services omit.

    A weak ETag is returned unchanged.
    """
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1]
    return text


plain_etag = re.compile(r'"((?!W/|w/)[!#-~]++)"').fullmatch
"""Matches an ETag as services send it, whose first group `strong_etag` returns."""


def strong_etag(text: str | None) -> str | None:
    """Return an ETag for `ObjectInfo.etag`, or None if it is not a strong validator.

    A weak ETag (RFC 9110, 8.8.3) may stay the same when the content changes, and an empty one is
    the same for every object. As a condition, either might match a different version. The result is
    also None for an ETag with characters that a request cannot repeat unchanged.
    """
    if text is None:
        return None
    etag = bare_etag(text.strip())
    return None if etag[:2] in {"W/", "w/"} or not _ETAG(etag) else etag


def strong_etags(texts: Sequence[str]) -> Sequence[str | None]:
    """Return the ETags of many objects for `ObjectInfo.etag`. See `strong_etag`."""
    joined = "".join(texts)
    if (
        all(texts)
        and joined.isascii()
        and joined.isprintable()
        and '"' not in joined
        and " " not in joined
        and "/" not in joined  # none is weak
    ):
        return texts
    return [*map(strong_etag, texts)]


def quoted_etag(etag: str) -> str:
    """Return an ETag for a request header: in quotes, unless it is weak (RFC 9110, 8.8.3)."""
    return etag if etag.startswith("W/") else f'"{etag}"'


_BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,254}").fullmatch
"""Any valid bucket name, including the names that us-east-1 once allowed. S3 User Guide, "General
purpose bucket naming rules"."""


def check_bucket(name: str) -> None:
    """Raise InvalidNameError for an invalid bucket name. Services alter some invalid names."""
    if not _BUCKET_NAME(name):
        raise InvalidNameError(
            "a bucket's name must consist of 3 to 255 letters, digits, dots, hyphens and underscores,"
            " and begin with a letter or digit"
        )

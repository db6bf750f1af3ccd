"""How keys, query values and etags are written on their way to the service and back.

``encoding-type=url`` asks a listing for percent-encoded keys, as XML 1.0 cannot carry all that a key
may hold. It should always be asked for: without it SeaweedFS tells a U+FFFD for a control character,
and moto and AWS answer with what is no XML. Services disagree on the encoding; all of these are
read alike:

==============================  ========  ========  ================================================
service                         blank     ``+``     else
==============================  ========  ========  ================================================
AWS (as botocore decodes it)    ``+``     ``%2B``   ``/`` kept
SeaweedFS 4.48 (as seen)        ``+``     ``%2B``   ``/`` kept, the token not encoded
moto 5.2 (as seen)              ``%20``   ``%2B``   ``/`` kept
==============================  ========  ========  ================================================

So a ``+`` is a blank in all of them, and no key of theirs is ambiguous.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote_plus

from trove_async.errors import InvalidNameError

UNRESERVED: Final = "-._~"
"""What stays as it is, with letters and digits. RFC 3986, 2.3; S3 API Reference, "Signature
Calculations for the Authorization Header": UriEncode."""

_PLAIN_PATH = re.compile(r"[A-Za-z0-9\-._~/]*+").fullmatch
_ETAG = re.compile(r"[!#-~][ !#-~]*+").fullmatch
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9\-._~]*+").fullmatch


def encode_path(key: str) -> str:
    """Return a key as a request's path has it: every byte of UTF-8 encoded but the plain ones."""
    return key if _PLAIN_PATH(key) else quote(key, safe="/" + UNRESERVED)


_DOTS = re.compile(r"(?<=/)\.{1,2}(?=/|$)")


def sent_target(target: str) -> str:
    """Return a request's target as it is sent: without ``.`` and ``..`` segments.

    A proxy or server may resolve these (RFC 3986, 5.2.4), which would be another key. A dot that is
    encoded means the same, and the signature is that of the target with dots: services decode a
    path before they encode it for the signature (S3 API Reference, "Signature Calculations for the
    Authorization Header": UriEncode).
    """
    if "/." not in target:
        return target
    path, mark, query = target.partition("?")
    return _DOTS.sub(_encoded_dots, path) + mark + query


def _encoded_dots(found: re.Match[str]) -> str:
    return found[0].replace(".", "%2E")


def encode_value(text: str) -> str:
    """Return a name or value as a query has it: as a path, but for the slash."""
    return text if _PLAIN_VALUE(text) else quote(text, safe=UNRESERVED)


def encode_query(values: Mapping[str, str]) -> str:
    """Return the query, without its ``?``: sorted, as it is signed.

    Args:
        values: By name; an empty value is written as the name alone, as S3 does its subresources.
    """
    pairs = sorted((encode_value(name), encode_value(value)) for name, value in values.items())
    return "&".join([f"{name}={value}" if value else name for name, value in pairs])


def decode_value(text: str) -> str:
    """Return what an answer of ``encoding-type=url`` stands for.

    Raises:
        UnicodeDecodeError: It is not UTF-8.
    """
    if "%" in text or "+" in text:
        return unquote_plus(text, errors="strict")
    return text


def bare_etag(text: str) -> str:
    """Return an etag without its quotes, which some services leave out.

    A weak one keeps them, and its mark.
    """
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1]
    return text


def strong_etag(text: str | None) -> str | None:
    """Return an ETag field as `ObjectInfo.etag` has it: None where it is no strong validator.

    A weak one (RFC 9110, 8.8.3) may stay when the content changes, and an empty one is the same for
    every object: in a condition either would let one version pass for another. One that a request
    may not be able to repeat as it is, byte for byte, is none either.
    """
    if text is None:
        return None
    etag = bare_etag(text.strip())
    return None if etag[:2] in {"W/", "w/"} or not _ETAG(etag) else etag


def quoted_etag(etag: str) -> str:
    """Return an etag as a request has it (RFC 9110, 8.8.3)."""
    return etag if etag.startswith("W/") else f'"{etag}"'


_BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,254}").fullmatch
"""Any valid bucket name, including the names that us-east-1 once allowed. S3 User Guide, "General
purpose bucket naming rules"."""


def check_bucket(name: str) -> None:
    """Raise InvalidNameError for an invalid bucket name: services mangle some of them."""
    if not _BUCKET_NAME(name):
        raise InvalidNameError(
            "a bucket's name is 3 to 255 letters, digits, dots, hyphens and underscores"
        )

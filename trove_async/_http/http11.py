"""Heads and framing of HTTP/1.1 messages (RFC 9112), without I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from trove_async.errors import InvalidNameError, UnavailableError

from .headers import field_text

if TYPE_CHECKING:
    from .transport import Origin

T = TypeVar("T")

CHUNKED: Final = -1
"""Stands for the unknown length of a body that is sent in chunks (RFC 9112, 7.1)."""

MAX_INTERIM: Final = 20
"""Maximum number of interim responses (RFC 9110, 15.2) before the final one. Most servers send at most one."""

_MAX_LENGTH_DIGITS: Final = 19
"""Maximum number of digits of a length, enough for 63 bits."""

_STATUS = re.compile("[0-9]{3}").fullmatch

_LENGTH = re.compile("[0-9]{1,18}").fullmatch
"""Matches the usual form of a Content-Length. `parse_number` judges the others."""

_BODILESS: Final = frozenset((204, 304))  # RFC 9110, 6.4.1

_METHODS_WITH_BODY: Final = frozenset(("PUT", "POST"))
"""Methods whose requests have a Content-Length even if it is 0 (RFC 9110, 8.6)."""

_NOT_CONTROLS: Final = b"\t" + bytes({*range(0x20, 0x100)} - {0x7F})
"""Tabs (RFC 9110, 5.5), and all bytes that are not control characters."""

_UNAMBIGUOUS: Final = bytes({*range(0x100)} - set(b"\r\n\0"))
"""The bytes that do not end a line or a string."""

_FORBIDDEN = re.compile("[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]").search
"""Control characters except tabs (RFC 9110, 5.5), and lone surrogates, which UTF-8 cannot encode."""


def request_head(
    method: str, origin: Origin, target: str, headers: Mapping[str, str], size: int
) -> bytes:
    """Return the head of a request, encoded.

    Raises:
        InvalidNameError: The target or a header has a control character or a lone surrogate.
    """
    lines = [f"{method} {target} HTTP/1.1", f"Host: {origin.authority}"]
    for name, value in headers.items():  # a comprehension would be one more call (Python 3.11)
        lines.append(f"{name}: {value}")
    if size or method in _METHODS_WITH_BODY:
        lines.append(f"Content-Length: {size}")
    lines.append("\r\n")
    head = "\r\n".join(lines)
    try:
        encoded = head.encode()
        # A line break in a value would inject a header: the only control characters end the lines.
        if encoded.translate(None, _NOT_CONTROLS) == b"\r\n" * len(lines):  # faster than a search
            return encoded
        del encoded
    except UnicodeEncodeError:  # the error contains the head: it must not become the context
        pass
    # A traceback recorded with its local variables would show the credentials.
    del head, lines, headers
    raise _forbidden_characters()


def check_request_head(target: str, headers: Mapping[str, str]) -> None:
    """Raise if a request cannot be sent, for a transport that does not use `request_head`.

    Raises:
        InvalidNameError: The target or a header has a control character or a lone surrogate.
    """
    is_valid = not any(map(_FORBIDDEN, (target, *headers, *headers.values())))
    del headers  # as in `request_head`
    if not is_valid:
        raise _forbidden_characters()


def _forbidden_characters() -> InvalidNameError:
    return InvalidNameError(
        "the target and the headers of a request must not contain line breaks, control characters "
        "or lone surrogates"
    )


class ResponseHead(NamedTuple):
    """The head of a response, and how its body ends.

    Attributes:
        status: The status code.
        headers: The headers, by lower-case name.
        length: Bytes of the body; `CHUNKED`; or None if the body ends with the connection.
        keep_alive: Whether the server accepts another request on the connection.
    """

    status: int
    headers: Mapping[str, str]
    length: int | None
    keep_alive: bool


def parse_head(  # noqa: C901 - calls would take longer than the branches
    head: bytes, *, has_body: bool
) -> ResponseHead:
    """Parse the head of a response.

    A field that is not UTF-8 is decoded as in `field_text`, so that its text can be sent, shown and
    stored. An ETag that is not UTF-8 is omitted.

    Args:
        head: The head, without the empty line at its end.
        has_body: Whether a response to the request can have a body. If not, its Content-Length is that
            of the response to a GET (RFC 9112, 6.3).

    Raises:
        UnavailableError: The head is malformed.
    """
    # 1. Split the lines, and check the status line.
    is_ascii = head.isascii()
    lines = head.decode("utf-8", "surrogateescape").split("\r\n")
    if head.translate(None, _UNAMBIGUOUS) != b"\r\n" * (len(lines) - 1):
        raise invalid_response("a bare CR, LF or NUL in the head")  # RFC 9112, 2.2; RFC 9110, 5.5
    first = lines[0]
    status = _statuses.get(first) or _parse_status(first)
    # 2. Parse the fields. Many lines are the same in every response, so their fields are cached.
    headers: dict[str, str] = {}
    for line in lines[1:]:
        field = _fields.get(line)
        if field is not None:
            name, value = field
        else:
            raw_name, colon, value = line.partition(":")
            name = (_names.get(raw_name) or _parse_name(raw_name)) if colon else ""
            if not name:
                raise invalid_response("a header name is malformed")
            value = value.strip(" \t")
            if not is_ascii:
                if name == "etag" and field_text(value) != value:
                    continue  # a condition could not send it back unchanged
                name, value = field_text(name), field_text(value)
            elif name in _REPEATED and len(line) <= _MAX_CACHED_LINE:
                _remember(_fields, _MAX_FIELDS, line, (name, value))
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    # 3. Find out how the body ends. Without unusual fields, this calls no other function.
    length = headers.get("content-length")
    if length is not None and "," in length:
        length = _merged_length(headers)
    count: int | None = 0
    if has_body and status not in _BODILESS:
        if length is not None and _LENGTH(length) and "transfer-encoding" not in headers:
            count = int(length)
        else:
            count = body_length(headers)
    keep_alive = (first.startswith("HTTP/1.1") and "connection" not in headers) or keeps_alive(
        first[:8], headers
    )
    return ResponseHead(status, headers, count, keep_alive)


_statuses: Final[dict[str, int]] = {}
"""The status codes of the status lines that were received."""


def _parse_status(line: str) -> int:
    if not line.startswith("HTTP/1.") or not (line[8:9] == " " and _STATUS(line[9:12])):
        raise invalid_response("the status line is malformed")
    status = int(line[9:12])
    if len(line) <= _MAX_CACHED_LINE:
        _remember(_statuses, _MAX_STATUSES, line, status)
    return status


_fields: Final[dict[str, tuple[str, str]]] = {}
"""The names and values of lines that were received and are in `_REPEATED`."""

_REPEATED: Final = frozenset(
    {
        "accept-ranges",
        "cache-control",
        "content-length",
        "content-type",
        "date",
        "server",
        "vary",
        "x-amz-bucket-region",
        "x-amz-checksum-type",
        "x-amz-server-side-encryption",
        "x-amz-storage-class",
        "x-goog-storage-class",
    }
)
"""Headers with the same value in many responses. A date is repeated for a second."""

_MAX_STATUSES: Final = 64
_MAX_FIELDS: Final = 1024
_MAX_CACHED_LINE: Final = 128


def _remember(cache: dict[str, T], maximum: int, text: str, value: T) -> None:
    """Add an entry to a cache, which is cleared if it is full: servers may send ever new texts."""
    if len(cache) >= maximum:
        cache.clear()
    cache[text] = value


_names: Final[dict[str, str]] = {}
"""Lower-case forms of the header names that were received, by the name as it was spelled."""

_MAX_NAMES: Final = 1024
_MAX_CACHED_NAME: Final = 64


def _parse_name(name: str) -> str:
    """Return a header name in lower case, or "" if it is malformed."""
    if name != name.strip():  # a folded line: RFC 9112, 5.2
        return ""
    if len(name) <= _MAX_CACHED_NAME and name.isascii():
        _remember(_names, _MAX_NAMES, name, name.lower())
    return name.lower()


def _merged_length(headers: dict[str, str]) -> str:
    """Return the Content-Length of a response that has several. Equal ones count once (RFC 9110, 8.6)."""
    values = {value.strip() for value in headers["content-length"].split(",")}
    if len(values) == 1:
        headers["content-length"] = values.pop()
    return headers["content-length"]


def body_length(headers: Mapping[str, str]) -> int | None:
    """Return the length of a body: bytes, `CHUNKED`, or None if it ends with the connection.

    Raises:
        UnavailableError: The length or the transfer coding is invalid.
    """
    coding = headers.get("transfer-encoding")
    if coding is not None:
        if coding.lower() != "chunked":
            raise invalid_response("the transfer coding must be chunked")
        return CHUNKED
    length = headers.get("content-length")
    if length is None:
        return None
    if "," in length:
        raise invalid_response("two different Content-Length values")
    return parse_number(length.encode(), 10)


def parse_number(digits: bytes, base: int) -> int:
    """Return the value of a length in decimal or hexadecimal digits.

    Raises:
        UnavailableError: The digits are not a number, or are too many.
    """
    # int() would also accept signs, spaces and underscores.
    if not digits.isalnum() or len(digits.lstrip(b"0")) > _MAX_LENGTH_DIGITS:
        raise invalid_response("a length must be a number")
    try:
        return int(digits, base)
    except ValueError:
        raise invalid_response("a length must be a number") from None


def keeps_alive(version: str, headers: Mapping[str, str]) -> bool:
    """Return whether the connection stays open (RFC 9112, 9.3)."""
    options = {option.strip() for option in (headers.get("connection") or "").lower().split(",")}
    return "close" not in options and (version == "HTTP/1.1" or "keep-alive" in options)


def early_success() -> UnavailableError:
    """Return the error for a success response that precedes the end of the request body."""
    return invalid_response("it reported success before it received the whole request")


def invalid_response(reason: str) -> UnavailableError:
    """Return the error for a response that violates the protocol."""
    return UnavailableError(f"the server responded with invalid HTTP: {reason}")

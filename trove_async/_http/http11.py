"""Heads and framing of HTTP/1.1 messages (RFC 9112), without I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from trove_async.errors import InvalidNameError, UnavailableError

from .headers import field_text

if TYPE_CHECKING:
    from .transport import Origin

CHUNKED: Final = -1
"""Stands for the unknown length of a body that is sent in chunks (RFC 9112, 7.1)."""

MAX_INTERIM: Final = 20
"""Maximum number of interim responses (RFC 9110, 15.2) before the final one. Most servers send at most one."""

_MAX_LENGTH_DIGITS: Final = 19
"""Maximum number of digits of a length, enough for 63 bits."""

_STATUS = re.compile("[0-9]{3}").fullmatch

_METHODS_WITH_BODY: Final = frozenset(("PUT", "POST"))
"""Methods whose requests have a Content-Length even if it is 0 (RFC 9110, 8.6)."""

_CONTROLS: Final = bytes({*range(0x20), 0x7F} - set(b"\t\r\n"))
"""Control characters except tabs (RFC 9110, 5.5) and line breaks."""

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
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if size or method in _METHODS_WITH_BODY:
        lines.append(f"Content-Length: {size}")
    lines.append("\r\n")
    head = "\r\n".join(lines)
    # A line break in a value would inject a header, so each line must have exactly one CR and one LF.
    if head.count("\n") == head.count("\r") == len(lines):
        try:
            encoded = head.encode()
            if len(encoded.translate(None, _CONTROLS)) == len(encoded):  # faster than a search
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


def parse_head(head: bytes) -> tuple[int, str, dict[str, str]]:
    """Return the status, HTTP version and headers of a response.

    A field that is not UTF-8 is decoded as in `field_text`, so that its text can be sent, shown and
    stored. An ETag that is not UTF-8 is omitted.

    Raises:
        UnavailableError: The head is malformed.
    """
    is_ascii = head.isascii()
    first, *lines = head.decode("utf-8", "surrogateescape").split("\r\n")
    if not head.count(b"\n") == head.count(b"\r") == len(lines) or b"\0" in head:
        raise invalid_response("a bare CR, LF or NUL in the head")  # RFC 9112, 2.2; RFC 9110, 5.5
    if not first.startswith("HTTP/1.") or not (first[8:9] == " " and _STATUS(first[9:12])):
        raise invalid_response("the status line is malformed")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():  # folded lines: RFC 9112, 5.2
            raise invalid_response("a header name is malformed")
        name, value = name.lower(), value.strip(" \t")
        if not is_ascii:
            if name == "etag" and field_text(value) != value:
                continue  # a condition could not send it back unchanged
            name, value = field_text(name), field_text(value)
        previous = headers.get(name)
        headers[name] = value if previous is None else f"{previous}, {value}"
    length = headers.get("content-length")
    if length is not None and "," in length:
        values = {value.strip() for value in length.split(",")}
        if len(values) == 1:  # RFC 9110, 8.6: equal lengths count once
            headers["content-length"] = values.pop()
    return int(first[9:12]), first[:8], headers


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

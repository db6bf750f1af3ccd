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

MOST_INTERIM: Final = 20
"""Interim responses (RFC 9110, 15.2) before a response. One is usual, a few are possible."""

_DIGITS: Final = 19

_STATUS = re.compile("[0-9]{3}").fullmatch

_SENT_WITH_LENGTH: Final = frozenset(("PUT", "POST"))  # RFC 9110, 8.6: even if it is 0


def request_head(
    method: str, origin: Origin, target: str, headers: Mapping[str, str], size: int
) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {origin.authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if size or method in _SENT_WITH_LENGTH:
        lines.append(f"Content-Length: {size}")
    lines.append("\r\n")
    head = "\r\n".join(lines)
    # Exactly one CR and one LF per line: no value injects a line.
    if not head.count("\n") == head.count("\r") == len(lines):
        del (
            head,
            lines,
            headers,
        )  # credentials: a traceback recorded with its variables would show them
        raise InvalidNameError("a request's target and headers must not contain CR or LF")
    return head.encode()


def parse_head(head: bytes) -> tuple[int, str, dict[str, str]]:
    """Return the status, HTTP version and headers of a response.

    A field that is not UTF-8 is decoded as in `field_text`, so that it can be sent, shown and stored.
    """
    plain = head.isascii()
    first, *lines = head.decode("utf-8", "surrogateescape").split("\r\n")
    if not head.count(b"\n") == head.count(b"\r") == len(lines) or b"\0" in head:
        raise no_http("a bare CR, LF or NUL in the head")  # RFC 9112, 2.2; RFC 9110, 5.5
    if not first.startswith("HTTP/1.") or not (first[8:9] == " " and _STATUS(first[9:12])):
        raise no_http("the status line is malformed")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():  # folded lines: RFC 9112, 5.2
            raise no_http("a header has no valid name")
        name, value = name.lower(), value.strip(" \t")
        if not plain:
            if name == "etag" and field_text(value) != value:
                continue  # it could not be sent back unchanged, so it is no validator
            name, value = field_text(name), field_text(value)
        previous = headers.get(name)
        headers[name] = value if previous is None else f"{previous}, {value}"
    length = headers.get("content-length")
    if length is not None and "," in length:
        values = {value.strip() for value in length.split(",")}
        if len(values) == 1:  # RFC 9110, 8.6: a repeated equal length counts once
            headers["content-length"] = values.pop()
    return int(first[9:12]), first[:8], headers


def body_length(headers: Mapping[str, str]) -> int | None:
    """Return the length of a body: bytes, `CHUNKED`, or None if it ends with the connection."""
    coding = headers.get("transfer-encoding")
    if coding is not None:
        if coding.lower() != "chunked":
            raise no_http("the transfer coding is not chunked")
        return CHUNKED
    length = headers.get("content-length")
    if length is None:
        return None
    if "," in length:
        raise no_http("it has two different lengths")
    return parse_number(length.encode(), 10)


def parse_number(digits: bytes, base: int) -> int:
    # int() also accepts signs, blanks and underscores; no real length needs 64 bits.
    if not digits.isalnum() or len(digits.lstrip(b"0")) > _DIGITS:
        raise no_http("a length is not a number")
    try:
        return int(digits, base)
    except ValueError:
        raise no_http("a length is not a number") from None


def keeps_alive(version: str, headers: Mapping[str, str]) -> bool:
    """Return whether the connection stays open (RFC 9112, 9.3)."""
    options = {option.strip() for option in (headers.get("connection") or "").lower().split(",")}
    return "close" not in options and (version == "HTTP/1.1" or "keep-alive" in options)


def early_success() -> UnavailableError:
    return no_http("it reports success before it received the whole request")


def no_http(reason: str) -> UnavailableError:
    return UnavailableError(f"the server cannot be used: its response is not valid HTTP ({reason})")

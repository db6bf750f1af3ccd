"""What HTTP/1.1 (RFC 9112) writes before a body, and how it is read. Pure."""

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
"""Interim responses (RFC 9110, 15.2) before a response. One is usual, and a few are possible."""

_DIGITS: Final = 19

_STATUS = re.compile("[0-9]{3}").fullmatch

_SENT_WITH_LENGTH: Final = frozenset(("PUT", "POST"))  # RFC 9110, 8.6: though it be nothing


def request_head(
    method: str, origin: Origin, target: str, headers: Mapping[str, str], size: int
) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {origin.authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if size or method in _SENT_WITH_LENGTH:
        lines.append(f"Content-Length: {size}")
    lines.append("\r\n")
    head = "\r\n".join(lines)
    # One of each a line: no value has smuggled in a line of its own.
    if not head.count("\n") == head.count("\r") == len(lines):
        del head, lines, headers  # credentials, which a recorded traceback would show
        raise InvalidNameError("a request's target and headers may hold no CR or LF")
    return head.encode()


def parse_head(head: bytes) -> tuple[int, str, dict[str, str]]:
    """Return an answer's status, its version of HTTP and its headers.

    A field that is not UTF-8 is read as `field_text` does, so that it can be sent, shown and stored.
    """
    plain = head.isascii()
    first, *lines = head.decode("utf-8", "surrogateescape").split("\r\n")
    if not head.count(b"\n") == head.count(b"\r") == len(lines) or b"\0" in head:
        raise no_http("a bare CR, LF or NUL in its head")  # RFC 9112, 2.2; RFC 9110, 5.5
    if not first.startswith("HTTP/1.") or not (first[8:9] == " " and _STATUS(first[9:12])):
        raise no_http("it does not begin as an answer does")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():  # folded lines: RFC 9112, 5.2
            raise no_http("a header of its has no name")
        name, value = name.lower(), value.strip(" \t")
        if not plain:
            if name == "etag" and field_text(value) != value:
                continue  # it could not be sent back as it came: it validates nothing
            name, value = field_text(name), field_text(value)
        known = headers.get(name)
        headers[name] = value if known is None else f"{known}, {value}"
    length = headers.get("content-length")
    if length is not None and "," in length:
        values = {value.strip() for value in length.split(",")}
        if len(values) == 1:  # RFC 9110, 8.6: the same length several times counts once
            headers["content-length"] = values.pop()
    return int(first[9:12]), first[:8], headers


def body_length(headers: Mapping[str, str]) -> int | None:
    """Return the bytes of a body; `CHUNKED`, or None if it ends with the connection."""
    coding = headers.get("transfer-encoding")
    if coding is not None:
        if coding.lower() != "chunked":
            raise no_http("it is encoded in a way that was not asked for")
        return CHUNKED
    length = headers.get("content-length")
    if length is None:
        return None
    if "," in length:
        raise no_http("it says two lengths")
    return parse_number(length.encode(), 10)


def parse_number(digits: bytes, base: int) -> int:
    # A sign, a blank or an underscore, which int takes; and no length has 64 bits.
    if not digits.isalnum() or len(digits.lstrip(b"0")) > _DIGITS:
        raise no_http("a length of its is no number")
    try:
        return int(digits, base)
    except ValueError:
        raise no_http("a length of its is no number") from None


def keeps_alive(version: str, headers: Mapping[str, str]) -> bool:
    """Tell whether the connection stays open: RFC 9112, 9.3."""
    options = {one.strip() for one in (headers.get("connection") or "").lower().split(",")}
    return "close" not in options and (version == "HTTP/1.1" or "keep-alive" in options)


def early_success() -> UnavailableError:
    return no_http("it claims success before it had all of the request")


def no_http(why: str) -> UnavailableError:
    return UnavailableError(f"the server cannot be used: what it answered is no HTTP ({why})")

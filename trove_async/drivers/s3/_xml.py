"""The subset of XML 1.0 that S3's documents use: elements and text, in UTF-8."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final
from xml.etree import ElementTree as ET

from trove_async.models import KiB, MiB

Element = ET.Element

_MAX_TAGS: Final = 200_000
"""Maximum number of tags in a document. A page of 1,000 versions with their owners has 20,000. An
element takes at least 100 bytes of memory."""

_SLICE: Final = 64 * KiB
"""Characters that expat parses in one call. Other threads run between two calls."""

MAX_INLINE_BYTES: Final = MiB
_MAX_INLINE_TAGS: Final = 50_000
"""Largest document, in bytes and in tags, to parse on the event loop. Parsing takes up to 20 ms."""

# W3C, "Extensible Markup Language (XML) 1.0", 2.2: Char.
_ILLEGAL = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]").search

_ESCAPED = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
)


DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,20})?(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
"""Pattern of a date in a document. S3 writes UTC; some services write their own zone."""


class MalformedResponse(ValueError):  # noqa: N818 - named for what was received
    """Raised when a response is invalid: truncated, garbage, or another server's error page."""


def decode(body: bytes) -> str:
    """Decode a document as UTF-8, which S3 always sends. A declared encoding is ignored.

    Raises:
        MalformedResponse: The document is not UTF-8.
    """
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedResponse(f"byte {error.start} is not UTF-8") from None


_NOT_IN_XML = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\ufffe\\uffff]|\\r(?!\\n)")
_REFERENCE = re.compile(r"&#(?:([0-9]{1,5})|x([0-9A-Fa-f]{1,4}));")
_PLACEHOLDERS: Final = {
    chr(code): chr(0x10FE00 + index)  # in a private use plane
    for index, code in enumerate([*range(0x20), 0xFFFE, 0xFFFF])
}
_ORIGINALS: Final = {ord(placeholder): text for text, placeholder in _PLACEHOLDERS.items()}
_HAS_PLACEHOLDER = re.compile("[\U0010fe00-\U0010fe40]").search


def parse(text: str) -> Element:
    """Parse a document and return its root.

    Characters that XML 1.0 cannot contain are preserved, raw or as references. Ceph writes them raw
    in the token of the next page. Other services write references such as ``&#x1;``.

    Raises:
        MalformedResponse: The document is not well-formed, has too many tags, or has a DTD. S3
            sends none, and the declarations in one (entities, defaults) would need limits.
    """
    if "<!DOCTYPE" in text:
        raise MalformedResponse("the document has a DTD")
    if text.count("<") > _MAX_TAGS:
        raise MalformedResponse(f"the document has more than {_MAX_TAGS} tags")
    # 1. Parse the document unchanged: nearly all are well-formed. Expat would alter a lone "\r".
    if "\r" not in text or _NOT_IN_XML.search(text) is None:
        try:
            return _parse_strictly(text)
        except (ET.ParseError, UnicodeEncodeError) as error:  # lone surrogates cannot be encoded
            reason = f"the document is not XML: {str(error)[:200]}"
    else:
        reason = "the document is not XML"
    # 2. Parse it with placeholders for the characters that XML 1.0 cannot contain.
    replaced = _REFERENCE.sub(_reference_placeholder, _NOT_IN_XML.sub(_placeholder, text))
    if replaced == text or _HAS_PLACEHOLDER(text):
        raise MalformedResponse(reason)
    try:
        root = _parse_strictly(replaced)
    except (ET.ParseError, UnicodeEncodeError):
        raise MalformedResponse(reason) from None
    # 3. Restore the characters.
    for element in root.iter():
        if element.text:
            element.text = element.text.translate(_ORIGINALS)
    return root


def _parse_strictly(text: str) -> Element:
    parser = ET.XMLParser()  # noqa: S314 - without a DTD there are no entities to expand
    for start in range(0, len(text), _SLICE):
        parser.feed(text[start : start + _SLICE])  # each call holds the GIL
    root: Element = parser.close()
    return root


def _placeholder(match: re.Match[str]) -> str:
    return _PLACEHOLDERS[match[0]]


def _reference_placeholder(match: re.Match[str]) -> str:
    text = chr(int(match[1]) if match[1] else int(match[2], 16))
    # XML 1.0 allows references to a tab or a line end.
    return match[0] if text in "\t\n\r" else _PLACEHOLDERS.get(text, match[0])


def is_large(body: bytes) -> bool:
    """Return whether a document is too large to parse on the event loop."""
    return len(body) > MAX_INLINE_BYTES or body.count(b"<") > _MAX_INLINE_TAGS


def local_name(element: Element) -> str:
    """Return an element's name without its namespace, which some services omit."""
    tag: str = element.tag
    return tag.rpartition("}")[2]


def children(element: Element, child_name: str) -> Iterator[Element]:
    """Yield the child elements with this name."""
    return (child for child in element if local_name(child) == child_name)


def child_texts(element: Element) -> dict[str, str]:
    """Return the texts of an element's children by name. The last one wins if a name repeats."""
    return {local_name(child): child.text or "" for child in element}


def is_xml_text(text: str) -> bool:
    """Return whether XML 1.0 can contain this text. It cannot contain most control characters."""
    return _ILLEGAL(text) is None


def parse_date(date: str) -> datetime:
    """Parse a text that matches `DATE`. The result is in UTC, which is also the default zone.

    Raises:
        ValueError: The day or time does not exist.
    """
    parsed = datetime.fromisoformat(date)
    if parsed.tzinfo is UTC:
        return parsed
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def escape(text: str) -> str:
    """Escape a text for an element's content. Line ends are escaped too: parsers alter them."""
    return text.translate(_ESCAPED)

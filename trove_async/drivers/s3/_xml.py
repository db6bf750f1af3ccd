"""The subset of XML 1.0 in S3's documents: elements and text, in UTF-8."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final
from xml.etree import ElementTree as ET

from trove_async.models import KiB, MiB

Element = ET.Element

_MOST_TAGS: Final = 200_000
"""Limit of tags in a document. A page of 1,000 versions, each with its owner, has 20,000.
An element takes at least a hundred bytes of memory."""

_SLICE: Final = 64 * KiB
"""Characters that expat parses in one call. Other threads run between two calls."""

_INLINE: Final = MiB
_INLINE_TAGS: Final = 50_000
"""Largest document, in bytes and in tags, to parse on the event loop. It takes up to 20 ms."""

# W3C, "Extensible Markup Language (XML) 1.0", 2.2: Char.
_ILLEGAL = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]").search

_ESCAPED = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
)


DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,20})?(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
"""Pattern of a date in a document. It is in UTC, except that some services write their own zone."""


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
        raise MalformedResponse(f"not UTF-8 at byte {error.start}") from None


_UNCARRIED = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\ufffe\\uffff]|\\r(?!\\n)")
_REFERENCE = re.compile(r"&#(?:([0-9]{1,5})|x([0-9A-Fa-f]{1,4}));")
_STAND_INS: Final = {
    chr(code): chr(0x10FE00 + at)  # in a private use plane
    for at, code in enumerate([*range(0x20), 0xFFFE, 0xFFFF])
}
_RESTORED: Final = {ord(stand_in): text for text, stand_in in _STAND_INS.items()}
_HAS_STAND_IN = re.compile("[\U0010fe00-\U0010fe40]").search


def parse(text: str) -> Element:
    """Parse a document and return its root.

    Characters that XML 1.0 cannot contain are preserved, raw or as references. Ceph writes them raw
    in the token of the next page. Other services write references such as ``&#x1;``.

    Raises:
        MalformedResponse: The document is not well-formed, has too many tags, or has a DTD. No
            response has a DTD, and its declarations (entities, defaults) would need limits.
    """
    if "<!DOCTYPE" in text:
        raise MalformedResponse("a document with a DTD")
    if text.count("<") > _MOST_TAGS:
        raise MalformedResponse(f"a document of more than {_MOST_TAGS} tags")
    # 1. Parse the document unchanged: nearly all are well-formed. Expat would alter a lone "\r".
    if "\r" not in text or _UNCARRIED.search(text) is None:
        try:
            return _fed(text)
        except (ET.ParseError, UnicodeEncodeError) as error:  # lone surrogates cannot be encoded
            failed = f"no XML: {str(error)[:200]}"
    else:
        failed = "no XML"
    # 2. Parse it with stand-ins for the characters that XML 1.0 cannot contain.
    carried = _REFERENCE.sub(_stand_in_of, _UNCARRIED.sub(_stand_in, text))
    if carried == text or _HAS_STAND_IN(text):
        raise MalformedResponse(failed)
    try:
        root = _fed(carried)
    except (ET.ParseError, UnicodeEncodeError):
        raise MalformedResponse(failed) from None
    # 3. Restore the characters.
    for element in root.iter():
        if element.text:
            element.text = element.text.translate(_RESTORED)
    return root


def _fed(text: str) -> Element:
    parser = ET.XMLParser()  # noqa: S314 - without a DTD there are no entities to expand
    for at in range(0, len(text), _SLICE):
        parser.feed(text[at : at + _SLICE])  # holds the GIL
    root: Element = parser.close()
    return root


def _stand_in(found: re.Match[str]) -> str:
    return _STAND_INS[found[0]]


def _stand_in_of(found: re.Match[str]) -> str:
    text = chr(int(found[1]) if found[1] else int(found[2], 16))
    # XML 1.0 allows references to a tab or a line end.
    return found[0] if text in "\t\n\r" else _STAND_INS.get(text, found[0])


def is_large(body: bytes) -> bool:
    """Return whether a document is too large to parse on the event loop."""
    return len(body) > _INLINE or body.count(b"<") > _INLINE_TAGS


def name(element: Element) -> str:
    """Return an element's name without its namespace, which some services omit."""
    tag: str = element.tag
    return tag.rpartition("}")[2]


def children(element: Element, wanted: str) -> Iterator[Element]:
    """Yield the child elements with a name."""
    return (child for child in element if name(child) == wanted)


def facts(element: Element) -> dict[str, str]:
    """Return the texts of an element's children by name. The last one wins if a name repeats."""
    return {name(child): child.text or "" for child in element}


def carries(text: str) -> bool:
    """Return whether XML 1.0 can contain a text. It excludes most control characters."""
    return _ILLEGAL(text) is None


def moment(date: str) -> datetime:
    """Parse a text that matches `DATE`. The result is in UTC, which is also the default zone.

    Raises:
        ValueError: The day or time does not exist.
    """
    named = datetime.fromisoformat(date)
    if named.tzinfo is UTC:
        return named
    return named.replace(tzinfo=UTC) if named.tzinfo is None else named.astimezone(UTC)


def escape(text: str) -> str:
    """Escape a text for an element's content. Line ends are escaped too, as parsers alter them."""
    return text.translate(_ESCAPED)

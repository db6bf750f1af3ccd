"""XML 1.0 as S3's answers and requests have it: elements and text, in UTF-8, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final
from xml.etree import ElementTree as ET

from trove_async.models import KiB, MiB

Element = ET.Element

_MOST_TAGS: Final = 200_000
"""More than any response has: a page of 1,000 versions, each with its owner, has 20,000. Each element
takes a hundred bytes of memory and more."""

_SLICE: Final = 64 * KiB
"""Characters that expat is fed at a time: between two of them the other threads go on."""

_INLINE: Final = MiB
_INLINE_TAGS: Final = 50_000
"""Bytes, and tags, of a document up to which it is parsed on the loop: some 20 ms at the most."""

# W3C, "Extensible Markup Language (XML) 1.0", 2.2: Char.
_ILLEGAL = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]").search

_ESCAPED = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
)


DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,20})?(?:Z|[+-][0-9]{2}:?[0-9]{2})?"
"""A date in a document: in UTC, but for services that write their own zone."""


class MalformedResponse(ValueError):  # noqa: N818 - it says what was got
    """The service's answer is not what it should be: cut off, garbage, or another's error page."""


def decode(body: bytes) -> str:
    """Return a document's text, whatever encoding it claims: S3 speaks UTF-8.

    Raises:
        MalformedResponse: It is not UTF-8.
    """
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedResponse(f"not UTF-8 at byte {error.start}") from None


_UNCARRIED = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\ufffe\\uffff]|\\r(?!\\n)")
_REFERENCE = re.compile(r"&#(?:([0-9]{1,5})|x([0-9A-Fa-f]{1,4}));")
_STAND_INS: Final = {
    chr(code): chr(0x10FE00 + at)  # of a plane for private use
    for at, code in enumerate([*range(0x20), 0xFFFE, 0xFFFF])
}
_RESTORED: Final = {ord(stand_in): text for text, stand_in in _STAND_INS.items()}
_HAS_STAND_IN = re.compile("[\U0010fe00-\U0010fe40]").search


def parse(text: str) -> Element:
    """Return the root of a document.

    Characters that XML 1.0 cannot carry are kept, raw or referred to: Ceph writes such a key as it
    is where it tells the next page's token, and others refer to it as ``&#x1;``.

    Raises:
        MalformedResponse: It is not well-formed, or has a DTD: no answer does, and what could be
            declared there (entities, defaults) would have to be limited.
    """
    if "<!DOCTYPE" in text:
        raise MalformedResponse("a document with a DTD")
    if text.count("<") > _MOST_TAGS:
        raise MalformedResponse(f"a document of more than {_MOST_TAGS} tags")
    if "\r" not in text or _UNCARRIED.search(text) is None:
        try:
            return _fed(text)
        except (ET.ParseError, UnicodeEncodeError) as error:  # lone surrogates are no characters
            failed = f"no XML: {str(error)[:200]}"
    else:
        failed = "no XML"
    carried = _REFERENCE.sub(_stand_in_of, _UNCARRIED.sub(_stand_in, text))
    if carried == text or _HAS_STAND_IN(text):
        raise MalformedResponse(failed)
    try:
        root = _fed(carried)
    except (ET.ParseError, UnicodeEncodeError):
        raise MalformedResponse(failed) from None
    for element in root.iter():
        if element.text:
            element.text = element.text.translate(_RESTORED)
    return root


def _fed(text: str) -> Element:
    parser = ET.XMLParser()  # noqa: S314 - without a DTD there are no entities to expand
    for at in range(0, len(text), _SLICE):
        parser.feed(text[at : at + _SLICE])  # which holds the GIL
    root: Element = parser.close()
    return root


def _stand_in(found: re.Match[str]) -> str:
    return _STAND_INS[found[0]]


def _stand_in_of(found: re.Match[str]) -> str:
    text = chr(int(found[1]) if found[1] else int(found[2], 16))
    # A tab or a line end is carried so.
    return found[0] if text in "\t\n\r" else _STAND_INS.get(text, found[0])


def is_large(body: bytes) -> bool:
    """Return whether a document is to be parsed in a thread."""
    return len(body) > _INLINE or body.count(b"<") > _INLINE_TAGS


def name(element: Element) -> str:
    """Return an element's name without its namespace, which not every service gives."""
    tag: str = element.tag
    return tag.rpartition("}")[2]


def children(element: Element, wanted: str) -> Iterator[Element]:
    """Yield the child elements of a name."""
    return (child for child in element if name(child) == wanted)


def facts(element: Element) -> dict[str, str]:
    """Return the texts of an element's children, by name; of those that are repeated, the last."""
    return {name(child): child.text or "" for child in element}


def carries(text: str) -> bool:
    """Tell whether XML 1.0 can carry a text: most control characters have no form in it."""
    return _ILLEGAL(text) is None


def moment(date: str) -> datetime:
    """Return the moment that a `DATE` names, in UTC, which it is in where it names no zone.

    Raises:
        ValueError: There is no such day or time.
    """
    named = datetime.fromisoformat(date)
    if named.tzinfo is UTC:
        return named
    return named.replace(tzinfo=UTC) if named.tzinfo is None else named.astimezone(UTC)


def escape(text: str) -> str:
    """Return a text that `carries` as an element's content, line ends protected from the parser."""
    return text.translate(_ESCAPED)

"""Parse a page of ListObjectsV2 in a few microseconds per key.

Nearly every page contains one run of ``<Contents>`` elements of the same shape. The quick parser builds
a regular expression for the element order of the first one and applies it to the run. If it does not
match the whole run, or if the page is large, the thorough parser reads the page with expat. In both
cases expat reads what surrounds the run, so the quick parser accepts only pages that the thorough one
accepts. A test compares their results.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from trove_async.errors import BackendError
from trove_async.models import Entry, ObjectInfo, Prefix
from trove_async.options import ListOptions, Page, VersionPage

from ._documents import check_unambiguous
from ._encoding import bare_etag, decode_values, strong_etags
from ._xml import (
    DATE,
    MAX_INLINE_BYTES,
    MalformedResponse,
    child_texts,
    children,
    decode,
    is_xml_text,
    local_name,
    parse,
    parse_date,
)

if TYPE_CHECKING:
    from ._xml import Element
_Order: TypeAlias = tuple[str, ...]

__all__ = ["MalformedResponse", "check_order", "parse_page"]

_FIELDS: Final = ("Key", "LastModified", "ETag", "Size", "StorageClass")


class _Columns(NamedTuple):
    """The texts of a page's objects, one column per field, in the order of `_FIELDS`.

    Checks and conversions of a whole column take a fraction of the time of one call per object.
    """

    keys: Sequence[str] = ()
    dates: Sequence[str] = ()
    etags: Sequence[str] = ()
    sizes: Sequence[str] = ()
    storage_classes: Sequence[str | None] = ()


class _Listing(NamedTuple):
    """A page before its values are converted.

    Attributes:
        objects: The objects.
        prefixes: The common prefixes.
        encoded: Whether the keys and prefixes are percent-encoded.
        token: The token of the next page.
    """

    objects: _Columns
    prefixes: Sequence[str]
    encoded: bool
    token: str | None


def parse_page(body: bytes, *, bucket: str, backend: str, encoding_requested: bool = False) -> Page:
    """Parse a page into its entries and the token of the next page.

    Objects keep the order of the response. If it contains common prefixes, all entries are sorted
    bytewise. Keys are decoded if the response declares an encoding (``EncodingType``). The token is
    never encoded.

    Args:
        body: The response body.
        bucket: The value of `ObjectInfo.bucket`.
        backend: The value of `ObjectInfo.backend`.
        encoding_requested: Whether the request asked for encoded keys.

    Raises:
        MalformedResponse: The body is not a page, or is incomplete.
        AmbiguousKeysError: The request asked for encoded keys, the response declares no encoding, and
            the keys are ambiguous.
    """
    text = decode(body)
    try:
        # A long page is parsed in a worker thread. A regular expression would hold the GIL for the
        # whole page. Expat receives it in slices, and other threads run between two slices.
        listing = _parse_thoroughly(text) if len(body) > MAX_INLINE_BYTES else _parse_quickly(text)
    except _UnusualError:
        listing = _parse_thoroughly(text)
    if encoding_requested and not listing.encoded:
        check_unambiguous((*listing.objects.keys, *listing.prefixes))
    try:
        return _page_of(listing, bucket, backend)
    except ValueError as error:  # an impossible date, or a key that is not UTF-8
        raise MalformedResponse(f"the listing is malformed: {error}") from error


def _page_of(listing: _Listing, bucket: str, backend: str) -> Page:
    objects, prefixes = listing.objects, listing.prefixes
    keys = objects.keys
    if listing.encoded:
        keys, prefixes = decode_values(keys), decode_values(prefixes)
    parse_utc = datetime.fromisoformat
    dates = [
        # Nearly every service writes a "Z", which saves one call per key.
        parse_utc(date) if date[-1] == "Z" else parse_date(date)
        for date in objects.dates
    ]
    entries: list[Entry] = [
        *ObjectInfo.listed_page(
            bucket,
            keys,
            map(int, objects.sizes),
            backend=backend,
            etags=strong_etags(objects.etags),
            dates=dates,
            storage_classes=objects.storage_classes,
        )
    ]
    if prefixes:
        entries += [Prefix(bucket=bucket, prefix=prefix, backend=backend) for prefix in prefixes]
        entries.sort(key=_get_key)  # code points sort as their UTF-8 bytes do
    return Page(entries=entries, token=listing.token)


# -- the thorough parser ---------------------------------------------------------------------------

_SIZE: Final = r"[0-9]{1,19}"
_IS_DATE = re.compile(DATE).fullmatch
_IS_SIZE = re.compile(_SIZE).fullmatch


def _parse_thoroughly(text: str) -> _Listing:
    root = _root(text)
    rows = [_object_row(child_texts(item)) for item in children(root, "Contents")]
    prefixes = [
        prefix.text or ""
        for item in children(root, "CommonPrefixes")
        for prefix in children(item, "Prefix")
    ]
    if not all(prefixes):
        raise MalformedResponse("a common prefix is empty")
    return _make_listing(_Columns(*zip(*rows, strict=True)), prefixes, root)


def _root(text: str) -> Element:
    root = parse(text)
    if local_name(root) != "ListBucketResult":
        raise MalformedResponse(f"expected <ListBucketResult>, got <{local_name(root)[:40]}>")
    return root


def _object_row(fields: dict[str, str]) -> tuple[str, ...]:
    """Return the texts of one object, in the order of `_FIELDS`."""
    key = fields.get("Key", "")
    size = fields.get("Size", "").strip()
    last_modified = fields.get("LastModified", "").strip()
    if not (key and _IS_SIZE(size) and _IS_DATE(last_modified)):
        raise MalformedResponse("an object has no valid Key, Size or LastModified")
    etag = bare_etag(fields.get("ETag", "").strip())
    return key, last_modified, etag, size, fields.get("StorageClass", "").strip()


def _make_listing(objects: _Columns, prefixes: Sequence[str], root: Element) -> _Listing:
    fields = child_texts(root)
    token: str | None = fields.get("NextContinuationToken") or None
    truncated = fields.get("IsTruncated", "true" if token else "false").strip()
    if truncated not in {"true", "false"} or (truncated == "true" and token is None):
        raise MalformedResponse(
            f"IsTruncated is {truncated[:40]!r}, and NextContinuationToken is {token and token[:40]!r}"
        )
    return _Listing(
        objects=objects,
        prefixes=prefixes,
        encoded=fields.get("EncodingType", "").strip() == "url",
        token=token if truncated == "true" else None,
    )


# -- the quick parser ------------------------------------------------------------------------------

_NOT_TEXT = re.compile(r"[\x00-\x1f\ufffe\uffff]").search  # characters that expat must parse
_ASCII: Final = r"[^<&\"\x00-\x1f\x7f-\U0010ffff]"
_QUOTE: Final = r"(?:\"|&quot;|&#34;)"
_CAPTURED: Final = {
    "Key": r"<Key>([^<]++)</Key>",  # checked by `_plain_texts`
    "LastModified": r"<LastModified>([^<]++)</LastModified>",  # checked by `_all_dates`
    "ETag": rf"<ETag>{_QUOTE}({_ASCII}*+){_QUOTE}</ETag>",
    "Size": rf"<Size>({_SIZE})</Size>",
    "StorageClass": r"(?:<StorageClass>([A-Z0-9_]*+)</StorageClass>)?+",
}
# Other elements of an object. S3 API Reference, "Object"; Ceph adds Type.
_PERSON: Final = rf"(?:<ID>{_ASCII}*+</ID>|<DisplayName>{_ASCII}*+</DisplayName>)*+"
_OTHERS: Final = (
    r"(?:<ChecksumAlgorithm>[A-Z0-9]*+</ChecksumAlgorithm>|<ChecksumType>[A-Z_]*+</ChecksumType>"
    rf"|<Type>[A-Za-z]*+</Type>|<Owner>{_PERSON}</Owner>)*+"
)
_PREFIXES = re.compile(r"<CommonPrefixes><Prefix>([^<]++)</Prefix></CommonPrefixes>")
_ZEROS: Final = str.maketrans("123456789", "000000000")
_ELEMENT = re.compile(r"<([A-Za-z]+)>")
_REFERENCE = re.compile(r"&(?:(amp|lt|gt|quot|apos)|#([0-9]{1,7})|#x([0-9A-Fa-f]{1,6}));")
_ENTITIES: Final = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}

_RUN: Final = "trove-run"
"""The element that replaces a run in the document that expat parses."""

_RUN_ELEMENTS: Final = {"Contents", "CommonPrefixes"}


class _UnusualError(Exception):
    """Raised when a page has an unusual shape or is malformed. The thorough parser reads it."""


def _parse_quickly(text: str) -> _Listing:
    if "]" in text and "]]>" in text:  # few pages have a "]", which is found 100 times faster
        raise _UnusualError  # expat rejects it
    # 1. Replace each of the two runs with one element.
    reduced, objects = _replace_run(text, "Contents", _objects_pattern)
    reduced, prefixes = _replace_run(reduced, "CommonPrefixes", _prefixes_pattern)
    if "<!" in reduced or reduced.find("<?", 1) > 0:
        raise _UnusualError  # the apparent run may be in a comment or CDATA
    # 2. Parse the reduced document with expat. It must contain each replacement once, and no other
    # object or prefix.
    root = _root(reduced)
    names = [local_name(child) for child in root]
    if names.count(_RUN) != bool(objects) + bool(prefixes) or not _RUN_ELEMENTS.isdisjoint(names):
        raise _UnusualError
    # 3. Check the columns that the patterns do not check.
    columns = _Columns(*objects)
    if not _all_dates(columns.dates):
        raise _UnusualError
    columns = columns._replace(keys=_plain_texts(columns.keys))
    return _make_listing(columns, _plain_texts(prefixes[0] if prefixes else ()), root)


def _replace_run(
    text: str, element: str, pattern_for: Callable[[str], tuple[_Order, re.Pattern[str]]]
) -> tuple[str, Sequence[Sequence[str]]]:
    """Replace the run of an element's repetitions, if the document has one.

    Args:
        text: The document.
        element: The element's name.
        pattern_for: Returns the order of the fields and the pattern of a repetition, from the text of
            the first one.

    Returns:
        The document with `_RUN` in place of the run, and one column of texts per field, in the order of
        `_FIELDS`. No columns if there is no run.
    """
    start = text.find(f"<{element}>")
    if start < 0:
        return text, ()
    closing = f"</{element}>"
    end = text.rfind(closing) + len(closing)
    run = text[start:end]
    order, pattern = pattern_for(run[: run.find(closing)])
    # A list of the text before each repetition, the captured texts of the repetition, and so on.
    texts: list[str] = pattern.split(run)
    stride = 1 + pattern.groups
    if any(texts[::stride]):
        raise _UnusualError  # a repetition did not match
    columns = [texts[first::stride] for first in range(1, stride)]
    if order not in {_FIELDS, ()}:
        columns = [columns[order.index(field)] for field in _FIELDS]
    return f"{text[:start]}<{_RUN}/>{text[end:]}", columns


def _prefixes_pattern(first: str) -> tuple[_Order, re.Pattern[str]]:  # noqa: ARG001 - a prefix has one shape
    return (), _PREFIXES


def _objects_pattern(first: str) -> tuple[_Order, re.Pattern[str]]:
    order = tuple([field for field in _ELEMENT.findall(first) if field in _CAPTURED])
    if "StorageClass" not in order:
        order += ("StorageClass",)  # optional in the document
    if sorted(order) != sorted(_FIELDS):
        raise _UnusualError
    return order, _compiled(order)


@cache
def _compiled(order: _Order) -> re.Pattern[str]:  # of 120 possible orders, services use four
    fields = _OTHERS.join([_CAPTURED[field] for field in order])
    return re.compile(f"<Contents>{_OTHERS}{fields}{_OTHERS}</Contents>")


def _all_dates(texts: Sequence[str]) -> bool:
    """Return whether all texts match `DATE`."""
    if not texts or not _IS_DATE(texts[0]):
        return not texts
    # The dates of most pages have one shape: they are equal once every digit is a zero.
    shape = texts[0].translate(_ZEROS) + "\n"
    same_shape = "\n".join((*texts, "")).translate(_ZEROS) == shape * len(texts)
    return same_shape or all(map(_IS_DATE, texts))


def _plain_texts(texts: Sequence[str]) -> Sequence[str]:
    """Return the texts with their character references expanded."""
    joined = "".join(texts)
    if _NOT_TEXT(joined):
        raise _UnusualError
    return [_unescaped(text) for text in texts] if "&" in joined else texts


def _unescaped(text: str) -> str:
    unescaped, references = _REFERENCE.subn(_character_of, text)
    if references != text.count("&"):
        raise _UnusualError
    return unescaped


def _character_of(reference: re.Match[str]) -> str:
    entity, decimal, hexadecimal = reference.groups()
    if entity:
        return _ENTITIES[entity]
    code = int(decimal) if decimal else int(hexadecimal, 16)
    if code > sys.maxunicode or not is_xml_text(chr(code)):
        raise _UnusualError
    return chr(code)


def check_order(page: Page | VersionPage, options: ListOptions) -> None:
    """Raise BackendError if the service does not list in bytewise order.

    Merged listings rely on that order.
    """
    keys = list(map(_get_key, page.entries))
    start = options.start_after
    if start is not None and options.token is None and keys:
        first = page.entries[0]
        # A listing can start inside a common prefix, which then sorts before `start_after`.
        if not (isinstance(first, Prefix) and start.startswith(first.prefix)):
            keys.insert(0, start)
    if keys != sorted(keys):  # a sorted list is sorted again in a few nanoseconds a key
        raise BackendError(
            "the service must list keys in bytewise order, but does not: pass dialect='seaweedfs'"
        )


_get_key = attrgetter("key")

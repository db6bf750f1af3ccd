"""Lists one page of objects and common prefixes in bytewise order.

The service lists objects and prefixes separately. Together they cover one contiguous range of keys, so
sorting merges them. If a server returns more entries than requested (an emulator returns all prefixes on
every page), the page is truncated. The next page starts after the last key or prefix and not at the
service's token, because a key has the same meaning on every server and never expires.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Final

from trove_async.errors import UnavailableError
from trove_async.models import Entry, Prefix
from trove_async.options import ListOptions, Page
from trove_async.paging import TokenCycle, after_prefix

from ._encoding import bucket_path, encode_query
from ._resources import FIELDS, info_from_resource

if TYPE_CHECKING:
    from ._client import Client, Document

MAX_RESULTS: Final = 1000
"""The maximum number of entries on one page. JSON API, "Objects: list": maxResults."""

_FIELDS: Final = f"items({FIELDS}),prefixes,nextPageToken"

FROM_TEXT, _AFTER_KEY = "=", ">"
"""The first character of a token. After `FROM_TEXT`, the token contains the text at which the page starts;
after `_AFTER_KEY`, the key after which it starts."""

_sort_key = attrgetter("key")


async def list_page(client: Client, bucket: str, options: ListOptions, backend: str) -> Page:
    """Return one page. See `AsyncDriver.list_page`."""
    after, start = parse_start(options)
    query = {"fields": _FIELDS, "prettyPrint": "false"}
    # startOffset is inclusive, so request one more entry: the key `after` is skipped below.
    query["maxResults"] = str(min(options.limit + (after is not None), MAX_RESULTS))
    if options.prefix:
        query["prefix"] = options.prefix
    if options.delimiter:
        query["delimiter"] = options.delimiter
    if start:
        query["startOffset"] = start
    path = f"{bucket_path(bucket)}/o"
    cycle = TokenCycle()
    while True:
        document = await client.get_page(path + encode_query(query))
        entries, token = _entries(document, bucket, backend), document.get("nextPageToken")
        if after is not None:
            entries = [entry for entry in entries if entry.key != after or _is_prefix(entry)]
        if entries or not token:
            break
        cycle.check(token, empty=True)
        query["pageToken"] = token
    has_more = bool(token) or len(entries) > options.limit
    del entries[options.limit :]
    return Page(entries=entries, token=_token_after(entries[-1]) if has_more else None)


def _is_prefix(entry: Entry) -> bool:
    return isinstance(entry, Prefix)


def parse_start(options: ListOptions) -> tuple[str | None, str | None]:
    """Return the key after which the page starts, if any, and the text at which the request starts."""
    if options.token is None:
        return options.start_after, options.start_after
    kind, position = options.token[:1], options.token[1:]
    return (position if kind == _AFTER_KEY else None), position


def _token_after(last: Entry) -> str | None:
    if not isinstance(last, Prefix):
        return _AFTER_KEY + last.key
    next_start = after_prefix(last.prefix)
    return None if next_start is None else FROM_TEXT + next_start


def _entries(document: Document, bucket: str, backend: str) -> list[Entry]:
    """Return objects and prefixes in bytewise order, which is also the order of code points."""
    try:
        entries: list[Entry] = [
            info_from_resource(item, bucket=bucket, backend=backend)
            for item in document.get("items") or ()
        ]
        prefixes = document.get("prefixes")
        if prefixes:
            if not all(isinstance(prefix, str) for prefix in prefixes):
                raise TypeError("a prefix is not a string")  # noqa: TRY301 - translated below
            entries += [
                Prefix(bucket=bucket, prefix=prefix, backend=backend) for prefix in prefixes
            ]
            entries.sort(key=_sort_key)
    except (TypeError, AttributeError) as error:
        raise UnavailableError(f"the service's response is malformed: {error!r}") from error
    return entries

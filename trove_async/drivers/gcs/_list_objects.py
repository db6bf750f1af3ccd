"""One page of a listing, in bytewise order whatever the service makes of pages.

The service tells objects and common prefixes apart; a page of both is one stretch of the order, so
putting them together is sorting them. Where a server tells more than it was asked for (an emulator
tells all prefixes on every page), the page ends where the stretch that is surely whole does. The next
page is asked for by the last key rather than by the service's token: such a place in the order means
the same to every server, for any time.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Final

from trove_async.errors import UnavailableError
from trove_async.models import Entry, Prefix
from trove_async.options import ListOptions, Page
from trove_async.paging import TokenCycle, after_prefix

from ._encoding import bucket_path, encode_query
from ._resources import FIELDS, info_of

if TYPE_CHECKING:
    from ._client import Client, Document

MOST: Final = 1000
"""Entries of a page that the service tells at the most. JSON API, "Objects: list": maxResults."""

_FIELDS: Final = f"items({FIELDS}),prefixes,nextPageToken"

FROM, _AFTER = "=", ">"
"""How a token begins: the page starts at this text, or after this key."""

_key_of = attrgetter("key")


async def list_page(client: Client, bucket: str, options: ListOptions, backend: str) -> Page:
    """Return one page. See `AsyncDriver.list_page`."""
    after, start = start_of(options)
    query = {"fields": _FIELDS, "prettyPrint": "false"}
    # The service starts at a text, not after it: that key itself is asked for, and left out.
    query["maxResults"] = str(min(options.limit + (after is not None), MOST))
    if options.prefix:
        query["prefix"] = options.prefix
    if options.delimiter:
        query["delimiter"] = options.delimiter
    if start:
        query["startOffset"] = start
    path = f"{bucket_path(bucket)}/o"
    cycle = TokenCycle()
    while True:
        said = await client.page(path + encode_query(query))
        entries, token = _entries(said, bucket, backend), said.get("nextPageToken")
        if after is not None:
            entries = [entry for entry in entries if entry.key != after or _is_prefix(entry)]
        if entries or not token:
            break
        cycle.check(token, empty=True)
        query["pageToken"] = token
    more = bool(token) or len(entries) > options.limit
    del entries[options.limit :]
    return Page(entries=entries, token=_token_after(entries[-1]) if more else None)


def _is_prefix(entry: Entry) -> bool:
    return isinstance(entry, Prefix)


def start_of(options: ListOptions) -> tuple[str | None, str | None]:
    """Return the key that the page comes after, and the text that it starts at."""
    if options.token is None:
        return options.start_after, options.start_after
    kind, place = options.token[:1], options.token[1:]
    return (place if kind == _AFTER else None), place


def _token_after(last: Entry) -> str | None:
    if not isinstance(last, Prefix):
        return _AFTER + last.key
    beyond = after_prefix(last.prefix)
    return None if beyond is None else FROM + beyond


def _entries(said: Document, bucket: str, backend: str) -> list[Entry]:
    """Return objects and prefixes in one order: that of code points is that of UTF-8."""
    try:
        entries: list[Entry] = [
            info_of(item, bucket=bucket, backend=backend) for item in said.get("items") or ()
        ]
        prefixes = said.get("prefixes")
        if prefixes:
            if not all(isinstance(one, str) for one in prefixes):
                raise TypeError("a prefix that is no string")  # noqa: TRY301 - told below
            entries += [Prefix(bucket=bucket, prefix=one, backend=backend) for one in prefixes]
            entries.sort(key=_key_of)
    except (TypeError, AttributeError) as error:
        raise UnavailableError(f"the service's answer makes no sense: {error!r}") from error
    return entries

"""How requests to a Ceph Object Gateway (RGW) deviate from those to Amazon S3.

Observed on version 16.2.15. The workarounds are harmless if a later version behaves like Amazon S3:

- ``If-Match`` on a PUT is compared verbatim with the unquoted ETag, so a quoted one never matches.
- CopyObject ignores ``x-amz-copy-source-if-match`` and honours ``x-amz-copy-if-match``.
- ``_`` in the name of user metadata is stored as ``-``.
- If a listing with a delimiter starts inside a common prefix, it omits that prefix.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final

from trove_async.models import Prefix
from trove_async.options import ListOptions, Page
from trove_async.paging import common_prefix

from ._encoding import bare_etag
from ._headers import META, move_to_exact

_SOURCE_CONDITION: Final = "x-amz-copy-source-if-match"
_GATEWAY_SOURCE_CONDITION: Final = "x-amz-copy-if-match"


def ceph_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers of a write, rewritten for the gateway."""
    rewritten = dict(cautious_headers(headers))
    if "if-match" in rewritten:
        rewritten["if-match"] = bare_etag(rewritten["if-match"])
    return rewritten


def cautious_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers of a write in a form that both Amazon S3 and the gateway honour.

    Metadata whose name the gateway would change is moved to the `EXACT` header.
    """
    rewritten = dict(headers)
    if _SOURCE_CONDITION in rewritten:
        rewritten[_GATEWAY_SOURCE_CONDITION] = rewritten[_SOURCE_CONDITION]
    altered = [name for name in rewritten if name.startswith(META) and "_" in name]
    return move_to_exact(rewritten, altered) if altered else rewritten


async def page_from_within(
    request_page: Callable[[str, ListOptions], Awaitable[Page]], bucket: str, options: ListOptions
) -> Page:
    """Return a page of a listing that may start inside a common prefix.

    If that prefix has a key after the start, the page contains only the prefix. Its token makes the
    gateway continue after all keys of the prefix.
    """
    # One key after the start shows whether the prefix belongs to the listing.
    start = options.start_after
    if options.token is None and start is not None and start.startswith(options.prefix):
        common = common_prefix(start, options)
        if common is not None:
            following = await request_page(
                bucket, replace(options, prefix=common, delimiter=None, limit=1)
            )
            if following.entries:
                first = Prefix(bucket=bucket, prefix=common, backend=following.entries[0].backend)
                return Page(entries=[first], token=common)
    return await request_page(bucket, options)

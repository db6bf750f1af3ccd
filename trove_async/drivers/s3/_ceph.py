"""How requests to a Ceph Object Gateway (RGW) deviate from those to Amazon S3.

Observed on version 16.2.15. The workarounds are harmless on a version that behaves as Amazon S3:

- ``If-Match`` on a PUT is compared verbatim with the unquoted ETag, so a quoted one never matches.
- CopyObject ignores ``x-amz-copy-source-if-match`` and honours ``x-amz-copy-if-match``.
- ``_`` in the name of user metadata is stored as ``-``.
- A listing with a delimiter that starts inside a common prefix skips all of that prefix.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final

from trove_async.models import Prefix
from trove_async.options import ListOptions, Page
from trove_async.paging import common_prefix

from ._encoding import bare_etag
from ._headers import META, exactly

_SOURCE: Final = "x-amz-copy-source-if-match"
_SOURCE_TOO: Final = "x-amz-copy-if-match"


def ceph_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers of a write, rewritten for the gateway."""
    spoken = dict(cautious_headers(headers))
    if "if-match" in spoken:
        spoken["if-match"] = bare_etag(spoken["if-match"])
    return spoken


def cautious_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers of a write so that both Amazon S3 and the gateway honour them.

    Metadata whose name the gateway would change is stored in the value of the `EXACT` header.
    """
    spoken = dict(headers)
    if _SOURCE in spoken:
        spoken[_SOURCE_TOO] = spoken[_SOURCE]
    changed = [name for name in spoken if name.startswith(META) and "_" in name]
    return exactly(spoken, changed) if changed else spoken


async def page_from_within(
    ask: Callable[[str, ListOptions], Awaitable[Page]], bucket: str, options: ListOptions
) -> Page:
    """Return a page of a listing that may start inside a common prefix.

    If that prefix has a key after the start, the page contains only the prefix. Its token makes the
    gateway continue after all keys of the prefix.
    """
    start = options.start_after
    if options.token is None and start is not None and start.startswith(options.prefix):
        common = common_prefix(start, options)
        if common is not None:
            within = await ask(bucket, replace(options, prefix=common, delimiter=None, limit=1))
            if within.entries:
                first = Prefix(bucket=bucket, prefix=common, backend=within.entries[0].backend)
                return Page(entries=[first], token=common)
    return await ask(bucket, options)

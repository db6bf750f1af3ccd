"""Listings and creates in a service that stores keys as file paths: SeaweedFS.

Such a service walks its directories. It sorts keys segment by segment (``a``, ``a/b``, ``a-b``), so
an object directly precedes the objects below it. A page's token is the path at which the next page
continues, and ``start-after`` is such a path too. The deviations from Amazon S3, observed on
SeaweedFS 4.48:

- If the last object of a full page has objects below it and nothing else follows, they are lost:
  the page is marked as the last one.
- A listing after ``a/b`` omits ``a/b/c``. A listing after ``a/b/`` includes it.
- Empty segments of a prefix are dropped, so a page has keys that do not begin with the prefix.
- With a delimiter other than a slash, tokens repeat.
- A token has U+FFFD in place of characters that XML cannot represent.
- A put with ``If-None-Match: *`` is rejected if a directory has the object's name.

This module avoids these cases, except the last one, which `raise_if_directory` explains. A page takes
at most one request. The exception is a full page that is marked as the last one: unless the delimiter
is a slash, a second request checks that nothing follows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from trove_async.errors import NotFoundError, NotSupportedError, ObjectExistsError, TroveError
from trove_async.models import Entry, ObjectInfo, Prefix
from trove_async.options import ListOptions, Page
from trove_async.paging import common_prefix

if TYPE_CHECKING:
    from ._data_plane import DataPlane

RequestPage: TypeAlias = Callable[[str, ListOptions], Awaitable[Page]]

_SLASH: Final = "/"

_REPLACED: Final = "\ufffd"

_NOT_IN_KEYS = re.compile(r"^/|//|\\").search
"""Finds text that no key of such a service contains."""

_ORDER_DIFFERS = re.compile(r"[\x00-.\\]|^/|(?<=/)/").search
"""Finds where bytewise order and the service's order may differ: at a character below the slash,
because the service lists ``b/2`` before ``b-1``, and at text that no key contains."""


def excludes_all(prefix: str) -> bool:
    """Return whether no key of such a service can begin with the prefix."""
    return _NOT_IN_KEYS(prefix) is not None


def marker_before(options: ListOptions) -> str | None:
    """Return a path after which the service lists every key greater than `start_after`.

    Some keys after the path may not be greater. The caller must skip them.

    Args:
        options: What to list. Its `start_after` begins with its prefix.

    Returns:
        The path, or None if the listing must begin at its start.
    """
    start_after = options.start_after or ""
    match = _ORDER_DIFFERS(start_after)
    path = (start_after if match is None else start_after[: match.start()]).rstrip(_SLASH)
    if options.delimiter == _SLASH:
        # A listing after the path of a common prefix, without the slash, includes the prefix. A
        # listing after a path below it does not.
        path = path[:-1].rstrip(_SLASH)
    elif path:
        path += _SLASH
    return path if path and path.startswith(options.prefix) else None


class _Position(NamedTuple):
    """The position at which a page begins. It is encoded in the token that requests the page.

    Attributes:
        path: The service's token or an equivalent path. None at the start of the listing.
        last_folded: The last common prefix that this module folded. More of its keys may follow
            `path`.
        deferred: A common prefix before `path` for which the previous page had no room.
        is_last: Whether nothing follows `deferred`.
    """

    path: str | None
    last_folded: str | None = None
    deferred: str | None = None
    is_last: bool = False

    @classmethod
    def from_token(cls, token: str | None) -> _Position:
        """Return the position that a token encodes."""
        if token is None or not token.startswith(_SLASH):
            return cls(token)  # a path, which never begins with a slash
        return cls(*json.loads(token[1:]))

    @property
    def token(self) -> str | None:
        """The token that requests the page."""
        if self.last_folded is None and self.deferred is None:
            return self.path
        return _SLASH + json.dumps(self)


async def page_from_directories(
    request_page: RequestPage, bucket: str, options: ListOptions
) -> Page:
    """Return one page. A page with a token may be short or empty.

    Args:
        request_page: Requests a page from the service.
        bucket: The bucket.
        options: What to list. `excludes_all` must be false for its prefix.
    """
    # 1. Return the common prefix for which the previous page had no room.
    position, start_after = _Position.from_token(options.token), options.start_after
    if position.deferred is not None:
        entry = Prefix(bucket=bucket, prefix=position.deferred)
        return Page(entries=[entry], token=None if position.is_last else position.path)
    # 2. Request a page. The service folds keys at slashes only, so other delimiters are omitted.
    folds_locally = options.delimiter is not None and options.delimiter != _SLASH
    request = replace(
        options,
        delimiter=None if folds_locally else options.delimiter,
        token=position.path,
        start_after=None,
    )
    if position.path is None and start_after is not None:
        if start_after > options.prefix and not start_after.startswith(options.prefix):
            # The prefix's keys precede `start_after`. The request checks that the bucket exists.
            await request_page(bucket, replace(request, limit=1))
            return Page(entries=[])
        request = replace(request, start_after=marker_before(options))
    entries, path = await _request_entries(request_page, bucket, request)
    # 3. Remove the entry that has no room, and the entries up to `start_after`. Fold the others.
    deferred = _deferred_prefix(entries) if len(entries) > request.limit else None
    if deferred is not None:
        entries = [entry for entry in entries if entry.key != deferred]
    if start_after is not None:
        entries = [entry for entry in entries if entry.key > start_after]
    last_folded = None
    if folds_locally:
        entries, last_folded = _folded(entries, options, position.last_folded)
    # 4. Encode the position of the next page.
    if path is None and deferred is None:
        return Page(entries=entries)
    return Page(entries=entries, token=_Position(path, last_folded, deferred, path is None).token)


async def _request_entries(
    request_page: RequestPage, bucket: str, request: ListOptions
) -> tuple[Sequence[Entry], str | None]:
    """Return the entries of a page of the service, and the path of the next page or None."""
    page = await request_page(bucket, request)
    entries, path = page.entries, page.token
    if path is None and request.delimiter is None and len(entries) >= request.limit:
        path = _path_below(entries)
        following = await request_page(
            bucket, replace(request, token=path, start_after=None, limit=1)
        )
        return entries, path if following.entries else None
    if path is not None and entries and _REPLACED in path:
        path = _path_below(entries)
    return entries, path


def _deferred_prefix(entries: Sequence[Entry]) -> str | None:
    """Return the common prefix that exceeds the page's limit, if any.

    At the end of a page, the service lists an object together with the common prefix below it.
    """
    prefixes = [entry for entry in entries if isinstance(entry, Prefix)]
    return max(prefixes, key=_segments_of).prefix if prefixes else None


def _path_below(entries: Sequence[Entry]) -> str:
    """Return a path at which a listing continues after a page, including below its last object."""
    return f"{_SLASH.join(max(map(_segments_of, entries)))}{_SLASH}"


def _segments_of(entry: Entry) -> list[str]:
    """Return the segments by which the service sorts an entry."""
    return entry.key.rstrip(_SLASH).split(_SLASH)


def _folded(
    entries: Sequence[Entry], options: ListOptions, last_folded: str | None
) -> tuple[Sequence[Entry], str | None]:
    """Replace keys that contain the delimiter with their common prefixes, each returned once.

    Keys with the same prefix are adjacent, so it suffices to remember the last prefix.

    Args:
        entries: The entries of a page.
        options: What to list.
        last_folded: The last common prefix of the previous pages.

    Returns:
        The entries, and the last common prefix.
    """
    folded: list[Entry] = []
    for entry in entries:
        common = common_prefix(entry.key, options) if isinstance(entry, ObjectInfo) else None
        if common is None:
            folded.append(entry)
        elif common != last_folded:
            last_folded = common
            folded.append(Prefix(bucket=entry.bucket, prefix=common, backend=entry.backend))
    return folded, last_folded


async def raise_if_directory(
    plane: DataPlane, rejection: ObjectExistsError, bucket: str, key: str
) -> None:
    """Raise NotSupportedError if a directory, not an object, made the service reject a create.

    Args:
        plane: Sends a HEAD.
        rejection: The error of the rejected create.
        bucket: The bucket.
        key: The key.
    """
    try:
        await plane.head_object(bucket, key, None)
    except NotFoundError:
        raise NotSupportedError(
            "if_none_match: the service refused to create the object, although no object has this key."
            " It treats a directory of that name, even an empty one, as an object: put without the"
            " condition, or under a different key"
        ) from rejection
    except TroveError:
        return  # the caller raises the rejection

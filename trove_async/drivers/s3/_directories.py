"""Listings and creates in a service that stores keys as file paths: SeaweedFS.

Such a service walks its directories. It sorts keys segment by segment (``a``, ``a/b``, ``a-b``), so
an object directly precedes the objects below it. A page's token is the path at which the next page
continues, and so is ``start-after``. The deviations from Amazon S3, observed on SeaweedFS 4.48:

- If the last object of a full page has objects below it and nothing else follows, they are lost:
  the page is marked as the last one.
- A listing after ``a/b`` omits ``a/b/c``. A listing after ``a/b/`` includes it.
- Empty segments of a prefix are dropped, so a page has keys that do not begin with the prefix.
- With a delimiter other than a slash, tokens repeat.
- A token has U+FFFD in place of characters that XML cannot represent.
- A put with ``If-None-Match: *`` is refused if a directory has the object's name.

This module requests pages in the ways that work, with one request per page, and a second one for a
full page that is marked as the last.
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

Ask: TypeAlias = Callable[[str, ListOptions], Awaitable[Page]]

_SLASH: Final = "/"

_REPLACED: Final = "\ufffd"

_NOT_IN_KEYS = re.compile(r"^/|//|\\").search
"""Finds what no key of such a service contains. A prefix may end in a slash."""

_OUT_OF_STEP = re.compile(r"[\x00-.\\]|^/|(?<=/)/").search
"""Finds where bytewise order and the service's order may differ: at a character less than a slash,
because the service lists ``b/2`` before ``b-1``, and at what no key contains."""


def holds_none(prefix: str) -> bool:
    """Return whether no key of such a service can begin with the prefix."""
    return _NOT_IN_KEYS(prefix) is not None


def marker_before(options: ListOptions) -> str | None:
    """Return a path after which the service lists every key greater than `start_after`.

    Keys that are not greater may follow it as well. The caller must skip them.

    Args:
        options: What to list. Its `start_after` begins with its prefix.

    Returns:
        The path, or None if the listing must begin at its start.
    """
    after = options.start_after or ""
    found = _OUT_OF_STEP(after)
    path = (after if found is None else after[: found.start()]).rstrip(_SLASH)
    if options.delimiter == _SLASH:
        # A common prefix is listed after its own path without the slash, not after one below it.
        path = path[:-1].rstrip(_SLASH)
    elif path:
        path += _SLASH
    return path if path and path.startswith(options.prefix) else None


class _Place(NamedTuple):
    """The place where a page begins.

    Attributes:
        path: The service's token or an equivalent path. None at the start of the listing.
        told: The last common prefix folded by this module. More of its keys may follow `path`.
        due: A common prefix before `path` for which the previous page had no room.
        ends: Whether nothing follows `due`.
    """

    path: str | None
    told: str | None = None
    due: str | None = None
    ends: bool = False

    @classmethod
    def of(cls, token: str | None) -> _Place:
        """Return the place that a token encodes. A path never begins with a slash."""
        if token is None or not token.startswith(_SLASH):
            return cls(token)
        return cls(*json.loads(token[1:]))

    @property
    def token(self) -> str | None:
        """The page's token."""
        if self.told is None and self.due is None:
            return self.path
        return _SLASH + json.dumps(self)


async def page_of(ask: Ask, bucket: str, options: ListOptions) -> Page:
    """Return one page. A page with a token may be short or empty.

    Args:
        ask: Requests a page from the service.
        bucket: The bucket.
        options: What to list. `holds_none` must be false for its prefix.
    """
    # 1. Return the common prefix that had no room on the page before.
    at, after = _Place.of(options.token), options.start_after
    if at.due is not None:
        entry = Prefix(bucket=bucket, prefix=at.due)
        return Page(entries=[entry], token=None if at.ends else at.path)
    # 2. Request a page. This module folds keys if the delimiter is not a slash.
    folds = options.delimiter is not None and options.delimiter != _SLASH
    request = replace(
        options, delimiter=None if folds else options.delimiter, token=at.path, start_after=None
    )
    if at.path is None and after is not None:
        if after > options.prefix and not after.startswith(options.prefix):
            # All keys with the prefix are less. The request only checks that the bucket exists.
            await ask(bucket, replace(request, limit=1))
            return Page(entries=[])
        request = replace(request, start_after=marker_before(options))
    entries, path = await _entries(ask, bucket, request)
    # 3. Remove what has no room, and what is not after `start_after`. Fold the rest.
    due = _due(entries) if len(entries) > request.limit else None
    if due is not None:
        entries = [one for one in entries if one.key != due]
    if after is not None:
        entries = [one for one in entries if one.key > after]
    told = None
    if folds:
        entries, told = _folded(entries, options, at.told)
    # 4. Encode the place where the next page begins.
    if path is None and due is None:
        return Page(entries=entries)
    return Page(entries=entries, token=_Place(path, told, due, path is None).token)


async def _entries(
    ask: Ask, bucket: str, request: ListOptions
) -> tuple[Sequence[Entry], str | None]:
    """Return the entries of a page of the service, and the path of the next page or None."""
    page = await ask(bucket, request)
    entries, path = page.entries, page.token
    if path is None and request.delimiter is None and len(entries) >= request.limit:
        path = _path_below(entries)
        below = await ask(bucket, replace(request, token=path, start_after=None, limit=1))
        return entries, path if below.entries else None
    if path is not None and entries and _REPLACED in path:
        path = _path_below(entries)
    return entries, path


def _due(entries: Sequence[Entry]) -> str | None:
    """Return the common prefix for which a page has no room.

    The service lists an object together with the common prefix below it, even at the page's end.
    """
    prefixes = [one for one in entries if isinstance(one, Prefix)]
    return max(prefixes, key=_path_of).prefix if prefixes else None


def _path_below(entries: Sequence[Entry]) -> str:
    """Return a path whose listing continues after a page, including below its last object."""
    return f"{_SLASH.join(max(map(_path_of, entries)))}{_SLASH}"


def _path_of(entry: Entry) -> list[str]:
    """Return the sort key of the service."""
    return entry.key.rstrip(_SLASH).split(_SLASH)


def _folded(
    entries: Sequence[Entry], options: ListOptions, told: str | None
) -> tuple[Sequence[Entry], str | None]:
    """Replace keys that contain the delimiter by their common prefixes, each returned once.

    Keys with the same prefix are adjacent, so only the last prefix has to be remembered.

    Returns:
        The entries, and the last prefix returned.
    """
    folded: list[Entry] = []
    for entry in entries:
        common = common_prefix(entry.key, options) if isinstance(entry, ObjectInfo) else None
        if common is None:
            folded.append(entry)
        elif common != told:
            told = common
            folded.append(Prefix(bucket=entry.bucket, prefix=common, backend=entry.backend))
    return folded, told


async def check_object_exists(
    plane: DataPlane, refusal: ObjectExistsError, bucket: str, key: str
) -> None:
    """Raise NotSupportedError if a directory, not an object, caused the refusal of a create.

    Args:
        plane: Sends a HEAD.
        refusal: The error of the refused create.
        bucket: The bucket.
        key: The key.
    """
    try:
        await plane.head_object(bucket, key, None)
    except NotFoundError:
        raise NotSupportedError(
            "if_none_match: the service refused to create the object although there is none. It treats"
            " a directory of that name, even an empty one, as an object: put without the condition, or"
            " under another key"
        ) from refusal
    except TroveError:
        return  # the refusal stands

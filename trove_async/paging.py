"""Pages of a listing: built from sorted keys, and checked when they come from a service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from .errors import BackendError
from .models import ObjectInfo, Prefix, VersionInfo
from .options import ListOptions, Page, VersionPage

T = TypeVar("T")
P = TypeVar("P", Page, VersionPage)

_SURROGATES = range(0xD800, 0xE000)  # Unicode 15, D71: UTF-8 text contains none
_LAST_CODE_POINT = 0x10FFFF

_MAX_EMPTY_PAGES: Final = 10_000
"""Maximum number of consecutive pages without entries. Each of them takes a request."""


def paginate(
    bucket: str,
    options: ListOptions,
    seek: Callable[[str], Iterator[tuple[str, T]]],
    load: Callable[[str, T], ObjectInfo | None],
) -> Page:
    """Return one page of a listing. Only the objects on the page are loaded.

    Args:
        bucket: The bucket's name, for the prefixes.
        options: The prefix, the delimiter, the start and the size of the page.
        seek: Yields ``(key, handle)`` for every key from the given one on, in the order of code
            points, which is the bytewise order of UTF-8. The handle may be any value.
        load: Returns the object's metadata for a key and its handle; None if the object no longer
            exists.

    Returns:
        The page. Its token is the first key of the next page, so no state is kept between pages.
    """
    entries: list[ObjectInfo | Prefix] = []
    keys = seek(first_key(options))
    prefix, delimiter, limit = options.prefix, options.delimiter, options.limit
    while (item := next(keys, None)) is not None:
        key, handle = item
        if not key.startswith(prefix):
            break
        if len(entries) == limit:
            return Page(entries=entries, token=key)
        # 1. List an object.
        common = common_prefix(key, options) if delimiter else None
        if common is None:
            info = load(key, handle)
            if info is not None:
                entries.append(info)
            continue
        # 2. Or list a common prefix, and skip the other keys that start with it.
        entries.append(Prefix(bucket=bucket, prefix=common))
        following = after_prefix(common)
        if following is None:
            break  # no string is greater than all strings with this prefix
        keys = seek(following)
    return Page(entries=entries)


def first_key(options: ListOptions) -> str:
    """Return the least key that the page may contain."""
    if options.token is not None:
        return options.token
    if options.start_after is None:
        return options.prefix
    # No key contains NUL, so this is a lower bound of the keys after `start_after`.
    return max(options.prefix, options.start_after + "\0")


def common_prefix(key: str, options: ListOptions) -> str | None:
    """Return the common prefix that replaces the key in a listing with a delimiter, if any."""
    if not options.delimiter:
        return None
    index = key.find(options.delimiter, len(options.prefix))
    return None if index < 0 else key[: index + len(options.delimiter)]


def after_prefix(prefix: str) -> str | None:
    """Return the least string greater than all strings that start with `prefix`, or None."""
    # Increment the last code point that is not the greatest one, and drop the rest.
    for end in range(len(prefix), 0, -1):
        code_point = ord(prefix[end - 1])
        if code_point < _LAST_CODE_POINT:
            successor = code_point + 1
            if successor in _SURROGATES:
                successor = _SURROGATES.stop
            return prefix[: end - 1] + chr(successor)
    return None


def filter_by_prefix(page: P, prefix: str) -> P:
    """Return the page without entries whose keys do not start with the prefix.

    Some services ignore empty segments of a prefix and return the keys under the resulting prefix.
    """
    if not prefix or not page.entries:
        return page
    # The strings that start with a prefix are an interval in the order of code points.
    keys = [entry.key for entry in page.entries]
    if min(keys).startswith(prefix) and max(keys).startswith(prefix):
        return page
    return replace(page, entries=[entry for entry in page.entries if entry.key.startswith(prefix)])


def split_at_key(
    versions: Sequence[VersionInfo], limit: int, *, ended: bool
) -> tuple[Sequence[VersionInfo], str | None]:
    """Split versions into a page and a remainder that starts with a different key.

    The next page begins with a new key, so deletions between two pages do not shift its start.

    Args:
        versions: The versions from the start of the page on, those of one key together.
        limit: The maximum number of entries of the page, unless the first key has more versions.
        ended: Whether the listing ends with these versions. If not, they must have at least two keys.

    Returns:
        The page, and the first key of the next page; None: this is the last page.
    """
    end = len(versions)
    if not ended or end > limit:
        # More versions of the last key may follow, so move the end back to the end of an earlier key.
        end = min(limit, end - 1)
        while end and versions[end - 1].key == versions[end].key:
            end -= 1
        if not end:  # one key has more versions than the limit: they stay together
            end = sum(1 for version in versions if version.key == versions[0].key)
    return versions[:end], versions[end].key if end < len(versions) else None


class TokenCycle:
    """Detects that the pages of one listing repeat, in constant memory.

    Only one token is saved at a time, each for twice as many pages as the one before (R. P. Brent, "An
    improved Monte Carlo factorization algorithm", 1980). A cycle is detected after at most three pages for
    each different token.

    Args:
        first: The token of the first page, if the listing resumes at one.
    """

    __slots__ = ("_empty_pages", "_pages_since_saved", "_period", "_saved_token")

    def __init__(self, first: str | None = None) -> None:
        self._saved_token = first
        self._pages_since_saved = 0
        self._period = 1
        self._empty_pages = 0

    def check(self, token: str | None, *, empty: bool = False) -> None:
        """Check the next page of the listing.

        Args:
            token: The token that leads to the page after it; None: this page is the last.
            empty: Whether the page has no entries.

        Raises:
            BackendError: The tokens repeat, or too many consecutive pages were empty.
        """
        if token is None:
            return
        if token == self._saved_token:
            raise BackendError(
                "the pages of a listing must differ, but the service returned the same page again:"
                " the listing would never end; try a different prefix, or no delimiter"
            )
        self._empty_pages = self._empty_pages + 1 if empty else 0
        if self._empty_pages > _MAX_EMPTY_PAGES:
            raise BackendError(
                f"a listing must have at most {_MAX_EMPTY_PAGES} consecutive empty pages, but the service"
                " returned more: try a different prefix, or no delimiter"
            )
        self._pages_since_saved += 1
        if self._pages_since_saved == self._period:
            self._saved_token = token
            self._pages_since_saved = 0
            self._period *= 2

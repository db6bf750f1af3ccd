"""Pages of a listing: made from sorted keys, and checks on those of a service."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from .errors import BackendError
from .models import ObjectInfo, Prefix, VersionInfo
from .options import ListOptions, Page, VersionPage

T = TypeVar("T")
P = TypeVar("P", Page, VersionPage)

_SURROGATES = range(0xD800, 0xE000)  # Unicode 15, D71: no UTF-8 text holds one
_LAST_CODE_POINT = 0x10FFFF

_EMPTY_PAGES: Final = 10_000
"""Pages without an entry that may follow one another: each is a request, and tells nothing."""


def paginate(
    bucket: str,
    options: ListOptions,
    seek: Callable[[str], Iterator[tuple[str, T]]],
    load: Callable[[str, T], ObjectInfo | None],
) -> Page:
    """Make the page that `options` ask for, loading only the objects that are on it.

    Args:
        bucket: The bucket's name, for the prefixes.
        options: Prefix, delimiter, where to start and how many entries.
        seek: Yields ``(key, anything)`` for every key from the given one on, in order of code
            points, which is the bytewise order of UTF-8.
        load: Turns what `seek` yielded into the object's facts; None where it has gone meanwhile.

    Returns:
        A page whose token says where the next one starts: nothing is held here for it.
    """
    entries: list[ObjectInfo | Prefix] = []
    keys = seek(first_key(options))
    prefix, delimiter, limit = options.prefix, options.delimiter, options.limit
    while (found := next(keys, None)) is not None:
        key, handle = found
        if not key.startswith(prefix):
            break
        if len(entries) == limit:
            return Page(entries=entries, token=key)
        common = common_prefix(key, options) if delimiter else None
        if common is None:
            info = load(key, handle)
            if info is not None:
                entries.append(info)
            continue
        entries.append(Prefix(bucket=bucket, prefix=common))
        beyond = after_prefix(common)
        if beyond is None:
            break
        keys = seek(beyond)
    return Page(entries=entries)


def first_key(options: ListOptions) -> str:
    """Return the least key that may be on the page."""
    if options.token is not None:
        return options.token
    if options.start_after is None:
        return options.prefix
    # No key holds a NUL, so this is the least one above.
    return max(options.prefix, options.start_after + "\0")


def common_prefix(key: str, options: ListOptions) -> str | None:
    """Return the prefix under which a listing with a delimiter hides the key, if it does."""
    if not options.delimiter:
        return None
    at = key.find(options.delimiter, len(options.prefix))
    return None if at < 0 else key[: at + len(options.delimiter)]


def after_prefix(prefix: str) -> str | None:
    """Return the least text above every text that begins with `prefix`; None if there is none."""
    for end in range(len(prefix), 0, -1):
        point = ord(prefix[end - 1])
        if point < _LAST_CODE_POINT:
            following = point + 1
            if following in _SURROGATES:
                following = _SURROGATES.stop
            return prefix[: end - 1] + chr(following)
    return None


def inside(page: P, prefix: str) -> P:
    """Return the page without entries whose keys do not begin with the prefix.

    Some services drop empty segments of a prefix, and hand out what they find then.
    """
    if not prefix or all(one.key.startswith(prefix) for one in page.entries):
        return page
    return replace(page, entries=[one for one in page.entries if one.key.startswith(prefix)])


def whole_keys(
    versions: Sequence[VersionInfo], limit: int, *, ended: bool
) -> tuple[Sequence[VersionInfo], str | None]:
    """Cut a page of versions where a key ends.

    What is deleted between two pages then shifts nothing: the next one begins behind a key.

    Args:
        versions: All that is known from the page's start on, the versions of a key together.
        limit: The most entries, unless the first key alone has more.
        ended: Whether the listing ends with them. If not, they are of two keys at least.

    Returns:
        The page, and the key that the next one begins with; None: there is none.
    """
    end = len(versions)
    if not ended or end > limit:
        end = min(limit, end - 1)
        while end and versions[end - 1].key == versions[end].key:
            end -= 1
        if not end:
            end = sum(1 for one in versions if one.key == versions[0].key)
    return versions[:end], versions[end].key if end < len(versions) else None


class TokenCycle:
    """Notices that the pages of one listing repeat, however many there are.

    It holds one token at a time, for twice as many pages as the one before (R. P. Brent, "An
    improved Monte Carlo factorization algorithm", 1980): a cycle is noticed before it has been
    walked three times.

    Args:
        first: The token of the first page, if the listing begins there.
    """

    __slots__ = ("_empty", "_held", "_pages", "_until")

    def __init__(self, first: str | None = None) -> None:
        self._held = first
        self._pages = 0
        self._until = 1
        self._empty = 0

    def check(self, token: str | None, *, empty: bool = False) -> None:
        """Note a page, which is the next of the listing.

        Args:
            token: The page's token of the next one, if there is one.
            empty: Whether the page has no entry.

        Raises:
            BackendError: The listing had this token before, or so many pages were empty that it may
                never end.
        """
        if token is None:
            return
        if token == self._held:
            raise BackendError(
                "the service's listing leads to the same page again and again: it would never end."
                " Try another prefix, and no delimiter"
            )
        self._empty = self._empty + 1 if empty else 0
        if self._empty > _EMPTY_PAGES:
            raise BackendError(
                f"the service's listing has {_EMPTY_PAGES} empty pages one after the other, and does"
                " not end. Try another prefix, and no delimiter"
            )
        self._pages += 1
        if self._pages == self._until:
            self._held = token
            self._pages = 0
            self._until *= 2

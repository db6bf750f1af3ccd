"""Pages of a listing made from sorted keys: what drivers that can seek in their keys share."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from .models import Page, Prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .models import ListOptions, ObjectInfo

T = TypeVar("T")

_SURROGATES = range(0xD800, 0xE000)  # Unicode 15, D71: no UTF-8 text holds one
_LAST_CODE_POINT = 0x10FFFF


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

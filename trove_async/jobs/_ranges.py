"""Ranges of keys, and the search for a key at which to split one.

Python compares strings by code points, which gives the bytewise order of UTF-8.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

MAX_CHAR: Final = "\U0010ffff"
"""The greatest character: ``prefix + MAX_CHAR`` is not less than the usual keys that start with the prefix."""

_MAX_ASCII: Final = 0x7F

_MAX_PROBES: Final = 48
"""Maximum number of requests to find the point of one split."""

_MAX_DEPTH: Final = 200
"""Maximum length of the common prefix of a range to split. Points stay short enough for any backend."""

FirstAfter: TypeAlias = Callable[[str], Awaitable[str | None]]
"""Returns the first key of a listing after the given one; None at its end. Costs one request."""


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The keys after `start_after`, up to and including `until`.

    Attributes:
        start_after: The range contains only greater keys. ``""``: it starts with the first key.
        until: The greatest key that the range may contain. None: it has no end.
        cursor: The position in an unordered listing, which cannot be split. None: it is ordered, or at its start.
    """

    start_after: str = ""
    until: str | None = None
    cursor: str | None = None

    def __contains__(self, key: str) -> bool:
        return key > self.start_after and (self.until is None or key <= self.until)


@dataclass(frozen=True, slots=True)
class SplitPoint:
    """The result of a search.

    Attributes:
        point: A key of the range; keys up to it are the first half. At least one key is greater. None: no
            such key was found.
        until: A new end of the range. The listing had no key between it and the old one.
    """

    point: str | None
    until: str | None


async def find_split(key_range: KeyRange, first_after: FirstAfter) -> SplitPoint:
    """Search for a key near the middle of a range, with a few requests for single keys.

    The sizes of the halves are not known. The search skips the common prefix of all keys, and then halves
    the range of the first characters that differ. A small half is done soon, and is followed by another
    split.
    """
    return await _Search(key_range, first_after).run()


class _Search:
    """The search for the split of one range. The remaining keys are from `low` to `high`."""

    def __init__(self, key_range: KeyRange, first_after: FirstAfter) -> None:
        self._low = key_range.start_after
        self._high = key_range.until
        self._first_after = first_after
        self._probes = 0

    async def run(self) -> SplitPoint:
        """Return the split."""
        # 1. Start with the first key, so that the first half is not empty.
        first = await self._probe(self._low)
        if first is None:
            return SplitPoint(None, self._low)
        self._low = first
        depth = 0
        while self._probes < _MAX_PROBES and depth < _MAX_DEPTH:
            prefix = self._low[:depth]
            # 2. If `low` is the common prefix itself, continue with the next key.
            if len(self._low) == depth:
                following = await self._probe(self._low)
                if following is None:
                    return SplitPoint(None, self._low)
                self._low = following
                continue
            # 3. Look for a key that does not start with one character more of `low`.
            end_of_subtree = prefix + self._low[depth] + MAX_CHAR
            if self._high is None or self._high > end_of_subtree:
                other = await self._probe(end_of_subtree)
                if other is not None:
                    point = await self._between(prefix, self._low[depth], other)
                    return SplitPoint(point, self._high)
                self._high = end_of_subtree
            depth += 1
        return SplitPoint(None, self._high)

    async def _between(self, prefix: str, char: str, other: str) -> str:
        """Return a point between the keys that start with `prefix` and `char`, and the last key.

        Args:
            prefix: The common prefix.
            char: The character after the prefix in the smallest keys.
            other: The first key with a greater character.
        """
        depth = len(prefix)
        first, found = ord(char), ord(other[depth])
        if found <= _MAX_ASCII:
            # Find the greatest ASCII character after the prefix: other characters are rare.
            missing = _MAX_ASCII + 1
            while missing - found > 1 and self._probes < _MAX_PROBES:
                middle = (found + missing) // 2
                key = await self._probe(prefix + chr(middle - 1) + MAX_CHAR)
                if key is not None and ord(key[depth]) <= _MAX_ASCII:
                    found = ord(key[depth])
                else:
                    missing = middle
            first = (first + found) // 2
        return prefix + chr(first) + MAX_CHAR

    async def _probe(self, start_after: str) -> str | None:
        """Return the first key of the range after `start_after`, if there is one."""
        self._probes += 1
        key = await self._first_after(start_after)
        return key if key is not None and (self._high is None or key <= self._high) else None

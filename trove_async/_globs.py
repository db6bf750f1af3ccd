r"""Compiled patterns, and an index that finds the first of many patterns that matches a name.

The rules are those of Go's ``path/filepath.Match`` on Unix::

    *           any number of characters other than "/"
    ?           one character other than "/"
    [a-z0-9]    one character of the class, which may contain "/"; [^a-z] one outside the class
    \c          the character c, inside a class as well
    c           the character c, for any other character

A pattern matches a whole name. ``!``, and ``[`` inside a class, are literals; ``[]`` and ``[-a]`` are
errors; ``[z-a]`` is an empty range. As in Go, the text between two ``*`` matches only at its first
occurrence. This limits the time to the product of the lengths of pattern and name, and changes the
result only for patterns with a class that matches ``/``. Names are matched by code points, whereas Go
may resume inside the UTF-8 bytes of a character after a ``*``.

One extension: a segment ``**`` matches any number of segments, including none. So ``a/**`` matches
every name that starts with ``a/`` (but not ``a``), ``**/b`` matches ``b`` and ``x/y/b``, ``a/**/b``
matches ``a/b`` and ``a/x/y/b``, and ``**`` matches every name. Elsewhere ``**`` means ``*``, as in
Go.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from .errors import PatternError


class Meta(Enum):
    """The special parts of a pattern, except classes, with their regular expressions."""

    ONE = "[^/]"
    STAR = "[^/]*?"
    SEGMENTS = "(?:[^/]*+/)*?"  # `**/`: whole segments, each with its slash
    ANYTHING = ".*"  # a final `**`, or what precedes the suffix in `Glob.ending`


@dataclass(frozen=True, slots=True)
class CharacterClass:
    """A class ``[...]``: inclusive ranges of characters, possibly negated."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool

    def contains(self, character: str) -> bool:
        """Return whether the class matches the character."""
        return any(low <= character <= high for low, high in self.ranges) != self.negated

    @property
    def regex(self) -> str:
        """The class as a regular expression."""
        spans = "".join(
            f"\\U{ord(low):08x}-\\U{ord(high):08x}" for low, high in self.ranges if low <= high
        )
        if not spans:
            return "." if self.negated else "(?!)"
        return f"[{'^' if self.negated else ''}{spans}]"


Token: TypeAlias = str | Meta | CharacterClass
"""A part of a pattern. A str is a literal; two literals never follow each other."""


class Glob:
    """A compiled pattern.

    Attributes:
        tokens: The parts of the pattern. Patterns with equal parts are equal.
        test: Returns a true value for names that match. It is faster than `matches`.
        literal: Whether the pattern has no special parts.
        prefix: The literal before the first special part. Every match starts with it.
        suffix: The literal after the last special part. Every match ends with it.
    """

    __slots__ = ("literal", "prefix", "suffix", "test", "tokens")

    def __init__(self, tokens: Iterable[Token]) -> None:
        self.tokens: Final = tuple(tokens)
        first, last = (self.tokens[0], self.tokens[-1]) if self.tokens else ("", "")
        self.literal: Final = all(isinstance(token, str) for token in self.tokens)
        self.prefix: Final = first if isinstance(first, str) else ""
        self.suffix: Final = last if isinstance(last, str) else ""
        self.test: Final = _make_test(self)

    @classmethod
    def parse(cls, pattern: str) -> Glob:
        """Compile a pattern.

        Raises:
            PatternError: The pattern is malformed. The message contains the position and the reason.
            TypeError: The pattern is not a str.
        """
        if not isinstance(pattern, str):
            raise TypeError(f"a pattern must be a str, got {type(pattern).__name__}")
        return cls(_merge(_tokens(pattern)))

    @classmethod
    def starting(cls, prefix: str) -> Glob:
        """Return a pattern for names that start with `prefix`. No character is special."""
        return cls(_merge([prefix, Meta.ANYTHING]))

    @classmethod
    def ending(cls, suffix: str) -> Glob:
        """Return a pattern for names that end with `suffix`. No character is special."""
        return cls(_merge([Meta.ANYTHING, suffix]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Glob) and self.tokens == other.tokens

    def __hash__(self) -> int:
        return hash(self.tokens)

    def __reduce__(self) -> tuple[type[Glob], tuple[tuple[Token, ...]]]:
        # `test` is a closure, which cannot be copied or pickled.
        return (Glob, (self.tokens,))

    def matches(self, name: str) -> bool:
        """Return whether the pattern matches the name."""
        return bool(self.test(name))

    def covers(self, prefix: str) -> bool:
        """Return whether the pattern certainly matches every name that starts with `prefix`."""
        return self.tokens[-1:] == (Meta.ANYTHING,) and (
            len(self.tokens) == 1
            or (self.tokens == (self.prefix, Meta.ANYTHING) and prefix.startswith(self.prefix))
        )

    def can_match_below(self, prefix: str) -> bool:
        """Return whether the pattern may match a name that starts with `prefix`. Only False is certain."""
        if self.prefix.startswith(prefix):
            return True
        return prefix.startswith(self.prefix) and self._can_continue_after(prefix)

    def _can_continue_after(self, prefix: str) -> bool:
        # Follow all ways to match `prefix` in parallel. `positions` are the positions in the pattern
        # that may match the next character.
        steps: list[Token] = [
            step for token in self.tokens for step in (token if isinstance(token, str) else [token])
        ]
        positions = _skip_stars(steps, [0])
        for character in prefix:
            positions = _skip_stars(steps, _advance(steps, positions, character))
        return bool(positions)


def _skip_stars(steps: Sequence[Token], positions: Iterable[int]) -> set[int]:
    """Return the positions, and those that follow them if stars match nothing.

    A negative position ``~n`` is inside a segment that the ``**/`` at ``n`` matches.
    """
    reached = set()
    for start in positions:
        position = start
        reached.add(position)
        while 0 <= position < len(steps) and steps[position] in {
            Meta.STAR,
            Meta.SEGMENTS,
            Meta.ANYTHING,
        }:
            position += 1
            reached.add(position)
    return reached


def _advance(steps: Sequence[Token], positions: Iterable[int], character: str) -> Iterator[int]:
    """Yield the positions that follow once `character` is matched at `positions`."""
    for start in positions:
        position = ~start if start < 0 else start
        step = steps[position] if position < len(steps) else None
        if step is Meta.SEGMENTS:
            yield position if character == "/" else ~position
        elif step is Meta.ANYTHING or (step is Meta.STAR and character != "/"):
            yield position
        elif (
            step == character
            or (step is Meta.ONE and character != "/")
            or (isinstance(step, CharacterClass) and step.contains(character))
        ):
            yield position + 1


def _tokens(pattern: str) -> Iterator[Token]:
    """Yield the parts of a pattern. A literal is yielded one character at a time."""
    position, end = 0, len(pattern)
    starts_segment = True
    while position < end:
        character = pattern[position]
        if character == "*":
            # `**` is special only as a whole segment. Elsewhere several stars mean the same as one.
            stars = position
            while pattern[position : position + 1] == "*":
                position += 1
            following = pattern[position : position + 1]
            if starts_segment and position - stars == 2 and following in {"", "/"}:  # noqa: PLR2004 - `**`
                yield Meta.SEGMENTS if following else Meta.ANYTHING
                position += 1
                continue
            yield Meta.STAR
        elif character == "?":
            yield Meta.ONE
            position += 1
        elif character == "[":
            character_class, position = _class(pattern, position)
            yield character_class
        else:
            character, position = _character(pattern, position)
            yield character
        starts_segment = character == "/"


def _class(pattern: str, start: int) -> tuple[CharacterClass, int]:
    """Parse the class that starts at `start`. Return the class and the position after it."""
    position = start + 1
    negated = pattern[position : position + 1] == "^"
    position += negated
    ranges: list[tuple[str, str]] = []
    while not (ranges and pattern[position : position + 1] == "]"):
        low, position = _member(pattern, position, start)
        high = low
        if pattern[position : position + 1] == "-":
            high, position = _member(pattern, position + 1, start)
        ranges.append((low, high))
    return CharacterClass(tuple(ranges), negated), position + 1


def _member(pattern: str, position: int, start: int) -> tuple[str, int]:
    character = pattern[position : position + 1]
    if not character:
        raise _malformed(pattern, start, "the class has no closing ']'")
    if character in "-]":
        raise _malformed(
            pattern,
            position,
            f"a class must not contain {character!r} at this position: write '\\{character}'",
        )
    return _character(pattern, position)


def _character(pattern: str, position: int) -> tuple[str, int]:
    character = pattern[position]
    if character == "\\":
        position += 1
        if position == len(pattern):
            raise _malformed(pattern, position - 1, "'\\' must be followed by a character")
        character = pattern[position]
    if "\ud800" <= character <= "\udfff":
        raise _malformed(pattern, position, "a lone surrogate has no UTF-8 form")
    return character, position + 1


def _malformed(pattern: str, position: int, reason: str) -> PatternError:
    return PatternError(f"bad pattern {pattern!r} at position {position}: {reason}")


def _merge(tokens: Iterable[Token]) -> list[Token]:
    """Join adjacent literals, and drop stars that add nothing to an adjacent one."""
    merged: list[Token] = []
    for token in tokens:
        last = merged[-1] if merged else None
        if isinstance(token, str):
            if isinstance(last, str):
                merged[-1] = last + token
            elif token:
                merged.append(token)
        elif last is Meta.SEGMENTS and token is Meta.ANYTHING:
            merged[-1] = token
        elif not (last is token and token in {Meta.STAR, Meta.SEGMENTS}):
            merged.append(token)
    return merged


def _make_test(glob: Glob) -> Callable[[str], object]:
    """Return a predicate for matching names. Common patterns need only string methods."""
    prefix, suffix = glob.prefix, glob.suffix
    match glob.tokens:
        case () | (str(),):
            return prefix.__eq__
        case (Meta.ANYTHING,):
            return lambda _name: True
        case (str(), Meta.ANYTHING):
            return lambda name: name.startswith(prefix)
        case (Meta.ANYTHING, str()):
            return lambda name: name.endswith(suffix)
        case (Meta.STAR,) | (Meta.STAR, str()) | (str(), Meta.STAR) | (str(), Meta.STAR, str()):
            head, tail = len(prefix), len(suffix)
            return lambda name: (
                len(name) >= head + tail
                and name.startswith(prefix)
                and name.endswith(suffix)
                and name.find("/", head, len(name) - tail) < 0
            )
    return re.compile(_regex(glob.tokens), re.DOTALL).match


def _regex(tokens: Sequence[Token]) -> str:
    # A run is a star and the text up to the next star. All runs but the last are atomic: they match
    # at their first occurrence, as in Go. A group is a `**/` and the runs up to the next `**`; all
    # groups but the last are atomic as well.
    groups: list[list[str]] = [[""]]
    for token in tokens:
        if token is Meta.SEGMENTS:
            groups.append([token.value])
        elif token is Meta.STAR:
            groups[-1].append(token.value)
        else:
            groups[-1][-1] += (
                re.escape(token)
                if isinstance(token, str)
                else token.value
                if isinstance(token, Meta)
                else token.regex
            )
    *before, last = groups
    *runs, final = last
    return "".join(f"(?>{_atomic(group)})" for group in before) + _atomic(runs) + final + r"\Z"


def _atomic(runs: Sequence[str]) -> str:
    # The first run of a group is the text before its first star. It may start with `**/`.
    return "".join(run if index == 0 else f"(?>{run})" for index, run in enumerate(runs))


_LONGEST_PIECE = 4
"""Maximum number of characters of a piece. Longer pieces distinguish patterns better, but need more
look-ups."""

_COST = {"prefix": 0, "suffix": 0, "segment": 2, "piece": 6}
"""The cost of one look-up of each kind. The unit is one test of a pattern."""


class _Condition(NamedTuple):
    """A necessary condition for a match: one of `texts` is a part of the name.

    The `kind` is the kind of part: the prefix, the suffix, a segment or a piece.
    """

    kind: str
    texts: tuple[str, ...]


_LOOSE = _Condition("loose", ())


class FirstMatch:
    """An index that finds the first of many patterns that matches a name.

    Each pattern with special parts is filed under one necessary condition for a match (a prefix, a
    suffix, a segment or a substring): the one that makes look-ups cheapest, usually because few other
    patterns share it. A look-up then costs about one dictionary access for each length of prefix and
    suffix in use. A pattern without such a condition (``[a-z]*``) is tested for every name without an
    earlier match.

    Args:
        globs: The patterns with their ranks, in ascending order of rank. The lowest rank wins.
    """

    __slots__ = ("_literals", "_loose", "_pieces", "_prefixes", "_segments", "_suffixes")

    def __init__(self, globs: Iterable[tuple[int, Glob]]) -> None:
        distinct: dict[Glob, int] = {}
        for rank, glob in globs:
            distinct.setdefault(glob, rank)
        self._literals = {glob.prefix: rank for glob, rank in distinct.items() if glob.literal}
        groups = _group([(rank, glob) for glob, rank in distinct.items() if not glob.literal])
        self._loose = groups[_LOOSE.kind].get("", [])
        self._prefixes = _by_size(groups["prefix"])
        self._suffixes = _by_size(groups["suffix"])
        self._pieces = _by_size(groups["piece"])
        self._segments = groups["segment"]

    def find(self, name: str, limit: int) -> int:
        """Return the lowest rank below `limit` whose pattern matches `name`, else `limit`."""
        best = limit
        if self._literals and (rank := self._literals.get(name, limit)) < limit:
            best = rank
        # The tables are in ascending order of their lowest rank. So a loop ends at the first table that has
        # only higher ranks than the best match.
        for least, size, table in self._prefixes:
            if least >= best:
                break
            if (group := table.get(name[:size])) is not None:
                best = _first(group, name, best)
        for least, size, table in self._suffixes:
            if least >= best:
                break
            if (group := table.get(name[-size:])) is not None:
                best = _first(group, name, best)
        if self._segments or self._pieces:
            best = self._find_inside(name, best)
        return _first(self._loose, name, best) if self._loose else best

    def _find_inside(self, name: str, best: int) -> int:
        if self._segments:
            for segment in name.split("/"):
                if (group := self._segments.get(segment)) is not None:
                    best = _first(group, name, best)
        for least, size, table in self._pieces:
            if least >= best:
                break
            for start in range(0, len(name) - size + 1, size):
                if (group := table.get(name[start : start + size])) is not None:
                    best = _first(group, name, best)
        return best


_Group: TypeAlias = "list[tuple[int, Callable[[str], object] | None]]"
"""Ranks with the tests of their patterns. None: the condition of the group is the whole pattern."""


def _first(group: _Group, name: str, best: int) -> int:
    """Return the lowest rank below `best` in the group whose pattern matches, else `best`."""
    for rank, test in group:
        if rank >= best:
            break
        if test is None or test(name):
            return rank
    return best


def _is_whole(condition: _Condition, glob: Glob) -> bool:
    """Return whether every name that meets the condition matches the pattern."""
    match condition.kind, glob.tokens:
        case ("prefix", (str(), Meta.ANYTHING)) | ("suffix", (Meta.ANYTHING, str())):
            return True
    return False


def _conditions(glob: Glob) -> Iterator[_Condition]:
    if glob.prefix:
        yield _Condition("prefix", (glob.prefix,))
    if glob.suffix:
        yield _Condition("suffix", (glob.suffix,))
    before: Token | None = None
    for token in glob.tokens:
        if isinstance(token, str):
            # Text between two slashes is a whole segment, and so is the text after `**/`.
            for segment in token.split("/")[before is not Meta.SEGMENTS : -1]:
                yield _Condition("segment", (segment,))
            yield from _pieces(token)
        before = token


def _pieces(literal: str) -> Iterator[_Condition]:
    # A look-up cuts the name into pieces of `size` characters. Of `size` substrings that start one
    # character apart in the literal, one starts where a piece does, wherever the literal occurs in
    # the name. So the name has one of them as a piece.
    size = min((len(literal) + 1) // 2, _LONGEST_PIECE)
    for start in range(len(literal) - 2 * size + 2):
        yield _Condition(
            "piece", tuple(literal[at : at + size] for at in range(start, start + size))
        )


def _group(globs: Sequence[tuple[int, Glob]]) -> dict[str, dict[str, _Group]]:
    """File each pattern under its cheapest condition. Return the groups by kind and text."""
    # 1. Count the patterns that share each condition.
    conditions = {glob: list(_conditions(glob)) for _, glob in globs}
    counts = Counter(
        (condition.kind, text)
        for candidates in conditions.values()
        for condition in candidates
        for text in condition.texts
    )

    def cost(condition: _Condition) -> int:
        return _COST[condition.kind] + sum(counts[condition.kind, text] for text in condition.texts)

    # 2. Choose for each pattern the condition that makes a look-up cheapest.
    chosen = {
        glob: min(candidates, key=cost, default=_LOOSE) for glob, candidates in conditions.items()
    }
    if sum(condition.kind == "piece" for condition in chosen.values()) <= _COST["piece"]:
        # Too few patterns to be worth cutting every name into pieces.
        for glob, condition in chosen.items():
            if condition.kind == "piece":
                others = (other for other in conditions[glob] if other.kind != "piece")
                chosen[glob] = min(others, key=cost, default=_LOOSE)
    # 3. Group the patterns. They are in ascending order of rank, so each group is sorted.
    groups: dict[str, dict[str, _Group]] = defaultdict(lambda: defaultdict(list))
    for rank, glob in globs:
        condition = chosen[glob]
        test = None if _is_whole(condition, glob) else glob.test
        for text in dict.fromkeys(condition.texts or ("",)):
            groups[condition.kind][text].append((rank, test))
    return {kind: dict(groups[kind]) for kind in (*_COST, _LOOSE.kind)}


def _by_size(groups: dict[str, _Group]) -> list[tuple[int, int, dict[str, _Group]]]:
    """Return ``(lowest rank, size, groups by text)`` for each size, ordered by lowest rank."""
    tables: dict[int, dict[str, _Group]] = defaultdict(dict)
    for text, group in groups.items():
        tables[len(text)][text] = group
    return sorted(
        (
            (min(group[0][0] for group in table.values()), size, table)
            for size, table in tables.items()
        ),
        key=lambda entry: entry[:2],
    )

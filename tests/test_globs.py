"""Glob patterns, compared with an implementation of Go's algorithm."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trove_async._globs import FirstMatch, Glob
from trove_async.errors import PatternError

# The cases of Go's own test of path/filepath.Match on Unix.
GO_MATCHES = [
    ("abc", "abc", True),
    ("*", "abc", True),
    ("*c", "abc", True),
    ("a*", "a", True),
    ("a*", "abc", True),
    ("a*", "ab/c", False),
    ("a*/b", "abc/b", True),
    ("a*/b", "a/c/b", False),
    ("a*b*c*d*e*/f", "axbxcxdxe/f", True),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/f", True),
    ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", False),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", False),
    ("a*b?c*x", "abxbbxdbxebxczzx", True),
    ("a*b?c*x", "abxbbxdbxebxczzy", False),
    ("ab[c]", "abc", True),
    ("ab[b-d]", "abc", True),
    ("ab[e-g]", "abc", False),
    ("ab[^c]", "abc", False),
    ("ab[^b-d]", "abc", False),
    ("ab[^e-g]", "abc", True),
    ("a\\*b", "a*b", True),
    ("a\\*b", "ab", False),
    ("a?b", "a☺b", True),
    ("a[^a]b", "a☺b", True),
    ("a???b", "a☺b", False),
    ("a[^a][^a][^a]b", "a☺b", False),
    ("[a-ζ]*", "α", True),  # noqa: RUF001 - a Greek letter, as in Go's table
    ("*[a-ζ]", "A", False),
    ("a?b", "a/b", False),
    ("a*b", "a/b", False),
    ("[\\]a]", "]", True),
    ("[\\-]", "-", True),
    ("[x\\-]", "x", True),
    ("[x\\-]", "-", True),
    ("[x\\-]", "z", False),
    ("[\\-x]", "x", True),
    ("[\\-x]", "-", True),
    ("[\\-x]", "a", False),
    ("*x", "xxx", True),
]
FURTHER_MATCHES = [
    ("", "", True),
    ("", "a", False),
    ("a*", "", False),
    ("*", "", True),
    ("*", "a/b", False),
    ("***", "abc", True),
    ("a**b", "axb", True),
    ("a**b", "a/b", False),
    ("*.log", "app.log", True),
    ("*.log", "logs/app.log", False),
    ("archive/*", "archive/2023/r.pdf", False),
    ("archive/*", "archive/r.pdf", True),
    ("ab*ba", "aba", False),  # the literals before and after "*" must not overlap
    ("a[/]b", "a/b", True),
    ("a[^x]b", "a/b", True),
    ("[!a]", "!", True),
    ("[!a]", "b", False),
    ("[a^]", "^", True),
    ("[[]", "[", True),
    ("[a[]", "[", True),
    ("a]", "a]", True),
    ("[z-a]", "m", False),
    ("[^z-a]", "\n", True),
    ("[a-\\]]", "]", False),
    ("[\\[-\\]]", "\\", True),
    ("A", "a", False),
    ("?", "\n", True),
    ("a*", "a\n", True),
    ("a.b", "axb", False),
    ("a+(b)", "a+(b)", True),
    ("?", "é", True),
    ("??", "é", False),
    ("\\a\\/b", "a/b", True),
    # As in Go, "[/b]" matches at its first occurrence, the "b". The second "*" cannot match the "/".
    ("*[/b]*c", "abx/c", False),
    ("*[/b]*c", "ax/c", True),
]
DOUBLE_STAR_MATCHES = [
    ("**", "", True),
    ("**", "a/b", True),
    ("a/**", "a", False),
    ("a/**", "a/", True),
    ("a/**", "a/b", True),
    ("a/**", "a/b/c", True),
    ("a/**", "ab/c", False),
    ("**/b", "b", True),
    ("**/b", "x/y/b", True),
    ("**/b", "xb", False),
    ("a/**/b", "a/b", True),
    ("a/**/b", "a/x/y/b", True),
    ("a/**/b", "a/xb", False),
    ("a/**/**/b", "a/b", True),
    ("**/**", "x", True),
    ("**/x/*.log", "x/a.log", True),
    ("**/x/*.log", "a/b/x/c.log", True),
    ("**/x/*.log", "a/x/b/c.log", False),
    ("**/x/**", "a/x/b/c", True),
    ("**/x/**/y", "a/x/x/b/y", True),
    ("*/**/b?", "q/bc", True),
    ("**/", "a/b/", True),
    ("**/", "a/b", False),
    ("a/**b", "a/xb", True),
    ("a/**b", "a/x/b", False),
    ("a/***", "a/x/b", False),
    ("a/\\**", "a/*x", True),
    ("[/]**", "//x", False),  # a segment starts only after a literal "/"
]
MALFORMED = [
    ("[]a]", 1),
    ("[-]", 1),
    ("[--0]", 1),
    ("[x-]", 3),
    ("[-x]", 1),
    ("\\", 0),
    ("[a-b-c]", 4),
    ("[", 0),
    ("[^", 0),
    ("[^bc", 0),
    ("a[", 1),
    ("a/b[", 3),
    ("[a", 0),
    ("[a-", 0),
    ("[a\\", 2),
    ("x[^]a]", 3),
    ("*a\\", 2),
    ("**/[", 3),
    ("\ud800", 0),
]


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    GO_MATCHES + FURTHER_MATCHES + DOUBLE_STAR_MATCHES,
)
def test_pattern_matches_whole_names(pattern: str, name: str, *, expected: bool) -> None:
    assert Glob.parse(pattern).matches(name) is expected


@pytest.mark.parametrize(("pattern", "position"), MALFORMED)
def test_malformed_pattern_is_rejected_with_position_and_reason(
    pattern: str, position: int
) -> None:
    with pytest.raises(
        PatternError, match=rf"^bad pattern .* at position {position}: \S"
    ) as caught:
        Glob.parse(pattern)
    assert "\n" not in str(caught.value)


def test_pattern_must_be_a_str() -> None:
    with pytest.raises(TypeError, match="must be a str, got bytes"):
        Glob.parse(b"*")  # type: ignore[arg-type]  # tested at run time


@pytest.mark.parametrize(
    ("pattern", "prefix", "suffix", "literal"),
    [
        ("a/b", "a/b", "a/b", True),
        ("", "", "", True),
        ("a\\*b", "a*b", "a*b", True),
        ("logs/*", "logs/", "", False),
        ("*.log", "", ".log", False),
        ("a/**/b?c", "a/", "c", False),
        ("[a]b", "", "b", False),
    ],
)
def test_literal_prefix_and_suffix(
    pattern: str, prefix: str, suffix: str, *, literal: bool
) -> None:
    glob = Glob.parse(pattern)
    assert (glob.prefix, glob.suffix, glob.literal) == (prefix, suffix, literal)


def test_prefixes_and_suffixes_are_literal() -> None:
    assert Glob.starting("a*").matches("a*/b")
    assert not Glob.starting("a*").matches("ab")
    assert Glob.ending("[x]").matches("q/[x]")
    assert not Glob.ending("[x]").matches("x")
    assert Glob.starting("") == Glob.ending("") == Glob.parse("**")


def test_globs_are_values() -> None:
    glob = Glob.parse("a*[b-d]/**")
    assert glob == Glob.parse("a**[b-d]/**")
    assert len({glob, Glob.parse("a*[b-d]/**"), Glob.parse("a")}) == 2
    assert glob != "a*[b-d]/**"
    for copied in (copy.deepcopy(glob), pickle.loads(pickle.dumps(glob))):  # noqa: S301 - our own
        assert copied == glob
        assert copied.matches("axc/y")


@pytest.mark.parametrize(
    ("pattern", "prefix", "possible", "certain"),
    [
        ("a/*", "", True, False),
        ("a/*", "a/b", True, False),
        ("a/*", "a/b/", False, False),
        ("a/*", "b", False, False),
        ("*.log", "x", True, False),
        ("*.log", "x/", False, False),
        ("a/**", "a/", True, True),
        ("a/**", "a/b/c", True, True),
        ("a/**", "a", True, False),
        ("**", "q/r", True, True),
        ("**/x/*.log", "a/b/", True, False),
        ("x/?/[a-c]", "x/y/b", True, False),
        ("x/?/[a-c]", "x/y/d", False, False),
        ("x/**/y", "x/yy/z", True, False),
        ("a?/**", "ab/", True, False),
        ("abc", "abcd", False, False),
        ("", "a", False, False),
        ("", "", True, False),
    ],
)
def test_can_match_below_a_prefix(
    pattern: str, prefix: str, *, possible: bool, certain: bool
) -> None:
    glob = Glob.parse(pattern)
    assert glob.can_match_below(prefix) is possible
    assert glob.covers(prefix) is certain


class BadPatternError(Exception):
    pass


def go_match(pattern: str, name: str) -> bool:
    """Match with Go's algorithm, written from its documentation, on code points."""
    while pattern:
        star, chunk, pattern = go_scan(pattern)
        if star and not chunk:
            return "/" not in name
        remaining = go_chunk(chunk, name)
        if remaining is not None and (not remaining or pattern):
            name = remaining
            continue
        after_match = None
        if star:
            for i, character in enumerate(name):
                if character == "/":
                    break
                remaining = go_chunk(chunk, name[i + 1 :])
                if remaining is not None and (pattern or not remaining):
                    after_match = remaining
                    break
        if after_match is None:
            while pattern:
                _, chunk, pattern = go_scan(pattern)
                go_chunk(chunk, "")
            return False
        name = after_match
    return not name


def go_scan(pattern: str) -> tuple[bool, str, str]:
    chunk = pattern.lstrip("*")
    star = chunk != pattern
    in_range, i = False, 0
    while i < len(chunk):
        if chunk[i] == "\\":
            i += i + 1 < len(chunk)
        elif chunk[i] == "[":
            in_range = True
        elif chunk[i] == "]":
            in_range = False
        elif chunk[i] == "*" and not in_range:
            break
        i += 1
    return star, chunk[:i], chunk[i:]


def go_chunk(chunk: str, name: str) -> str | None:
    failed = False
    while chunk:
        failed = failed or not name
        character, chunk = chunk[0], chunk[1:]
        if character == "[":
            negated = chunk.startswith("^")
            chunk = chunk[negated:]
            matched, ranges = False, 0
            while not (ranges and chunk.startswith("]")):
                low, chunk = go_escape(chunk)
                high = low
                if chunk.startswith("-"):
                    high, chunk = go_escape(chunk[1:])
                matched = matched or (not failed and low <= name[0] <= high)
                ranges += 1
            chunk = chunk[1:]
            failed = failed or matched == negated
        elif character == "?":
            failed = failed or name[0] == "/"
        else:
            if character == "\\":
                if not chunk:
                    raise BadPatternError
                character, chunk = chunk[0], chunk[1:]
            failed = failed or name[0] != character
        name = name[1:]
    return None if failed else name


def go_escape(chunk: str) -> tuple[str, str]:
    if not chunk or chunk[0] in "-]":
        raise BadPatternError
    if chunk[0] == "\\":
        chunk = chunk[1:]
    if len(chunk) < 2:
        raise BadPatternError
    return chunk[0], chunk[1:]


def matches_segments(parts: tuple[str, ...], segments: tuple[str, ...]) -> bool:
    """Match segment by segment. This defines `**` for patterns whose classes do not contain "/"."""
    if not parts:
        return not segments
    if parts[0] == "**":
        if len(parts) == 1:
            return bool(segments)
        return any(matches_segments(parts[1:], segments[i:]) for i in range(len(segments) + 1))
    return (
        bool(segments)
        and go_match(parts[0], segments[0])
        and matches_segments(parts[1:], segments[1:])
    )


CHARACTERS = "ab/*?[]^-\\é"
patterns = st.text(CHARACTERS, max_size=12)
names = st.text("ab/-é", max_size=10)


def has_double_star_segment(pattern: str) -> bool:
    return "**" in pattern.replace("\\/", "/").split("/")


@given(patterns, names)
@example("*[/b]*c", "abx/c")
@example("*[^a]*[/]b", "b/b/b")
def test_matches_and_errors_are_those_of_go(pattern: str, name: str) -> None:
    if has_double_star_segment(pattern):
        return
    try:
        expected = go_match(pattern, name)
    except BadPatternError:
        with pytest.raises(PatternError):
            Glob.parse(pattern)
    else:
        assert Glob.parse(pattern).matches(name) is expected


@given(
    st.lists(st.sampled_from(["**", "a", "*", "a*", "?b", "[ab]", ""]), max_size=6).map(tuple),
    st.lists(st.text("ab", max_size=2), min_size=1, max_size=7).map(tuple),
)
def test_double_star_matches_any_number_of_segments(
    parts: tuple[str, ...], segments: tuple[str, ...]
) -> None:
    if not parts:
        return
    assert Glob.parse("/".join(parts)).matches("/".join(segments)) is matches_segments(
        parts, segments
    )


valid_patterns = st.lists(
    st.sampled_from(
        ["a", "b", "ab", "aba", "bb/", "é", "*", "**", "/**/", "/", "?", "[ab]", "[^a]", "[b/]"]
    ),
    max_size=6,
).map("".join)


@given(valid_patterns, names, names)
def test_can_match_below_and_covers_agree_with_matches(
    pattern: str, prefix: str, suffix: str
) -> None:
    glob = Glob.parse(pattern)
    if glob.matches(prefix + suffix):
        assert glob.can_match_below(prefix)
    else:
        assert not glob.covers(prefix)


@given(st.lists(valid_patterns, max_size=40), st.lists(names, max_size=10), st.integers(0, 45))
def test_index_finds_the_first_match_in_order(
    patterns: list[str], names: list[str], limit: int
) -> None:
    globs = [Glob.parse(pattern) for pattern in patterns]
    index = FirstMatch(enumerate(globs))
    for name in names:
        expected = next((rank for rank, glob in enumerate(globs) if glob.matches(name)), limit)
        assert index.find(name, limit) == min(expected, limit)


words = st.text("xyz", min_size=1, max_size=4)
SHAPES = ["**/{}/*.log", "*{}*", "data/*{}*.log", "{}", "{}/**", "*.{}", "[a-x]{}?", "?{}"]
# Of the sizes of a list, hypothesis prefers small ones. An index of few patterns has few groups.
similar_patterns = st.integers(0, 40).flatmap(
    lambda size: st.lists(
        st.builds(str.format, st.sampled_from(SHAPES), words), min_size=size, max_size=size
    )
)


@given(similar_patterns, st.lists(words, min_size=len(SHAPES), max_size=len(SHAPES)))
def test_index_finds_the_first_match_of_similar_patterns(
    patterns: list[str], words: list[str]
) -> None:
    globs = [Glob.parse(pattern) for pattern in patterns]
    index = FirstMatch(enumerate(globs))
    for shape, word in zip(SHAPES, words, strict=True):
        name = shape.replace("**", "q").replace("*", "").replace("?", "k").replace("[a-x]", "b")
        name = name.format(word)
        expected = next((rank for rank, glob in enumerate(globs) if glob.matches(name)), len(globs))
        assert index.find(name, len(globs)) == expected

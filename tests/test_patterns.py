"""Every regular expression of the package takes linear time, even on hostile text of 64 KiB.

The expressions match text from services and uploaders, and a match cannot be interrupted. An expression
that takes quadratic time would block the event loop for seconds.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import time
from itertools import product
from re import _constants as constants  # type: ignore[attr-defined] # not in typeshed
from re import _parser as parser  # type: ignore[attr-defined] # not in typeshed
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import trove_async
from trove_async import _globs
from trove_async.drivers.s3 import _list_objects
from trove_async.models import KiB

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

SIZE = 64 * KiB

MAX_SECONDS = 0.05
"""Seconds of CPU. A linear pattern takes 1 to 2 ms."""

METHODS = frozenset({"search", "match", "fullmatch", "sub", "subn", "findall", "finditer", "split"})


class Use(NamedTuple):
    """A pattern, and the method it is used with."""

    location: str
    pattern: re.Pattern[Any]
    method: str


def patterns_built_at_run_time() -> dict[str, list[re.Pattern[str]]]:
    """Return examples of the patterns that functions compile, by module."""
    orders = [("Key", "LastModified", "ETag", "Size", "StorageClass")]
    orders.append(orders[0][::-1])
    globs = ["*a*a*b", "**/*a*a/**/b*", "[a-z]*[!a]?", "a/**/b/**/c", "**/*.[tc][xs][tv]"]
    return {
        "trove_async.drivers.s3._list_objects": [
            _list_objects._compiled(order) for order in orders
        ],
        "trove_async._globs": [
            re.compile(_globs._regex(_globs.Glob.parse(glob).tokens), re.DOTALL) for glob in globs
        ],
    }


def modules() -> Iterator[ModuleType]:
    yield trove_async
    for info in pkgutil.walk_packages(trove_async.__path__, "trove_async."):
        if not info.name.endswith("__main__"):
            yield importlib.import_module(info.name)


def patterns_in(value: object) -> Iterator[tuple[re.Pattern[Any], str | None]]:
    """Yield the patterns in a value, each with its method if the value is a bound method."""
    if isinstance(value, re.Pattern):
        yield value, None
    elif isinstance(getattr(value, "__self__", None), re.Pattern):
        yield value.__self__, value.__name__  # type: ignore[attr-defined] # a bound method
    elif isinstance(value, dict):
        for item in value.values():
            yield from patterns_in(item)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from patterns_in(item)


def uses() -> list[Use]:
    return [
        use for module in modules() for use in (*named_patterns(module), *inline_patterns(module))
    ]


def named_patterns(module: ModuleType) -> Iterator[Use]:
    """Yield the patterns that a module assigns to a name."""
    applied: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if (
            isinstance(node, ast.Attribute)
            and node.attr in METHODS
            and isinstance(node.value, ast.Name)
        ):
            applied.setdefault(node.value.id, set()).add(node.attr)
    for name, value in vars(module).items():
        for pattern, method in patterns_in(value):
            for used_method in [method] if method else sorted(applied.get(name, {"fullmatch"})):
                yield Use(f"{module.__name__}.{name}", pattern, used_method)


def inline_patterns(module: ModuleType) -> Iterator[Use]:
    """Yield the patterns in calls of `re` functions, and those compiled at run time."""
    tree = ast.parse(inspect.getsource(module))
    compiled = patterns_built_at_run_time().get(module.__name__, ())
    count = 0
    for call in calls(tree):
        function = call.func
        assert isinstance(function, ast.Attribute)
        if function.attr in METHODS:
            literal = call.args[0]
            assert isinstance(literal, ast.Constant), f"{module.__name__}: {ast.dump(call)}"
            location = f"{module.__name__}:{call.lineno}"
            yield Use(location, re.compile(str(literal.value)), function.attr)
        elif function.attr == "compile" and in_function(tree, call):
            count += 1
    assert count == bool(compiled), f"add the patterns that functions of {module.__name__} compile"
    for pattern in compiled:
        used_method = "split" if "_list_objects" in module.__name__ else "match"
        yield Use(module.__name__, pattern, used_method)


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls of functions of `re`."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "re"
        ):
            yield node


def in_function(tree: ast.AST, call: ast.Call) -> bool:
    return any(
        call in ast.walk(node)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )


REPEATS = {constants.MAX_REPEAT, constants.MIN_REPEAT, constants.POSSESSIVE_REPEAT}


# -- worst cases -----------------------------------------------------------------------------------


def beginnings(pattern: re.Pattern[Any]) -> list[str]:
    """Return texts that match the pattern up to some node in it."""
    found: set[str] = set()
    extend(parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE), found)
    texts = sorted(filter(None, found))
    return texts[:: len(texts) // 24 + 1]


def extend(nodes: Any, found: set[str]) -> list[str]:
    """Return a few texts that match all nodes, and add to `found` texts that match the first few."""
    texts = [""]
    for node in nodes:
        texts = list(dict.fromkeys(a + b for a, b in product(texts, samples(node, found))))[:6]
        found.update(texts)
    return texts


def samples(node: Any, found: set[str]) -> list[str]:
    """Return a few texts that match a node of a pattern."""
    kind, value = node
    texts = [""]  # for assertions and back-references
    if kind is constants.LITERAL:
        texts = [chr(value)]
    elif kind in {constants.ANY, constants.NOT_LITERAL}:
        texts = ["a"]
    elif kind is constants.IN:
        texts = characters(value)
    elif kind is constants.BRANCH:
        texts = [text for branch in value[1] for text in extend(branch, found)]
    elif kind is constants.SUBPATTERN:
        texts = extend(value[3], found)
    elif kind is constants.ATOMIC_GROUP:
        texts = extend(value, found)
    elif kind in REPEATS:
        minimum, _, inner = value
        texts = [text * max(minimum, 1) for text in extend(inner, found)]
        texts += [""] * (minimum == 0)
    return texts


def characters(members: Any) -> list[str]:
    """Return a few characters of a character class."""
    negated = members[0][0] is constants.NEGATE
    texts = [chr(code) for code in range(128)]
    inside = [text for text in texts if any(is_in(text, member) for member in members)]
    if negated:
        inside = [text for text in texts if text not in inside]
    preferred = [text for text in "a0 -./=\"'%\t" if text in inside]
    return (preferred or inside or ["\u00e9"])[:3]


def is_in(text: str, member: Any) -> bool:
    kind, value = member
    if kind is constants.LITERAL:
        return bool(ord(text) == value)
    if kind is constants.RANGE:
        return bool(value[0] <= ord(text) <= value[1])
    if kind is constants.CATEGORY:
        classes: dict[Any, str] = {
            constants.CATEGORY_WORD: r"\w",
            constants.CATEGORY_NOT_WORD: r"\W",
            constants.CATEGORY_SPACE: r"\s",
            constants.CATEGORY_NOT_SPACE: r"\S",
            constants.CATEGORY_DIGIT: r"\d",
            constants.CATEGORY_NOT_DIGIT: r"\D",
        }
        return re.match(classes[value], text) is not None
    return False


def worst_cases(pattern: re.Pattern[Any]) -> Iterator[str]:
    """Yield texts of about `SIZE` characters that begin to match at many places, and fail late."""
    starts = beginnings(pattern)
    units = sorted(
        {text[-3:] for text in starts} | {text[-1:] for text in starts} | {"a", " ", "\n"}
    )
    for text in starts:
        yield (text * SIZE)[:SIZE] + "\0"
        yield (f"{text} " * SIZE)[:SIZE] + "\0"  # as separate words
        for unit in units[:6]:
            yield text + (unit * SIZE)[:SIZE] + "\0"
    for unit in units:
        yield (unit * SIZE)[:SIZE] + "\0"


USES = uses()


def test_patterns_are_found() -> None:
    named = {use.location for use in USES}
    assert {
        "trove_async._http.http11._STATUS",
        "trove_async.drivers.gcs._errors._SECRET",
        "trove_async._http_dates._HTTP_DATES",
        "trove_async.drivers.s3._list_objects",
        "trove_async._globs",
    } <= named
    assert any(location.startswith("trove_async.drivers._urls:") for location in named)


def cpu_seconds(use: Use, text: str) -> float:
    subject: Any = (
        text.encode("latin-1", "replace") if isinstance(use.pattern.pattern, bytes) else text
    )
    apply = getattr(use.pattern, use.method)
    started = time.process_time()
    if use.method in {"sub", "subn"}:
        apply(subject[:0], subject)
    elif use.method == "finditer":
        list(apply(subject))
    else:
        apply(subject)
    return time.process_time() - started


def test_worst_cases_find_a_quadratic_pattern() -> None:
    use = Use("this test", re.compile(r"(?i)secret\w*\W{0,3}="), "search")
    assert any(
        cpu_seconds(use, text[: SIZE // 4]) > 2 * MAX_SECONDS for text in worst_cases(use.pattern)
    )


@pytest.mark.parametrize("use", USES, ids=lambda use: f"{use.location}.{use.method}")
def test_pattern_takes_linear_time(use: Use) -> None:
    for text in worst_cases(use.pattern):
        # The best of three runs counts, because garbage collection may slow down one of them.
        seconds = cpu_seconds(use, text)
        if seconds > MAX_SECONDS:
            seconds = min(seconds, cpu_seconds(use, text), cpu_seconds(use, text))
        assert seconds < MAX_SECONDS, f"{seconds:.3f} s for {text[:40]!r}"

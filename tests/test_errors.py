"""The error hierarchy, the messages of errors, and copying and pickling them."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import pytest

import trove_async
from trove_async import ObjectNotFoundError, TroveError, UnavailableError, errors

ALL = [
    kind
    for kind in vars(errors).values()
    if inspect.isclass(kind)
    and issubclass(kind, BaseException)
    and kind.__module__ == errors.__name__
]


def tree_in_docstring() -> dict[str, tuple[str, set[str]]]:
    """Return each class in the docstring's tree with its parent and its builtin base class."""
    assert errors.__doc__ is not None
    tree: dict[str, tuple[str, set[str]]] = {}
    parents: list[str] = []
    for line in errors.__doc__.splitlines():
        match = re.fullmatch(r"    ([│├└─ ]*)(\w+Error)( +\(also (\w+)\))?", line)
        if match is not None:
            depth = len(match[1]) // 4
            parents[depth:] = [match[2]]
            tree[match[2]] = parents[depth - 1] if depth else "", {match[4]} - {None}
    return tree


def test_tree_equals_the_one_in_the_docstring() -> None:
    tree = {}
    for kind in ALL:
        parents = [base.__name__ for base in kind.__bases__ if base in ALL]
        builtins = {base.__name__ for base in kind.__bases__ if base not in ALL}
        tree[kind.__name__] = (parents[0] if parents else "", builtins)
    tree["TroveError"] = "", set()
    assert tree_in_docstring() == tree


def test_every_error_is_importable_from_the_package() -> None:
    for kind in ALL:
        assert getattr(trove_async, kind.__name__) is kind
        assert kind.__name__ in trove_async.__all__


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_errors_survive_pickling_and_copying(kind: type[TroveError]) -> None:
    error = kind(
        "no such thing",
        operation="put",
        backend="cold",
        bucket="data",
        key="a\nb",
        retryable=True,
        retry_after=1.5,
    )
    error.add_note("a note")
    pickled = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own data
    for copied in (pickled, copy.copy(error)):
        assert type(copied) is kind
        assert str(copied) == str(error)
        assert vars(copied) == vars(error)
    assert str(error) == "no such thing [put 'data/a\\nb' on backend 'cold']"


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_only_unavailable_errors_are_retryable(kind: type[TroveError]) -> None:
    assert kind("x").retryable is issubclass(kind, UnavailableError)
    assert kind("x").retry_after is None
    assert kind("x", retryable=not kind.retryable).retryable is not kind.retryable


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({}, "gone"),
        ({"operation": "put"}, "gone [put]"),
        ({"bucket": "b"}, "gone ['b']"),
        ({"bucket": "b", "key": "k"}, "gone ['b/k']"),
        ({"backend": "x"}, "gone [on backend 'x']"),
        ({"operation": "get", "bucket": "b", "key": "k", "backend": "x"},
         "gone [get 'b/k' on backend 'x']"),
    ],
)  # fmt: skip
def test_message_shows_the_attributes_that_are_set(attributes: dict[str, Any], text: str) -> None:
    assert str(TroveError("gone", **attributes)) == text


def test_located_sets_only_missing_attributes() -> None:
    error = ObjectNotFoundError("gone", bucket="b")
    assert error.located(operation="get", backend="x", bucket="other", key="k") is error
    assert (error.operation, error.backend, error.bucket, error.key) == ("get", "x", "b", "k")
    error.located(operation="put", backend="y", key="l")
    assert (error.operation, error.backend, error.key) == ("get", "x", "k")


def test_handlers_of_builtin_errors_catch_their_counterparts() -> None:
    for kind, builtin in [
        (errors.ObjectNotFoundError, FileNotFoundError),
        (errors.ObjectExistsError, FileExistsError),
        (errors.PermissionDeniedError, PermissionError),
        (errors.TimedOutError, TimeoutError),
        (errors.InvalidNameError, ValueError),
        (errors.ConfigError, ValueError),
    ]:
        with pytest.raises(builtin):
            raise kind("x")

"""The blocking classes have the methods of the async ones, with the same arguments."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import pytest

import trove_async as aio
from trove_async import blocking

RENAMED = {
    aio.Trove: {"open": "start", "aclose": "close", "open_file": "open"},
    aio.Bucket: {"open_file": "open"},
    aio.ObjectReader: {"aclose": "close"},
}
BLOCKING = {
    aio.Trove: blocking.Trove,
    aio.Bucket: blocking.Bucket,
    aio.ObjectReader: blocking.ObjectReader,
}
METHODS = [
    (kind, name)
    for kind in BLOCKING
    for name in vars(kind)
    if not name.startswith("_") and callable(getattr(kind, name))
]


@pytest.mark.parametrize(("kind", "name"), METHODS)
def test_every_method_is_mirrored_with_its_arguments(kind: type[Any], name: str) -> None:
    method = getattr(kind, name)
    blocking_name = RENAMED[kind].get(name, name)
    mirrored = getattr(BLOCKING[kind], blocking_name)
    assert not inspect.iscoroutinefunction(mirrored)
    assert mirrored.__doc__
    if blocking_name in {"start", "close"}:
        return
    expected, actual = inspect.signature(method), inspect.signature(mirrored)
    parameters = [
        str(parameter).replace("aio.", "")
        for parameter in actual.parameters.values()
        if parameter.name != "buffer_size"
    ]
    assert parameters == [str(parameter) for parameter in expected.parameters.values()]
    assert mirrored.__doc__ == method.__doc__ or blocking_name == "open"


@pytest.mark.parametrize("kind", [aio.Trove, aio.Bucket])
def test_every_attribute_is_mirrored(kind: type[Any]) -> None:
    attributes = {name for name, value in vars(kind).items() if isinstance(value, property)}
    assert attributes <= set(dir(BLOCKING[kind]))


def test_constructor_has_the_arguments_of_the_async_one() -> None:
    assert inspect.signature(blocking.Trove) == inspect.signature(aio.Trove)
    with pytest.raises(TypeError, match="nothing"):
        blocking.Trove("mem://", nothing=1)  # type: ignore[call-arg]  # tested at run time


def test_arguments_of_a_listing_are_those_of_the_async_one() -> None:
    parameters = inspect.signature(aio.Trove.list).parameters
    named = {name for name, value in parameters.items() if value.kind is value.KEYWORD_ONLY}
    assert set(get_type_hints(blocking.ListArguments)) == named - {"delimiter"}


def test_arguments_of_a_written_file_are_those_of_put() -> None:
    parameters = inspect.signature(aio.Trove.put).parameters
    named = {name for name, value in parameters.items() if value.kind is value.KEYWORD_ONLY}
    # A file has no declared size, because its put must not complete before the file is closed.
    assert set(get_type_hints(aio.WriteArguments)) == named - {"size", "if_match", "if_none_match"}


def test_iterators_have_the_methods_of_the_async_ones() -> None:
    for name in ("ObjectIterator", "VersionIterator", "MisplacedIterator"):
        expected = {item for item in dir(getattr(aio, name)) if not item.startswith("_")}
        actual = {item for item in dir(getattr(blocking, name)) if not item.startswith("_")}
        assert actual == expected

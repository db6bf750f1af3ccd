"""Arguments of a wrong type are rejected before any I/O."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import pytest
from starlette.requests import Request

from tests.fakes import CallLog, single_attempt_store
from trove_async import BufferPool, ByteRange, RetryPolicy, Route, Scope, Timeout, Trove
from trove_async.drivers import GCSDriver, LocalDriver, MemoryDriver, S3Driver
from trove_async.integrations import aiohttp, starlette
from trove_async.layers import Mapped
from trove_async.middlewares import Compression, DataKey, Encryption, Keyring, TenantKeys

if TYPE_CHECKING:
    from collections.abc import Callable

BUCKET = {"bucket": "data"}
OBJECT = {"bucket": "data", "key": "key"}
OBJECTS = {"src_bucket": "data", "src_key": "key", "dst_bucket": "data", "dst_key": "copy"}

METHODS: list[tuple[str, dict[str, Any]]] = [
    ("put", {**OBJECT, "body": b""}),
    ("get", OBJECT),
    ("read", OBJECT),
    ("get_ranges", {**OBJECT, "ranges": []}),
    ("head", OBJECT),
    ("exists", OBJECT),
    ("delete", OBJECT),
    ("delete_many", {**BUCKET, "keys": []}),
    ("copy", OBJECTS),
    ("move", OBJECTS),
    ("list", BUCKET),
    ("list_versions", BUCKET),
    ("misplaced", BUCKET),
    ("create_bucket", {"name": "data"}),
    ("delete_bucket", {"name": "data"}),
    ("presign_get", OBJECT),
    ("presign_put", OBJECT),
    ("explain", OBJECT),
    ("bucket", {"name": "data"}),
    ("backend", {"name": "default"}),
]

CONSTRUCTORS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (Trove, {"default": MemoryDriver()}),
    (BufferPool, {}),
    (RetryPolicy, {}),
    (Timeout, {}),
    (ByteRange, {"start": 0}),
    (ByteRange.last, {"count": 1}),
    (Route, {"pattern": "*", "backend": "default"}),
    (Route.prefix, {"prefix": "a", "backend": "default"}),
    (Mapped, {"driver": MemoryDriver(), "into": "all"}),
    (Mapped, {"driver": MemoryDriver(), "buckets": {"a": "b"}}),
    (MemoryDriver, {}),
    (LocalDriver, {"root": "root"}),
    (S3Driver, {}),
    (GCSDriver, {}),
    (Scope.when, {"function": all}),
    (Compression, {}),
    (Encryption, {"keys": Keyring({"a": bytes(32)})}),
    (Keyring, {"keys": {"a": bytes(32)}}),
    (DataKey, {"id": "a", "secret": bytes(32)}),
    (TenantKeys, {"tenant": repr, "load": repr}),
]

NUMBER = re.compile(r"(int|float)( \| None)?")


def wrong_arguments(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    """Return each argument of a function with an object of a wrong type, and each number also with True."""
    wrong: list[tuple[str, Any]] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in {"self", "_suffix"}:
            continue
        wrong.append((name, object()))
        if NUMBER.fullmatch(str(parameter.annotation)):
            wrong.append((name, True))
    return wrong


def check_message(error: BaseException) -> None:
    """Check that the message is one of ours, which are one line and say what the argument must be."""
    message = str(error)
    assert "must" in message or "requires" in message, message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("method", "arguments", "name", "value"),
    [
        pytest.param(method, arguments, name, value, id=f"{method}-{name}-{type(value).__name__}")
        for method, arguments in METHODS
        for name, value in wrong_arguments(getattr(Trove, method))
    ],
)
async def test_wrong_argument_of_the_store_is_rejected_before_any_io(
    method: str, arguments: dict[str, Any], name: str, value: Any
) -> None:
    driver = CallLog()
    async with single_attempt_store(driver) as store:
        with pytest.raises((TypeError, ValueError)) as caught:
            await getattr(store, method)(**{**arguments, name: value})
    check_message(caught.value)
    assert driver.calls == ["open", "aclose"]


@pytest.mark.parametrize(
    ("function", "arguments", "name", "value"),
    [
        pytest.param(
            function, arguments, name, value,
            id=f"{function.__qualname__}{len(arguments)}-{name}-{type(value).__name__}",
        )
        for function, arguments in CONSTRUCTORS
        for name, value in wrong_arguments(function)
    ],
)  # fmt: skip
def test_wrong_argument_of_a_constructor_is_rejected(
    function: Callable[..., Any], arguments: dict[str, Any], name: str, value: Any
) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        function(**{**arguments, name: value})
    check_message(caught.value)


WEB_ARGUMENTS = [
    (starlette.object_response, {}, ("download_name", "cache_control", "redirect", "trusted")),
    (starlette.store_upload, {"max_size": 9}, ("max_size", "min_rate", "field", "location")),
    (starlette.store_upload, {"max_size": 9}, ("content_type", "metadata", "tags")),
]


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [(function, arguments, name) for function, arguments, names in WEB_ARGUMENTS for name in names],
)
@pytest.mark.parametrize("value", [object(), b"bytes"], ids=["object", "bytes"])
async def test_wrong_argument_of_a_web_helper_is_rejected_before_any_io(
    function: Callable[..., Any], arguments: dict[str, Any], name: str, value: Any
) -> None:
    driver = CallLog()
    method = "GET" if function is starlette.object_response else "PUT"
    request = Request({"type": "http", "method": method, "path": "/", "headers": []})
    async with single_attempt_store(driver) as store:
        with pytest.raises((TypeError, ValueError)) as caught:
            await function(store, request=request, **OBJECT, **{**arguments, name: value})
    check_message(caught.value)
    assert driver.calls == ["open", "aclose"]


@pytest.mark.parametrize("hook", [starlette.lifespan, aiohttp.cleanup_ctx])
@pytest.mark.parametrize("buckets", [5, None, b"files"])
def test_buckets_of_an_app_must_be_a_list(hook: Callable[..., Any], buckets: Any) -> None:
    with pytest.raises(TypeError, match="buckets must be a list of names, got"):
        hook(Trove(MemoryDriver()), buckets=buckets)


@pytest.mark.parametrize("backends", [5, [5], b"cold"])
async def test_backends_of_a_bucket_must_be_names(backends: Any) -> None:
    async with single_attempt_store() as store:
        with pytest.raises(TypeError, match=r"must be .*, got (int|bytes)"):
            await store.create_bucket("data", backends=backends)

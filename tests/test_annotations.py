"""Public annotations resolve at run time, which pydantic and FastAPI need."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any, get_type_hints

import httpx
from fastapi import FastAPI

from trove_async import ObjectInfo, Trove
from trove_async.drivers import MemoryDriver

if TYPE_CHECKING:
    from collections.abc import Iterator

PUBLIC_MODULES = [
    "trove_async",
    "trove_async.blocking",
    "trove_async.driver",
    "trove_async.drivers",
    "trove_async.errors",
    "trove_async.events",
    "trove_async.file",
    "trove_async.integrations.aiohttp",
    "trove_async.integrations.django",
    "trove_async.integrations.logs",
    "trove_async.integrations.otel",
    "trove_async.integrations.starlette",
    "trove_async.jobs",
    "trove_async.layers",
    "trove_async.middleware",
    "trove_async.middlewares",
    "trove_async.middlewares.inspection",
    "trove_async.models",
    "trove_async.options",
    "trove_async.paging",
    "trove_async.pool",
    "trove_async.reader",
    "trove_async.retry",
    "trove_async.router",
    "trove_async.scope",
    "trove_async.testing",
    "trove_async.testing.servers",
]


def public_objects() -> Iterator[tuple[str, Any]]:
    for module_name in PUBLIC_MODULES:
        module = importlib.import_module(module_name)
        names = getattr(module, "__all__", None) or [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module_name
        ]
        for name in names:
            value = getattr(module, name)
            if inspect.isclass(value):
                yield from objects_of_class(f"{module_name}.{name}", value)
            elif inspect.isfunction(value):
                yield f"{module_name}.{name}", value


def objects_of_class(name: str, cls: type) -> Iterator[tuple[str, Any]]:
    # Inherited annotations are left out, because those of other packages may not resolve here.
    own = {"__annotations__": vars(cls).get("__annotations__", {}), "__module__": cls.__module__}
    yield name, type(cls.__name__, (), own)
    for attribute, value in vars(cls).items():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if inspect.isfunction(function) and (attribute[0] != "_" or attribute[:2] == "__"):
            yield f"{name}.{attribute}", function


ANNOTATED = list(public_objects())


def test_public_names_are_found() -> None:
    names = {name for name, _ in ANNOTATED}
    assert {"trove_async.Trove.put", "trove_async.Bucket.copy", "trove_async.ObjectInfo"} <= names
    assert {"trove_async.drivers.S3Driver.__init__", "trove_async.driver.AsyncDriver.put"} <= names
    assert {"trove_async.middlewares.Encryption.__init__", "trove_async.scope.Scope.keys"} <= names


def test_annotations_resolve() -> None:
    unresolved = {}
    for name, value in ANNOTATED:
        try:
            get_type_hints(value)
        except (NameError, TypeError) as error:
            unresolved[name] = error
    assert unresolved == {}


async def test_fastapi_route_returns_an_object_info() -> None:
    app = FastAPI()

    @app.get("/info")
    async def head() -> ObjectInfo:
        async with Trove(MemoryDriver()) as store:
            await store.create_bucket("data")
            return await store.put("data", "key.txt", b"body", metadata={"a": "1"})

    properties = app.openapi()["components"]["schemas"]["ObjectInfo"]["properties"]
    assert properties.keys() == get_type_hints(ObjectInfo).keys() - {
        "_lazy_find",
        "_lazy_raw",
    }
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        info = (await client.get("/info")).json()
    assert (info["key"], info["size"], info["metadata"]) == ("key.txt", 4, {"a": "1"})

"""Asyncio object storage that routes every object to the right backend, in bounded memory.

Start with `Trove`. Drivers are in `trove_async.drivers`, layers in `trove_async.layers`, and
compression, encryption and inspections of bodies in `trove_async.middlewares`. To write a driver or a
middleware of your own, implement the contract in `trove_async.driver` or `trove_async.middleware` and
run the tests in `trove_async.testing`.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ._engine.backends import BackendInfo
    from ._engine.bulk_delete import Deletion
    from ._engine.iterators import ObjectIterator, VersionIterator
    from ._engine.misplaced import MisplacedIterator
    from ._engine.sources import BodySource
    from ._engine.upload import Progress
    from .bucket import Bucket, ObjectMethods
    from .driver import AsyncDriver, Capabilities
    from .errors import (
        AlreadyExistsError,
        BackendError,
        BackendNotFoundError,
        BodyConsumedError,
        BucketExistsError,
        BucketNotEmptyError,
        BucketNotFoundError,
        ClosedError,
        ConfigError,
        ContentBlockedError,
        CursorError,
        DecryptionError,
        IntegrityError,
        InvalidNameError,
        NotFoundError,
        NotSupportedError,
        ObjectChangedError,
        ObjectExistsError,
        ObjectNotFoundError,
        PatternError,
        PermissionDeniedError,
        PoolTimeoutError,
        PreconditionFailedError,
        RangeError,
        StorageFullError,
        StreamError,
        TimedOutError,
        TroveError,
        UnauthenticatedError,
        UnavailableError,
    )
    from .events import Event, Events
    from .file import FileReader, FileWriter, OpeningFile, WriteArguments
    from .middleware import Inspecting, Middleware
    from .models import (
        BucketInfo,
        ByteRange,
        DeleteResult,
        Health,
        Misplaced,
        ObjectInfo,
        Prefix,
        RouteDecision,
        Timeout,
        VersionInfo,
    )
    from .pool import BufferPool, PoolStatistics
    from .reader import ObjectReader, OpeningReader
    from .retry import CircuitBreaker, RetryPolicy
    from .router import Route, RouteFunction, RouteIssue, route_function
    from .scope import Scope
    from .store import Trove

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(
    logging.NullHandler()
)  # silent, unless a program configures logging

_MODULES: Final = {
    "._engine.backends": ("BackendInfo",),
    "._engine.bulk_delete": ("Deletion",),
    "._engine.iterators": ("ObjectIterator", "VersionIterator"),
    "._engine.misplaced": ("MisplacedIterator",),
    "._engine.sources": ("BodySource",),
    "._engine.upload": ("Progress",),
    ".bucket": ("Bucket", "ObjectMethods"),
    ".driver": ("AsyncDriver", "Capabilities"),
    ".errors": (
        "AlreadyExistsError",
        "BackendError",
        "BackendNotFoundError",
        "BodyConsumedError",
        "BucketExistsError",
        "BucketNotEmptyError",
        "BucketNotFoundError",
        "ClosedError",
        "ConfigError",
        "ContentBlockedError",
        "CursorError",
        "DecryptionError",
        "IntegrityError",
        "InvalidNameError",
        "NotFoundError",
        "NotSupportedError",
        "ObjectChangedError",
        "ObjectExistsError",
        "ObjectNotFoundError",
        "PatternError",
        "PermissionDeniedError",
        "PoolTimeoutError",
        "PreconditionFailedError",
        "RangeError",
        "StorageFullError",
        "StreamError",
        "TimedOutError",
        "TroveError",
        "UnauthenticatedError",
        "UnavailableError",
    ),
    ".events": ("Event", "Events"),
    ".file": ("FileReader", "FileWriter", "OpeningFile", "WriteArguments"),
    ".middleware": ("Inspecting", "Middleware"),
    ".models": (
        "BucketInfo",
        "ByteRange",
        "DeleteResult",
        "Health",
        "Misplaced",
        "ObjectInfo",
        "Prefix",
        "RouteDecision",
        "Timeout",
        "VersionInfo",
    ),
    ".pool": ("BufferPool", "PoolStatistics"),
    ".reader": ("ObjectReader", "OpeningReader"),
    ".retry": ("CircuitBreaker", "RetryPolicy"),
    ".router": ("Route", "RouteFunction", "RouteIssue", "route_function"),
    ".scope": ("Scope",),
    ".store": ("Trove",),
}
"""The names that each module exports here. A module is imported when one of its names is first used, so that
programs pay only for what they use: ``trove --help`` needs no store."""

_MODULE_OF: Final = {name: module for module, names in _MODULES.items() for name in names}

_SUBMODULES: Final = frozenset(
    {
        "driver",
        "drivers",
        "errors",
        "events",
        "layers",
        "middleware",
        "middlewares",
        "models",
        "options",
    }
    | {"pool", "retry", "router", "scope", "store"}
)
"""Modules that are attributes of the package without an import of their own."""

__all__ = [
    "AlreadyExistsError",
    "AsyncDriver",
    "BackendError",
    "BackendInfo",
    "BackendNotFoundError",
    "BodyConsumedError",
    "BodySource",
    "Bucket",
    "BucketExistsError",
    "BucketInfo",
    "BucketNotEmptyError",
    "BucketNotFoundError",
    "BufferPool",
    "ByteRange",
    "Capabilities",
    "CircuitBreaker",
    "ClosedError",
    "ConfigError",
    "ContentBlockedError",
    "CursorError",
    "DecryptionError",
    "DeleteResult",
    "Deletion",
    "Event",
    "Events",
    "FileReader",
    "FileWriter",
    "Health",
    "Inspecting",
    "IntegrityError",
    "InvalidNameError",
    "Middleware",
    "Misplaced",
    "MisplacedIterator",
    "NotFoundError",
    "NotSupportedError",
    "ObjectChangedError",
    "ObjectExistsError",
    "ObjectInfo",
    "ObjectIterator",
    "ObjectMethods",
    "ObjectNotFoundError",
    "ObjectReader",
    "OpeningFile",
    "OpeningReader",
    "PatternError",
    "PermissionDeniedError",
    "PoolStatistics",
    "PoolTimeoutError",
    "PreconditionFailedError",
    "Prefix",
    "Progress",
    "RangeError",
    "RetryPolicy",
    "Route",
    "RouteDecision",
    "RouteFunction",
    "RouteIssue",
    "Scope",
    "StorageFullError",
    "StreamError",
    "TimedOutError",
    "Timeout",
    "Trove",
    "TroveError",
    "UnauthenticatedError",
    "UnavailableError",
    "VersionInfo",
    "VersionIterator",
    "WriteArguments",
    "route_function",
]


def __getattr__(name: str) -> object:
    if name in _SUBMODULES:
        return import_module(f".{name}", __name__)
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULE_OF[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})

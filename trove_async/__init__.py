"""Asyncio object storage that routes every object to the right backend, in bounded memory.

Start with `Trove`. Drivers are in `trove_async.drivers`, layers in `trove_async.layers`, and
compression, encryption and inspections of bodies in `trove_async.middlewares`. To write a driver or a
middleware of your own, implement the contract in `trove_async.driver` or `trove_async.middleware` and
run the tests in `trove_async.testing`.
"""

import logging

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

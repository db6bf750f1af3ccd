"""The middlewares of a store: which of them apply to an object, and how it is decoded.

Inspections are selected here too, because users list them among the middlewares.

A write is encoded by the middlewares whose scopes include the object. A read is decoded by the object's
records. The scopes of decoders do not matter, except to choose between two middlewares of one name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Final, TypeAlias, TypeVar

from trove_async.errors import (
    BackendNotFoundError,
    DecryptionError,
    IntegrityError,
    NotSupportedError,
)
from trove_async.middleware import (
    Closing,
    Inspecting,
    Middleware,
    ObjectContext,
    Record,
    Segmented,
)
from trove_async.models import KiB, ObjectInfo
from trove_async.scope import Scope

from .backends import Backend
from .block_workers import BlockWorkers
from .checked_decoder import CheckedDecoder, checked_decoded_size
from .index_cache import IndexCache
from .locations import context_of_stored
from .records import MAX_RECORDS, Applied, parse_records

T = TypeVar("T")

ScopedMiddleware: TypeAlias = tuple[Middleware, Scope]

ScopedItem: TypeAlias = tuple[Middleware | Inspecting, Scope]
"""An item of the user's list, with its scope. An object with both protocols is both."""

_BUILT_IN: Final[Mapping[str, str]] = {
    "zstd": "compression",
    "aes256-gcm-hkdf": "encryption",
}
"""The modules of the middlewares that every store can decode, by the names in records."""


_INDEX: Final = 16 * KiB
"""The size of the index of most objects: that of 2 GiB in frames of 1 MiB."""


class Transforms:
    """The middlewares and inspections of a store, and its workers and cache of indexes.

    Args:
        listed: The middlewares and inspections in the order of the user, with their scopes.

    Attributes:
        configured: The middlewares alone.
        has_required: Whether an object may lack a transform that its scope requires.
        tail_size: The number of bytes at the end of an object that contain the index of most objects,
            even if the index is encrypted.
    """

    def __init__(self, listed: Sequence[ScopedItem] = ()) -> None:
        self._listed = listed
        self.configured: Sequence[ScopedMiddleware] = [
            (item, scope) for item, scope in listed if isinstance(item, Middleware)
        ]
        self._inspections = [
            (item, scope) for item, scope in listed if isinstance(item, Inspecting)
        ]
        self.workers = BlockWorkers()
        self.indexes = IndexCache()
        self._required = [item for item in self.configured if item[0].required]
        self.has_required = bool(self._required)
        self._built_in: dict[str, Middleware] = {}
        segments = [item.segment_size for item, _ in self.configured if isinstance(item, Segmented)]
        self.tail_size = _INDEX + max(segments, default=0)

    def __bool__(self) -> bool:
        """Whether a put may be transformed or inspected."""
        return bool(self._listed)

    def closers(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """Return functions that close the workers, and each distinct middleware that can be closed."""
        distinct = {id(middleware): middleware for middleware, _ in self._listed}
        closing = [item.aclose for item in distinct.values() if isinstance(item, Closing)]
        return [self.workers.aclose, *closing]

    async def select(self, context: ObjectContext) -> Sequence[Middleware]:
        """Return the middlewares that apply to an object, in order.

        Raises:
            NotSupportedError: There are more than an object can have.
        """
        middlewares = await _in_scope(self.configured, context)
        if len(middlewares) > MAX_RECORDS:
            raise NotSupportedError(
                f"at most {MAX_RECORDS} middlewares can apply to an object, got {len(middlewares)}:"
                " limit them with scopes",
                backend=context.backend,
            )
        return middlewares

    async def select_inspections(self, context: ObjectContext) -> Sequence[Inspecting]:
        """Return the inspections that apply to an object, in order."""
        return await _in_scope(self._inspections, context)

    async def explain(self, context: ObjectContext) -> Sequence[str]:
        """Return a description of each middleware and inspection that applies to an object, in order."""
        return [repr(item) for item in await _in_scope(self._listed, context)]

    async def check_read(self, info: ObjectInfo, backend: Backend) -> None:
        """Raise if the object lacks a transform that its scope requires."""
        if not self._required:
            return
        applied = {name for name, record in parse_records(info.records) if record is not None}
        for middleware, scope in self._required:
            if middleware.name not in applied and await _includes(
                scope, context_of_stored(info, backend)
            ):
                raise DecryptionError(
                    f"the object must be encoded by {middleware!r}, which requires it, but is not:"
                    " it was written without the middleware, or its metadata was altered",
                    backend=backend.name,
                )

    async def check_presign(self, context: ObjectContext, method: str) -> None:
        """Raise NotSupportedError if a URL would bypass the middlewares, or the inspections of a put."""
        bypassed: list[Middleware | Inspecting] = [*await self.select(context)]
        if method == "PUT":
            bypassed += await self.select_inspections(context)
        if bypassed:
            names = ", ".join(map(repr, bypassed))
            raise NotSupportedError(
                f"a presigned URL would bypass the middlewares of this object ({names}): use get and put",
                backend=context.backend,
            )

    # -- decoding ----------------------------------------------------------------------------------

    async def decoder(
        self,
        context: ObjectContext,
        applied: Sequence[Applied],
        position: int,
        encoded_size: int,
    ) -> CheckedDecoder:
        """Return a decoder for one of the transforms of an object.

        Args:
            context: The object.
            applied: The records of the object.
            position: The position of the transform in `applied`.
            encoded_size: The size of its encoded form in bytes.

        Raises:
            DecryptionError: No middleware has the key.
            NotSupportedError: No middleware has this name.
            IntegrityError: The record is malformed.
        """
        name, record = applied[position]
        assert record is not None  # noqa: S101 - checked by the caller
        failure: DecryptionError | None = None
        for middleware in await self._candidates(context, applied, position):
            try:
                return await _checked_decoder(middleware, context, record, encoded_size)
            except DecryptionError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return await _checked_decoder(self._fallback(name), context, record, encoded_size)

    def decoded_size(self, info: ObjectInfo) -> int | None:
        """Return the size of the decoded object, if its records contain it.

        Raises:
            IntegrityError: The records are malformed, or do not fit the stored size.
            NotSupportedError: A middleware is unknown.
        """
        size: int | None = info.stored_size
        for name, record in reversed(parse_records(info.records)):
            if record is not None and size is not None:
                size = checked_decoded_size(self._by_name(name), record, size)
        return size

    def public(self, info: ObjectInfo) -> ObjectInfo:
        """Return the public metadata of an object. It is not complete if the decoded size is unknown."""
        if info.records is None:
            return info
        try:
            size = self.decoded_size(info)
        except (IntegrityError, NotSupportedError):
            # Reading the object raises the error. Malformed records may name no transforms.
            return info.decoded(None)
        return decoded_info(info, size)

    async def _candidates(
        self, context: ObjectContext, applied: Sequence[Applied], position: int
    ) -> Sequence[Middleware]:
        """Return the middlewares that may decode a transform, the most probable one first.

        Two of them may know different keys by one id. So those whose scope includes the object come first,
        and among these the one that a put would have applied at this position. If one of these is required,
        the others are left out: their keys do not prove that it has encoded the object.
        """
        name = applied[position].name
        named = [item for item in self.configured if item[0].name == name]
        if len(named) < 2:  # noqa: PLR2004 - several
            return [middleware for middleware, _ in named]
        inside: list[Middleware] = []
        outside: list[Middleware] = []
        for middleware, scope in named:
            (inside if await _includes(scope, context) else outside).append(middleware)
        earlier = sum(item.name == name for item in applied[:position])
        first = inside[earlier : earlier + 1]
        if any(middleware.required for middleware in inside):
            outside = []
        return [*first, *inside[:earlier], *inside[earlier + 1 :], *outside]

    def _by_name(self, name: str) -> Middleware:
        for middleware, _ in self.configured:
            if middleware.name == name:
                return middleware
        return self._fallback(name)

    def _fallback(self, name: str) -> Middleware:
        """Return the built-in middleware of a name, for objects of an earlier configuration."""
        if name not in self._built_in:
            if name not in _BUILT_IN:
                raise NotSupportedError(
                    f"the object was encoded by the middleware {name!r}, which this store does not"
                    " have: pass it in middleware="
                )
            try:
                module = import_module(f"trove_async.middlewares.{_BUILT_IN[name]}")
            except ImportError as error:
                raise NotSupportedError(f"the object cannot be decoded: {error}") from error
            self._built_in[name] = module.decode_only()
        return self._built_in[name]

    # -- copies ------------------------------------------------------------------------------------

    async def is_current(
        self,
        middlewares: Sequence[Middleware],
        source: ObjectContext,
        context: ObjectContext,
        records: str | None,
        *,
        renamed: bool,
    ) -> bool:
        """Return whether an object is encoded as a put to `context` would encode it today.

        Args:
            middlewares: The middlewares that apply to `context`.
            source: The object.
            context: The destination of a copy.
            records: The records of the object.
            renamed: Whether its bucket or key would change.
        """
        applied = parse_records(records)
        position = 0
        for middleware in middlewares:
            record: Record | None = None
            if position < len(applied) and applied[position].name == middleware.name:
                # Empty: it was applied, and left the body as it was. The metadata may be forged, so only the
                # middleware itself decides whether that is possible.
                record = applied[position].record or {}
                # A different middleware of this name may know a different key by the same id.
                decoding = await self._candidates(source, applied, position)
                if record and decoding[0] is not middleware:
                    return False
                position += 1
            if not await middleware.is_current(context, record, renamed=renamed):
                return False
        for name, record in applied[position:]:
            if record is not None and not await self._may_keep(name, record, context, renamed):
                return False
        return True

    async def _may_keep(
        self,
        name: str,
        record: Record,
        context: ObjectContext,
        renamed: bool,  # noqa: FBT001 - private
    ) -> bool:
        """Return whether a copy may keep a transform that the configuration does not ask for."""
        if any(middleware.name == name for middleware, _ in self.configured):
            return False  # its scope excludes the destination
        # A store without this middleware copies the encoded bytes, unless they are bound to their name.
        try:
            return await self._fallback(name).is_current(context, record, renamed=renamed)
        except NotSupportedError:
            return not renamed


def check_scopes(listed: Iterable[ScopedItem], backends: Sequence[str]) -> None:
    """Raise BackendNotFoundError if a scope names an unknown backend."""
    for item, scope in listed:
        for name in sorted(scope.backend_names() - set(backends)):
            names = ", ".join(map(repr, backends))
            raise BackendNotFoundError(
                f"the scope of {item!r} names the backend {name!r}, which does not exist: there"
                f" are {names}"
            )


def decoded_info(info: ObjectInfo, size: int | None) -> ObjectInfo:
    """Return the public metadata of an object, which users receive: the decoded size and no checksums.

    Args:
        info: The object as its backend describes it.
        size: The size of the decoded body. None: unknown.
    """
    # An object without transforms has records if every middleware left it as it was.
    return info.decoded(size) if info.transforms else info


async def _checked_decoder(
    middleware: Middleware, context: ObjectContext, record: Record, encoded_size: int
) -> CheckedDecoder:
    decoder = await middleware.decoder(context, record, encoded_size)
    return CheckedDecoder(middleware.name, decoder, encoded_size)


async def _in_scope(items: Iterable[tuple[T, Scope]], context: ObjectContext) -> Sequence[T]:
    """Return the items whose scopes include an object, in order."""
    return [item for item, scope in items if await _includes(scope, context)]


async def _includes(scope: Scope, context: ObjectContext) -> bool:
    result = scope.includes(context)
    return result if isinstance(result, bool) else await result

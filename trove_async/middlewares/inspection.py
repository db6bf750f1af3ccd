"""Inspection of bodies before they are stored, for example by a virus scanner."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TypeAlias

from trove_async.middleware import Inspector, ObjectContext

__all__ = ["Inspection", "InspectorFactory"]

InspectorFactory: TypeAlias = Callable[[str, str, str | None], Inspector | Awaitable[Inspector]]
"""Called with bucket, key and media type. Returns an inspector for one body, sync or async."""


class Inspection:
    """Passes the body of every put to an inspector, which may block it.

    An inspector (`trove_async.middleware.Inspector`) has two coroutines: ``update(data)``, called with the
    bytes of the body in order, and ``finish()``, called at its end. To block the body, either raises
    `ContentBlockedError`. The put then raises this error, and nothing is stored. Any other exception has the
    same effect, so a body that could not be inspected is not stored. If an inspector has ``aclose()``, it is
    called once, however the inspection ends.

    List an inspection in the store's `middleware`, alone or with a `Scope`. The order does not matter: an
    inspector always receives the bytes that the user passed, before they are compressed or encrypted. If
    several inspections apply, each one receives the whole body.

    A large body is sent while it is inspected, but it becomes visible only after ``finish`` has returned. A
    slow inspector slows down its own put only. A body of bytes is inspected as a whole before anything is
    sent: do not change a bytearray meanwhile. Any other body is read only once. Its parts are held in the
    pool, so each must fit in half of it.

    Copies and moves are not inspected, because their bytes are already stored. A presigned URL for a put is
    refused, because it would bypass the inspection. With a scope of media types, pass `content_type` to
    `Trove.presign_put`: without it, the client may send any type, but the scope is evaluated with the one that is
    guessed from the key.

    Example:
        >>> from trove_async import ContentBlockedError
        >>> from trove_async.middlewares.inspection import Inspection
        >>> class MaxSize:
        ...     def __init__(self, bucket: str, key: str, content_type: str | None) -> None:
        ...         self.size = 0
        ...
        ...     async def update(self, data: bytes) -> None:
        ...         self.size += len(data)
        ...         if self.size > 1000:
        ...             raise ContentBlockedError("the body must have at most 1,000 bytes")
        ...
        ...     async def finish(self) -> None:
        ...         pass
        >>> Inspection(MaxSize)
        Inspection(MaxSize)

    Args:
        factory: Called with bucket, key and media type (lower case, without parameters; None: unknown)
            before a body is read. Returns an inspector, sync or async. An exception ends the put.

    Raises:
        TypeError: `factory` is not callable.
    """

    def __init__(self, factory: InspectorFactory) -> None:
        if not callable(factory):
            raise TypeError(
                f"the factory of an Inspection must be callable, got {type(factory).__name__}"
            )
        self._factory = factory

    def __repr__(self) -> str:
        if not hasattr(self, "_factory"):
            return "<Inspection, not initialised>"  # its constructor raised
        return f"Inspection({self._name})"

    async def inspector(self, context: ObjectContext) -> Inspector:
        """Return the inspector of one body. Called by the store.

        Raises:
            TypeError: The factory did not return an inspector.
            Exception: The factory raised an error.
        """
        result = self._factory(context.bucket, context.key, context.content_type)
        if isawaitable(result):
            result = await result
        if isinstance(result, type) or not isinstance(result, Inspector):
            kind = "a class" if isinstance(result, type) else type(result).__name__
            raise TypeError(
                f"{self._name} must return an inspector, with update and finish, got {kind}"
            )
        return result

    @property
    def _name(self) -> str:
        return getattr(self._factory, "__qualname__", None) or type(self._factory).__qualname__

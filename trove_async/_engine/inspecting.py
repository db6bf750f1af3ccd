"""Passes the bodies of puts to the inspectors of their object, before they are encoded and sent."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from trove_async._concurrency import Turns, run_cleanup
from trove_async._views import BytesLike, take
from trove_async.middleware import ClosableInspector, Inspecting, Inspector, ObjectContext
from trove_async.models import MiB

from .sources import Source

_PIECE: Final = 1 * MiB
"""Maximum number of bytes that an inspector receives at once. They are copied, so this bounds memory."""


class Inspectors:
    """The inspectors of one body. A context manager: entering it creates them, leaving it closes them.

    Args:
        inspections: The inspections that apply to the object.
        context: The object.
        source: The body.
        declared_size: The size that the user has passed, if any.
    """

    def __init__(
        self,
        inspections: Sequence[Inspecting],
        context: ObjectContext,
        source: Source,
        declared_size: int | None,
    ) -> None:
        memory = source.memory
        self._inspections = inspections
        self._context = replace(context, size=declared_size if memory is None else len(memory))
        self._source = source
        self._inspectors: list[Inspector] = []
        self._unclosed: list[ClosableInspector] = []
        self._finished = False
        self._turns = Turns()

    async def __aenter__(self) -> Self:
        try:
            for inspection in self._inspections:
                inspector = _checked(inspection, await inspection.inspector(self._context))
                self._inspectors.append(inspector)
                if isinstance(inspector, ClosableInspector):
                    self._unclosed.append(inspector)
        except BaseException:
            with suppress(Exception):  # of an aclose: the first error is raised
                await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(Exception):  # after an error: otherwise `finish` has closed them
            await self._close()

    async def inspected(self) -> Source:
        """Return a source of the inspected body.

        A body in memory is inspected at once. Any other body is inspected while the source is read.
        """
        memory = self._source.memory
        if memory is None:
            return _InspectedSource(self._source, self)
        await self.update([memory])
        await self.finish()
        return self._source

    async def update(self, views: Sequence[memoryview]) -> None:
        """Pass the next bytes of the body to every inspector."""
        for view in views:
            for offset in range(0, len(view), _PIECE):
                if self._turns.is_due:
                    await self._turns.give()
                await self.update_bytes(bytes(view[offset : offset + _PIECE]))

    async def update_bytes(self, data: bytes) -> None:
        """Pass the next piece of the body, at most `_PIECE` bytes, to every inspector."""
        for inspector in self._inspectors:
            await inspector.update(data)

    async def finish(self) -> None:
        """Call `finish` of every inspector, and close them. Idempotent once it has returned."""
        if self._finished:
            return
        for inspector in self._inspectors:
            await inspector.finish()
        # Closed before the object is stored, so that an error still prevents it.
        await self._close()
        self._finished = True

    async def _close(self) -> None:
        """Close every inspector once, even if one of them fails to close or the call is cancelled.

        The first error is raised, or a cancel, at the end.
        """
        failure: BaseException | None = None
        while self._unclosed:
            inspector = self._unclosed.pop()
            try:
                await run_cleanup(inspector.aclose())
            except Exception as error:  # noqa: BLE001 - raised once all are closed
                failure = error if failure is None else failure
            except BaseException as cancel:  # noqa: BLE001 - raised once all are closed
                failure = cancel
        if failure is not None:
            raise failure


def _checked(inspection: Inspecting, inspector: object) -> Inspector:
    if not isinstance(inspector, Inspector):
        kind = type(inspector).__name__
        raise TypeError(f"{inspection!r} must return an inspector, got {kind}")
    return inspector


class _InspectedSource:
    """A body that is inspected while it is read.

    Every byte is inspected before it is returned. `ready` returns False only after `finish`, and the upload
    awaits it before it sends the last part. So an object becomes visible only after `finish`.

    It is not `Replayable`: the bytes that are sent must be those that were inspected, and a file may change.
    """

    memory: memoryview | None = None

    def __init__(self, source: Source, inspectors: Inspectors) -> None:
        self.size = source.size
        self._source = source
        self._inspectors = inspectors

    async def ready(self) -> bool:
        has_more = await self._source.ready()
        self.size = self._source.size
        if not has_more:
            await self._inspectors.finish()
        return has_more

    async def take(self, limit: int) -> BytesLike:
        # The copy is returned: a user may change the memory of a chunk after it was inspected.
        data = bytes(await self._source.take(min(limit, _PIECE)))
        if data:
            await self._inspectors.update_bytes(data)
        return data

    async def fill(self, views: Sequence[memoryview]) -> int:
        count = await self._source.fill(views)
        await self._inspectors.update(take(views, count))
        return count

    async def aclose(self) -> None:
        await self._source.aclose()

    async def rewind(self) -> None:
        await self._source.rewind()

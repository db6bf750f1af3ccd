"""What the jobs that change the backend of objects have in common."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Final

from trove_async._engine.key_guard import MoveInterruptedError
from trove_async._engine.locations import Location
from trove_async._engine.operations import Operations
from trove_async._engine.relocation import Relocated
from trove_async.errors import BucketNotFoundError, ConfigError, ObjectNotFoundError
from trove_async.models import ObjectInfo
from trove_async.router import Pinned, Router
from trove_async.store import Trove

from ._report import UNCHANGED, Outcome
from ._walks import ListedKey

_REASONS: Final = {
    Relocated.CONFLICT: "conflict",
    Relocated.GONE: "deleted meanwhile",
    Relocated.CHANGED: "changed meanwhile",
}

IN_USE: Final = Outcome(result="skipped", reason="in use")
"""A user or another job was writing the object. The next run of the job processes it."""

CONFLICT: Final = Outcome(result="skipped", reason="conflict")
"""Another backend has a different object of this key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What to do with one object. See `trove_async._engine.relocation.RelocationRequest`.

    Attributes:
        info: The object, from a listing.
        to: The name of the backend to move or copy it to.
        moved_before: In a dry run, the name of a backend whose object will have been moved there by then.
    """

    info: ObjectInfo
    to: str
    exists: bool = False
    replace: bool = False
    keep_source: bool = False
    delete_shadowed: bool = False
    moved_before: str | None = None


async def relocate(store: Trove, move: Move, *, dry_run: bool) -> Outcome:
    """Move or copy an object to another backend, or return what that would do."""
    info = move.info
    try:
        done = await store._objects.job_steps.relocate(  # noqa: SLF001 - jobs are part of the library
            info.bucket,
            info.key,
            source=info.backend,
            target=move.to,
            size=info.stored_size,
            exists=move.exists,
            replace=move.replace,
            keep_source=move.keep_source,
            delete_shadowed=move.delete_shadowed,
            moved_before=move.moved_before,
            dry_run=dry_run,
        )
    except MoveInterruptedError:
        return IN_USE
    if done.result in _REASONS:
        return Outcome(result="skipped", reason=_REASONS[done.result])
    is_done = done.result is Relocated.SAME and move.keep_source
    if is_done or done.result is Relocated.NOT_MOVED:
        return UNCHANGED
    return Outcome(result="changed", bytes=done.bytes)


def router_of(store: Trove) -> Router:
    """Return the rules of a store.

    Raises:
        ConfigError: It is a pinned handle, which has no rules.
    """
    routing = store._routing  # noqa: SLF001 - jobs are part of the library
    if isinstance(routing, Pinned):
        raise ConfigError("a pinned handle has no rules: pass the store itself")
    return routing


def finds_anywhere(store: Trove) -> bool:
    """Return whether the store finds objects that are not where the rules say."""
    return store._core.placement is not None  # noqa: SLF001 - jobs are part of the library


def are_related(store: Trove, bucket: str, one: str, other: str) -> bool:
    """Return whether one of two backends is a layer over the other, or over a member of it."""
    backends = store._core.backends  # noqa: SLF001 - jobs are part of the library
    first, second = (
        Location(backend=backends[name], bucket=bucket, key="k") for name in (one, other)
    )
    return first.overlaps(second)


class _Pair(Pinned):
    """The routing of a handle that lists two backends."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)
        self._names = (first, second)

    async def reaches(self, bucket: str, prefix: str = "") -> tuple[str, ...]:  # noqa: ARG002
        return self._names

    @property
    def fingerprint(self) -> str:
        return "\0".join(self._names)


def pair_of(store: Trove, first: str, second: str) -> Trove:
    """Return a handle for listings of two backends with ``include_shadowed``."""
    handle = copy(store)
    handle._routing = routing = _Pair(first, second)  # noqa: SLF001 - jobs are part of the library
    handle._objects = Operations(store._core, routing)  # noqa: SLF001
    return handle


def reading_order(store: Trove, routed: str) -> list[str]:
    """Return the backends in the order in which a store that finds objects anywhere reads them."""
    return [routed, *(name for name in store.backends if name != routed)]


def ranks_between(order: Sequence[str], source: str, target: str) -> Sequence[str]:
    """Return the backends between source and target, in the order of reading.

    If one of them has an object, a move from `source` to `target` changes which object users read: the move
    reveals the object that the source hides, or hides it with an older one.
    """
    first, last = sorted((order.index(source), order.index(target)))
    return order[first + 1 : last]


async def completed(store: Trove, item: ListedKey) -> ListedKey:
    """Return all objects of a key, also if an unordered listing has shown only one of them."""
    if item.whole:
        return item
    infos: list[ObjectInfo] = []
    for name in store.backends:
        found = item.on(name) or await head_on(store, name, item.infos[0])
        if found is not None:
            infos.append(found)
    return ListedKey(item.key, infos, route=item.route)


async def head_on(store: Trove, backend: str, info: ObjectInfo) -> ObjectInfo | None:
    """Return the object of the same key on a backend, or None if there is none."""
    try:
        return await store.backend(backend).head(info.bucket, info.key)
    except (ObjectNotFoundError, BucketNotFoundError):
        return None

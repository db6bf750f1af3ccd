"""Looks for an object on the backends of a store, first on the one that its key is routed to.

A backend that lacks the object, or the bucket, is followed by the next one. A move stores the object on one
backend before it deletes it on another. So after the last backend, all but the last are asked again: the
object may have been moved to a backend after that was asked. With n backends, an object that does not exist
takes 2n - 1 requests. For the same reason, those before are asked again if the object was found on the third
backend or a later one: it may be an older object that the moved one hides. If this store has moved the object
meanwhile, and they lack it again, the search starts anew.

A backend that did not answer is not taken for one that lacks the object:

* If the routed backend fails, its error is raised, because an object there takes precedence.
* If a different backend fails, the later ones are asked. The error is raised if none of them has the object. So
  while a backend is down, an older object that it hides may be read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from trove_async._concurrency import run_cleanup
from trove_async.driver import places_of
from trove_async.errors import (
    BackendError,
    BucketNotFoundError,
    InvalidNameError,
    NotSupportedError,
    ObjectChangedError,
    ObjectNotFoundError,
    PermissionDeniedError,
    TroveError,
    UnauthenticatedError,
)
from trove_async.models import ObjectInfo

from . import backend_checks
from .backends import Backend
from .placement import Placement, Watch

T = TypeVar("T")

MISSING: Final = (ObjectNotFoundError, BucketNotFoundError)
"""The errors of a backend that does not have an object. (A BackendNotFoundError is a wrong route.)"""


class Search:
    """The search for objects on all backends of a store.

    Args:
        backends: Returns the backends, in the order in which they are asked after the routed one.
        resolve: Returns the backend that a key is routed to.
        bucket_exists: Returns whether any backend has a bucket.
        placement: The moves of the store.
    """

    def __init__(
        self,
        backends: Callable[[], Sequence[Backend]],
        resolve: Callable[[str, str], Awaitable[Backend]],
        bucket_exists: Callable[[str], Awaitable[bool]],
        placement: Placement,
    ) -> None:
        self._backends = backends
        self._resolve = resolve
        self._bucket_exists = bucket_exists
        self._placement = placement

    async def order(self, bucket: str, key: str) -> Sequence[Backend]:
        """Return the backends that may have the object, the routed one first, each place once."""
        routed = await self._resolve(bucket, key)
        return [routed, *self.others(routed, bucket, key)]

    def others(self, routed: Backend, bucket: str, key: str) -> Sequence[Backend]:
        """Return the backends that may have the object and are not the routed one, each place once."""
        places = {tuple(places_of(routed.driver, bucket, key))}
        others: list[Backend] = []
        for backend in self._backends():
            if backend is routed:
                continue
            try:
                backend_checks.check_addressable(backend, key)
                place = tuple(places_of(backend.driver, bucket, key))
            except InvalidNameError:
                continue  # it cannot have an object of this name
            if place not in places:
                places.add(place)
                others.append(backend)
        return others

    async def find(
        self, bucket: str, key: str, version_id: str | None = None
    ) -> tuple[Backend, ObjectInfo]:
        """Return the backend that has the object, and the object as that backend describes it.

        Every backend that is asked must answer, so that the object is certainly the one that a get
        returns if all backends are available.

        Raises:
            TroveError: As in `run`.
        """

        async def head(backend: Backend) -> tuple[Backend, ObjectInfo]:
            return backend, await backend.driver.head(bucket, key, version_id)

        return await self.run(bucket, key, head, version_id, strict=True)

    async def has(
        self, backend: Backend, bucket: str, key: str, version_id: str | None = None
    ) -> bool:
        """Return whether a backend has an object."""
        try:
            await backend.driver.head(bucket, key, version_id)
        except (*MISSING, InvalidNameError):
            return False
        except TroveError as error:
            error.located(backend=backend.name)
            raise
        return True

    async def run(
        self,
        bucket: str,
        key: str,
        work: Callable[[Backend], Awaitable[T]],
        version_id: str | None = None,
        *,
        strict: bool = False,
    ) -> T:
        """Run `work` on the first backend that has the object, and return its result.

        Args:
            bucket: The bucket.
            key: The key.
            work: Called with one backend after another, until it raises neither ObjectNotFoundError nor
                BucketNotFoundError.
            version_id: The version that `work` needs. Only backends with versions are asked.
            strict: Whether to raise the first error of a backend that did not answer, even if a later
                backend may have the object.

        Raises:
            ObjectNotFoundError: No backend has the object.
            BucketNotFoundError: No backend has the bucket.
            UnavailableError: A backend did not answer, and no other one has the object.
            TroveError: Otherwise as `work`.
        """
        # Most objects are on the routed backend.
        routed = await self._resolve(bucket, key)
        misses = _Misses()
        try:
            with self._placement.watch(bucket, key) as watch:
                if version_id is None or routed.capabilities.versions:
                    try:
                        return await work(routed)
                    except TroveError as error:
                        if not is_gone(error):
                            raise
                        misses.add(routed, error)
                request = _Request(bucket, key, version_id, work, strict, routed, misses, watch)
                return await self._run_on_others(request)
        finally:
            misses.clear()

    async def _run_on_others(self, request: _Request[T]) -> T:
        """Run the work on the backends other than the routed one, then on all but the last again."""
        bucket, key, version_id = request.bucket, request.key, request.version_id
        routed, misses, watch = request.routed, request.misses, request.watch
        # 1. Choose the backends.
        others = self.others(routed, bucket, key)
        if version_id is not None:
            others = [backend for backend in others if backend.capabilities.versions]
            if not others:
                backend_checks.check_version(routed, version_id)
        again = [routed] if others and routed in misses.errors else []
        order = [*again, *others]
        # 2. Ask them. Another round follows if this store has moved the object in the meantime.
        later = [*others, *again, *others[:-1]]
        pending = later
        while pending:
            for backend in pending:
                found = await self._ask(request, backend)
                if found is None:
                    continue
                # `order` lacks the routed backend if that has no versions.
                rank = order.index(backend)
                is_third_or_later = rank > 1
                earlier = order[:rank] if is_third_or_later else []
                visible = await self._visible(request, found[0], earlier)
                if visible is None:
                    break
                return visible[0]
            pending = [*again, *later] if watch.moved else []
            watch.moved = False
        # 3. There is no such object, if all backends have answered.
        raise await self._missing(misses, routed, bucket, key)

    async def _visible(
        self, request: _Request[T], found: T, earlier: Sequence[Backend]
    ) -> tuple[T] | None:
        """Return what was found, unless it is hidden by an object that was moved during the search.

        Two backends or more did not have the object before. It may have been moved from the second to the
        first in between, and what was found is an older object that it hides. So they are asked again. They
        may miss it again, if it was moved back. A second move starts only after the first was reported, so in
        that case the result is None: search again.
        """
        visible: tuple[T] | None = None
        try:
            for backend in earlier:
                visible = await self._ask(request, backend)
                if visible is not None:
                    break
        except BaseException:
            await _discard(found)
            raise
        if visible is None and not (earlier and request.watch.moved):
            return (found,)
        try:
            await _discard(found)
        except BaseException:
            if visible is not None:
                await _discard(visible[0])
            raise
        return visible

    async def _ask(self, request: _Request[T], backend: Backend) -> tuple[T] | None:
        """Return the result of the work on a backend, or record why there is none.

        A backend that has failed before is not asked again.
        """
        misses = request.misses
        if backend in misses.failed:
            return None
        try:
            return (await request.work(backend),)
        except TroveError as error:
            if is_gone(error):
                misses.add(backend, error)
                return None
            if backend is request.routed:
                raise
            failure = await self._failure(request, backend, error)
        if failure is not None:
            misses.fail(backend, failure)
            if request.strict:
                raise failure
        return None

    async def _failure(
        self, request: _Request[Any], backend: Backend, error: TroveError
    ) -> TroveError | None:
        """Return why a backend did not answer, or None if it does not have the object.

        Raises:
            TroveError: `error`, which concerns an object that the backend has.
        """
        if isinstance(error, InvalidNameError):
            return None
        if isinstance(error, NotSupportedError | PermissionDeniedError):
            # The request may be refused whether or not there is an object.
            try:
                if not await self.has(backend, request.bucket, request.key, request.version_id):
                    return None
            except _NO_ANSWER as failure:
                return failure
        elif isinstance(error, _NO_ANSWER):
            return error
        raise error

    async def _missing(self, misses: _Misses, routed: Backend, bucket: str, key: str) -> TroveError:
        """Return the error of a search that has found nothing."""
        if misses.failure is not None:
            return misses.failure
        errors = misses.errors
        if isinstance(errors.get(routed), ObjectNotFoundError):
            return errors[routed]
        if all(isinstance(error, BucketNotFoundError) for error in errors.values()):
            asked_all = len(errors) == len(self._backends())
            if asked_all or not await self._bucket_exists(bucket):
                return next(iter(errors.values()))
        return ObjectNotFoundError("no such object", backend=routed.name, bucket=bucket, key=key)


async def _discard(found: object) -> None:
    """Close a body that was opened in vain."""
    close = getattr(found, "aclose", None)
    if close is not None:
        await run_cleanup(close())


_NO_ANSWER = (BackendError, PermissionDeniedError, UnauthenticatedError)
"""The errors of a backend that does not reveal whether it has the object."""


@dataclass(frozen=True, slots=True)
class _Request(Generic[T]):
    """The arguments of `Search.run`, and the state of the search."""

    bucket: str
    key: str
    version_id: str | None
    work: Callable[[Backend], Awaitable[T]]
    strict: bool
    routed: Backend
    misses: _Misses
    watch: Watch


class _Misses:
    """The errors of the backends of one search."""

    def __init__(self) -> None:
        self.errors: dict[Backend, TroveError] = {}
        self.failed: set[Backend] = set()
        self.failure: TroveError | None = None

    def add(self, backend: Backend, error: TroveError) -> None:
        """Record that a backend does not have the object."""
        self.errors.setdefault(backend, error)

    def fail(self, backend: Backend, error: TroveError) -> None:
        """Record that a backend did not answer."""
        self.failed.add(backend)
        self.failure = self.failure or error.located(backend=backend.name)

    def clear(self) -> None:
        """Drop the errors: their tracebacks refer to the frame that refers to them."""
        self.errors.clear()
        self.failure = None


def is_gone(error: BaseException | None) -> bool:
    """Return whether the error of a read proves that the backend does not have the object, or no longer."""
    while isinstance(error, ObjectChangedError):
        error = error.__cause__
    return isinstance(error, MISSING)

"""The locations of objects: a backend, and the names of an object on it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import NamedTuple

from trove_async.driver import places_of
from trove_async.errors import TroveError
from trove_async.middleware import ObjectContext
from trove_async.models import ObjectInfo

from .backends import Backend
from .media_types import type_of


class ObjectAddress(NamedTuple):
    """The address of an object as users pass it.

    Attributes:
        bucket: The bucket.
        key: The key.
        backend: The name of the backend. None: the router decides.
        version_id: A version of the object. None: the latest.
    """

    bucket: str
    key: str
    backend: str | None = None
    version_id: str | None = None

    def has_key_of(self, other: ObjectAddress | Location) -> bool:
        """Return whether both have the same bucket and key, on any backends."""
        return (self.bucket, self.key) == (other.bucket, other.key)


@dataclass(frozen=True, kw_only=True)  # without slots, for `cached_property`
class Location:
    """The location of an object: a backend, and the object's names on it.

    Attributes:
        version_id: A version of the object. None: the latest.
    """

    backend: Backend
    bucket: str
    key: str
    version_id: str | None = None

    def is_same(self, other: Location) -> bool:
        """Return whether both are physically the same object."""
        return self.places == other.places

    @cached_property
    def places(self) -> Sequence[Hashable]:
        """All physical places of the object. See `ManyPlaces`."""
        return tuple(places_of(self.backend.driver, self.bucket, self.key))

    @property
    def written_places(self) -> Sequence[Hashable]:
        """The physical places that a put to this location replaces."""
        return places_of(self.backend.driver, self.bucket, self.key, written=True)

    def is_within(self, other: Location) -> bool:
        """Return whether the other location, such as one on a layer, has all places of this one."""
        return set(self.places) <= set(other.places)

    def overlaps(self, other: Location) -> bool:
        """Return whether both have a place in common, but are not the same: one is on a layer over the other."""
        return bool(set(self.places) & set(other.places)) and not self.is_same(other)

    def is_written_by(self, other: Location) -> bool:
        """Return whether a put to the other location replaces an object at one of the places of this one."""
        return bool(set(self.places) & set(other.written_places))


class located:  # noqa: N801 - used as a function, as contextlib's are
    """Add the location to an error that has none. A class costs a third of a generator."""

    __slots__ = ("_location",)

    def __init__(self, location: Location) -> None:
        self._location = location

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, TroveError):
            location = self._location
            error.located(backend=location.backend.name, bucket=location.bucket, key=location.key)


def context_of(location: Location, content_type: str | None) -> ObjectContext:
    """Return the context of an object that is about to be written."""
    return object_context(location.bucket, location.key, location.backend.name, content_type)


def context_of_stored(info: ObjectInfo, backend: Backend) -> ObjectContext:
    """Return the context of a stored object, for its decoders and for scopes that require a middleware."""
    content_type = guessed_type(backend, info.key, info.content_type)
    return object_context(info.bucket, info.key, backend.name, content_type)


def guessed_type(backend: Backend, key: str, content_type: str | None) -> str | None:
    """Return the content type of an object, guessed from its key if the backend stores none.

    A put guesses it as well, so that a scope includes the same objects in reads and writes.
    """
    if content_type is None and not backend.capabilities.headers:
        return type_of(key)
    return content_type


def object_context(bucket: str, key: str, backend: str, content_type: str | None) -> ObjectContext:
    """Return the context of an object on the backend of this name."""
    return ObjectContext(
        bucket=bucket, key=key, backend=backend, content_type=_media_type(content_type)
    )


def _media_type(content_type: str | None) -> str | None:
    """Return a content type without its parameters, in lower case."""
    if content_type is None:
        return None
    return content_type.partition(";")[0].strip().lower() or None


def add_operation(error: TroveError, operation: str, bucket: str | None, key: str | None) -> None:
    """Set the user's operation in an error, and fill in the names that are not set yet."""
    error.operation = operation  # a driver names its own request, such as "head" during a read
    error.located(bucket=bucket, key=key)

"""The versions of objects that `ReadThrough` knows, and when the origin confirmed each of them."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections import OrderedDict
from collections.abc import Hashable
from contextlib import suppress
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

from trove_async.models import ObjectInfo

Name: TypeAlias = tuple[str, str]
"""The bucket and the key of an object."""

_MAX_VERSIONS: Final = 16_384
"""Maximum number of known versions, about 1 KiB each. For another object, one request is sent again."""

_PLAIN_TYPES: Final = frozenset({str, bytes, int, float, bool})
"""Types of which two values with the same repr are equal, in every process."""


class Version:
    """One version of an object at the origin.

    Attributes:
        info: The object, as a response of the origin described it.
        confirmed_at: Time at which the request was sent whose response confirmed that this is the current
            version, on the clock of the event loop.
        describes_body: Whether the info has the recorded checksums. The response to a range may lack them.
        describes_tags: Whether the info has the tags. The response to a get may lack them.
        object_id: Identifies the object in the names of blocks.
        block_id: Identifies the version in the names of blocks.
    """

    __slots__ = (
        "block_id",
        "confirmed_at",
        "describes_body",
        "describes_tags",
        "info",
        "object_id",
    )

    def __init__(
        self,
        info: ObjectInfo,
        confirmed_at: float,
        *,
        object_id: str,
        block_id: str,
        describes_body: bool,
        describes_tags: bool,
    ) -> None:
        self.info = info
        self.confirmed_at = confirmed_at
        self.object_id = object_id
        self.block_id = block_id
        self.describes_body = describes_body
        self.describes_tags = describes_tags

    @property
    def is_cacheable(self) -> bool:
        """Whether its blocks can be cached: without an etag, nothing identifies the version."""
        return self.info.etag is not None


def object_id_of(place: Hashable) -> str:
    """Return the id of the object at a place (`AsyncDriver.place`) in the names of blocks."""
    return hashlib.sha256(_text_of(place).encode()).hexdigest()[:16]


def block_id_of(place: Hashable, info: ObjectInfo, block_size: int) -> str:
    """Return the id of a version in the names of its blocks of this size."""
    parts = (_text_of(place), info.etag, info.stored_size, block_size)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


_TOKENS: Final[WeakKeyDictionary[Any, str]] = WeakKeyDictionary()
"""Random texts for objects in places that have no text of their own, such as a `MemoryDriver`."""


def _text_of(place: object) -> str:
    """Return a text that only equal places have.

    It is the same in each process if the place consists of texts, numbers and None. For any other object in it the
    text is random, so the blocks of such a place are not read again once the process or the object has ended.
    """
    if isinstance(place, tuple):
        return f"({','.join(map(_text_of, place))})"
    if place is None or type(place) in _PLAIN_TYPES:
        return repr(place)
    token = secrets.token_hex(16)
    with suppress(TypeError):  # it has no weak references: its text is another one each time
        token = _TOKENS.setdefault(place, token)
    return f"<{token} {os.getpid()}>"  # a forked process has a copy of the object


class Observation:
    """A request in flight whose response may become the known version of an object.

    Attributes:
        is_outdated: Whether the object was written through the layer since the request was sent. The
            response may then describe the version before that.
    """

    __slots__ = ("is_outdated",)

    def __init__(self) -> None:
        self.is_outdated = False


class Write:
    """A write in flight.

    Attributes:
        is_contended: Whether another write of the same object was in flight at some time, so that the origin
            may have stored them in either order.
    """

    __slots__ = ("is_contended",)

    def __init__(self) -> None:
        self.is_contended = False


class Versions:
    """The known versions, at most `_MAX_VERSIONS`: those that were used last."""

    def __init__(self) -> None:
        self._versions: OrderedDict[Name, Version] = OrderedDict()
        self._observations: dict[Name, set[Observation]] = {}
        self._writes: dict[Name, set[Write]] = {}

    def get(self, name: Name) -> Version | None:
        """Return the known version of an object. It may have to be confirmed again."""
        version = self._versions.get(name)
        if version is not None:
            self._versions.move_to_end(name)
        return version

    def observe(self, name: Name) -> Observation:
        """Begin a request for an object. Call `end` with the result."""
        observation = Observation()
        self._observations.setdefault(name, set()).add(observation)
        return observation

    def end(self, name: Name, observation: Observation, version: Version | None) -> None:
        """End a request. Remember the version, unless the object was written in between."""
        observations = self._observations.get(name)
        if observations is not None:
            observations.discard(observation)
            if not observations:
                del self._observations[name]
        if version is None or observation.is_outdated:
            return
        known = self._versions.get(name)
        if known is not None and known.confirmed_at > version.confirmed_at:
            return  # a later request was faster
        self._versions[name] = version
        self._versions.move_to_end(name)
        while len(self._versions) > _MAX_VERSIONS:
            self._versions.popitem(last=False)

    def begin_write(self, name: Name) -> Write:
        """Begin to write an object. What is known of it, or being requested, may be outdated."""
        write = Write()
        writes = self._writes.setdefault(name, set())
        writes.add(write)
        if len(writes) > 1:
            for other in writes:
                other.is_contended = True
        self.forget(name)
        return write

    def end_write(self, name: Name, write: Write) -> None:
        """End a write. What was requested meanwhile may be the version before it."""
        writes = self._writes[name]
        writes.discard(write)
        if not writes:
            del self._writes[name]
        self.forget(name)

    def forget(self, name: Name) -> None:
        """Forget an object, and what is being requested of it."""
        self._versions.pop(name, None)
        for observation in self._observations.pop(name, ()):
            observation.is_outdated = True

    def forget_version(self, name: Name, version: Version) -> None:
        """Forget a version that turned out to be replaced, unless a later one is known already."""
        known = self._versions.get(name)
        if known is not None and known.block_id == version.block_id:
            del self._versions[name]

    def forget_bucket(self, bucket: str) -> None:
        """Forget all objects of a bucket."""
        for name in [name for name in self._versions if name[0] == bucket]:
            self.forget(name)
        for name in [name for name in self._observations if name[0] == bucket]:
            self.forget(name)

    def clear(self) -> None:
        """Forget everything."""
        self._versions.clear()
        self._observations.clear()

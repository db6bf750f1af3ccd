"""A blocking handle on one bucket of a store."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Literal, Unpack, cast, overload

import trove_async as aio

from ._deletion import Deletion
from ._files import BUFFER_SIZE, FileReader, FileWriter, buffered
from ._iterators import ListArguments, MisplacedIterator, ObjectIterator, VersionIterator
from ._mirror import Facade, documented_by, opening, waits_for, wrapping
from ._reader import ObjectReader


class Bucket(Facade[aio.Bucket]):
    """One bucket of a blocking store: the store's object methods without their bucket argument.

    `Trove.bucket` returns it. The store need not be started yet, and the bucket need not exist.
    """

    __slots__ = ()

    @property
    def name(self) -> str:
        """The bucket's name."""
        return self._async.name

    put = waits_for(aio.Bucket.put)
    read = waits_for(aio.Bucket.read)
    get_ranges = waits_for(aio.Bucket.get_ranges)
    head = waits_for(aio.Bucket.head)
    exists = waits_for(aio.Bucket.exists)
    delete = waits_for(aio.Bucket.delete)
    copy = waits_for(aio.Bucket.copy)
    move = waits_for(aio.Bucket.move)
    presign_get = waits_for(aio.Bucket.presign_get)
    presign_put = waits_for(aio.Bucket.presign_put)
    explain = waits_for(aio.Bucket.explain)

    get = opening(aio.Bucket.get, ObjectReader)
    list_versions = wrapping(aio.Bucket.list_versions, VersionIterator)
    misplaced = wrapping(aio.Bucket.misplaced, MisplacedIterator)

    @documented_by(aio.Bucket.delete_many)
    def delete_many(self, keys: Iterable[str]) -> Deletion:
        return Deletion(self._session, self._async.delete_many, keys)

    @overload
    def list(
        self, *, delimiter: None = None, **arguments: Unpack[ListArguments]
    ) -> ObjectIterator[aio.ObjectInfo]: ...

    @overload
    def list(
        self, *, delimiter: str | None, **arguments: Unpack[ListArguments]
    ) -> ObjectIterator[aio.ObjectInfo | aio.Prefix]: ...

    @documented_by(aio.Bucket.list)
    def list(
        self, *, delimiter: str | None = None, **arguments: Unpack[ListArguments]
    ) -> ObjectIterator[Any]:
        return ObjectIterator(self._async.list(delimiter=delimiter, **arguments), self._session)

    @overload
    def open(
        self,
        key: str,
        mode: Literal["rb"] = "rb",
        *,
        buffer_size: int = BUFFER_SIZE,
        version_id: str | None = None,
        if_match: str | aio.ObjectInfo | None = None,
    ) -> FileReader: ...

    @overload
    def open(
        self,
        key: str,
        mode: Literal["wb", "xb"],
        *,
        buffer_size: int = BUFFER_SIZE,
        if_match: str | aio.ObjectInfo | None = None,
        **arguments: Unpack[aio.WriteArguments],
    ) -> FileWriter: ...

    def open(
        self,
        key: str,
        mode: Literal["rb", "wb", "xb"] = "rb",
        *,
        buffer_size: int = BUFFER_SIZE,
        version_id: str | None = None,
        if_match: str | aio.ObjectInfo | None = None,
        **arguments: Unpack[aio.WriteArguments],
    ) -> FileReader | FileWriter:
        """Open an object as a buffered file: ``with bucket.open(…) as file``. See `Trove.open`."""
        unopened = partial(
            cast("Any", self._async.open_file),  # its overloads need a literal mode
            key,
            mode,
            version_id=version_id,
            if_match=if_match,
            **arguments,
        )
        return buffered(self._session, unopened, key, mode, buffer_size)

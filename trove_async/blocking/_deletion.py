"""The blocking deletion of many objects."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import trove_async as aio
from trove_async._engine.bulk_delete import check_keys, raise_failures
from trove_async.errors import BodyConsumedError

from ._mirror import Session

_BATCH = 1000
"""Keys that are handed to the loop together. The engine deletes as many at a time."""


class Deletion:
    """The deletion of many objects. Iterate over it for one result per key, or call `run` to raise errors.

    Either starts the deletion, which runs only once. A thousand keys at a time are taken from the iterable, in
    the caller's thread, and deleted.

    Args:
        session: The session of the store.
        delete: Returns the async deletion of a batch of keys.
        keys: The keys.
    """

    __slots__ = ("_delete", "_keys", "_session", "_started")

    def __init__(
        self,
        session: Session,
        delete: Callable[[Sequence[str]], aio.Deletion],
        keys: Iterable[str],
    ) -> None:
        self._started = True  # do not warn if the constructor raises
        check_keys(keys)
        self._session = session
        self._delete = delete
        self._keys = keys
        self._started = False

    def __iter__(self) -> Iterator[aio.DeleteResult]:
        if self._started:
            raise BodyConsumedError("this deletion has already started: call delete_many again")
        self._started = True
        return self._results()

    def run(self) -> None:
        """Delete all objects.

        Raises:
            TroveError: An object could not be deleted.
            ExceptionGroup: Objects could not be deleted for several reasons.
        """
        # All keys of a failed bulk request share one error: raise it once.
        failures = {id(result.error): result.error for result in self if result.error is not None}
        raise_failures(failures.values())

    def _results(self) -> Iterator[aio.DeleteResult]:
        keys = iter(self._keys)
        while batch := list(islice(keys, _BATCH)):
            yield from self._session.run(_results_of(self._delete, batch))

    def __del__(self) -> None:
        if not self._started:
            warnings.warn(
                "a deletion of many objects was never started, nothing was deleted: call its run(), or"
                " iterate over it",
                ResourceWarning,
                stacklevel=2,
            )


async def _results_of(
    delete: Callable[[Sequence[str]], aio.Deletion], keys: Sequence[str]
) -> Sequence[aio.DeleteResult]:
    return [result async for result in delete(keys)]

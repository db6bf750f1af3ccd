"""Opens a store when an app starts and closes it when the app stops."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from trove_async import Trove
from trove_async.errors import ClosedError


@asynccontextmanager
async def open_store(
    store: Trove | Callable[[], Trove], buckets: Iterable[str], hook: str
) -> AsyncIterator[Trove]:
    """Open a store, passed directly or created by a factory, and create missing buckets.

    Args:
        store: The store, or a function that returns one.
        buckets: The names of the buckets to create if they are missing.
        hook: The name of the function that the user called, for messages.

    Raises:
        ClosedError: The store was opened before.
        TypeError: `store` is neither a store nor a factory, or the factory did not return a store.
    """
    trove = store() if callable(store) and not isinstance(store, Trove) else store
    if not isinstance(trove, Trove):
        raise TypeError(
            f"the store of {hook} must be a Trove or a function that returns one, got {trove!r}"
        )
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(trove)
        except ClosedError as error:
            # This advice does not apply to a factory that returned an open store.
            if trove is store:
                error.message += f", or pass a function that creates one: {hook}(lambda: Trove(…))"
            raise
        for bucket in buckets:
            await trove.create_bucket(bucket, exist_ok=True)
        yield trove


def bucket_names(buckets: Iterable[str]) -> tuple[str, ...]:
    """Return the names as a tuple. An iterator would be empty at the second start of the app.

    Raises:
        TypeError: `buckets` is a single name, or is not iterable.
    """
    if isinstance(buckets, str):
        raise TypeError(f"buckets must be a list of names, such as [{buckets!r}], got a str")
    if isinstance(buckets, bytes) or not isinstance(buckets, Iterable):
        raise TypeError(f"buckets must be a list of names, got {type(buckets).__name__}")
    return tuple(buckets)

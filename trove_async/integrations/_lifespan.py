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
    """Open a store, or the one that a factory returns, and create missing buckets.

    Args:
        store: The store or the factory.
        buckets: Names of buckets.
        hook: The name of the function that the user called, for messages.

    Raises:
        ClosedError: The store was opened before.
        TypeError: The store is neither a store nor a factory, or the factory returned another object.
    """
    opened = store() if callable(store) and not isinstance(store, Trove) else store
    if not isinstance(opened, Trove):
        raise TypeError(
            f"the store of {hook} must be a Trove or a function that returns one, got {opened!r}"
        )
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(opened)
        except ClosedError as error:
            # A factory that returns an open store is a different mistake.
            if opened is store:
                error.message += f", or pass a function that creates one: {hook}(lambda: Trove(…))"
            raise
        for bucket in buckets:
            await opened.create_bucket(bucket, exist_ok=True)
        yield opened


def bucket_names(buckets: Iterable[str]) -> tuple[str, ...]:
    """Return the names as a tuple, which every start of the app can iterate over.

    Raises:
        TypeError: `buckets` is a single name.
    """
    if isinstance(buckets, str):
        raise TypeError(f"buckets must be names, such as [{buckets!r}], got a str")
    return tuple(buckets)

"""The stores of a filesystem: one for each event loop and process, opened on first use."""

from __future__ import annotations

import asyncio
import atexit
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

from trove_async import Trove
from trove_async._concurrency import OwnedTask, in_thread
from trove_async._named_objects import named_object
from trove_async.errors import ClosedError, ConfigError
from trove_async.file import FileWriter

_EXIT_SECONDS: Final = 2.0
"""Seconds that the end of the process waits until the connections are closed."""


class GivenStore:
    """A store that the user passed.

    fsspec keeps filesystems by the text of their arguments. Two stores may have the same text, but this has
    the identity of the store.
    """

    def __init__(self, store: Trove) -> None:
        self.store = store

    def __call__(self) -> Trove:
        """Return the store, as a function that the user passes does."""
        return self.store

    def __repr__(self) -> str:
        if not hasattr(self, "store"):
            return "<GivenStore, not initialised>"  # its constructor raised
        return f"<{self.store!r} at {id(self.store):#x}>"

    def __reduce__(self) -> str:
        raise TypeError(
            "a filesystem over a Trove cannot be sent to another process: pass config=…, backend=…, or"
            " store= a function that returns a new Trove"
        )


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a filesystem with exactly one of config, store and backend."""
    checked = dict(options)
    if isinstance(checked.get("store"), Trove):
        checked["store"] = GivenStore(checked["store"])
    if "url" in checked:
        # fsspec.core.url_to_fs has a parameter of this name, so pandas could not pass it.
        raise TypeError("a filesystem has no option 'url': pass backend='s3://…'")
    named = [name for name in ("config", "store", "backend") if checked.get(name) is not None]
    if not named and "TROVE_CONFIG" in os.environ:
        checked["config"] = os.environ["TROVE_CONFIG"]
    elif len(named) != 1:
        raise ConfigError(
            f"a filesystem needs one of config=, store= and backend=, got {' and '.join(named) or 'none'}:"
            " the environment variable TROVE_CONFIG sets the default of config"
        )
    return checked


def factory_of(
    config: str | os.PathLike[str] | Mapping[str, Any] | None,
    store: Callable[[], Trove] | str | None,
    backend: str | None,
) -> Callable[[], Trove]:
    """Return a function that creates the store which the options describe.

    Raises:
        ConfigError: `store` names no function.
        TypeError: `store` is not a function.
    """
    if config is not None:
        return lambda: Trove.from_config(config)
    if backend is not None:
        return lambda: Trove(backend)
    factory = named_object(store) if isinstance(store, str) else store
    if not callable(factory):
        raise TypeError(
            "store must be a Trove, a function that returns one, or its name as 'package.module:name',"
            f" got {store!r}"
        )
    return factory


class Stores:
    """The stores of one filesystem, by event loop.

    A store belongs to the loop and process that opened it. A forked child opens its own. Those of the parent
    are kept, because closing them there would disturb the parent's event loop.

    Args:
        make: Returns a store that is not open.
        is_given: Whether the user opens and closes the store, unless it is not open yet.
    """

    def __init__(self, make: Callable[[], Trove], *, is_given: bool) -> None:
        self._make = make
        self._is_given = is_given
        self._pid = os.getpid()
        self._opening: dict[asyncio.AbstractEventLoop, OwnedTask[Trove]] = {}
        self._open: dict[asyncio.AbstractEventLoop, Trove] = {}
        self._inherited: list[object] = []
        self._borrowed: list[Trove] = []
        self._writers: WeakKeyDictionary[FileWriter, asyncio.AbstractEventLoop] = (
            WeakKeyDictionary()
        )
        _all_stores.add(self)

    async def get(self) -> Trove:
        """Return the store of the running event loop. Open it if this is its first use."""
        if self._pid != os.getpid():
            self._inherited += [self._open, self._opening]
            self._open, self._opening, self._pid = {}, {}, os.getpid()
        loop = asyncio.get_running_loop()
        store = self._open.get(loop)
        return await self._open_in(loop) if store is None else store

    async def _open_in(self, loop: asyncio.AbstractEventLoop) -> Trove:
        for other in [other for other in list(self._open) if other.is_closed()]:
            self._open.pop(other, None)  # its store can no longer be closed
        opening = self._opening.get(loop)
        if opening is None:
            opening = self._opening[loop] = OwnedTask(self._opened())
        try:
            store = await opening.result()
        finally:
            if opening.done:  # the next call may succeed
                self._opening.pop(loop, None)
        self._open[loop] = store
        return store

    async def _opened(self) -> Trove:
        store = await in_thread(self._make)  # it may import modules, and read a configuration
        if not isinstance(store, Trove):
            raise TypeError(f"store must return a Trove, got {type(store).__name__}")
        try:
            return await store.open()
        except ClosedError:
            if not self._is_given:
                raise
            self._borrowed.append(store)
            return store  # the user has opened it

    def add_writer(self, writer: FileWriter) -> None:
        """Abort a file when its store is closed, if it is still open then."""
        self._writers[writer] = asyncio.get_running_loop()

    async def aclose(self) -> None:
        """Close the store of the running event loop. The next use opens a new one."""
        store = self._open.pop(asyncio.get_running_loop(), None)
        if store is not None:
            await self._close(store)

    async def _close(self, store: Trove) -> None:
        loop = asyncio.get_running_loop()
        for writer in [writer for writer, its_loop in self._writers.items() if its_loop is loop]:
            await writer.abort()  # does nothing if it is closed
        if store not in self._borrowed:
            await store.aclose()

    def close_soon(self) -> list[Future[None]]:
        """Close all stores whose loops are running, without waiting. Any thread may call this."""
        if self._pid != os.getpid():
            return []
        running = [(loop, store) for loop, store in list(self._open.items()) if loop.is_running()]
        self._open.clear()
        return [
            asyncio.run_coroutine_threadsafe(self._close(store), loop) for loop, store in running
        ]


_all_stores: WeakSet[Stores] = WeakSet()


@atexit.register
def _close_all() -> None:
    """Close the stores while the loop of fsspec, in a daemon thread, is still running."""
    for closing in [closing for stores in list(_all_stores) for closing in stores.close_soon()]:
        with suppress(Exception):  # there is no caller to raise it to
            closing.result(_EXIT_SECONDS)

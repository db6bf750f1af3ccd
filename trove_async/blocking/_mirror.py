"""Turns the methods of async classes into blocking ones, with the same arguments and documentation."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from functools import partial, update_wrapper, wraps
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar, cast

from trove_async.errors import ClosedError

from ._loop import LoopThread, loop_thread

A = TypeVar("A")
F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
T = TypeVar("T")

_NOT_STARTED: Final = (
    "this store is not open yet: use it inside `with Trove(…)`, or call store.start()"
)


class Session:
    """Whether a store is started, and the loop that runs its calls. Shared by all its handles."""

    __slots__ = ("_loop",)

    def __init__(self) -> None:
        self._loop: LoopThread | None = None

    @property
    def is_lost(self) -> bool:
        """Whether the store was started in another process, of which this one is a fork."""
        return self._loop is not None and self._loop.lost

    @property
    def is_started(self) -> bool:
        """Whether the store was started."""
        return self._loop is not None

    def start(self, opening: Coroutine[Any, Any, object]) -> None:
        """Run the coroutine that opens the store, on the loop of this process."""
        loop = loop_thread()
        loop.run(opening)
        self._loop = loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the store and return its result. See `LoopThread.run`.

        Raises:
            ClosedError: The store was not started, or was started before a fork.
        """
        if self._loop is None:
            work.close()
            raise ClosedError(_NOT_STARTED)
        return self._loop.run(work)

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine of the store, which is started and not lost, without waiting."""
        assert self._loop is not None  # noqa: S101 - as required
        return self._loop.submit(work)


class Facade(Generic[A]):
    """A blocking object around an async one.

    Args:
        wrapped: The async object.
        session: The session of its store.
    """

    __slots__ = ("_async", "_session")

    def __init__(self, wrapped: A, session: Session) -> None:
        self._async = wrapped
        self._session = session

    def __reduce__(self) -> str:
        raise TypeError(
            f"a blocking {type(self).__name__} cannot be pickled: create and start a store in each process"
        )

    def __repr__(self) -> str:
        if not hasattr(self, "_async"):
            return f"<blocking {type(self).__name__}, not initialised>"  # its constructor raised
        return f"<blocking {repr(self._async).removeprefix('<')}"


def waits_for(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Any, P], T]:
    """Return the blocking form of an async method."""
    convert = _to_body_or_async if "body" in inspect.signature(method).parameters else _to_async

    @wraps(method)
    def call(self: Facade[Any], /, *args: P.args, **kwargs: P.kwargs) -> T:
        passed = map(convert, args)
        named = {name: convert(value) for name, value in kwargs.items()} if kwargs else kwargs
        # The types of converted arguments are unknown.
        work = cast("Callable[..., Coroutine[Any, Any, T]]", method)(self._async, *passed, **named)
        return self._session.run(work)

    return call


def direct(method: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """Return a method that calls one that is not async, and does not need the loop."""

    @wraps(method)
    def call(self: Facade[Any], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return method(self._async, *args, **kwargs)

    return call


def wrapping(
    method: Callable[Concatenate[Any, P], A], kind: Callable[[A, Session], T]
) -> Callable[Concatenate[Any, P], T]:
    """Return a method that calls one that is not async, and wraps its result in a blocking object."""

    @wraps(method)
    def call(self: Facade[Any], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return kind(method(self._async, *args, **kwargs), self._session)

    return call


def opening(
    method: Callable[Concatenate[Any, P], Awaitable[A]], kind: Callable[[A, Session], T]
) -> Callable[Concatenate[Any, P], T]:
    """Return a method that opens what an async method returns unopened, and wraps it."""

    @wraps(method)
    def call(self: Facade[Any], /, *args: P.args, **kwargs: P.kwargs) -> T:
        unopened = partial(method, self._async, *args, **kwargs)
        return kind(self._session.run(opened(unopened)), self._session)

    return call


async def opened(unopened: Callable[[], Awaitable[A]]) -> A:
    """Open a get or a file, which warns if it is made and not opened."""
    return await unopened()


def documented_by(method: Callable[..., object]) -> Callable[[F], F]:
    """Give a method the documentation, and the signature at run time, of an async one."""

    def decorate(call: F) -> F:
        return cast("F", wraps(method)(call))

    return decorate


def constructed_by(
    factory: Callable[P, A],
) -> Callable[[Callable[[Any, A], T]], Callable[Concatenate[Any, P], T]]:
    """Give a constructor that takes an async object the arguments that construct that object.

    This is for ``__init__``, and for class methods: ``@classmethod`` above
    ``@constructed_by(Async.from_config)``.
    """
    any_factory: Any = factory
    documented = any_factory.__init__ if isinstance(factory, type) else any_factory.__func__

    def decorate(construct: Callable[[Any, A], T]) -> Callable[Concatenate[Any, P], T]:
        def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:  # noqa: ANN401 - any class
            return construct(self, factory(*args, **kwargs))

        return update_wrapper(call, documented)

    return decorate


def _to_async(value: object) -> object:
    """Return an argument for an async method.

    A blocking object is replaced by the async one that it wraps. An iterator is read here: on the loop, it
    could block.
    """
    if isinstance(value, Facade):
        return value._async  # noqa: SLF001 - same module
    return list(value) if isinstance(value, Iterator) else value


def _to_body_or_async(value: object) -> object:
    """As `_to_async`, but keep iterators: the engine reads the body of a put in a thread."""
    return value._async if isinstance(value, Facade) else value  # noqa: SLF001 - same module

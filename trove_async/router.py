"""Routing: the backend that an object belongs to. Only route functions may do I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from inspect import isawaitable
from typing import Literal, TypeAlias, overload

from ._concurrency import for_each
from ._globs import FirstMatch, Glob
from .errors import BackendNotFoundError
from .models import RouteDecision

RouteFunction: TypeAlias = Callable[[str, str], str | Awaitable[str | None] | None]
"""Called with bucket and key. Returns the name of a backend, or ``""`` or None to pass."""

DEFAULT = "default"
"""The reserved name of the default backend."""


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Route:
    r"""A rule that sends matching keys to a backend.

    A pattern matches the whole key, by the rules of Go's ``filepath.Match``: ``*`` and ``?`` do not
    match ``/``, ``[a-z]`` is a class and ``[^a-z]`` its complement, and ``\`` escapes the next
    character. So ``*.log`` does not match ``logs/app.log``. A segment ``**`` matches any number of
    segments: ``**/*.log`` matches that key, and ``logs/**`` matches every key below ``logs/``. For
    the most common rules, use `prefix`, `suffix` and `bucket`.

    Args:
        pattern: The pattern.
        backend: The name of the backend. ``"default"`` is the default backend.
        bucket: Match only keys of this bucket. None: keys of any bucket.

    Raises:
        PatternError: The pattern is malformed. The message contains the position and the reason.
        TypeError: An argument is not a str.

    Example:
        >>> Route("archive/*", "cold")
        Route('archive/*', 'cold')
        >>> Route.suffix(".log", "cold", bucket="data")
        Route.suffix('.log', 'cold', bucket='data')
    """

    kind: Literal["pattern", "prefix", "suffix", "bucket"]
    text: str
    backend: str
    in_bucket: str | None
    glob: Glob = field(compare=False)

    def __init__(self, pattern: str, backend: str, bucket: str | None = None) -> None:
        self._fill("pattern", pattern, backend, bucket, Glob.parse(pattern))

    @classmethod
    def bucket(cls, name: str, backend: str) -> Route:
        """Return a route for every key of a bucket."""
        return cls._new("bucket", name, backend, _checked_str("bucket", name), Glob.starting(""))

    @classmethod
    def prefix(cls, prefix: str, backend: str, bucket: str | None = None) -> Route:
        """Return a route for keys that start with `prefix`. No character of it is special."""
        glob = Glob.starting(_checked_str("prefix", prefix))
        return cls._new("prefix", prefix, backend, bucket, glob)

    @classmethod
    def suffix(cls, suffix: str, backend: str, bucket: str | None = None) -> Route:
        """Return a route for keys that end with `suffix`. No character of it is special."""
        glob = Glob.ending(_checked_str("suffix", suffix))
        return cls._new("suffix", suffix, backend, bucket, glob)

    @classmethod
    def _new(
        cls,
        kind: Literal["prefix", "suffix", "bucket"],
        text: str,
        backend: str,
        in_bucket: str | None,
        glob: Glob,
    ) -> Route:
        route = cls.__new__(cls)
        cls._fill(route, kind, text, backend, in_bucket, glob)
        return route

    def _fill(
        self,
        kind: Literal["pattern", "prefix", "suffix", "bucket"],
        text: str,
        backend: str,
        in_bucket: str | None,
        glob: Glob,
    ) -> None:
        if not isinstance(backend, str):
            raise TypeError(f"the backend of a route must be a str, got {type(backend).__name__}")
        if not isinstance(in_bucket, str | None):
            raise TypeError(f"the bucket of a route must be a str, got {type(in_bucket).__name__}")
        for name, value in (
            ("kind", kind),
            ("text", text),
            ("backend", backend),
            ("in_bucket", in_bucket),
            ("glob", glob),
        ):
            object.__setattr__(self, name, value)

    @property
    def pattern(self) -> str | None:
        """The pattern, or None for a route without one."""
        return self.text if self.kind == "pattern" else None

    @property
    def rule(self) -> str:
        """The rule as text: the pattern, or the kind of match and its argument."""
        return self.text if self.kind == "pattern" else f"{self.kind} {self.text!r}"

    def __repr__(self) -> str:
        if not hasattr(self, "glob"):
            return "<Route, not initialised>"  # its constructor raised
        name = "Route" if self.kind == "pattern" else f"Route.{self.kind}"
        bucket = (
            f", bucket={self.in_bucket!r}"
            if self.in_bucket is not None and self.kind != "bucket"
            else ""
        )
        return f"{name}({self.text!r}, {self.backend!r}{bucket})"

    def can_reach(self, bucket: str, prefix: str) -> bool:
        """Return whether the route may match a key of the bucket that starts with `prefix`."""
        return self.in_bucket in {None, bucket} and self.glob.can_match_below(prefix)

    def covers(self, bucket: str, prefix: str) -> bool:
        """Return whether the route certainly matches every key of the bucket that starts with `prefix`."""
        return self.in_bucket in {None, bucket} and self.glob.covers(prefix)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteIssue:
    """A probable mistake in the routes of a store. `Trove.lint_routes` returns it.

    Attributes:
        route: The route. None: the default backend, for keys that no route matches.
        kind: ``"never_wins"``: an earlier route matches all its keys. ``"shallow"``: a star in its pattern
            matches no keys in deeper folders. ``"capability"``: its backend cannot store what is sent
            there. ``"bucket"``: its bucket cannot exist.
        message: The mistake, and what to write instead.
    """

    route: Route | None
    kind: Literal["never_wins", "shallow", "capability", "bucket"]
    message: str


@dataclass(frozen=True, slots=True)
class _DeclaredFunction:
    """A route function and the declarations passed to `route_function`."""

    function: RouteFunction
    by: Literal["key", "bucket"] = "key"
    reaches: Callable[[str, str], Collection[str]] | None = None

    def __call__(self, bucket: str, key: str) -> str | Awaitable[str | None] | None:
        return self.function(bucket, key)

    @property
    def name(self) -> str:
        """The function's name in messages."""
        return getattr(self.function, "__qualname__", None) or type(self.function).__qualname__


@overload
def route_function(
    function: RouteFunction,
    /,
    *,
    by: Literal["key", "bucket"] = ...,
    reaches: Callable[[str, str], Collection[str]] | None = ...,
) -> RouteFunction: ...
@overload
def route_function(
    *,
    by: Literal["key", "bucket"] = ...,
    reaches: Callable[[str, str], Collection[str]] | None = ...,
) -> Callable[[RouteFunction], RouteFunction]: ...
def route_function(
    function: RouteFunction | None = None,
    /,
    *,
    by: Literal["key", "bucket"] = "key",
    reaches: Callable[[str, str], Collection[str]] | None = None,
) -> RouteFunction | Callable[[RouteFunction], RouteFunction]:
    """Declare what a route function depends on, so that listings can skip backends.

    Use it as a decorator, with or without arguments, or call it with the function.

    Args:
        function: The function, sync or async.
        by: ``"bucket"`` if the result depends on the bucket alone. A listing then calls the
            function with an empty key, and lists only the backend that it returns.
        reaches: Called with a bucket and a prefix. Returns the names of all backends that the
            function may return for a key of the bucket that starts with the prefix.

    Raises:
        ValueError: `by` is neither ``"key"`` nor ``"bucket"``, or `reaches` is passed with
            ``by="bucket"``.
        TypeError: `function` is not callable.

    Example:
        >>> @route_function(by="bucket")
        ... def large(bucket: str, key: str) -> str:
        ...     return "cold" if bucket == "large-files" else ""
    """
    if by not in {"key", "bucket"}:
        raise ValueError(f"by must be 'key' or 'bucket', got {by!r}")
    if by == "bucket" and reaches is not None:
        raise ValueError("reaches must not be passed with by='bucket'")

    def declare(function: RouteFunction) -> RouteFunction:
        if not callable(function):
            raise TypeError(f"a route function must be callable, got {type(function).__name__}")
        return _DeclaredFunction(function, by, reaches)

    return declare if function is None else declare(function)


class Router:
    """The routing rules of a store.

    Args:
        routes: Routes, or ``(pattern, backend)`` pairs. The first match wins.
        functions: Route functions, called in this order and before the routes.
        backends: The names of all backends.
        default: The backend of keys that no rule matches. ``"default"`` is another name for it.

    Raises:
        PatternError: A pattern is malformed.
        BackendNotFoundError: A route names an unknown backend.
        TypeError: An argument has the wrong type.
    """

    def __init__(
        self,
        routes: Sequence[Route | tuple[str, str]] = (),
        functions: Sequence[RouteFunction] = (),
        *,
        backends: Collection[str],
        default: str = DEFAULT,
    ) -> None:
        if callable(functions):
            raise TypeError("route_functions must be a list of functions: pass [function]")
        if isinstance(routes, (str, Route)):
            raise TypeError("routes must be a list of routes: pass [route]")
        for name, rules in (("routes", routes), ("route_functions", functions)):
            if not isinstance(rules, Iterable):
                raise TypeError(f"{name} must be a list, got {type(rules).__name__}")
        self._default = default
        self._backends = tuple(dict.fromkeys((default, *backends)))
        self._names = {name: name for name in self._backends}
        self._names.setdefault(DEFAULT, default)
        self._routes = tuple(_as_route(route) for route in routes)
        self._functions = tuple(
            function
            if isinstance(function, _DeclaredFunction)
            else _DeclaredFunction(_check_function(function))
            for function in functions
        )
        self._callables = tuple(declared.function for declared in self._functions)
        self._targets = tuple(
            self._backend_name(route.backend, f"route {route!r}") for route in self._routes
        )
        self._any_bucket_index = self._make_index(None)
        self._bucket_indexes = {
            bucket: self._make_index(bucket)
            for bucket in {route.in_bucket for route in self._routes} - {None}
            if bucket is not None
        }

    @property
    def routes(self) -> Sequence[Route]:
        """The routes, in order. The first match wins."""
        return self._routes

    @property
    def function_names(self) -> Sequence[str]:
        """The names of the route functions, in order. They are asked before the routes."""
        return [function.name for function in self._functions]

    @property
    def default(self) -> str:
        """The name of the default backend."""
        return self._default

    def _make_index(self, bucket: str | None) -> FirstMatch:
        return FirstMatch(
            (rank, route.glob)
            for rank, route in enumerate(self._routes)
            if route.in_bucket == bucket
        )

    def resolve(self, bucket: str, key: str) -> str | Awaitable[str]:
        """Return the name of the key's backend, or an awaitable of the name if a function is async.

        Raises:
            BackendNotFoundError: A function returned an unknown name.
            TypeError: A function returned neither a str nor None.
            Exception: A function raised an error.
        """
        # Not a coroutine: a listing resolves every key, and most functions are synchronous.
        for position, function in enumerate(self._callables):
            result = function(bucket, key)
            if result is None or result == "":
                continue
            if isinstance(result, str) or not isawaitable(result):
                return self._returned_name(position, result)
            return self._resolve_later(bucket, key, position, result)
        if not self._routes:
            return self._default
        rank = self._rank(bucket, key)
        return self._targets[rank] if rank < len(self._targets) else self._default

    async def resolve_all(self, bucket: str, keys: Sequence[str], *, limit: int) -> Sequence[str]:
        """Return the name of each key's backend. Functions are called once for each key.

        Args:
            bucket: The bucket.
            keys: The keys.
            limit: Maximum number of concurrent calls of async functions.

        Raises:
            Exception: As `resolve`.
        """
        if not self._callables:
            return self._resolve_by_routes(bucket, keys)
        names = [""] * len(keys)
        remaining = iter(enumerate(keys))

        async def resolve(numbered: tuple[int, str]) -> None:
            index, key = numbered
            name = self.resolve(bucket, key)
            names[index] = name if isinstance(name, str) else await name

        for index, key in remaining:
            name = self.resolve(bucket, key)
            if isinstance(name, str):
                names[index] = name
                continue
            # A function is async: from here on, await several concurrently.
            names[index] = await name
            await for_each(remaining, resolve, limit=limit)
        return names

    def _resolve_by_routes(self, bucket: str, keys: Sequence[str]) -> Sequence[str]:
        if not self._routes:
            return [self._default] * len(keys)
        names = (*self._targets, self._default)
        # As `_rank`, but with one call for each key.
        find, count = self._any_bucket_index.find, len(self._routes)
        ranks = [find(key, count) for key in keys]
        bucket_index = self._bucket_indexes.get(bucket)
        if bucket_index is not None:
            find = bucket_index.find
            ranks = [find(key, rank) for key, rank in zip(keys, ranks, strict=True)]
        return [names[rank] for rank in ranks]

    async def _resolve_later(
        self, bucket: str, key: str, position: int, pending: Awaitable[str | None]
    ) -> str:
        result = await self._call_functions(bucket, key, position, pending)
        if result is not None:
            return result[1]
        rank = self._rank(bucket, key)
        return self._targets[rank] if rank < len(self._targets) else self._default

    async def explain(self, bucket: str, key: str) -> RouteDecision:
        """Return the key's backend, the rule that chose it, and the reason.

        This calls the functions as `resolve` does, and raises the same errors.
        """
        # 1. The functions come before the routes.
        result = await self._call_functions(bucket, key)
        if result is not None:
            position, backend = result
            return RouteDecision(
                backend=backend,
                rule=self._functions[position].name,
                reason=f"Route function {position + 1} ({self._functions[position].name}) returned"
                f" {backend!r}.",
            )
        # 2. The first route that matches.
        rank = self._rank(bucket, key)
        if rank < len(self._routes):
            route = self._routes[rank]
            in_bucket = "" if route.in_bucket is None else f" in bucket {route.in_bucket!r}"
            matching = {
                "pattern": f"{route.text!r} is the first pattern that matches the key{in_bucket}",
                "prefix": f"the key starts with {route.text!r}{in_bucket}",
                "suffix": f"the key ends with {route.text!r}{in_bucket}",
                "bucket": f"it applies to every key in bucket {route.text!r}",
            }[route.kind]
            return RouteDecision(
                backend=self._targets[rank],
                rule=route.rule,
                reason=f"Route {rank + 1} of {len(self._routes)}: {matching}.",
            )
        # 3. The default.
        has_rules = self._routes or self._functions
        return RouteDecision(
            backend=self._default,
            rule=None,
            reason="No rule matches the key, so it belongs to the default backend."
            if has_rules
            else "There are no rules, so every key belongs to the default backend.",
        )

    async def reaches(self, bucket: str, prefix: str = "") -> tuple[str, ...]:
        """Return the backends that may hold a key of the bucket that starts with `prefix`.

        The result may contain backends without such a key, but omits none that has one. Functions
        declared with ``by="bucket"`` are called.

        Returns:
            Each name once, in the order of the rules. A function without declarations may return any
            backend. The default is added at the end if it is still missing, unless a rule certainly
            matches every such key.
        """
        # A dict as an ordered set.
        reached: dict[str, None] = {}
        # 1. The functions, narrowed by their declarations.
        for position, declared in enumerate(self._functions):
            if declared.by == "bucket":
                result = declared.function(bucket, "")
                if not isinstance(result, str) and isawaitable(result):
                    result = await result
                if result is not None and result != "":
                    reached[self._returned_name(position, result)] = None
                    return tuple(reached)
            elif declared.reaches is None:
                reached.update(dict.fromkeys(self._backends))
            else:
                reached.update(self._reachable_names(position, declared.reaches(bucket, prefix)))
            if len(reached) == len(self._backends):
                return tuple(reached)
        # 2. The routes, up to the first one that matches every key.
        for route, backend in zip(self._routes, self._targets, strict=True):
            if backend not in reached and route.can_reach(bucket, prefix):
                reached[backend] = None
            if route.covers(bucket, prefix):
                return tuple(reached)
        # 3. Keys that no rule matches belong to the default.
        reached[self._default] = None
        return tuple(reached)

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of the backends and rules, the same in every process. Cursors contain it.

        The hash covers the name, position and declaration of a route function, but not its code.
        """
        parts = (
            self._default,
            sorted(self._backends),
            [
                (
                    getattr(declared.function, "__module__", ""),
                    declared.name,
                    declared.by,
                    declared.reaches is not None,
                )
                for declared in self._functions
            ],
            [(route.kind, route.text, route.backend, route.in_bucket) for route in self._routes],
        )
        return hashlib.blake2b(
            repr(parts).encode(errors="surrogatepass"), digest_size=8
        ).hexdigest()

    def _rank(self, bucket: str, key: str) -> int:
        """Return the position of the first route that matches, or the number of routes."""
        # Each bucket's routes have their own index, so that a look-up tests no route of a different
        # bucket.
        rank = self._any_bucket_index.find(key, len(self._routes))
        bucket_index = self._bucket_indexes.get(bucket)
        return rank if bucket_index is None else bucket_index.find(key, rank)

    async def _call_functions(
        self,
        bucket: str,
        key: str,
        start: int = 0,
        pending: Awaitable[str | None] | None = None,
    ) -> tuple[int, str] | None:
        """Return the position and the backend of the first function that returns a name, or None.

        Args:
            bucket: The bucket.
            key: The key.
            start: The position of the first function to call.
            pending: The awaitable that the first function returned, if it was already called.
        """
        for position in range(start, len(self._callables)):
            result = self._callables[position](bucket, key) if pending is None else pending
            pending = None
            if not isinstance(result, str) and isawaitable(result):
                result = await result
            if result is not None and result != "":
                return position, self._returned_name(position, result)
        return None

    def _returned_name(self, position: int, result: object) -> str:
        if not isinstance(result, str):
            raise TypeError(
                f"{self._function_label(position)} must return the name of a backend, '' or None, got"
                f" {type(result).__name__}"
            )
        # The label costs time, so only an error builds it.
        return self._names.get(result) or self._backend_name(result, self._function_label(position))

    def _reachable_names(self, position: int, names: Collection[str]) -> dict[str, None]:
        source = f"`reaches` of {self._function_label(position)}"
        if isinstance(names, str) or not isinstance(names, Collection):
            raise TypeError(
                f"{source} must return a set of backend names, got {type(names).__name__}"
            )
        return dict.fromkeys(self._backend_name(name, source) for name in names)

    def _function_label(self, position: int) -> str:
        return f"route function {position + 1} ({self._functions[position].name})"

    def _backend_name(self, backend: str, source: str) -> str:
        name = self._names.get(backend)
        if name is None:
            raise BackendNotFoundError(
                f"{source} names the unknown backend {backend!r}: there are {_quoted_names(self._names)}",
                backend=backend,
            )
        return name


def _checked_str(kind: str, text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"the {kind} of a route must be a str, got {type(text).__name__}")
    return text


def _quoted_names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names)))


def _as_route(value: Route | tuple[str, str]) -> Route:
    if isinstance(value, Route):
        return value
    if isinstance(value, tuple) and len(value) == 2:  # noqa: PLR2004 - a pair
        return Route(*value)
    raise TypeError(f"a route must be a Route or a (pattern, backend) pair, got {value!r}")


def _check_function(function: RouteFunction) -> RouteFunction:
    if not callable(function):
        raise TypeError(f"a route function must be callable, got {type(function).__name__}")
    return function


class Pinned:
    """The routing of a pinned handle: every key belongs to the same backend.

    Args:
        backend: The backend's name.
    """

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def resolve(self, bucket: str, key: str) -> str:  # noqa: ARG002 - as Router's
        """Return the backend's name."""
        return self.backend

    async def explain(self, bucket: str, key: str) -> RouteDecision:  # noqa: ARG002 - as Router's
        """Return the backend, without a rule."""
        return RouteDecision(
            backend=self.backend, rule=None, reason="The handle is pinned to this backend."
        )

    async def reaches(self, bucket: str, prefix: str = "") -> tuple[str, ...]:  # noqa: ARG002
        """Return the backend's name."""
        return (self.backend,)

    @property
    def fingerprint(self) -> str:
        """The backend's name, because a pinned handle has no rules."""
        return self.backend

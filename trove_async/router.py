"""Where each object goes: route functions first, then patterns, then the default. No I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from inspect import isawaitable
from typing import Literal, TypeAlias, overload

from ._globs import FirstMatch, Glob
from .errors import BackendNotFoundError
from .models import RouteDecision

RouteFunction: TypeAlias = Callable[[str, str], str | Awaitable[str | None] | None]
"""Called with bucket and key; answers a backend's name, or ``""`` or None for "not mine"."""

DEFAULT = "default"
"""The reserved name under which the primary backend is known to every rule."""


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Route:
    r"""One rule: the keys that match go to the backend.

    A pattern sees the whole key and follows Go's ``filepath.Match``: ``*`` and ``?`` never cross
    ``/``, ``[a-z]`` is a class and ``[^a-z]`` its opposite, and ``\`` takes what follows as it is.
    So ``*.log`` does not match ``logs/app.log``. A whole segment ``**`` stands for any number of
    segments: ``**/*.log`` does match it, and ``logs/**`` all below ``logs/``. What people usually
    mean is said more simply by `prefix`, `suffix` and `bucket`.

    Args:
        pattern: The pattern.
        backend: The name of the backend; ``"default"`` is the primary one.
        bucket: Only keys of this bucket; None: of any.

    Raises:
        PatternError: The pattern is malformed; the message says where, and why.

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
        """Send every key of one bucket to the backend."""
        return cls._made("bucket", name, backend, _text("bucket", name), Glob.starting(""))

    @classmethod
    def prefix(cls, prefix: str, backend: str, bucket: str | None = None) -> Route:
        """Send the keys that begin with `prefix` to the backend; no character is special."""
        glob = Glob.starting(_text("prefix", prefix))
        return cls._made("prefix", prefix, backend, bucket, glob)

    @classmethod
    def suffix(cls, suffix: str, backend: str, bucket: str | None = None) -> Route:
        """Send the keys that end with `suffix` to the backend; no character is special."""
        glob = Glob.ending(_text("suffix", suffix))
        return cls._made("suffix", suffix, backend, bucket, glob)

    @classmethod
    def _made(
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
            raise TypeError(f"a route names its backend by a str, not {type(backend).__name__}")
        if not isinstance(in_bucket, str | None):
            raise TypeError(f"a route names its bucket by a str, not {type(in_bucket).__name__}")
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
        """The pattern, of a route that has one."""
        return self.text if self.kind == "pattern" else None

    @property
    def rule(self) -> str:
        """The rule in short: the pattern itself, or what kind of match it is."""
        return self.text if self.kind == "pattern" else f"{self.kind} {self.text!r}"

    def __repr__(self) -> str:
        if not hasattr(self, "glob"):
            return "<Route, never made>"  # its constructor raised
        made = "Route" if self.kind == "pattern" else f"Route.{self.kind}"
        where = (
            f", bucket={self.in_bucket!r}"
            if self.in_bucket is not None and self.kind != "bucket"
            else ""
        )
        return f"{made}({self.text!r}, {self.backend!r}{where})"

    def can_reach(self, bucket: str, prefix: str) -> bool:
        """Tell whether it may match a key of the bucket that begins with `prefix`."""
        return self.in_bucket in {None, bucket} and self.glob.can_match_below(prefix)

    def covers(self, bucket: str, prefix: str) -> bool:
        """Tell whether it certainly matches every key of the bucket that begins so."""
        return self.in_bucket in {None, bucket} and self.glob.covers(prefix)


@dataclass(frozen=True, slots=True)
class _Marked:
    """A route function, with what its author says of it."""

    function: RouteFunction
    by: Literal["key", "bucket"] = "key"
    reaches: Callable[[str, str], Collection[str]] | None = None

    def __call__(self, bucket: str, key: str) -> str | Awaitable[str | None] | None:
        return self.function(bucket, key)

    @property
    def name(self) -> str:
        """What the function is called in messages."""
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
    """Say what a route function depends on, so that a listing need not ask every backend.

    Usable as a decorator, too.

    Args:
        function: The function, sync or async.
        by: ``"bucket"``: the answer depends on the bucket alone. A listing then asks the function
            itself, with an empty key, and only the one backend that it answers.
        reaches: Called with a bucket and a prefix: the names of all backends that the function may
            answer for a key of the bucket that begins so.

    Raises:
        ValueError: Both are given, or `by` is neither ``"key"`` nor ``"bucket"``.

    Example:
        >>> @route_function(by="bucket")
        ... def large(bucket: str, key: str) -> str:
        ...     return "cold" if bucket == "large-files" else ""
    """
    if by not in {"key", "bucket"}:
        raise ValueError(f"a route function goes by 'key' or 'bucket', not by {by!r}")
    if by == "bucket" and reaches is not None:
        raise ValueError("a route function by 'bucket' says itself what it reaches: omit `reaches`")

    def mark(function: RouteFunction) -> RouteFunction:
        if not callable(function):
            raise TypeError(f"a route function is callable, {type(function).__name__} is not")
        return _Marked(function, by, reaches)

    return mark if function is None else mark(function)


class Router:
    """Tells which backend a key belongs to.

    Args:
        routes: Routes, or ``(pattern, backend)`` pairs, in the order in which they are tried.
        functions: Route functions, asked in this order and before the routes, once an operation.
        backends: The names of all backends.
        default: The one that gets what no rule claims. ``"default"`` names it as well.

    Raises:
        PatternError: The pattern of a pair is malformed.
        BackendNotFoundError: A route names a backend that is not there.
        TypeError: They are no sequences of such.
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
            raise TypeError("route_functions is a list of functions: write [function]")
        if isinstance(routes, (str, Route)):
            raise TypeError("routes is a list of routes: write [route]")
        self._default = default
        self._backends = tuple(dict.fromkeys((default, *backends)))
        self._names = {name: name for name in self._backends}
        self._names.setdefault(DEFAULT, default)
        self._routes = tuple(_route(one) for one in routes)
        self._functions = tuple(
            one if isinstance(one, _Marked) else _Marked(_function(one)) for one in functions
        )
        self._calls = tuple(marked.function for marked in self._functions)
        self._answers = tuple(
            self._known(route.backend, f"route {route!r}") for route in self._routes
        )
        self._everywhere = self._index(None)
        self._inside = {
            bucket: self._index(bucket)
            for bucket in {route.in_bucket for route in self._routes} - {None}
            if bucket is not None
        }

    def _index(self, bucket: str | None) -> FirstMatch:
        return FirstMatch(
            (rank, route.glob)
            for rank, route in enumerate(self._routes)
            if route.in_bucket == bucket
        )

    def resolve(self, bucket: str, key: str) -> str | Awaitable[str]:
        """Return the name of the key's backend, or, where a function is async, an awaitable of it.

        The same bucket and key resolve alike as long as the functions answer alike.

        Raises:
            BackendNotFoundError: A function answered the name of no backend.
            TypeError: A function answered neither a name nor None.
            Exception: Whatever a function raises.
        """
        for position, function in enumerate(self._calls):
            answer = function(bucket, key)
            if answer is None or answer == "":
                continue
            if isinstance(answer, str) or not isawaitable(answer):
                return self._accepted(position, answer)
            return self._resolve_later(bucket, key, position, answer)
        if not self._routes:
            return self._default
        rank = self._rank(bucket, key)
        return self._answers[rank] if rank < len(self._answers) else self._default

    async def _resolve_later(
        self, bucket: str, key: str, position: int, pending: Awaitable[str | None]
    ) -> str:
        answered = await self._ask(bucket, key, position, pending)
        if answered is not None:
            return answered[1]
        rank = self._rank(bucket, key)
        return self._answers[rank] if rank < len(self._answers) else self._default

    async def explain(self, bucket: str, key: str) -> RouteDecision:
        """Return where the key goes, with the rule that decided and a sentence that says why.

        It asks the functions as `resolve` does, and raises what it raises.
        """
        answered = await self._ask(bucket, key)
        if answered is not None:
            position, backend = answered
            return RouteDecision(
                backend=backend,
                rule=self._functions[position].name,
                reason=f"Asked first, {self._described(position)} answered {backend!r} for this key.",
            )
        rank = self._rank(bucket, key)
        if rank < len(self._routes):
            route = self._routes[rank]
            where = "" if route.in_bucket is None else f" and is for bucket {route.in_bucket!r}"
            matching = {
                "pattern": f"pattern {route.text!r} is the first route that matches the key{where}",
                "prefix": f"the key begins with {route.text!r}, the first route that fits{where}",
                "suffix": f"the key ends with {route.text!r}, the first route that fits{where}",
                "bucket": f"bucket {route.text!r} as a whole is the first route that fits",
            }[route.kind]
            return RouteDecision(
                backend=self._answers[rank],
                rule=route.rule,
                reason=f"Route {rank + 1} of {len(self._routes)}: {matching}.",
            )
        any_rule = self._routes or self._functions
        return RouteDecision(
            backend=self._default,
            rule=None,
            reason="No rule claims the key, so it goes to the default backend."
            if any_rule
            else "There are no rules, so everything goes to the default backend.",
        )

    async def reaches(self, bucket: str, prefix: str = "") -> tuple[str, ...]:
        """Return the backends to which some key of the bucket that begins so may be sent.

        It may name one too many, never one too few. Functions marked ``by="bucket"`` are asked.

        Returns:
            Each name once, in the order of the rules; the default last, unless a rule certainly
            takes every such key.
        """
        reached: dict[str, None] = {}
        for position, marked in enumerate(self._functions):
            if marked.by == "bucket":
                answer = marked.function(bucket, "")
                if not isinstance(answer, str) and isawaitable(answer):
                    answer = await answer
                if answer is not None and answer != "":
                    reached[self._accepted(position, answer)] = None
                    return tuple(reached)
            elif marked.reaches is None:
                reached.update(dict.fromkeys(self._backends))
            else:
                reached.update(self._announced(position, marked.reaches(bucket, prefix)))
            if len(reached) == len(self._backends):
                return tuple(reached)
        for route, backend in zip(self._routes, self._answers, strict=True):
            if backend not in reached and route.can_reach(bucket, prefix):
                reached[backend] = None
            if route.covers(bucket, prefix):
                return tuple(reached)
        reached[self._default] = None
        return tuple(reached)

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of backends and rules, the same in every process: a cursor carries it.

        A function is told by its name, its place and its mark; what it does cannot be.
        """
        facts = (
            self._default,
            sorted(self._backends),
            [
                (getattr(one.function, "__module__", ""), one.name, one.by, one.reaches is not None)
                for one in self._functions
            ],
            [(one.kind, one.text, one.backend, one.in_bucket) for one in self._routes],
        )
        return hashlib.blake2b(
            repr(facts).encode(errors="surrogatepass"), digest_size=8
        ).hexdigest()

    def _rank(self, bucket: str, key: str) -> int:
        rank = self._everywhere.find(key, len(self._routes))
        inside = self._inside.get(bucket)
        return rank if inside is None else inside.find(key, rank)

    async def _ask(
        self,
        bucket: str,
        key: str,
        start: int = 0,
        pending: Awaitable[str | None] | None = None,
    ) -> tuple[int, str] | None:
        """Ask the functions from `start` on; `pending` is what that one has returned already."""
        for position in range(start, len(self._calls)):
            answer = self._calls[position](bucket, key) if pending is None else pending
            pending = None
            if not isinstance(answer, str) and isawaitable(answer):
                answer = await answer
            if answer is not None and answer != "":
                return position, self._accepted(position, answer)
        return None

    def _accepted(self, position: int, answer: object) -> str:
        if not isinstance(answer, str):
            raise TypeError(
                f"{self._described(position)} answered {type(answer).__name__}: a route function"
                " answers a backend's name, or '' or None for none"
            )
        # Looked up here as well, so that only a failure pays for its description.
        return self._names.get(answer) or self._known(answer, self._described(position))

    def _announced(self, position: int, names: Collection[str]) -> dict[str, None]:
        what = f"`reaches` of {self._described(position)}"
        if isinstance(names, str) or not isinstance(names, Collection):
            raise TypeError(f"{what} answered {type(names).__name__}, not a set of backends' names")
        return dict.fromkeys(self._known(name, what) for name in names)

    def _described(self, position: int) -> str:
        return f"route function {position + 1} ({self._functions[position].name})"

    def _known(self, backend: str, who: str) -> str:
        name = self._names.get(backend)
        if name is None:
            raise BackendNotFoundError(
                f"{who} names backend {backend!r}; there are {_listed(self._names)}",
                backend=backend,
            )
        return name


def _text(kind: str, text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"a route's {kind} is a str, not {type(text).__name__}")
    return text


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(names)))


def _route(given: Route | tuple[str, str]) -> Route:
    if isinstance(given, Route):
        return given
    if isinstance(given, tuple) and len(given) == 2:  # noqa: PLR2004 - a pair
        return Route(*given)
    raise TypeError(f"a route is a Route or a (pattern, backend) pair, not {given!r}")


def _function(given: RouteFunction) -> RouteFunction:
    if not callable(given):
        raise TypeError(f"a route function is callable, {type(given).__name__} is not")
    return given


class Pinned:
    """The routing of a handle on one backend: everything goes there.

    Args:
        backend: Its name.
    """

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def resolve(self, bucket: str, key: str) -> str:  # noqa: ARG002 - as Router's
        """Return the backend's name."""
        return self.backend

    async def explain(self, bucket: str, key: str) -> RouteDecision:  # noqa: ARG002 - as Router's
        """Return the decision that was taken when the handle was made."""
        return RouteDecision(
            backend=self.backend, rule=None, reason="The handle is pinned: nothing is routed."
        )

    async def reaches(self, bucket: str, prefix: str = "") -> tuple[str, ...]:  # noqa: ARG002
        """Return the one backend."""
        return (self.backend,)

    @property
    def fingerprint(self) -> str:
        """The backend's name: there are no rules."""
        return self.backend

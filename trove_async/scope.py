"""Scopes: which objects a middleware applies to. Only functions of `Scope.when` may do I/O."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from inspect import isawaitable
from types import MethodType
from typing import Literal, NoReturn, Self, TypeAlias

from ._globs import Glob
from .errors import PatternError
from .middleware import ObjectContext

ScopeFunction: TypeAlias = Callable[[str, str], bool | Awaitable[bool]]
"""Called with bucket and key. Returns whether the object is in scope."""


@dataclass(frozen=True, slots=True, init=False, repr=False, eq=False)
class Scope(ABC):
    r"""A rule that decides which objects a middleware applies to. It is immutable.

    Make a scope with `buckets`, `keys`, `content_types`, `backends`, `when` or `everything`. Several
    arguments mean any of them. Combine scopes with ``&`` (both), ``|`` (at least one) and ``~``
    (not); ``and``, ``or`` and ``not`` raise a TypeError.

    The parts of ``a & b`` and ``a | b`` are evaluated from left to right, whatever their cost, and
    only until the result is known. So write cheap parts first: ``Scope.keys("*.csv") &
    Scope.when(function)`` calls the function only for matching keys.

    A pattern matches the whole name, by the rules of `Route`: ``*`` and ``?`` do not match ``/``,
    ``[a-z]`` is a class and ``[^a-z]`` its complement, ``\`` escapes the next character, and a
    segment ``**`` matches any number of segments.

    Scopes made from equal arguments in the same order are equal. Functions are compared by identity.

    Example:
        >>> from trove_async.scope import Scope
        >>> Scope.buckets("tenant-*") & ~Scope.backends("default")
        Scope.buckets('tenant-*') & ~Scope.backends('default')
    """

    def __new__(cls, *_: object) -> Self:
        """Refuse to make a plain `Scope`, with an error that names the methods that make one."""
        if cls is Scope:
            raise TypeError(
                "Scope() cannot be called: use Scope.buckets, keys, content_types, backends, when or"
                " everything"
            )
        return object.__new__(cls)  # not super(), because `slots=True` replaces the class

    @staticmethod
    def buckets(*patterns: str) -> Scope:
        """Return a scope of the objects in buckets that match any of the patterns.

        Raises:
            PatternError: A pattern is malformed. The message contains the position and the reason.
            TypeError: There is no argument, or an argument is not a str.
        """
        return _pattern_scope("buckets", patterns)

    @staticmethod
    def keys(*patterns: str) -> Scope:
        """Return a scope of the objects whose whole key matches any of the patterns.

        Raises:
            PatternError: A pattern is malformed. The message contains the position and the reason.
            TypeError: There is no argument, or an argument is not a str.
        """
        return _pattern_scope("keys", patterns)

    @staticmethod
    def content_types(*patterns: str) -> Scope:
        """Return a scope of the objects whose media type matches any of the patterns.

        Upper and lower case are equal. The media type has no parameters: ``"text/html"`` includes an
        object of type ``text/html; charset=utf-8``. ``*`` does not match ``/``: any type is
        ``"*/*"``. An object without a content type matches no pattern.

        Raises:
            PatternError: A pattern is malformed, or contains parameters.
            TypeError: There is no argument, or an argument is not a str.
        """
        return _pattern_scope("content_types", patterns)

    @staticmethod
    def backends(*names: str) -> Scope:
        """Return a scope of the objects on any of the backends. No character of a name is special.

        Raises:
            TypeError: There is no argument, or an argument is not a str.
        """
        _check_arguments("backends", names)
        return _Backends(names)

    @staticmethod
    def when(function: ScopeFunction) -> Scope:
        """Return a scope of the objects for which a function returns True.

        Args:
            function: Called with bucket and key, sync or async, once for each decision: results are
                not cached. It runs in the caller's task and sees its context variables.

        Raises:
            TypeError: `function` is not callable.
        """
        if not callable(function):
            raise TypeError(
                f"the function of Scope.when must be callable, got {type(function).__name__}"
            )
        return _When(function)

    @staticmethod
    def everything() -> Scope:
        """Return a scope of all objects."""
        return _Everything()

    @abstractmethod
    def includes(self, context: ObjectContext) -> bool | Awaitable[bool]:
        """Return whether the object is in scope, or an awaitable of it if a called function is async.

        Raises:
            TypeError: A function did not return a bool.
            Exception: A function raised an error.
        """

    @abstractmethod
    def backend_names(self) -> frozenset[str]:
        """Return all names of backends that the scope mentions. They need not exist."""

    def on_backend(self, name: str) -> bool | None:  # noqa: ARG002 - scopes that know override this
        """Return whether all objects of a backend are in scope, or none are. None: it depends on them."""
        return None

    def __and__(self, other: Scope) -> Scope:
        return _combine("&", self, other) if isinstance(other, Scope) else NotImplemented

    def __or__(self, other: Scope) -> Scope:
        return _combine("|", self, other) if isinstance(other, Scope) else NotImplemented

    def __invert__(self) -> Scope:
        return self.part if isinstance(self, _Complement) else _Complement(self)

    def __bool__(self) -> NoReturn:
        raise TypeError("a scope is neither true nor false: use &, | and ~ instead of and, or, not")


@dataclass(frozen=True, slots=True, repr=False)
class _Patterns(Scope):
    """The objects with a name that matches any of the patterns."""

    kind: Literal["buckets", "keys", "content_types"]
    texts: tuple[str, ...]
    globs: tuple[Glob, ...] = field(compare=False)

    def includes(self, context: ObjectContext) -> bool:
        match self.kind:
            case "buckets":
                name = context.bucket
            case "keys":
                name = context.key
            case _:
                if not context.content_type:
                    return False
                name = context.content_type.lower()
        # A loop, because a generator for `any` costs more than most tests.
        for glob in self.globs:  # noqa: SIM110
            if glob.test(name):
                return True
        return False

    def backend_names(self) -> frozenset[str]:
        return frozenset()

    def __repr__(self) -> str:
        return f"Scope.{self.kind}({', '.join(map(repr, self.texts))})"


@dataclass(frozen=True, slots=True, repr=False)
class _Backends(Scope):
    """The objects on any of the named backends."""

    names: tuple[str, ...]

    def includes(self, context: ObjectContext) -> bool:
        return context.backend in self.names

    def on_backend(self, name: str) -> bool:
        return name in self.names

    def backend_names(self) -> frozenset[str]:
        return frozenset(self.names)

    def __repr__(self) -> str:
        return f"Scope.backends({', '.join(map(repr, self.names))})"


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class _When(Scope):
    """The objects for which a function returns True."""

    function: ScopeFunction

    def includes(self, context: ObjectContext) -> bool | Awaitable[bool]:
        result = self.function(context.bucket, context.key)
        if isinstance(result, bool):
            return result
        if isawaitable(result):
            return self._awaited(result)
        raise self._result_error(result)

    async def _awaited(self, pending: Awaitable[bool]) -> bool:
        result = await pending
        if not isinstance(result, bool):
            raise self._result_error(result)
        return result

    def _result_error(self, result: object) -> TypeError:
        return TypeError(
            f"{self._name} in a scope must return True or False, got {type(result).__name__}"
        )

    @property
    def _name(self) -> str:
        return getattr(self.function, "__qualname__", None) or type(self.function).__qualname__

    def backend_names(self) -> frozenset[str]:
        return frozenset()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _When):
            return NotImplemented
        return _identity(self.function) == _identity(other.function)

    def __hash__(self) -> int:
        return hash(_identity(self.function))

    def __repr__(self) -> str:
        return f"Scope.when({self._name})"


@dataclass(frozen=True, slots=True, repr=False)
class _Everything(Scope):
    """All objects."""

    def includes(self, context: ObjectContext) -> bool:  # noqa: ARG002 - as the other scopes
        return True

    def on_backend(self, name: str) -> bool:  # noqa: ARG002 - as the other scopes
        return True

    def backend_names(self) -> frozenset[str]:
        return frozenset()

    def __repr__(self) -> str:
        return "Scope.everything()"


@dataclass(frozen=True, slots=True, repr=False)
class _Combination(Scope):
    """The objects in all parts (``&``) or in at least one (``|``).

    No part is a combination with the same operator, so ``a & (b & c)`` equals ``(a & b) & c``.
    """

    operator: Literal["&", "|"]
    parts: tuple[Scope, ...]

    def includes(self, context: ObjectContext) -> bool | Awaitable[bool]:
        # Not a coroutine: the store evaluates the scope for every object, and most scopes need no await.
        decisive = self.operator == "|"  # the first part with this result ends the evaluation
        for position, part in enumerate(self.parts):
            result = part.includes(context)
            if result is decisive:
                return decisive
            if not isinstance(result, bool):
                return self._includes_later(context, position, result)
        return not decisive

    async def _includes_later(
        self, context: ObjectContext, position: int, pending: Awaitable[bool]
    ) -> bool:
        decisive = self.operator == "|"
        if await pending is decisive:
            return decisive
        for part in self.parts[position + 1 :]:
            result = part.includes(context)
            if not isinstance(result, bool):
                result = await result
            if result is decisive:
                return decisive
        return not decisive

    def on_backend(self, name: str) -> bool | None:
        decisive = self.operator == "|"
        results = {part.on_backend(name) for part in self.parts}
        if decisive in results:
            return decisive
        return None if None in results else not decisive

    def backend_names(self) -> frozenset[str]:
        return frozenset[str]().union(*(part.backend_names() for part in self.parts))

    def __repr__(self) -> str:
        # `&` binds more tightly than `|`.
        return f" {self.operator} ".join(
            f"({part!r})" if self.operator == "&" and isinstance(part, _Combination) else repr(part)
            for part in self.parts
        )


@dataclass(frozen=True, slots=True, repr=False)
class _Complement(Scope):
    """The objects that are not in a scope."""

    part: Scope

    def includes(self, context: ObjectContext) -> bool | Awaitable[bool]:
        result = self.part.includes(context)
        return not result if isinstance(result, bool) else _negate(result)

    def on_backend(self, name: str) -> bool | None:
        result = self.part.on_backend(name)
        return None if result is None else not result

    def backend_names(self) -> frozenset[str]:
        return self.part.backend_names()

    def __repr__(self) -> str:
        return f"~({self.part!r})" if isinstance(self.part, _Combination) else f"~{self.part!r}"


async def _negate(pending: Awaitable[bool]) -> bool:
    return not await pending


def _combine(operator: Literal["&", "|"], left: Scope, right: Scope) -> Scope:
    parts: list[Scope] = []
    for scope in (left, right):
        if isinstance(scope, _Combination) and scope.operator == operator:
            parts += scope.parts
        else:
            parts.append(scope)
    return _Combination(operator, tuple(parts))


def _pattern_scope(
    kind: Literal["buckets", "keys", "content_types"], patterns: tuple[str, ...]
) -> Scope:
    _check_arguments(kind, patterns)
    if kind == "content_types":
        patterns = tuple(pattern.lower() for pattern in patterns)
        for pattern in patterns:
            if ";" in pattern:
                raise PatternError(
                    f"bad pattern {pattern!r} at position {pattern.index(';')}: media types are"
                    " matched without parameters"
                )
    return _Patterns(kind, patterns, tuple(map(Glob.parse, patterns)))


def _check_arguments(kind: str, values: tuple[str, ...]) -> None:
    if not values:
        raise TypeError(f"Scope.{kind} needs at least one argument")
    for value in values:
        if not isinstance(value, str):
            raise TypeError(
                f"the arguments of Scope.{kind} must be str, got {type(value).__name__}"
            )


def _identity(function: ScopeFunction) -> tuple[int, ...]:
    # Each access to a method creates a new object.
    if isinstance(function, MethodType):
        return (id(function.__self__), id(function.__func__))
    return (id(function),)

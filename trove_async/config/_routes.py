"""Tables for routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import Discriminator, Tag

from trove_async._named_objects import named_object
from trove_async.router import Route, RouteFunction, route_function

from ._tables import Shorthand, Table
from ._values import ImportPath


class PatternRouteTable(Table):
    """A route for keys that match a pattern."""

    pattern: str
    """The pattern. ``*`` and ``?`` do not match ``/``; ``**`` matches any number of segments."""
    backend: str
    """The name of the backend."""
    bucket: str | None = None
    """Match only keys of this bucket."""

    def route(self) -> Route:
        """Return the route."""
        return Route(self.pattern, self.backend, self.bucket)


class PrefixRouteTable(Table):
    """A route for keys that start with a text."""

    prefix: str
    """The text. No character of it is special."""
    backend: str
    """The name of the backend."""
    bucket: str | None = None
    """Match only keys of this bucket."""

    def route(self) -> Route:
        """Return the route."""
        return Route.prefix(self.prefix, self.backend, self.bucket)


class SuffixRouteTable(Table):
    """A route for keys that end with a text."""

    suffix: str
    """The text. No character of it is special."""
    backend: str
    """The name of the backend."""
    bucket: str | None = None
    """Match only keys of this bucket."""

    def route(self) -> Route:
        """Return the route."""
        return Route.suffix(self.suffix, self.backend, self.bucket)


class BucketRouteTable(Table):
    """A route for all keys of a bucket."""

    bucket: str
    """The bucket."""
    backend: str
    """The name of the backend."""

    def route(self) -> Route:
        """Return the route."""
        return Route.bucket(self.bucket, self.backend)


class FunctionRouteTable(Table):
    """A route function. It must precede all other routes, because it is asked first."""

    function: ImportPath
    """The function of bucket and key: ``package.module:name``."""
    by: Literal["key", "bucket"] | None = None
    """``"bucket"`` if the result depends on the bucket alone."""

    def route_function(self) -> RouteFunction:
        """Return the route function."""
        function: RouteFunction = named_object(self.function)
        return function if self.by is None else route_function(function, by=self.by)


_KINDS = ("function", "pattern", "prefix", "suffix", "bucket")


def _tag(value: object) -> str | None:
    for kind in _KINDS:
        if kind in value if isinstance(value, Mapping) else hasattr(value, kind):
            return f"<{kind}>"
    return None


def _from_pair(value: object) -> object:
    match value:
        case [str(pattern), str(backend)] if isinstance(value, Sequence):
            return {"pattern": pattern, "backend": backend}
    return value


AnyRoute: TypeAlias = Annotated[
    Annotated[FunctionRouteTable, Tag("<function>")]
    | Annotated[PatternRouteTable, Tag("<pattern>")]
    | Annotated[PrefixRouteTable, Tag("<prefix>")]
    | Annotated[SuffixRouteTable, Tag("<suffix>")]
    | Annotated[BucketRouteTable, Tag("<bucket>")],
    Discriminator(
        _tag,
        custom_error_type="config",
        custom_error_message=(
            "must be [pattern, backend], or a table with 'backend' and 'pattern', 'prefix', 'suffix' or"
            " 'bucket', or with 'function'"
        ),
    ),
    Shorthand(
        _from_pair,
        {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2},
    ),
]
"""A route: a table, or a pair of pattern and backend."""

"""Finds mistakes in the routes of a store, without any I/O.

An issue is reported in two cases only: the route certainly has a different effect than its text suggests, or its
pattern is usually meant differently, and no other route shows that it is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from trove_async import _names
from trove_async._globs import Meta
from trove_async.errors import InvalidNameError
from trove_async.router import Route, RouteIssue

from .backends import BackendInfo
from .buckets import CreateMissing
from .glob_inclusion import includes, reaches_deeper
from .transforms import Transforms


def lint_routes(
    routes: Sequence[Route],
    backends: Mapping[str, BackendInfo],
    default: str,
    *,
    transforms: Transforms,
    create_missing: CreateMissing,
) -> Sequence[RouteIssue]:
    """Return the issues of the routes, in their order, and then those of the default backend."""
    issues: list[RouteIssue] = []
    effective: list[Route] = []
    for position, route in enumerate(routes):
        problem = _bucket_problem(route) or _never_wins(routes, position)
        if problem is not None:
            issues.append(problem)
            continue
        effective.append(route)
        issues += _shallow(routes, route)
        info = backends[route.backend]
        issues += _incapable(route, info, transforms)
        if create_missing is True and not info.capabilities.private_namespace:
            issues.append(_shared_names(route, info))
    if not any(route.covers("", "") for route in effective if route.in_bucket is None):
        issues += _incapable(None, backends[default], transforms)
    return issues


def _bucket_problem(route: Route) -> RouteIssue | None:
    """Report a route for a bucket that cannot exist."""
    if route.in_bucket is None:
        return None
    try:
        _names.check_bucket(route.in_bucket)
    except InvalidNameError as error:
        return RouteIssue(
            route=route, kind="bucket", message=f"the route never matches: {error.message}"
        )
    return None


def _never_wins(routes: Sequence[Route], position: int) -> RouteIssue | None:
    """Report a route that an earlier one precedes for all its keys."""
    route = routes[position]
    if route.glob.literal and not route.glob.prefix:
        message = "the route never matches: it matches only the empty key, which no object has"
        return RouteIssue(route=route, kind="never_wins", message=message)
    for number, earlier in enumerate(routes[:position], 1):
        if earlier.in_bucket in {None, route.in_bucket} and includes(earlier.glob, route.glob):
            effect = "the same backend" if earlier.backend == route.backend else "another backend"
            message = (
                f"the route never wins: route {number}, {earlier!r}, matches all its keys and sends them"
                f" to {effect}; put this route first, or remove it"
            )
            return RouteIssue(route=route, kind="never_wins", message=message)
    return None


def _shallow(routes: Sequence[Route], route: Route) -> Iterator[RouteIssue]:
    """Report a pattern whose star looks as if it matched keys in folders, unless another route does."""
    if route.kind != "pattern" or any(
        other.in_bucket in {None, route.in_bucket} and reaches_deeper(other.glob, route.glob)
        for other in routes
    ):
        return
    prefix, suffix = route.glob.prefix, route.glob.suffix
    match route.glob.tokens:
        case (Meta.STAR,):
            advice = "'**' matches every key"
        case (str(), Meta.STAR) if prefix.endswith("/"):
            advice = f"Route.prefix({prefix!r}, …) matches all keys below it"
        case (str(), Meta.STAR):
            advice = f"Route.prefix({prefix!r}, …) matches all keys that start so"
        case (Meta.STAR, str()) if "/" not in suffix:
            advice = f"Route.suffix({suffix!r}, …) matches all keys that end so"
        case _:
            return
    message = f"'*' does not match '/', so {route.text!r} misses keys in deeper folders: {advice}"
    yield RouteIssue(route=route, kind="shallow", message=message)


def _incapable(
    route: Route | None, info: BackendInfo, transforms: Transforms
) -> Iterator[RouteIssue]:
    """Report a backend that refuses every put, because a middleware needs metadata to record itself."""
    if info.capabilities.metadata:
        return
    for middleware, scope in transforms.configured:
        if scope.on_backend(info.name):
            yield RouteIssue(
                route=route,
                kind="capability",
                message=(
                    f"backend {info.name!r} ({info.service}) stores no metadata, so it refuses every put"
                    f" that {middleware!r} applies to: exclude it with"
                    f" ~Scope.backends({info.name!r})"
                ),
            )


def _shared_names(route: Route, info: BackendInfo) -> RouteIssue:
    return RouteIssue(
        route=route,
        kind="capability",
        message=(
            f"create_missing_buckets=True creates buckets on backend {info.name!r} ({info.service}), where"
            " names are shared with other accounts: a put fails if another account has the name. Map"
            " them with Mapped, or pass 'auto' and create them yourself"
        ),
    )

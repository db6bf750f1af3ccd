"""``explain``, ``routes``, ``misplaced``, ``presign`` and ``health``."""

from __future__ import annotations

from typing import Annotated

import typer

from ._command import Session, UsageProblem, command
from ._options import Exact, Location, duration
from ._output import duration_text, shown_size
from ._places import Object


@command
async def explain(session: Session, location: Location) -> None:
    """Show which backend a key belongs to, the rule that decides, and the middlewares of a put."""
    place = await _object(session, location)
    decision = await place.bucket.explain(place.key)
    text = f"{place}: {decision.backend}\n  {decision.reason}"
    if decision.middleware:
        text += f"\n  A put applies {', then '.join(decision.middleware)}."
    for line in text.split("\n") if not session.output.as_json else [""]:
        session.output.result(
            line,
            bucket=place.bucket_name,
            key=place.key,
            backend=decision.backend,
            rule=decision.rule,
            reason=decision.reason,
            middleware=decision.middleware,
        )


@command
async def routes(session: Session) -> None:
    """Show the backends and the routes of the configuration, and probable mistakes in them."""
    place = await session.locate_object("trove://")
    store, output = place.owner, session.output
    router = store._core.router  # noqa: SLF001 - the command line is part of the library
    for name, info in store.backends.items():
        output.result(f"backend {name}: {info.service}", backend=name, service=info.service)
    for function in router.function_names:
        output.result(f"function {function}  ->  what it returns", function=function)
    for route in router.routes:
        where = (
            f" in bucket {route.in_bucket}" if route.in_bucket and route.kind != "bucket" else ""
        )
        output.result(
            f"{route.kind} {route.text}{where}  ->  {route.backend}",
            kind=route.kind,
            match=route.text,
            bucket=route.in_bucket,
            backend=route.backend,
        )
    output.result(f"everything else  ->  {router.default}", kind="default", backend=router.default)
    for issue in store.lint_routes():
        output.result(
            f"note: {issue.message}",
            issue=issue.kind,
            route=repr(issue.route),
            message=issue.message,
        )


@command
async def misplaced(session: Session, location: Location, *, exact: Exact = False) -> None:
    """List the objects that are not on the backend that their keys are routed to."""
    place = await _object(session, location, allow_folder=True)
    count = 0
    async for one in place.bucket.misplaced(prefix=place.key):
        count += 1
        hidden = {True: "  (hidden by another object)", False: "", None: "  (perhaps hidden)"}
        session.output.result(
            f"{shown_size(one.info.size, exact=exact):>10}  {place.named(one.info.key)}  "
            f"{one.info.backend} -> {one.belongs_to}{hidden[one.shadowed]}",
            bucket=place.bucket_name,
            key=one.info.key,
            size=one.info.size,
            backend=one.info.backend,
            belongs_to=one.belongs_to,
            shadowed=one.shadowed,
        )
    session.output.note(
        f"{count:,} misplaced" + (": move them with trove rebalance" if count else "")
    )


@command
async def presign(
    session: Session,
    location: Location,
    *,
    put: Annotated[bool, typer.Option("--put", help="For a put, instead of a get.")] = False,
    expires: Annotated[
        float,
        typer.Option(parser=duration, metavar="DURATION", help="How long it is valid, 7d at most."),
    ] = 3600.0,
    content_type: Annotated[
        str | None, typer.Option(help="The type that a put must have, or that a get returns.")
    ] = None,
) -> None:
    """Print a URL that allows anyone to get or put an object for some time."""
    place = await _object(session, location)
    if put:
        url = await place.bucket.presign_put(place.key, expires=expires, content_type=content_type)
    else:
        url = await place.bucket.presign_get(
            place.key, expires=expires, response_content_type=content_type
        )
    session.output.result(url, url=url, method="PUT" if put else "GET", expires=expires)


@command
async def health(
    session: Session,
    location: Annotated[str, typer.Argument(help="URL. Without it, the configured store.")] = "",
) -> None:
    """Ping all backends. The exit code is 1 if one does not respond."""
    [place] = await session.locate(location or "trove://")
    if not isinstance(place, Object):
        raise UsageProblem(f"{location} must be a URL")
    for name, found in (await place.store.health()).items():
        took = duration_text(found.latency)
        values = {
            "backend": name,
            "ok": found.ok,
            "latency": found.latency,
            "breaker": found.breaker,
        }
        if found.ok:
            session.output.result(f"{name}: ok, {took}", **values)
        else:
            session.output.result(f"{name}: failed after {took}", **values, error=str(found.error))
            session.output.error(f"{name}: {found.error}", found.error)


async def _object(session: Session, text: str, *, allow_folder: bool = False) -> Object:
    [place] = await session.locate(text)
    if not isinstance(place, Object) or not place.bucket_name:
        raise UsageProblem(
            f"{text} must be BUCKET/KEY with --config, or a URL such as s3://BUCKET/KEY"
        )
    if place.is_folder and not allow_folder:
        raise UsageProblem(f"{place} is a folder: name an object")
    return place

"""``mb``, ``rb`` and ``gc-uploads``."""

from __future__ import annotations

from typing import Annotated

import typer

from trove_async.errors import NotSupportedError

from ._command import Session, UsageProblem, command
from ._options import BucketName, duration
from ._output import count_text
from ._places import Object
from ._services import upload_buckets


@command
async def mb(
    session: Session,
    bucket: BucketName,
    *,
    exist_ok: Annotated[bool, typer.Option("--exist-ok", help="Succeed if it exists.")] = False,
    on: Annotated[
        list[str] | None,
        typer.Option(
            help="Backend to create it on, instead of the default; 'all': on each. Repeatable."
        ),
    ] = None,
) -> None:
    """Create a bucket."""
    place = await bucket_of(session, bucket)
    backends = "all" if on == ["all"] else on
    await place.store.create_bucket(place.bucket_name, exist_ok=exist_ok, backends=backends)
    session.output.note(f"created {place}")


@command
async def rb(
    session: Session,
    bucket: BucketName,
    *,
    force: Annotated[
        bool, typer.Option("--force", help="Delete the objects in it first (not old versions).")
    ] = False,
) -> None:
    """Delete a bucket, on all backends. It must be empty."""
    place = await bucket_of(session, bucket)
    if force:
        keys = (info.key async for info in place.bucket.list(include_shadowed=True))
        await place.bucket.delete_many(keys)
    await place.store.delete_bucket(place.bucket_name)
    session.output.note(f"deleted {place}")


@command
async def gc_uploads(
    session: Session,
    bucket: BucketName,
    *,
    older_than: Annotated[
        float,
        typer.Option(
            parser=duration, metavar="DURATION", help="Least age; longer than any upload takes."
        ),
    ] = 7 * 86_400.0,
) -> None:
    """Abort unfinished uploads of a bucket. Their parts cost storage until then."""
    place = await bucket_of(session, bucket)
    kept = upload_buckets(place.store, place.bucket_name)
    if not kept:
        raise NotSupportedError(f"no backend of {place} keeps unfinished uploads")
    for one in kept:
        count = await one.driver.gc_uploads(one.name, older_than=older_than)
        session.output.result(
            f"{one.backend}: aborted {count_text(count, 'unfinished upload')} in {one.name}",
            backend=one.backend,
            bucket=one.name,
            aborted=count,
        )


async def bucket_of(session: Session, text: str) -> Object:
    """Return the bucket that an argument names.

    Raises:
        UsageProblem: It names something else.
    """
    [place] = await session.locate(text)
    if not isinstance(place, Object) or not place.bucket_name or place.key.strip("/"):
        raise UsageProblem(
            f"{text} must name a bucket: BUCKET with --config, or a URL such as s3://BUCKET"
        )
    return place

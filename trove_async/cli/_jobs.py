"""The commands for work over many objects. Each runs one function of `trove_async.jobs`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from trove_async import jobs as all_jobs
from trove_async._quantities import parse_duration, parse_size
from trove_async.jobs import JobProgress, Report, TierRule

from ._command import Session, UsageProblem, command
from ._options import BucketName, Checkpoint, DryRun, Jobs, LimitRate, NoProgress
from ._places import Object
from ._progress import Progress
from ._trees import show_skips


@command
async def rebalance(
    session: Session,
    bucket: BucketName,
    *,
    delete_shadowed: Annotated[
        bool, typer.Option("--delete-shadowed", help="Delete objects that another one hides.")
    ] = False,
    dry_run: DryRun = False,
    jobs: Jobs = 64,
    limit_rate: LimitRate = None,
    checkpoint: Checkpoint = None,
    no_progress: NoProgress = False,
) -> None:
    """Move every object to the backend that the routes name, after a change of the routes."""
    await _run(
        session,
        bucket,
        all_jobs.rebalance,
        delete_shadowed=delete_shadowed,
        dry_run=dry_run,
        **_common(jobs, limit_rate, checkpoint, no_progress=no_progress),
    )


@command
async def tier(
    session: Session,
    bucket: BucketName,
    *,
    rule: Annotated[
        list[str],
        typer.Option(
            help="to=BACKEND[,after=30d][,larger-than=1MiB][,prefix=logs/]. The first that matches. Repeatable."
        ),
    ],
    dry_run: DryRun = False,
    jobs: Jobs = 64,
    limit_rate: LimitRate = None,
    checkpoint: Checkpoint = None,
    no_progress: NoProgress = False,
) -> None:
    """Move objects to other backends by age, size and prefix. The store needs locate = "anywhere"."""
    await _run(
        session,
        bucket,
        all_jobs.tier,
        rules=[tier_rule(text) for text in rule],
        dry_run=dry_run,
        **_common(jobs, limit_rate, checkpoint, no_progress=no_progress),
    )


@command
async def migrate(
    session: Session,
    bucket: BucketName,
    *,
    source: Annotated[str, typer.Option("--from", help="The backend of the objects.")],
    target: Annotated[str, typer.Option("--to", help="The backend to copy them to.")],
    delete: Annotated[
        bool, typer.Option("--delete", help="Move them, instead of copying.")
    ] = False,
    dry_run: DryRun = False,
    jobs: Jobs = 64,
    limit_rate: LimitRate = None,
    checkpoint: Checkpoint = None,
    no_progress: NoProgress = False,
) -> None:
    """Copy or move the objects of one backend to another."""
    await _run(
        session,
        bucket,
        all_jobs.migrate,
        source=source,
        target=target,
        delete=delete,
        dry_run=dry_run,
        **_common(jobs, limit_rate, checkpoint, no_progress=no_progress),
    )


@command
async def verify(
    session: Session,
    bucket: BucketName,
    *,
    against: Annotated[
        str | None,
        typer.Option(help="Compare with the objects of this backend, instead of checksums."),
    ] = None,
    jobs: Jobs = 16,
    limit_rate: LimitRate = None,
    checkpoint: Checkpoint = None,
    no_progress: NoProgress = False,
) -> None:
    """Read every object and compare its checksum."""
    await _run(
        session,
        bucket,
        all_jobs.verify,
        against=against,
        **_common(jobs, limit_rate, checkpoint, no_progress=no_progress),
    )


@command
async def reencode(
    session: Session,
    bucket: BucketName,
    *,
    dry_run: DryRun = False,
    jobs: Jobs = 64,
    limit_rate: LimitRate = None,
    checkpoint: Checkpoint = None,
    no_progress: NoProgress = False,
) -> None:
    """Apply today's middleware to all objects: rotate keys, compress."""
    await _run(
        session,
        bucket,
        all_jobs.reencode,
        dry_run=dry_run,
        **_common(jobs, limit_rate, checkpoint, no_progress=no_progress),
    )


@command
async def repair(
    session: Session,
    bucket: BucketName,
    *,
    mirrored: Annotated[str, typer.Option("--of", help="The mirrored backend.")] = "default",
    deep: Annotated[bool, typer.Option("--deep", help="Compare contents as well.")] = False,
    dry_run: DryRun = False,
    jobs: Jobs = 16,
    limit_rate: LimitRate = None,
    checkpoint: Checkpoint = None,
    no_progress: NoProgress = False,
) -> None:
    """Bring the replicas of a mirrored backend up to date."""
    await _run(
        session,
        bucket,
        all_jobs.repair,
        backend=mirrored,
        deep=deep,
        dry_run=dry_run,
        **_common(jobs, limit_rate, checkpoint, no_progress=no_progress),
    )


def tier_rule(text: str) -> TierRule:
    """Return the rule for the value of an option, such as ``to=cold,after=30d``.

    Raises:
        UsageProblem: It is malformed.
    """
    values: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or name not in {"to", "after", "larger-than", "prefix"} or name in values:
            raise UsageProblem(
                f"--rule must be to=BACKEND,after=30d,larger-than=1MiB,prefix=…, got {text!r}"
            )
        try:
            if name == "after":
                values["after"] = timedelta(seconds=parse_duration(value))
            elif name == "larger-than":
                values["larger_than"] = parse_size(value)
            else:
                values[name] = value
        except ValueError as error:
            raise UsageProblem(f"--rule: {name} {error}") from error
    if "to" not in values:
        raise UsageProblem(f"--rule must name a backend with to=…, got {text!r}")
    return TierRule(**values)


def _common(
    jobs: int, limit_rate: float | None, checkpoint: str | None, *, no_progress: bool
) -> dict[str, Any]:
    return {
        "concurrency": jobs,
        "max_bytes_per_second": limit_rate,
        "checkpoint": None if checkpoint is None else Path(checkpoint),
        "show": not no_progress,
    }


async def _run(
    session: Session,
    bucket: str,
    job: Callable[..., Awaitable[Report]],
    *,
    show: bool,
    **options: Any,  # noqa: ANN401 - of the job
) -> None:
    [place] = await session.locate(bucket)
    if not isinstance(place, Object) or not place.bucket_name:
        raise UsageProblem(f"{bucket} must name a bucket of a configured store")
    with Progress(session.output, "examined", show=show) as progress:

        def count(state: JobProgress) -> None:
            progress.objects, progress.bytes = state.examined, state.bytes
            progress.redraw()

        report = await job(
            place.store, place.bucket_name, prefix=place.key, progress=count, **options
        )
        progress.objects, progress.bytes = report.examined, report.bytes
    _show(session, report)


def _show(session: Session, report: Report) -> None:
    output = session.output
    for kind, finding in report.errors.items():
        for key in finding.keys:
            output.error(f"{report.bucket}/{key}: {kind}: {finding.message}")
        if finding.count > len(finding.keys):
            output.error(f"and {finding.count - len(finding.keys):,} more with {kind}")
    output.result(
        str(report).partition("\n")[0],
        job=report.job,
        bucket=report.bucket,
        dry_run=report.dry_run,
        examined=report.examined,
        changed=report.changed,
        unchanged=report.unchanged,
        skipped=report.skipped,
        failed=report.failed,
        bytes=report.bytes,
        duration=report.duration,
    )
    show_skips(output, report, lambda key: key)

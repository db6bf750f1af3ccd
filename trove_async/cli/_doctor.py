"""``doctor``: finds out what works with a backend, and what that means."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

import typer

from trove_async.bucket import Bucket
from trove_async.errors import (
    BucketNotFoundError,
    NotSupportedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PreconditionFailedError,
    TroveError,
)
from trove_async.store import Trove

from ._command import Session, UsageProblem, command, describe
from ._output import count_text, duration_text
from ._places import Object
from ._services import upload_buckets

Verdict = Literal["ok", "note", "warning", "failed"]

_MAX_SKEW: Final = 300.0
"""Seconds. S3 refuses requests that are 15 minutes off (API Reference, RequestTimeTooSkewed)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        check: The name of the check.
        verdict: How good it is.
        meaning: What was found, and what that means.
    """

    check: str
    verdict: Verdict
    meaning: str


@command
async def doctor(
    session: Session,
    location: Annotated[
        str,
        typer.Argument(
            help="Bucket or folder for the test objects, which are deleted. Without it, no bucket is used."
        ),
    ] = "",
    *,
    read_only: Annotated[bool, typer.Option("--read-only", help="Write no test objects.")] = False,
) -> None:
    """Find out what works with each backend: credentials, permissions, clock, conditions, checksums, listings."""
    [place] = await session.locate(location or "trove://")
    if not isinstance(place, Object):
        raise UsageProblem(
            "local directories need no doctor: name a URL, or a bucket with --config"
        )
    for name, info in place.store.backends.items():
        handle = place.store.backend(name)
        session.output.note(
            f"{name} ({info.service}), at {place if place.bucket_name else 'no bucket'}"
        )
        async for finding in examine(handle, place, name, read_only=read_only):
            session.output.result(
                f"{finding.verdict:8} {finding.check}: {finding.meaning}",
                backend=name,
                check=finding.check,
                verdict=finding.verdict,
                meaning=finding.meaning,
            )
            if finding.verdict == "failed":
                session.output.failures += 1


async def examine(
    store: Trove, place: Object, backend: str, *, read_only: bool
) -> AsyncIterator[Finding]:
    """Iterate over the findings about one backend.

    Args:
        store: The handle that is pinned to the backend.
        place: The bucket and folder.
        backend: The name of the backend.
        read_only: Whether to write nothing.
    """
    health = (await store.health())[backend]
    if not health.ok:
        yield Finding("connection", "failed", describe(health.error or TroveError("no response")))
        return
    yield Finding("connection", "ok", f"responds after {duration_text(health.latency)}")
    if not place.bucket_name:
        yield Finding("bucket", "note", "name a bucket to examine more")
        return
    probe = _Probe(store, store.bucket(place.bucket_name), place)
    for check in (_listing, _uploads):
        finding = await _guarded(check, probe)
        yield finding
        if finding.check == "list" and finding.verdict == "failed":
            return
    if read_only:
        return
    try:
        for check in _WRITING:
            finding = await _guarded(check, probe)
            yield finding
            if check is _write and finding.verdict == "failed":
                return
    finally:
        for key in probe.written:
            await probe.bucket.delete(key)


class _Probe:
    """The objects with which one backend is examined."""

    def __init__(self, store: Trove, bucket: Bucket, place: Object) -> None:
        self.store = store
        self.bucket = bucket
        folder = place.key if place.is_folder else f"{place.key}/"
        self.prefix = folder if place.key else ""
        self.folder = f"{self.prefix}trove-doctor-{secrets.token_hex(6)}/"
        self.key = f"{self.folder}probe"
        self.written: list[str] = []
        self.capabilities = next(iter(store.backends.values())).capabilities

    async def put(self, key: str, body: bytes, **options: object) -> None:
        """Write a test object, which is deleted at the end."""
        self.written.append(key)
        await self.bucket.put(key, body, **options)  # type: ignore[arg-type] # the options of put


_Check = Callable[[_Probe], Awaitable[Finding]]


async def _guarded(check: _Check, probe: _Probe) -> Finding:
    name = check.__name__.strip("_").replace("_", " ")
    try:
        return await check(probe)
    except TroveError as error:
        return Finding("list" if check is _listing else name, "failed", describe(error))


async def _listing(probe: _Probe) -> Finding:
    listing = probe.bucket.list(prefix=probe.prefix, page_size=2)
    try:
        async for _ in listing:
            break
    except BucketNotFoundError:
        return Finding(
            "list",
            "failed",
            f"the bucket does not exist: create it with trove mb {probe.bucket.name}",
        )
    return Finding("list", "ok", "objects can be listed")


async def _uploads(probe: _Probe) -> Finding:
    began: list[datetime] = []
    kept = upload_buckets(probe.store, probe.bucket.name)
    if not kept:
        return Finding("uploads", "ok", "the service keeps no unfinished uploads")
    for one in kept:
        began += await one.driver.unfinished_uploads(one.name)
    if not began:
        return Finding("uploads", "ok", "no unfinished uploads")
    days = (datetime.now(UTC) - min(began)).days
    return Finding(
        "uploads",
        "warning" if days else "note",
        f"{count_text(len(began), 'unfinished upload')}, the oldest {days} days old, which cost storage:"
        " abort old ones with trove gc-uploads",
    )


async def _write(probe: _Probe) -> Finding:
    await probe.put(
        probe.key, b"probe", metadata={"probe": "1"} if probe.capabilities.metadata else None
    )
    return Finding("write", "ok", "objects can be written")


async def _read(probe: _Probe) -> Finding:
    if await probe.bucket.read(probe.key) != b"probe":
        return Finding("read", "failed", "the object has other bytes than those that were written")
    if await probe.bucket.read(probe.key, range=(1, 3)) != b"ro":
        return Finding("read", "failed", "a range has wrong bytes")
    return Finding(
        "read", "ok", "objects and ranges can be read, and have the bytes that were written"
    )


async def _clock(probe: _Probe) -> Finding:
    skew = (datetime.now(UTC) - (await probe.bucket.head(probe.key)).last_modified).total_seconds()
    text = f"this clock differs from the service's by {duration_text(abs(skew))}"
    if abs(skew) > _MAX_SKEW:
        return Finding(
            "clock", "failed", f"{text}: services refuse signatures that are 15 minutes off"
        )
    return Finding("clock", "ok" if abs(skew) < 30 else "warning", text)  # noqa: PLR2004 - generous


async def _checksums(probe: _Probe) -> Finding:
    found = (await probe.bucket.head(probe.key)).checksums
    if not found:
        return Finding(
            "checksums", "note", "the service reports none: bodies are compared by size and etag"
        )
    return Finding("checksums", "ok", f"every body is compared with {', '.join(sorted(found))}")


async def _metadata(probe: _Probe) -> Finding:
    if not probe.capabilities.metadata:
        return Finding(
            "metadata", "note", "not stored: middlewares cannot be used with this backend"
        )
    if (await probe.bucket.head(probe.key)).metadata.get("probe") != "1":
        return Finding("metadata", "failed", "the service has lost it: middlewares would be unsafe")
    return Finding("metadata", "ok", "stored: compression and encryption can be used")


async def _create_if_absent(probe: _Probe) -> Finding:
    name = "create if absent"
    if not probe.capabilities.put_if_none_match:
        return Finding(name, "note", "not supported: a put with if_none_match is refused")
    try:
        await probe.put(probe.key, b"other", if_none_match="*")
    except ObjectExistsError:
        return Finding(name, "ok", "a put with if_none_match never replaces an object")
    return Finding(name, "failed", "the service ignores If-None-Match: a put replaced an object")


async def _replace_if_unchanged(probe: _Probe) -> Finding:
    name = "replace if unchanged"
    if not probe.capabilities.put_if_match:
        return Finding(name, "note", "not supported: a put with if_match is refused")
    old = await probe.bucket.head(probe.key)
    await probe.put(probe.key, b"newer")
    try:
        await probe.put(probe.key, b"lost", if_match=old)
    except PreconditionFailedError:
        return Finding(name, "ok", "a put with if_match replaces only the version that it names")
    except NotSupportedError as error:
        return Finding(name, "note", describe(error))
    return Finding(name, "failed", "the service ignores If-Match: a put replaced a newer object")


async def _order(probe: _Probe) -> Finding:
    names = ["a", "a-b", "a/b"]  # in bytewise order; directories would sort a/b before a-b
    for name in names[1:]:
        await probe.put(f"{probe.folder}{name}", b"")
    keys = [info.key async for info in probe.bucket.list(prefix=probe.folder)]
    expected = sorted([probe.key, *(f"{probe.folder}{name}" for name in names[1:])])
    if sorted(keys) != expected:
        return Finding(
            "listing", "failed", "objects that were just written are missing from the listing"
        )
    if keys != expected:
        return Finding(
            "listing", "note", "not in key order: listings of several backends are not merged"
        )
    return Finding("listing", "ok", "contains every object at once, in key order")


async def _versions(probe: _Probe) -> Finding:
    if (await probe.bucket.head(probe.key)).version_id is None:
        return Finding("versions", "note", "off: a deletion and a put leave no old version")
    return Finding("versions", "ok", "on: old versions are kept, and cost storage")


async def _delete(probe: _Probe) -> Finding:
    await probe.bucket.delete(probe.key)
    await probe.bucket.delete(probe.key)
    try:
        await probe.bucket.head(probe.key)
    except ObjectNotFoundError:
        return Finding("delete", "ok", "objects can be deleted")
    return Finding("delete", "failed", "a deleted object is still there")


_WRITING: Final = (
    _write,
    _read,
    _clock,
    _checksums,
    _metadata,
    _create_if_absent,
    _replace_if_unchanged,
    _order,
    _versions,
    _delete,
)

"""Versions of objects: the one document that tells them, and what makes a bucket keep them.

S3 API Reference, "ListObjectVersions": versions and delete markers stand among one another, by key,
of one key the latest first. Not so in all services: moto tells all markers after all versions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Final, TypeAlias

from trove_async.errors import NotSupportedError
from trove_async.models import VersionInfo
from trove_async.options import ListOptions, VersionPage
from trove_async.paging import TokenCycle, whole_keys

from ._documents import NAMESPACE, check_clear, date_of, key_of, result_of
from ._encoding import strong_etag
from ._xml import MalformedResponse, facts, name

Ask: TypeAlias = Callable[[str, ListOptions], Awaitable[VersionPage]]

_VERSION: Final = "Version"
_MARKER: Final = "DeleteMarker"
_MOST: Final = 1000
"""Entries of a page. S3 API Reference, "ListObjectVersions": max-keys."""

_IS_SIZE = re.compile(r"[0-9]{1,19}").fullmatch


def versions_query(options: ListOptions) -> dict[str, str]:
    """Return the query of ListObjectVersions."""
    query = {
        "versions": "",
        "max-keys": str(min(options.limit, _MOST)),
    }
    if options.prefix:
        query["prefix"] = options.prefix
    key, version_id = markers(options)
    if key is not None:
        query["key-marker"] = key
    if version_id is not None:
        query["version-id-marker"] = version_id
    return query


def markers(options: ListOptions) -> tuple[str | None, str | None]:
    """Return the key, and its version, behind which the page begins; without that, the whole key."""
    if options.token is None:
        return options.start_after, None
    key, version_id = json.loads(options.token)
    return key, version_id


def parse_versions(body: bytes, *, bucket: str, backend: str, asked: bool = False) -> VersionPage:
    """Return a page of ListObjectVersions, its keys decoded if the answer encodes them.

    Args:
        body: The answer.
        bucket: For `VersionInfo.bucket`.
        backend: For `VersionInfo.backend`.
        asked: Whether encoded keys were asked for.

    Raises:
        UnclearError: They were, and the answer does not say whether it encodes them.
        AnsweredError: It is an error.
        MalformedResponse: It is no such page, or not all of it.
    """
    root = result_of(body, "ListVersionsResult")
    page = facts(root)
    encoded = page.get("EncodingType", "").strip() == "url"
    told = [item for item in root if name(item) in {_VERSION, _MARKER}]
    if asked and not encoded:
        check_clear([facts(item).get("Key", "") for item in told])
    entries = [
        _version(facts(item), bucket, backend, encoded=encoded, deleted=name(item) == _MARKER)
        for item in told
    ]
    kinds = [one.deleted for one in entries]
    if kinds == sorted(kinds) and any(kinds):  # apart, where the one above says among one another
        entries.sort(key=_place)
    if page.get("IsTruncated", "").strip() != "true":
        return VersionPage(entries=entries)
    key = key_of(page.get("NextKeyMarker", ""), encoded=encoded)
    if not key:
        raise MalformedResponse("more versions, and no marker of the next")
    token = json.dumps([key, page.get("NextVersionIdMarker") or None])
    return VersionPage(entries=entries, token=token)


def _version(
    said: dict[str, str], bucket: str, backend: str, *, encoded: bool, deleted: bool
) -> VersionInfo:
    key = key_of(said.get("Key", ""), encoded=encoded)
    version_id = said.get("VersionId", "").strip()
    size = "0" if deleted else said.get("Size", "").strip()
    if not (key and version_id and _IS_SIZE(size)):
        raise MalformedResponse("a version without its key, id or size")
    return VersionInfo(
        bucket=bucket,
        key=key,
        version_id=version_id,
        size=int(size),
        etag=strong_etag(said.get("ETag")),
        last_modified=date_of(said.get("LastModified", "")),
        storage_class=said.get("StorageClass", "").strip() or None,
        latest=said.get("IsLatest", "").strip() == "true",
        deleted=deleted,
        backend=backend,
    )


def _place(version: VersionInfo) -> tuple[str, bool, float]:
    return version.key, not version.latest, -version.last_modified.timestamp()


async def page_behind_markers(ask: Ask, bucket: str, options: ListOptions) -> VersionPage:
    """Return a page of a service that goes on behind a marker, also when that version is gone.

    Services may begin with the key of `ListOptions.start_after`: it is left out here.
    """
    page = await ask(bucket, options)
    return replace(page, entries=_behind(page.entries, options.start_after))


async def page_of_whole_keys(ask: Ask, bucket: str, options: ListOptions) -> VersionPage:
    """Return a page that ends where a key does, or has all versions of one.

    A marker that names a version would be lost with it: Ceph 16.2 then skips the rest of the key.
    """
    after, _ = markers(options)
    if options.start_after is not None:
        after = max(after or "", options.start_after)
    # One more than is wanted shows whether the last key's versions are all there.
    limit = min(options.limit + 1, _MOST)
    asked = ListOptions(prefix=options.prefix, start_after=after, limit=limit)
    told: list[VersionInfo] = []
    cycle = TokenCycle()
    while True:
        page = await ask(bucket, asked)
        told += _behind(page.entries, after)
        if page.token is None or (told and told[0].key != told[-1].key):
            break
        cycle.check(page.token, empty=not page.entries)
        asked = replace(asked, token=page.token)
    told.sort(key=_key_of)  # stable: the newest of a key stays the first
    cut, following = whole_keys(told, options.limit, ended=page.token is None)
    token = None if following is None else json.dumps([cut[-1].key, None])
    return VersionPage(entries=cut, token=token)


def _behind(versions: Sequence[VersionInfo], after: str | None) -> Sequence[VersionInfo]:
    return versions if after is None else [one for one in versions if one.key > after]


async def page_of_all(ask: Ask, bucket: str, options: ListOptions) -> VersionPage:
    """Return a page, cut here out of all versions, of a service that loses some between its own.

    SeaweedFS 4.48 fills a page as it walks its directories, and begins the next behind the page's
    greatest key: of ``a/b`` and ``a``, told in that order on two pages, the second is never told.

    Raises:
        NotSupportedError: There are more than it tells at once.
    """
    all_ = await ask(bucket, ListOptions(prefix=options.prefix, limit=_MOST))
    if all_.token is not None:
        raise NotSupportedError(
            f"the service loses versions where it has more than {_MOST} to tell: give a longer prefix"
        )
    entries = sorted(all_.entries, key=_key_of)
    if options.token is not None:
        # How many of the key's oldest are left: that stays right as others are put and deleted.
        key, left = json.loads(options.token)
        of_key = [one for one in entries if one.key == key]
        entries = of_key[len(of_key) - left :] + [one for one in entries if one.key > key]
    elif options.start_after is not None:
        entries = [one for one in entries if one.key > (options.start_after or "")]
    page, rest = entries[: options.limit], entries[options.limit :]
    if not rest:
        return VersionPage(entries=page)
    key = page[-1].key
    left = sum(one.key == key for one in rest)
    return VersionPage(entries=page, token=json.dumps([key, left]))


_key_of = attrgetter("key")


def versioning_body(*, enabled: bool) -> bytes:
    """Return the body of PutBucketVersioning: what keeps versions once can only be suspended."""
    status = "Enabled" if enabled else "Suspended"
    return (
        f'<VersioningConfiguration xmlns="{NAMESPACE}"><Status>{status}</Status>'
        "</VersioningConfiguration>"
    ).encode()

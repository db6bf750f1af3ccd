"""List object versions, and set a bucket's versioning.

S3 API Reference, "ListObjectVersions": versions and delete markers are sorted together by key, the
latest of a key first. Some services deviate: moto lists all markers after all versions.
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
from trove_async.paging import TokenCycle, split_at_key

from ._documents import NAMESPACE, check_clear, date_of, key_of, result_of
from ._encoding import strong_etag
from ._xml import MalformedResponse, facts, name

Ask: TypeAlias = Callable[[str, ListOptions], Awaitable[VersionPage]]

_VERSION: Final = "Version"
_MARKER: Final = "DeleteMarker"
_MOST: Final = 1000
"""Maximum entries of a page. S3 API Reference, "ListObjectVersions": max-keys."""

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
    """Return the key and the version id after which the page begins.

    Without a version id, the page begins after all versions of the key.
    """
    if options.token is None:
        return options.start_after, None
    key, version_id = json.loads(options.token)
    return key, version_id


def parse_versions(body: bytes, *, bucket: str, backend: str, asked: bool = False) -> VersionPage:
    """Parse a page of ListObjectVersions. Keys are decoded if the response declares an encoding.

    Args:
        body: The response body.
        bucket: The value of `VersionInfo.bucket`.
        backend: The value of `VersionInfo.backend`.
        asked: Whether the request asked for encoded keys.

    Raises:
        UnclearError: The request asked for encoded keys, the response declares no encoding, and
            the keys are ambiguous.
        AnsweredError: The document is an error.
        MalformedResponse: The body is not a page, or is incomplete.
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
    if kinds == sorted(kinds) and any(kinds):  # the markers follow the versions, as in moto
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
    """Return a page from a service that continues after a marker, even if that version is gone.

    The page excludes the key of `ListOptions.start_after`, with which some services begin.
    """
    page = await ask(bucket, options)
    return replace(page, entries=_behind(page.entries, options.start_after))


async def page_of_whole_keys(ask: Ask, bucket: str, options: ListOptions) -> VersionPage:
    """Return a page that ends after a key's last version, or that holds all versions of one key.

    Its token therefore needs no version id. Ceph 16.2 skips the rest of a key if the version of a
    marker is gone.
    """
    after, _ = markers(options)
    if options.start_after is not None:
        after = max(after or "", options.start_after)
    # One entry beyond the limit shows whether the last key's versions are complete.
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
    told.sort(key=_key_of)  # stable: the newest version of a key stays first
    cut, following = split_at_key(told, options.limit, ended=page.token is None)
    token = None if following is None else json.dumps([cut[-1].key, None])
    return VersionPage(entries=cut, token=token)


def _behind(versions: Sequence[VersionInfo], after: str | None) -> Sequence[VersionInfo]:
    return versions if after is None else [one for one in versions if one.key > after]


async def page_of_all(ask: Ask, bucket: str, options: ListOptions) -> VersionPage:
    """Return a page from a service that loses versions between pages.

    The page is cut from one request for all versions. SeaweedFS 4.48 fills a page in the order of
    its directories, and begins the next after the page's greatest key. If ``a/b`` ends a page and
    ``a`` would begin the next, ``a`` is never listed.

    Raises:
        NotSupportedError: The versions exceed one page of the service.
    """
    all_ = await ask(bucket, ListOptions(prefix=options.prefix, limit=_MOST))
    if all_.token is not None:
        raise NotSupportedError(
            f"the service loses versions where it has more than {_MOST} to tell: give a longer prefix"
        )
    entries = sorted(all_.entries, key=_key_of)
    if options.token is not None:
        # The token counts the key's oldest versions still to list. The count stays right when other
        # versions are added or deleted.
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
    """Return the body of PutBucketVersioning. Versioning can be suspended, but not disabled."""
    status = "Enabled" if enabled else "Suspended"
    return (
        f'<VersioningConfiguration xmlns="{NAMESPACE}"><Status>{status}</Status>'
        "</VersioningConfiguration>"
    ).encode()

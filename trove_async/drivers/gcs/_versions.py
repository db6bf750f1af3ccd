"""Versions of objects: live ones and those that were replaced or deleted, in buckets that keep them.

There are no delete markers: of a key that was deleted, no version is live. The service tells the
versions of a key in order of their generations (JSON API, "Objects: list": versions), the oldest
first; the contract wants the newest first. So a page here ends where a key does, or holds all of one.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from trove_async.errors import BackendError, UnavailableError
from trove_async.models import VersionInfo, VersionPage

from ._listing import FROM, MOST, start_of
from ._names import bucket_path, encode_query
from ._resources import stored_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trove_async.models import ListOptions

    from ._client import Client, Document

_FIELDS: Final = "items(name,generation,size,crc32c,updated,storageClass,timeDeleted),nextPageToken"


async def version_page(
    client: Client, bucket: str, options: ListOptions, backend: str
) -> VersionPage:
    """Return one page. See `Versioned.version_page`."""
    after, start = start_of(options)
    query = {"versions": "true", "fields": _FIELDS, "prettyPrint": "false"}
    # One more than is wanted shows whether the last key's versions are all there.
    query["maxResults"] = str(min(options.limit + 1 + (after is not None), MOST))
    if options.prefix:
        query["prefix"] = options.prefix
    if start:
        query["startOffset"] = start
    path = f"{bucket_path(bucket)}/o"
    told: list[VersionInfo] = []
    while True:
        said = await client.ask("GET", path + encode_query(query))
        told += [one for one in _versions(said, bucket, backend) if one.key != after]
        token = said.get("nextPageToken")
        if not token or (told and told[0].key != told[-1].key):
            break
        if token == query.get("pageToken"):
            raise BackendError("the service's listing leads to the same page again and again")
        query["pageToken"] = token
    return _cut(told, options.limit, ended=not token)


def _cut(told: list[VersionInfo], limit: int, *, ended: bool) -> VersionPage:
    """Return whole keys, as many as fit, at least one; what is cut off is asked for again."""
    end = len(told)
    if not ended or end > limit:
        end = _start_of_key(told, min(limit, end - 1)) or _end_of_key(told, 0)
    page = told[:end]
    page.sort(key=_newest_first)
    more = end < len(told) or not ended
    return VersionPage(entries=page, token=FROM + told[end].key if more else None)


def _start_of_key(told: list[VersionInfo], at: int) -> int:
    while at and told[at - 1].key == told[at].key:
        at -= 1
    return at


def _end_of_key(told: list[VersionInfo], at: int) -> int:
    key = told[at].key
    while at < len(told) and told[at].key == key:
        at += 1
    return at


def _newest_first(version: VersionInfo) -> tuple[str, int]:
    return version.key, -int(version.version_id)


def _versions(said: Document, bucket: str, backend: str) -> list[VersionInfo]:
    try:
        return [_version(item, bucket, backend) for item in said.get("items", ())]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UnavailableError(f"the service's answer makes no sense: {error!r}") from error


def _version(said: Mapping[str, Any], bucket: str, backend: str) -> VersionInfo:
    generation = str(int(said["generation"]))
    return VersionInfo(
        bucket=bucket,
        key=said["name"],
        version_id=generation,
        size=stored_size(said),
        etag=generation,
        last_modified=datetime.fromisoformat(said["updated"]),
        storage_class=said.get("storageClass"),
        latest=not said.get("timeDeleted"),
        backend=backend,
    )

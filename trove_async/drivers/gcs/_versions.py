"""Versions of objects: live ones and those that were replaced or deleted, in buckets that keep them.

There are no delete markers: of a key that was deleted, no version is live. The service tells the
versions of a key in order of their generations (JSON API, "Objects: list": versions), the oldest
first; the contract wants the newest first. So a page here ends where a key does, or holds all of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from trove_async.errors import UnavailableError
from trove_async.models import VersionInfo
from trove_async.options import ListOptions, VersionPage
from trove_async.paging import TokenCycle, whole_keys

from ._encoding import bucket_path, encode_query
from ._list_objects import FROM, MOST, start_of
from ._resources import moment, number, stored_size, text

if TYPE_CHECKING:
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
    cycle = TokenCycle()
    while True:
        said = await client.page(path + encode_query(query))
        told += [one for one in _versions(said, bucket, backend) if one.key != after]
        token = said.get("nextPageToken")
        if not token or (told and told[0].key != told[-1].key):
            break
        cycle.check(token, empty=not said.get("items"))
        query["pageToken"] = token
    page, following = whole_keys(told, options.limit, ended=not token)
    return VersionPage(
        entries=sorted(page, key=_newest_first),
        token=None if following is None else FROM + following,
    )


def _newest_first(version: VersionInfo) -> tuple[str, int]:
    return version.key, -int(version.version_id)


def _versions(said: Document, bucket: str, backend: str) -> list[VersionInfo]:
    try:
        return [_version(item, bucket, backend) for item in said.get("items", ())]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UnavailableError(f"the service's answer makes no sense: {error!r}") from error


def _version(said: Mapping[str, Any], bucket: str, backend: str) -> VersionInfo:
    key, generation = said["name"], str(number(said["generation"]))
    if not isinstance(key, str):
        raise TypeError("a name that is no string")
    return VersionInfo(
        bucket=bucket,
        key=key,
        version_id=generation,
        size=stored_size(said),
        etag=generation,
        last_modified=moment(said["updated"]),
        storage_class=text(said, "storageClass"),
        latest=not said.get("timeDeleted"),
        backend=backend,
    )

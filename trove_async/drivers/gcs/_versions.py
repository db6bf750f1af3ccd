"""Lists one page of versions of objects: live, replaced and deleted ones.

There are no delete markers: a deleted object has no live version. The service lists the versions of a key
by generation, oldest first (JSON API, "Objects: list": versions). The driver contract requires newest
first, so a page has all versions of each of its keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from trove_async.errors import UnavailableError
from trove_async.models import VersionInfo
from trove_async.options import ListOptions, VersionPage
from trove_async.paging import TokenCycle, split_at_key

from ._encoding import bucket_path, encode_query
from ._list_objects import FROM_TEXT, MAX_RESULTS, parse_start
from ._resources import optional_text, parse_number, parse_time, stored_size

if TYPE_CHECKING:
    from ._client import Client, Document

_FIELDS: Final = "items(name,generation,size,crc32c,updated,storageClass,timeDeleted),nextPageToken"


async def version_page(
    client: Client, bucket: str, options: ListOptions, backend: str
) -> VersionPage:
    """Return one page. See `Versioned.version_page`."""
    after, start = parse_start(options)
    query = {"versions": "true", "fields": _FIELDS, "prettyPrint": "false"}
    # An entry beyond the limit shows whether the last key on the page has more versions.
    query["maxResults"] = str(min(options.limit + 1 + (after is not None), MAX_RESULTS))
    if options.prefix:
        query["prefix"] = options.prefix
    if start:
        query["startOffset"] = start
    path = f"{bucket_path(bucket)}/o"
    versions: list[VersionInfo] = []
    cycle = TokenCycle()
    while True:
        document = await client.get_page(path + encode_query(query))
        versions += [
            version for version in _versions(document, bucket, backend) if version.key != after
        ]
        token = document.get("nextPageToken")
        if not token or (versions and versions[0].key != versions[-1].key):
            break
        cycle.check(token, empty=not document.get("items"))
        query["pageToken"] = token
    entries, next_key = split_at_key(versions, options.limit, ended=not token)
    return VersionPage(
        entries=sorted(entries, key=_newest_first),
        token=None if next_key is None else FROM_TEXT + next_key,
    )


def _newest_first(version: VersionInfo) -> tuple[str, int]:
    return version.key, -int(version.version_id)


def _versions(document: Document, bucket: str, backend: str) -> list[VersionInfo]:
    try:
        return [_version(item, bucket, backend) for item in document.get("items", ())]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UnavailableError(f"the service's response is malformed: {error!r}") from error


def _version(document: Mapping[str, Any], bucket: str, backend: str) -> VersionInfo:
    key, generation = document["name"], str(parse_number("generation", document["generation"]))
    if not isinstance(key, str):
        raise TypeError("the name is not a string")
    return VersionInfo(
        bucket=bucket,
        key=key,
        version_id=generation,
        size=stored_size(document),
        etag=generation,
        last_modified=parse_time("updated", document["updated"]),
        storage_class=optional_text(document, "storageClass"),
        latest=not document.get("timeDeleted"),
        backend=backend,
    )

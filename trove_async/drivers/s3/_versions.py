"""List object versions, and set a bucket's versioning.

S3 API Reference, "ListObjectVersions": versions and delete markers are sorted together by key, with
the latest of each key first. Some services deviate: moto lists delete markers after all versions.
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

from ._documents import NAMESPACE, check_unambiguous, decode_key, parse_date_field, parse_result
from ._encoding import strong_etag
from ._xml import MalformedResponse, child_texts, local_name

RequestPage: TypeAlias = Callable[[str, ListOptions], Awaitable[VersionPage]]

_VERSION: Final = "Version"
_DELETE_MARKER: Final = "DeleteMarker"
_MAX_PAGE: Final = 1000
"""Maximum number of entries of a page. S3 API Reference, "ListObjectVersions": max-keys."""

_IS_SIZE = re.compile(r"[0-9]{1,19}").fullmatch


def versions_query(options: ListOptions) -> dict[str, str]:
    """Return the query of ListObjectVersions."""
    query = {
        "versions": "",
        "max-keys": str(min(options.limit, _MAX_PAGE)),
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


def parse_versions(
    body: bytes, *, bucket: str, backend: str, encoding_requested: bool = False
) -> VersionPage:
    """Parse a page of ListObjectVersions. Keys are decoded if the response declares an encoding.

    Args:
        body: The response body.
        bucket: The value of `VersionInfo.bucket`.
        backend: The value of `VersionInfo.backend`.
        encoding_requested: Whether the request asked for encoded keys.

    Raises:
        AmbiguousKeysError: The request asked for encoded keys, the response declares no encoding, and
            the keys are ambiguous.
        ErrorDocumentError: The document is an error.
        MalformedResponse: The body is not a page, or is incomplete.
    """
    root = parse_result(body, "ListVersionsResult")
    page = child_texts(root)
    encoded = page.get("EncodingType", "").strip() == "url"
    elements = [item for item in root if local_name(item) in {_VERSION, _DELETE_MARKER}]
    if encoding_requested and not encoded:
        check_unambiguous([child_texts(item).get("Key", "") for item in elements])
    entries = [
        _version(
            child_texts(item),
            bucket,
            backend,
            encoded=encoded,
            deleted=local_name(item) == _DELETE_MARKER,
        )
        for item in elements
    ]
    are_deleted = [entry.deleted for entry in entries]
    if are_deleted == sorted(are_deleted) and any(are_deleted):  # as in moto
        entries.sort(key=_sort_key)
    if page.get("IsTruncated", "").strip() != "true":
        return VersionPage(entries=entries)
    key = decode_key(page.get("NextKeyMarker", ""), encoded=encoded)
    if not key:
        raise MalformedResponse("IsTruncated is true, but there is no NextKeyMarker")
    token = json.dumps([key, page.get("NextVersionIdMarker") or None])
    return VersionPage(entries=entries, token=token)


def _version(
    fields: dict[str, str], bucket: str, backend: str, *, encoded: bool, deleted: bool
) -> VersionInfo:
    key = decode_key(fields.get("Key", ""), encoded=encoded)
    version_id = fields.get("VersionId", "").strip()
    size = "0" if deleted else fields.get("Size", "").strip()
    if not (key and version_id and _IS_SIZE(size)):
        raise MalformedResponse("a version has no valid Key, VersionId or Size")
    return VersionInfo(
        bucket=bucket,
        key=key,
        version_id=version_id,
        size=int(size),
        etag=strong_etag(fields.get("ETag")),
        last_modified=parse_date_field("LastModified", fields.get("LastModified", "")),
        storage_class=fields.get("StorageClass", "").strip() or None,
        latest=fields.get("IsLatest", "").strip() == "true",
        deleted=deleted,
        backend=backend,
    )


def _sort_key(version: VersionInfo) -> tuple[str, bool, float]:
    return version.key, not version.latest, -version.last_modified.timestamp()


async def page_after_markers(
    request_page: RequestPage, bucket: str, options: ListOptions
) -> VersionPage:
    """Return a page from a service that continues after a marker even if its version was deleted.

    The page excludes the key `ListOptions.start_after`, with which some services begin.
    """
    page = await request_page(bucket, options)
    return replace(page, entries=_after_key(page.entries, options.start_after))


async def page_of_whole_keys(
    request_page: RequestPage, bucket: str, options: ListOptions
) -> VersionPage:
    """Return a page that ends with a key's last version, even if it exceeds the limit.

    Its token then needs no version id. Ceph 16.2 skips a key's other versions if the version that a
    marker names was deleted.
    """
    after, _ = markers(options)
    if options.start_after is not None:
        after = max(after or "", options.start_after)
    # One entry beyond the limit shows whether the last key's versions are complete.
    limit = min(options.limit + 1, _MAX_PAGE)
    request = ListOptions(prefix=options.prefix, start_after=after, limit=limit)
    versions: list[VersionInfo] = []
    cycle = TokenCycle()
    while True:
        page = await request_page(bucket, request)
        versions += _after_key(page.entries, after)
        if page.token is None or (versions and versions[0].key != versions[-1].key):
            break
        cycle.check(page.token, empty=not page.entries)
        request = replace(request, token=page.token)
    versions.sort(key=_get_key)  # stable: the newest version of a key stays first
    entries, following = split_at_key(versions, options.limit, ended=page.token is None)
    token = None if following is None else json.dumps([entries[-1].key, None])
    return VersionPage(entries=entries, token=token)


def _after_key(versions: Sequence[VersionInfo], key: str | None) -> Sequence[VersionInfo]:
    return versions if key is None else [entry for entry in versions if entry.key > key]


async def page_from_full_listing(
    request_page: RequestPage, bucket: str, options: ListOptions
) -> VersionPage:
    """Return a page from a service that loses versions between pages.

    The page is a part of the response to one request for all versions. SeaweedFS 4.48 fills a page
    in the order of its directories, and begins the next one after the page's greatest key. If
    ``a/b`` ends a page and ``a`` would begin the next one, ``a`` is never listed.

    Raises:
        NotSupportedError: There are more versions than fit in one page of the service.
    """
    listing = await request_page(bucket, ListOptions(prefix=options.prefix, limit=_MAX_PAGE))
    if listing.token is not None:
        raise NotSupportedError(
            f"versions can only be listed for a prefix with at most {_MAX_PAGE} of them, because the"
            " service omits some between pages: pass a longer prefix"
        )
    entries = sorted(listing.entries, key=_get_key)
    if options.token is not None:
        # The token contains the number of the key's oldest versions that are still to be listed.
        # Adding or deleting newer versions does not change it.
        key, remaining_of_key = json.loads(options.token)
        of_key = [entry for entry in entries if entry.key == key]
        entries = of_key[len(of_key) - remaining_of_key :] + [
            entry for entry in entries if entry.key > key
        ]
    elif options.start_after is not None:
        entries = [entry for entry in entries if entry.key > (options.start_after or "")]
    page, remaining = entries[: options.limit], entries[options.limit :]
    if not remaining:
        return VersionPage(entries=page)
    key = page[-1].key
    remaining_of_key = sum(entry.key == key for entry in remaining)
    return VersionPage(entries=page, token=json.dumps([key, remaining_of_key]))


_get_key = attrgetter("key")


def versioning_body(*, enabled: bool) -> bytes:
    """Return the body of PutBucketVersioning. Versioning can be suspended, but not disabled."""
    status = "Enabled" if enabled else "Suspended"
    return (
        f'<VersioningConfiguration xmlns="{NAMESPACE}"><Status>{status}</Status>'
        "</VersioningConfiguration>"
    ).encode()

"""Requests pages of listings as the service's dialect requires."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from trove_async.options import ListOptions, Page, VersionPage
from trove_async.paging import TokenCycle

from ._ceph import page_from_within
from ._directories import page_from_directories
from ._list_objects import check_order
from ._versions import page_after_markers, page_from_full_listing, page_of_whole_keys

if TYPE_CHECKING:
    from ._data_plane import DataPlane
    from ._dialects import Dialect

P = TypeVar("P", Page, VersionPage)


async def list_objects_page(
    plane: DataPlane, dialect: Dialect, bucket: str, options: ListOptions, *, ordered: bool
) -> Page:
    """Return a page of objects. See `next_page`."""
    request_page = plane.list_objects
    if dialect.directories:
        request_page = partial(page_from_directories, request_page)
    elif not dialect.starts_within:
        request_page = partial(page_from_within, request_page)
    return await next_page(request_page, bucket, options, ordered=ordered)


async def list_versions_page(
    plane: DataPlane, dialect: Dialect, bucket: str, options: ListOptions, *, ordered: bool
) -> VersionPage:
    """Return a page of versions. See `next_page`."""
    if dialect.directories:
        page_for = page_from_full_listing
    elif dialect.version_markers:
        page_for = page_after_markers
    else:
        page_for = page_of_whole_keys
    request_page = partial(page_for, plane.list_versions)
    return await next_page(request_page, bucket, options, ordered=ordered)


async def next_page(
    request_page: Callable[[str, ListOptions], Awaitable[P]],
    bucket: str,
    options: ListOptions,
    *,
    ordered: bool,
) -> P:
    """Return the next page that is not empty, or the last page.

    Args:
        request_page: Requests one page.
        bucket: The bucket.
        options: Which page to return.
        ordered: Whether to check that the keys are in bytewise order.

    Raises:
        BackendError: The service repeats a token, or lists in a different order.
    """
    cycle = TokenCycle(options.token)
    page = await request_page(bucket, options)
    cycle.check(page.token, empty=not page.entries)
    # Some services return empty pages in the middle of a listing.
    while not page.entries and page.token is not None:
        page = await request_page(bucket, replace(options, token=page.token))
        cycle.check(page.token, empty=not page.entries)
    if ordered:
        check_order(page, options)
    return page

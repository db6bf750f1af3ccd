"""Pages of listings, in the way that the service's dialect requires."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from trove_async.options import ListOptions, Page, VersionPage
from trove_async.paging import TokenCycle

from ._ceph import page_from_within
from ._directories import page_of
from ._list_objects import check_order
from ._versions import page_behind_markers, page_of_all, page_of_whole_keys

if TYPE_CHECKING:
    from ._data_plane import DataPlane
    from ._dialects import Dialect

P = TypeVar("P", Page, VersionPage)


async def object_page(
    plane: DataPlane, dialect: Dialect, bucket: str, options: ListOptions, *, ordered: bool
) -> Page:
    """Return a page of objects. See `filled_page`."""
    ask = plane.list_objects
    if dialect.directories:
        ask = partial(page_of, ask)
    elif not dialect.starts_within:
        ask = partial(page_from_within, ask)
    return await filled_page(ask, bucket, options, ordered=ordered)


async def version_page(
    plane: DataPlane, dialect: Dialect, bucket: str, options: ListOptions, *, ordered: bool
) -> VersionPage:
    """Return a page of versions. See `filled_page`."""
    if dialect.directories:
        page = page_of_all
    elif dialect.version_markers:
        page = page_behind_markers
    else:
        page = page_of_whole_keys
    return await filled_page(partial(page, plane.list_versions), bucket, options, ordered=ordered)


async def filled_page(
    ask: Callable[[str, ListOptions], Awaitable[P]],
    bucket: str,
    options: ListOptions,
    *,
    ordered: bool,
) -> P:
    """Return the next page that is not empty, or the last page.

    Args:
        ask: Requests one page.
        bucket: The bucket.
        options: The page that the caller asks for.
        ordered: Whether to check that the keys are in bytewise order.

    Raises:
        BackendError: The service repeats a token, or lists in another order.
    """
    cycle = TokenCycle(options.token)
    page = await ask(bucket, options)
    cycle.check(page.token, empty=not page.entries)
    while not page.entries and page.token is not None:
        page = await ask(bucket, replace(options, token=page.token))
        cycle.check(page.token, empty=not page.entries)
    if ordered:
        check_order(page, options)
    return page

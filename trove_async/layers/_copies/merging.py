"""Merges the listings of several ordered drivers, page by page and without state between the pages."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from trove_async._concurrency import task_group
from trove_async.driver import AsyncDriver
from trove_async.errors import BucketNotFoundError, InvalidNameError
from trove_async.models import Entry
from trove_async.options import ListOptions, Page

from .members import cannot_have_bucket, page_after

_KEY: Final = attrgetter("key")


class Row(NamedTuple):
    """One key of a merged listing, and the entry of each member that has it."""

    key: str
    entries: Mapping[int, Entry]


class MergedPage(NamedTuple):
    """The rows of one page, the last key if more follow, and the members without the bucket."""

    rows: Sequence[Row]
    position: str | None
    missing: Mapping[int, BucketNotFoundError]


async def merged_page(
    drivers: Mapping[int, AsyncDriver], bucket: str, options: ListOptions
) -> MergedPage:
    """Return the next `ListOptions.limit` keys that any of the drivers has.

    Each page asks every driver once, so that nothing is kept between two pages. Usually the drivers have
    the same keys, and each entry is requested once.

    Args:
        drivers: Ordered drivers, by the number of the member.
        bucket: The bucket. Drivers that lack it have no keys.
        options: The options of the page. Their token is the position of the page before.
    """
    # 1. Get a page from each driver.
    pages: dict[int, Page] = {}
    missing: dict[int, BucketNotFoundError] = {}

    async def request(number: int, driver: AsyncDriver) -> None:
        try:
            pages[number] = await page_after(driver, bucket, options, options.token)
        except BucketNotFoundError as error:
            missing[number] = error
        except InvalidNameError as error:
            if number == 0:
                raise
            missing[number] = cannot_have_bucket(bucket, error)

    async with task_group() as group:
        for number, driver in drivers.items():
            group.start_soon(request, number, driver)
    # 2. What follows the last key of a page is not known, if it has a successor.
    frontier = min(
        (page.entries[-1].key for page in pages.values() if page.token is not None), default=None
    )
    # 3. Merge the entries up to there.
    found: dict[str, dict[int, Entry]] = {}
    for number in sorted(pages):
        entries = pages[number].entries
        end = len(entries) if frontier is None else bisect_right(entries, frontier, key=_KEY)
        for entry in entries[:end]:
            found.setdefault(entry.key, {})[number] = entry
    rows = [Row(key, found[key]) for key in sorted(found)]
    # 4. Cut the page. Together the drivers may have more keys than one page may have.
    if len(rows) > options.limit:
        rows = rows[: options.limit]
        frontier = rows[-1].key
    return MergedPage(rows, frontier, missing)

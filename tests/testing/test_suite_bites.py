"""The conformance suites find bugs: each broken driver fails the named test of a suite.

The sound memory driver passes the same tests, so that a test which fails for everything is noticed.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

from tests.testing import broken_drivers as broken
from trove_async import BufferPool, ByteRange, RetryPolicy, Trove
from trove_async.drivers import MemoryDriver
from trove_async.models import MiB
from trove_async.testing import DriverSuite, StoreSuite, opened
from trove_async.testing.driver.buckets import CALLS

if TYPE_CHECKING:
    from pathlib import Path

BY_DRIVER_SUITE: list[tuple[type[MemoryDriver], str, dict[str, Any]]] = [
    (
        broken.ForgetsToClamp,
        "test_range_selects",
        {"requested": ByteRange(0, 11), "span": (0, 10)},
    ),
    (
        broken.ReturnsWholeObjectForBadRange,
        "test_range_beyond_the_end_raises",
        {"requested": ByteRange(10)},
    ),
    (
        broken.ReturnsWholeObjectForBadRange,
        "test_range_of_an_empty_object_raises",
        {"requested": ByteRange.last(1)},
    ),
    (broken.ListsBackwards, "test_listing_selects_what_is_asked_for", {}),
    (broken.SortsByUtf16, "test_listing_is_the_same_for_every_page_size", {}),
    (broken.ResumesByCount, "test_listing_goes_on_after_deletions", {"limit": 3}),
    (broken.ResumesByCount, "test_listing_shows_no_key_twice_while_others_are_put", {}),
    (broken.RepeatsPrefixesPerPage, "test_listing_is_the_same_for_every_page_size", {}),
    (broken.DropsPageTokens, "test_listing_is_the_same_for_every_page_size", {}),
    (broken.IgnoresPrefixInsideSegment, "test_listing_selects_what_is_asked_for", {}),
    (broken.IncludesStartAfter, "test_listing_selects_what_is_asked_for", {}),
    (broken.IgnoresConditions, "test_create_only_leaves_what_is_there", {}),
    (broken.IgnoresConditions, "test_replacing_a_version_needs_that_version", {}),
    (broken.ChecksThenActs, "test_create_only_has_one_winner", {}),
    (broken.ChecksThenActs, "test_replacing_a_version_has_one_winner", {}),
    (broken.TruncatesOnFailedPut, "test_replacing_a_version_needs_that_version", {}),
    (broken.PutsInTwoSteps, "test_put_cancelled_anywhere_leaves_the_old_or_the_new", {}),
    (broken.PutsInTwoSteps, "test_put_cancelled_anywhere_makes_all_or_nothing", {}),
    (broken.CreatesMissingBuckets, "test_missing_bucket_is_not_found", {"call": "put"}),
    (broken.KeepsOnlyTheLastView, "test_put_concatenates_its_views", {"size": 7}),
    (broken.UsesSizeAsEtag, "test_put_head_and_get_tell_the_same_facts", {}),
    (broken.UsesSizeAsEtag, "test_etag_differs_for_every_content_of_one_size", {}),
    (
        broken.IgnoresChecksums,
        "test_body_that_is_not_what_was_announced_is_refused",
        {"way": "put"},
    ),
    (broken.KeepsOldMetadata, "test_nothing_of_the_old_object_stays_with_the_new", {}),
    (broken.NormalisesKeys, "test_odd_key_is_kept_as_it_is", {"key": "cafe\u0301"}),
    (broken.NormalisesKeys, "test_odd_keys_are_kept_apart", {}),
    (broken.FoldsSlashes, "test_odd_key_is_kept_as_it_is", {"key": "a//b"}),
    (broken.RaisesOnMissingDelete, "test_delete_of_a_missing_object_is_no_error", {}),
    (broken.DeletesFolders, "test_delete_leaves_nothing_but_the_others", {}),
    (
        broken.ReportsMissingBucketAsMissingObject,
        "test_missing_bucket_is_not_found",
        {"call": "head"},
    ),
    (broken.IgnoresCopiedVersion, "test_copy_of_a_version_that_was_replaced_makes_nothing", {}),
    (broken.HoldsCancelScopeAroundBody, "test_reader_may_be_used_and_left_in_other_tasks", {}),
    (broken.MixesVersions, "test_reader_never_mixes_two_versions", {"change": "replaced"}),
    (broken.EndsOneByteEarly, "test_put_then_get_returns_the_same_bytes", {"size": 1}),
    (
        broken.CommitsOnLeaving,
        "test_upload_left_without_a_commit_leaves_nothing",
        {"way": "by an error"},
    ),
    (broken.CommitsOnLeaving, "test_upload_cancelled_anywhere_leaves_the_old_or_the_new", {}),
    (broken.JoinsPartsAsTheyArrive, "test_parts_may_come_backwards", {}),
    (broken.JoinsPartsAsTheyArrive, "test_part_may_come_again", {}),
    (broken.ChecksBucketLate, "test_upload_into_a_missing_bucket_raises_on_entering", {}),
    (broken.DropsMetadataOfUploads, "test_metadata_is_kept", {"way": "upload"}),
]

BY_STORE_SUITE: list[tuple[type[MemoryDriver], str, dict[str, Any]]] = [
    (
        broken.KeepsOnlyTheLastView,
        "test_put_takes_every_kind_of_body",
        {"kind": "async iterator", "over": "a part"},
    ),
    (
        broken.EndsOneByteEarly,
        "test_put_takes_every_kind_of_body",
        {"kind": "bytes", "over": "a byte"},
    ),
    (broken.JoinsPartsAsTheyArrive, "test_put_of_many_parts", {}),
    (broken.CommitsOnLeaving, "test_put_whose_body_fails_leaves_the_old", {}),
    (broken.ForgetsToClamp, "test_range_selects_by_the_table", {}),
    (broken.ReturnsWholeObjectForBadRange, "test_range_that_selects_nothing_raises", {}),
    (broken.SortsByUtf16, "test_listing_shows_what_is_asked_for", {"page_size": 1000}),
    (
        broken.ListsBackwards,
        "test_cursor_goes_on_behind_every_entry",
        {"page_size": 3, "options": {}},
    ),
    (broken.ResumesByCount, "test_objects_may_be_deleted_as_they_are_listed", {}),
    (broken.IgnoresConditions, "test_create_only_never_replaces", {}),
    (broken.TruncatesOnFailedPut, "test_replacing_a_version_needs_that_version", {}),
    (broken.DropsMetadataOfUploads, "test_metadata_are_kept_or_refused", {"parts": 2}),
    (broken.FoldsSlashes, "test_odd_keys_are_kept_apart", {}),
    (broken.DeletesFolders, "test_delete_is_idempotent", {}),
    (
        broken.PutsInTwoSteps,
        "test_put_cancelled_anywhere_leaves_the_old_or_the_new",
        {"source": "memory", "parts": 0},
    ),
]

CAUGHT = [
    *((DriverSuite, *entry) for entry in BY_DRIVER_SUITE),
    *((StoreSuite, *entry) for entry in BY_STORE_SUITE),
]
IDS = [f"{driver.__name__}-{name}" for _, driver, name, _ in CAUGHT]


async def _run(
    suite: type[DriverSuite | StoreSuite],
    driver: MemoryDriver,
    name: str,
    arguments: dict[str, Any],
    tmp_path: Path,
) -> None:
    """Run one test of a suite with the fixtures and arguments that pytest would pass."""
    if "call" in arguments:
        arguments = {"call": dict(CALLS)[arguments["call"]]}
    test = getattr(suite(), name)
    fixtures: dict[str, Any] = {"bucket": "b", "other_bucket": "c", "tmp_path": tmp_path}
    parameters = inspect.signature(test).parameters

    async def call(**more: Any) -> None:
        available = {**fixtures, **more}
        used = {key: available[key] for key in available.keys() & parameters.keys()}
        await test(**used, **arguments)

    if suite is DriverSuite:
        async with opened(driver) as backend:
            for bucket in ("b", "c"):
                await backend.create_bucket(bucket)
            await call(backend=backend)
    else:
        pool, retry = BufferPool(8 * MiB, 2 * MiB), RetryPolicy(attempts=1)
        async with Trove(driver, pool=pool, retry=retry) as store:
            for bucket in ("b", "c"):
                await store.create_bucket(bucket)
            await call(store=store)


@pytest.mark.parametrize(("suite", "driver", "name", "arguments"), CAUGHT, ids=IDS)
async def test_broken_driver_is_caught(
    suite: type[DriverSuite | StoreSuite],
    driver: type[MemoryDriver],
    name: str,
    arguments: dict[str, Any],
    tmp_path: Path,
) -> None:
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        await _run(suite, driver(), name, arguments, tmp_path)
    assert not isinstance(caught.value, (TypeError, KeyError))
    assert "Timeout" not in str(caught.value)


@pytest.mark.parametrize(("suite", "driver", "name", "arguments"), CAUGHT, ids=IDS)
async def test_sound_driver_passes_the_same_tests(
    suite: type[DriverSuite | StoreSuite],
    driver: type[MemoryDriver],
    name: str,
    arguments: dict[str, Any],
    tmp_path: Path,
) -> None:
    del driver
    await _run(suite, MemoryDriver(), name, arguments, tmp_path)


@pytest.mark.parametrize("suite", [DriverSuite, StoreSuite])
def test_no_topic_overrides_a_test_of_another(suite: type) -> None:
    seen: dict[str, str] = {}
    for topic in suite.__mro__:
        for name in vars(topic):
            if name.startswith("test_"):
                assert name not in seen, f"{name} is in {seen[name]} and {topic.__name__}"
                seen[name] = topic.__name__
    assert len(seen) > 60


async def test_suite_without_fixture_explains_how_to_bind_it() -> None:
    with pytest.raises(NotImplementedError, match="bind the suite"):
        inspect.unwrap(DriverSuite.driver)(DriverSuite())
    with pytest.raises(NotImplementedError, match="bind the suite"):
        await anext(inspect.unwrap(StoreSuite.store)(StoreSuite()))

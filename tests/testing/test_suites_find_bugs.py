"""The conformance suites find bugs: each driver with a bug fails the named test of a suite.

The memory driver must pass the same tests, so that a test that always fails is noticed.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
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

    from trove_async.models import ObjectInfo

BY_DRIVER_SUITE: list[tuple[type[MemoryDriver], str, dict[str, Any]]] = [
    (
        broken.ForgetsToClamp,
        "test_range_selects_its_bytes",
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
    (broken.ListsBackwards, "test_listing_applies_prefix_delimiter_and_start_after", {}),
    (broken.SortsByUtf16, "test_listing_is_the_same_for_every_page_size", {}),
    (broken.ResumesByCount, "test_listing_continues_after_deletions", {"limit": 3}),
    (broken.ResumesByCount, "test_listing_continues_while_objects_are_put", {}),
    (broken.RepeatsPrefixOnNextPage, "test_listing_is_the_same_for_every_page_size", {}),
    (broken.DropsPageTokens, "test_listing_is_the_same_for_every_page_size", {}),
    (
        broken.IgnoresPrefixInsideSegment,
        "test_listing_applies_prefix_delimiter_and_start_after",
        {},
    ),
    (broken.IncludesStartAfter, "test_listing_applies_prefix_delimiter_and_start_after", {}),
    (broken.IgnoresConditions, "test_if_none_match_keeps_existing_object", {}),
    (broken.IgnoresConditions, "test_if_match_replaces_only_the_matching_object", {}),
    (broken.ChecksThenActs, "test_concurrent_if_none_match_puts_have_one_winner", {}),
    (broken.ChecksThenActs, "test_concurrent_if_match_puts_have_one_winner", {}),
    (
        broken.ChecksThenCommits,
        "test_racing_commits_have_one_winner",
        {"condition": "if_none_match"},
    ),
    (broken.ChecksThenCommits, "test_racing_commits_have_one_winner", {"condition": "if_match"}),
    (broken.TruncatesOnFailedPut, "test_if_match_replaces_only_the_matching_object", {}),
    (broken.PutsInTwoSteps, "test_cancelled_put_leaves_old_or_new_object", {}),
    (broken.PutsInTwoSteps, "test_cancelled_put_of_new_key_leaves_whole_object_or_none", {}),
    (broken.CreatesMissingBuckets, "test_missing_bucket_raises_bucket_not_found", {"call": "put"}),
    (broken.KeepsOnlyTheLastView, "test_put_concatenates_its_views", {"size": 7}),
    (broken.UsesSizeAsEtag, "test_put_head_and_get_report_the_same_info", {}),
    (broken.UsesSizeAsEtag, "test_etags_of_bodies_of_one_size_differ", {}),
    (
        broken.IgnoresChecksums,
        "test_body_that_does_not_match_its_checksum_is_refused",
        {"operation": "put"},
    ),
    (broken.KeepsOldMetadata, "test_replaced_object_loses_its_metadata", {}),
    (broken.NormalisesKeys, "test_odd_key_is_kept_unchanged", {"key": "cafe\u0301"}),
    (broken.NormalisesKeys, "test_odd_keys_do_not_collide", {}),
    (broken.CollapsesSlashes, "test_odd_key_is_kept_unchanged", {"key": "a//b"}),
    (broken.RaisesOnDeleteOfMissingObject, "test_delete_of_missing_object_succeeds", {}),
    (broken.DeletesByPrefix, "test_delete_removes_only_its_object", {}),
    (
        broken.ReportsMissingBucketAsMissingObject,
        "test_missing_bucket_raises_bucket_not_found",
        {"call": "head"},
    ),
    (broken.IgnoresCopiedVersion, "test_copy_of_replaced_source_changes_nothing", {}),
    (broken.HoldsCancelScopeAroundBody, "test_reader_can_be_used_and_left_in_other_tasks", {}),
    (broken.MixesVersions, "test_reader_never_mixes_two_versions", {"change": "replaced"}),
    (broken.EndsOneByteEarly, "test_put_then_get_returns_the_same_bytes", {"size": 1}),
    (
        broken.CommitsOnExit,
        "test_upload_without_commit_leaves_nothing",
        {"exit_kind": "error"},
    ),
    (broken.CommitsOnExit, "test_cancelled_upload_leaves_old_or_new_object", {}),
    (broken.JoinsPartsInOrderOfArrival, "test_parts_can_be_sent_in_reverse_order", {}),
    (broken.JoinsPartsInOrderOfArrival, "test_part_can_be_sent_again", {}),
    (broken.ChecksBucketLate, "test_upload_into_a_missing_bucket_raises_on_entering", {}),
    (broken.DropsMetadataOfUploads, "test_metadata_is_kept", {"operation": "upload"}),
]

BY_STORE_SUITE: list[tuple[type[MemoryDriver], str, dict[str, Any]]] = [
    (
        broken.KeepsOnlyTheLastView,
        "test_put_accepts_every_kind_of_body",
        {"kind": "async iterator", "length": "a part"},
    ),
    (
        broken.EndsOneByteEarly,
        "test_put_accepts_every_kind_of_body",
        {"kind": "bytes", "length": "a byte"},
    ),
    (broken.JoinsPartsInOrderOfArrival, "test_put_of_many_parts", {}),
    (broken.CommitsOnExit, "test_put_with_failing_body_keeps_old_object", {}),
    (broken.ForgetsToClamp, "test_range_selects_the_same_bytes_as_the_driver", {}),
    (broken.ReturnsWholeObjectForBadRange, "test_range_that_selects_nothing_raises", {}),
    (broken.SortsByUtf16, "test_listing_applies_its_options", {"page_size": 1000}),
    (
        broken.ListsBackwards,
        "test_cursor_resumes_after_every_entry",
        {"page_size": 3, "options": {}},
    ),
    (broken.ResumesByCount, "test_objects_can_be_deleted_while_listing", {}),
    (broken.IgnoresConditions, "test_if_none_match_never_replaces_an_object", {}),
    (broken.TruncatesOnFailedPut, "test_if_match_replaces_only_the_matching_object", {}),
    (broken.DropsMetadataOfUploads, "test_metadata_is_kept_or_refused", {"parts": 2}),
    (broken.CollapsesSlashes, "test_odd_keys_do_not_collide", {}),
    (broken.DeletesByPrefix, "test_delete_is_idempotent", {}),
    (
        broken.PutsInTwoSteps,
        "test_cancelled_put_leaves_old_or_new_object",
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

    async def call_test(**subject: Any) -> None:
        available = {**fixtures, **subject}
        requested = {key: available[key] for key in available.keys() & parameters.keys()}
        await test(**requested, **arguments)

    if suite is DriverSuite:
        async with opened(driver) as backend:
            for bucket in ("b", "c"):
                await backend.create_bucket(bucket)
            await call_test(backend=backend)
    else:
        pool, retry = BufferPool(8 * MiB, 2 * MiB), RetryPolicy(attempts=1)
        async with Trove(driver, pool=pool, retry=retry) as store:
            for bucket in ("b", "c"):
                await store.create_bucket(bucket)
            await call_test(store=store)


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
    # A wrong entry in the tables above also raises, but does not show that the bug was found.
    assert not isinstance(caught.value, (TypeError, KeyError))
    assert "Timeout" not in str(caught.value)


@pytest.mark.parametrize(("suite", "driver", "name", "arguments"), CAUGHT, ids=IDS)
async def test_correct_driver_passes_the_same_tests(
    suite: type[DriverSuite | StoreSuite],
    driver: type[MemoryDriver],
    name: str,
    arguments: dict[str, Any],
    tmp_path: Path,
) -> None:
    del driver
    await _run(suite, MemoryDriver(), name, arguments, tmp_path)


class ReportsCrc64(MemoryDriver):
    async def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo:
        info = await super().head(bucket, key, version_id)
        return replace(info, checksums={**info.checksums, "crc64nvme": "AAAAAAAAAAA="})


async def test_kinds_of_checksums_unknown_to_the_suite_are_accepted(tmp_path: Path) -> None:
    name = "test_reported_checksums_are_correct"
    await _run(DriverSuite, ReportsCrc64(), name, {}, tmp_path)


@pytest.mark.parametrize("suite", [DriverSuite, StoreSuite])
def test_no_topic_overrides_a_test_of_another(suite: type) -> None:
    topics: dict[str, str] = {}
    for topic in suite.__mro__:
        for name in vars(topic):
            if name.startswith("test_"):
                assert name not in topics, f"{name} is in {topics[name]} and {topic.__name__}"
                topics[name] = topic.__name__
    assert len(topics) > 60


async def test_suite_without_its_fixture_names_the_fixture() -> None:
    with pytest.raises(NotImplementedError, match="override the fixture `driver`"):
        inspect.unwrap(DriverSuite.driver)(DriverSuite())
    with pytest.raises(NotImplementedError, match="override the fixture `store`"):
        await anext(inspect.unwrap(StoreSuite.store)(StoreSuite()))

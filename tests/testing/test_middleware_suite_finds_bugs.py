"""The conformance suite of middlewares finds bugs: each middleware with a bug fails the named test.

Two correct middlewares must pass the whole suite, so that a test that always fails is noticed.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from tests.testing import broken_middlewares as broken
from tests.testing.toy_middlewares import Indexed, Sealed
from trove_async.middleware import Middleware
from trove_async.testing import MiddlewareSuite

KNOWN = {"size_known": True}
UNKNOWN = {"size_known": False}

CAUGHT: list[tuple[type[Sealed | Indexed], str, dict[str, Any]]] = [
    (broken.IgnoresLastFlag, "test_truncated_object_is_refused", {}),
    (broken.IgnoresBlockNumber, "test_dropped_doubled_and_swapped_blocks_are_refused", {}),
    (broken.IgnoresObject, "test_blocks_of_another_object_are_refused", {}),
    (broken.IgnoresBlockNumber, "test_moved_blocks_of_equal_size_are_refused", {}),
    (broken.IgnoresObject, "test_moved_blocks_of_equal_size_are_refused", {}),
    (broken.IgnoresBytesOfBlock, "test_flipped_bit_in_a_small_object_is_noticed", {}),
    (broken.IgnoresBytesOfBlock, "test_flipped_bit_near_a_border_is_noticed", {}),
    (broken.ReturnsItsBuffer, "test_result_does_not_refer_to_the_block", {}),
    (broken.EncodesIntoTheBlock, "test_result_does_not_refer_to_the_block", {}),
    (broken.ReturnsTheBlockItself, "test_result_does_not_refer_to_the_block", {}),
    (broken.SharesBufferAmongThreads, "test_encoding_does_not_depend_on_the_order", {}),
    (broken.EncodesAtRandom, "test_encoding_does_not_depend_on_the_order", {}),
    (broken.CountsItsCalls, "test_encoding_does_not_depend_on_the_order", {}),
    (broken.GivesUpAtLaterBlock, "test_incompressible_blocks_are_restored", {}),
    (broken.UsesBlocksThatAreTooLong, "test_block_sizes_are_within_the_limits", {}),
    (broken.ExpandsTooMuch, "test_every_body_is_restored", KNOWN),
    (broken.PredictsOneBlockTooMany, "test_sizes_are_known_or_none", KNOWN),
    (broken.ForgetsOverheadOfBlocks, "test_sizes_are_known_or_none", KNOWN),
    (broken.WritesLongRecord, "test_record_is_small_and_flat", KNOWN),
    (broken.WritesNestedRecord, "test_record_is_small_and_flat", UNKNOWN),
    (broken.IncludesRoomInChecksum, "test_encoding_into_memory_gives_the_same_bytes", {}),
    (
        broken.ForgetsSmallBodies,
        "test_plain_object_is_current_only_if_a_put_leaves_it_plain",
        {},
    ),
    (broken.NeverCurrent, "test_encoded_object_is_current", {}),
    (broken.LeavesEverything, "test_every_body_is_restored", KNOWN),
    (broken.LeavesEverything, "test_truncated_object_is_refused", {}),
    (broken.SharesOneObjectId, "test_encoders_do_not_influence_each_other", {}),
    (broken.SharesOneObjectId, "test_one_instance_serves_many_objects_concurrently", {}),
    (broken.DrawsKeyPerInstance, "test_another_instance_decodes_the_object", {}),
    (broken.ForgetsTrailer, "test_every_body_is_restored", KNOWN),
    (broken.ForgetsPartOfHeader, "test_every_body_is_restored", KNOWN),
    (broken.DependsOnTheIndex, "test_index_does_not_change_how_a_body_is_decoded", KNOWN),
    (broken.TrustsTheIndex, "test_altered_index_is_noticed", {}),
    (broken.AsksForIndexOutOfBounds, "test_altered_index_is_noticed", {}),
    (broken.LoadsIndexAgainAndAgain, "test_index_is_loaded_once", KNOWN),
    (broken.PlansOneBlockBefore, "test_plan_is_exactly_the_blocks_of_the_range", KNOWN),
    (broken.PlansWholeBody, "test_plan_is_exactly_the_blocks_of_the_range", UNKNOWN),
    (broken.PlansWholeBody, "test_range_does_not_need_other_blocks", {}),
    (broken.SkipsOneByteTooMany, "test_range_returns_its_bytes", KNOWN),
    (broken.MeasuresTooFewBytes, "test_encoded_block_size_needs_only_the_first_bytes", KNOWN),
    (broken.WaitsForTheNextBlock, "test_encoded_block_size_needs_only_the_first_bytes", KNOWN),
    (broken.TrustsLengthOfBlock, "test_overwritten_block_is_refused", {}),
    (broken.ReturnsMoreThanTheBlock, "test_every_body_is_restored", KNOWN),
    (broken.ReturnsBlockThatIsTooLong, "test_every_body_is_restored", UNKNOWN),
    (broken.DecodesOnlyInOrder, "test_blocks_decode_in_any_order_and_in_threads", {}),
    (broken.SharesBlockAmongThreads, "test_blocks_decode_in_any_order_and_in_threads", {}),
    (broken.RefusesEverythingAfterDamage, "test_damaged_block_does_not_affect_the_others", {}),
    (broken.ReturnsNegativeSize, "test_empty_and_foreign_objects_are_refused", {}),
    (broken.ReturnsNegativeSize, "test_size_that_does_not_fit_the_record_is_refused", {}),
    (broken.RaisesValueErrorForBadId, "test_forged_record_is_refused", {}),
    (broken.RaisesValueErrorForBadId, "test_forged_record_of_a_small_object_is_refused", {}),
    (broken.TrustsBlockSize, "test_forged_record_is_refused", {}),
    (broken.ComparesRecordBlindly, "test_forged_record_is_refused_or_not_current", {}),
    (broken.ComputesWith32Bits, "test_sizes_of_long_objects_are_computed", KNOWN),
    (broken.RoundsAtTheEnd, "test_sizes_of_long_objects_are_computed", UNKNOWN),
    (broken.EmptiesTheRecord, "test_context_and_record_are_only_read", {}),
    (broken.DecodesByMediaType, "test_object_is_decoded_by_its_record_alone", {}),
    (broken.ReturnsViewOfNumbers, "test_every_body_is_restored", KNOWN),
    (broken.DividesTheEncodedSize, "test_results_have_the_types_of_the_contract", KNOWN),
    (broken.DividesTheDecodedSize, "test_results_have_the_types_of_the_contract", UNKNOWN),
    (broken.DividesTheSize, "test_results_have_the_types_of_the_contract", KNOWN),
    (broken.PlansWithTuple, "test_results_have_the_types_of_the_contract", KNOWN),
    (broken.ReturnsWritableHeader, "test_results_have_the_types_of_the_contract", KNOWN),
    (broken.ReturnsWritableTrailer, "test_results_have_the_types_of_the_contract", UNKNOWN),
    (broken.RequestsIndexWithList, "test_results_have_the_types_of_the_contract", UNKNOWN),
    (broken.RecordsHugeNumber, "test_record_is_small_and_flat", KNOWN),
    (broken.DividesTheOverhead, "test_encoding_into_memory_gives_the_same_bytes", {}),
    (broken.RunsEverythingInline, "test_optional_sizes_are_possible", {}),
    (broken.ForgetsChecksumInSegment, "test_optional_sizes_are_possible", {}),
    (broken.HasNegativeSegments, "test_optional_sizes_are_possible", {}),
]
IDS = [f"{middleware.__name__}-{name}" for middleware, name, _ in CAUGHT]


class TestSealed(MiddlewareSuite):
    @pytest.fixture
    def middleware(self) -> Middleware:
        return Sealed()


class TestIndexed(MiddlewareSuite):
    @pytest.fixture
    def middleware(self) -> Middleware:
        return Indexed()


async def _run(middleware: type[Sealed | Indexed], name: str, arguments: dict[str, Any]) -> None:
    """Run one test of the suite with the fixtures and arguments that pytest would pass."""
    test = getattr(MiddlewareSuite(), name)
    fixtures: dict[str, Any] = {"middleware": middleware(), "another_middleware": middleware()}
    parameters = inspect.signature(test).parameters
    requested = {key: fixtures[key] for key in fixtures.keys() & parameters.keys()}
    await test(**requested, **arguments)


@pytest.mark.parametrize(("middleware", "name", "arguments"), CAUGHT, ids=IDS)
async def test_broken_middleware_is_caught(
    middleware: type[Sealed | Indexed], name: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        await _run(middleware, name, arguments)
    assert "Timeout" not in str(caught.value)


@pytest.mark.parametrize(("middleware", "name", "arguments"), CAUGHT, ids=IDS)
async def test_correct_middleware_passes_the_same_tests(
    middleware: type[Sealed | Indexed], name: str, arguments: dict[str, Any]
) -> None:
    # A wrong entry in the table above fails here too, so the test above fails because of the bug.
    await _run(Sealed if issubclass(middleware, Sealed) else Indexed, name, arguments)


def test_every_broken_middleware_is_in_the_table() -> None:
    defined = {
        value
        for name, value in vars(broken).items()
        if inspect.isclass(value) and value.__module__ == broken.__name__ and name[0] != "_"
    }
    assert defined == {middleware for middleware, _, _ in CAUGHT}


def test_no_topic_overrides_a_test_of_another() -> None:
    topics: dict[str, str] = {}
    for topic in MiddlewareSuite.__mro__:
        for name in vars(topic):
            if name.startswith("test_"):
                assert name not in topics, f"{name} is in {topics[name]} and {topic.__name__}"
                topics[name] = topic.__name__
    assert len(topics) > 30


class _WithoutBoundBlocks(MiddlewareSuite):
    __test__ = False
    binds_blocks = False


async def test_suite_can_allow_moved_blocks() -> None:
    with pytest.raises(pytest.skip.Exception, match="does not bind blocks"):
        await _WithoutBoundBlocks().test_moved_blocks_of_equal_size_are_refused(Sealed())


def test_suite_without_its_fixture_names_the_fixture() -> None:
    with pytest.raises(NotImplementedError, match="override the fixture `middleware`"):
        inspect.unwrap(MiddlewareSuite.middleware)(MiddlewareSuite())

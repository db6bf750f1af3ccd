"""On mutated responses, operations return a correct result or raise a TroveError in time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.drivers.fuzzing import (
    BODY,
    DRIVERS,
    EXPECTED,
    OPERATIONS,
    make_case,
    read_recordings,
    replay,
)
from trove_async import TroveError
from trove_async.drivers.gcs import driver as gcs_module
from trove_async.drivers.s3 import _components as s3_module

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.drivers.fuzzing import Recording

DRIVER_MODULES = {"s3": s3_module, "gcs": gcs_module}
BATCH = 250


def test_every_operation_is_recorded() -> None:
    assert {recording.operation for recording in read_recordings("s3")} == OPERATIONS.keys()
    assert {recording.operation for recording in read_recordings("gcs")} == OPERATIONS.keys() - {
        "gc_uploads"
    }


async def run_cases(
    seeds: Sequence[int], recordings: Sequence[Recording], patch: pytest.MonkeyPatch
) -> int:
    """Run the cases of these seeds. Return the number of operations that succeeded."""
    succeeded = 0
    for seed in seeds:
        case, random = make_case(seed, recordings)
        name, mutant = case.recording.operation, case.mutant
        description = (
            f"seed {seed}: {case.recording.service} {name}, {mutant.mutations}, {mutant.raw!r}"
        )
        try:
            async with asyncio.timeout(60):
                read = await replay(case, random, patch, DRIVER_MODULES)
        except TroveError:
            continue
        except ExceptionGroup as group:  # one error per key that was not deleted
            if name == "delete_many" and group.split(TroveError)[1] is None:
                continue
            group.add_note(description[:5000])
            raise
        except Exception as error:
            error.add_note(description[:5000])
            raise
        succeeded += 1
        expected = EXPECTED.get(name)
        if expected is not None and read != expected:
            # 1. The body must be correct. Exceptions: a range, which has no checksum, and a body whose
            #    checksum is mutated.
            assert name == "get_range" or not mutant.checksums_intact, description[:5000]
            # 2. If the mutated response has no Content-Range, a range must have the requested length.
            assert (
                name == "get"
                or "content-range" in description.lower()
                or len(read or b"") == len(expected)
            ), description[:5000]
    return succeeded


@pytest.mark.parametrize("service", DRIVERS)
@pytest.mark.parametrize("batch", range(10))
async def test_mutated_responses_give_correct_results_or_errors(
    service: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = range(batch * BATCH, (batch + 1) * BATCH)
    succeeded = await run_cases(seeds, read_recordings(service), monkeypatch)
    assert 0 < succeeded < BATCH  # some operations succeed and some fail


@pytest.mark.soak
@pytest.mark.parametrize("service", DRIVERS)
async def test_many_mutated_responses_give_correct_results_or_errors(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = range(1_000_000, 1_050_000)
    assert await run_cases(seeds, read_recordings(service), monkeypatch)


@pytest.mark.parametrize("service", DRIVERS)
async def test_unmutated_bodies_are_read(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, recording in enumerate(read_recordings(service)):
        case, random = make_case(number, [recording])
        exchange = recording.exchanges[case.position]
        unmutated = case._replace(mutant=case.mutant._replace(raw=exchange.head + exchange.body))
        if recording.operation in EXPECTED:
            read = await replay(unmutated, random, monkeypatch, DRIVER_MODULES)
            assert read == EXPECTED[recording.operation]
            assert read in BODY

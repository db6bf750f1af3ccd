"""Mutated responses: a TroveError or a result, in time, and never bytes that are not the object's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.drivers.fuzzing import BODY, DRIVERS, EXPECTED, OPERATIONS, case, play, recordings
from trove_async import TroveError
from trove_async.drivers.gcs import driver as gcs_room
from trove_async.drivers.s3 import driver as s3_room

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.drivers.fuzzing import Recording

ROOMS = {"s3": s3_room, "gcs": gcs_room}
BATCH = 250


def test_each_operation_was_recorded() -> None:
    assert {one.operation for one in recordings("s3")} == OPERATIONS.keys()
    assert {one.operation for one in recordings("gcs")} == OPERATIONS.keys() - {"uploads"}


async def run(seeds: Sequence[int], all_: Sequence[Recording], patch: pytest.MonkeyPatch) -> int:
    """Run cases; return how many of them succeeded in spite of it."""
    succeeded = 0
    for seed in seeds:
        one, random = case(seed, all_)
        name = one.recording.operation
        shown = (
            f"seed {seed}: {one.recording.service} {name}, {one.mutant.done}, {one.mutant.raw!r}"
        )
        try:
            async with asyncio.timeout(60):
                read = await play(one, random, patch, ROOMS)
        except TroveError:
            continue
        except ExceptionGroup as group:  # of the keys that delete_many could not delete
            if name == "delete_many" and group.split(TroveError)[1] is None:
                continue
            group.add_note(shown[:5000])
            raise
        except Exception as error:
            error.add_note(shown[:5000])
            raise
        succeeded += 1
        expected = EXPECTED.get(name)
        if expected is not None and read != expected:
            # A part has no checksum of its own, and a checksum that was changed as well proves
            # nothing: whatever else was changed has to be found.
            assert name == "get_range" or not one.mutant.told, shown[:5000]
            assert (
                name == "get"
                or "content-range" in shown.lower()
                or len(read or b"") == len(expected)
            ), shown[:5000]
    return succeeded


@pytest.mark.parametrize("service", DRIVERS)
@pytest.mark.parametrize("batch", range(10))
async def test_mutated_responses(service: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = range(batch * BATCH, (batch + 1) * BATCH)
    succeeded = await run(seeds, recordings(service), monkeypatch)
    assert 0 < succeeded < BATCH  # both were seen


@pytest.mark.soak
@pytest.mark.parametrize("service", DRIVERS)
async def test_many_mutated_responses(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = range(1_000_000, 1_050_000)
    assert await run(seeds, recordings(service), monkeypatch)


@pytest.mark.parametrize("service", DRIVERS)
async def test_responses_as_they_were_are_read(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_ = recordings(service)
    for number, recording in enumerate(all_):
        one, random = case(number, [recording])
        first = recording.exchanges[one.at]
        whole = one._replace(mutant=one.mutant._replace(raw=first.head + first.body))
        if recording.operation in EXPECTED:
            read = await play(whole, random, monkeypatch, ROOMS)
            assert read == EXPECTED[recording.operation]
            assert read in BODY

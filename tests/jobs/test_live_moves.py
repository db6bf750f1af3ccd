"""Whatever users do while a job moves objects, every read returns the right content.

A seed that fails can be played alone: ``await play(seed, kind, variant)``.
"""

from __future__ import annotations

import pytest

from tests.jobs.schedules import VARIANTS, play

pytestmark = pytest.mark.timeout(300)  # about 4 s of CPU time each

KINDS = ["rebalance", "tier", "migrate"]

SEEDS = 140  # for each of 15 cases: 2,100 schedules
SEEDS_WITH_FAULTS = 40
SEEDS_WITH_PROCESSES = 60
SOAK_SEEDS = 3400  # 51,000 schedules

CONDITIONAL = ["all capabilities", "remote"]
"""Without conditional requests, jobs cannot be kept apart from the writes of other processes."""


async def play_all(
    seeds: range, kind: str, variant: str, *, lost: float = 0, separate: bool = False
) -> None:
    for seed in seeds:
        try:
            await play(seed, kind, variant, lost=lost, separate=separate)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", KINDS)
async def test_every_read_returns_the_right_content(kind: str, variant: str) -> None:
    await play_all(range(SEEDS), kind, variant)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", KINDS)
async def test_lost_responses_lose_and_revive_no_object(kind: str, variant: str) -> None:
    await play_all(range(SEEDS_WITH_FAULTS), kind, variant, lost=0.1)


@pytest.mark.parametrize("variant", CONDITIONAL)
@pytest.mark.parametrize("kind", KINDS)
async def test_job_of_another_process_loses_no_object(kind: str, variant: str) -> None:
    await play_all(range(SEEDS_WITH_PROCESSES), kind, variant, separate=True)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", KINDS)
async def test_many_schedules(kind: str, variant: str) -> None:
    await play_all(range(1000, 1000 + SOAK_SEEDS), kind, variant)

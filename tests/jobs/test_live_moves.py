"""Whatever users do while a job moves objects, every read returns the right content."""

from __future__ import annotations


import pytest

from tests.jobs.schedules import VARIANTS, play

KINDS = ["rebalance", "tier", "migrate"]

SEEDS = 140  # a case: 2,100 schedules in all
SOAK_SEEDS = 3500


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", KINDS)
async def test_every_read_returns_the_right_content(kind: str, variant: str) -> None:
    for seed in range(SEEDS):
        try:
            await play(seed, kind, variant)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise

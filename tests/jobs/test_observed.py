"""The counts of ranges that were begun by a process that was lost."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from trove_async import Trove
from trove_async.drivers import MemoryDriver
from trove_async.jobs._checkpoint import State
from trove_async.jobs._observed import Intervals, Observed
from trove_async.jobs._options import RunOptions
from trove_async.jobs._ranges import KeyRange
from trove_async.jobs._rebalance import Rebalance
from trove_async.jobs._report import Tally
from trove_async.jobs._run import JobRun

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.mark.parametrize("seed", range(50))
def test_intervals_contain_what_was_added(seed: int) -> None:
    random = Random(seed)
    keys = [f"{number:02}" for number in range(40)]
    intervals, expected = Intervals(), set[str]()
    for _ in range(random.randrange(12)):
        start, end = sorted(random.sample(keys, 2))
        intervals.add(start, end)
        expected |= {key for key in keys if start < key <= end}
    assert {key for key in keys if key in intervals} == expected
    assert (
        Intervals([(start, end) for start, end in intervals.to_json()])._items == intervals._items
    )
    ends = [edge for item in intervals._items for edge in item]
    assert ends == sorted(set(ends))  # disjoint, and merged where they touch


def seen_in(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(start, end) for start, end in values["seen"]] if values else []


class Lost(BaseException):
    """The process was killed."""


class Ledger:
    """What the processes have recorded, and the death of the process at a random step."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.values: Mapping[str, Any] = {}
        self.saves = 0

    async def save(self, values: Mapping[str, Any]) -> None:
        for _ in range(self._random.randrange(3)):
            await asyncio.sleep(0)
        self.values = values
        self.saves += 1


async def run_once(
    store: Trove, job: Rebalance, ledger: Ledger, key_range: KeyRange, die_after: int | None
) -> Tally | None:
    """Run the range. None: the process has died, and its counts with it."""
    observed = Observed(job, key_range, ledger.values, ledger.save)
    options = RunOptions(concurrency=4)
    run = JobRun(store, observed, options, state=State(ranges=[key_range], tally=Tally()))
    process, done = job.process, 0

    async def process_and_die(item: Any) -> Any:
        nonlocal done
        outcome = await process(item)
        done += 1
        if done == die_after:
            raise Lost
        return outcome

    job.process = process_and_die  # type: ignore[method-assign]
    try:
        await run.run()
    except Lost:
        return None
    finally:
        job.process = process  # type: ignore[method-assign]
    observed.correct(run.tally)
    return run.tally


@pytest.mark.parametrize("seed", range(60))
async def test_report_counts_what_lost_processes_have_moved(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = Random(seed)
    monkeypatch.setattr("trove_async.jobs._walks.PAGE_SIZE", random.choice([1, 3, 10, 1000]))
    async with Trove(
        MemoryDriver(), backends={"cold": MemoryDriver()}, routes=[("*.log", "cold")]
    ) as store:
        await store.create_bucket("data", backends=["default", "cold"])
        keys = [f"{number:03}.log" for number in range(60)]
        unchanged = set(random.sample(keys, random.randrange(40)))
        for key in keys:
            await store.backend("cold" if key in unchanged else "default").put(
                "data", key, b"12345"
            )
        job = Rebalance(store, "data", "", dry_run=False, delete_shadowed=False)
        ledger = Ledger(random)
        key_range = KeyRange("004.log", "050.log")
        concerned = [key for key in keys if key in key_range]

        tally = None
        for _ in range(random.randrange(1, 4)):
            tally = await run_once(store, job, ledger, key_range, random.randrange(1, 12))
            if tally is not None:
                break
            # It may also have died between the copy and the delete of a move.
            hot = [info.key async for info in store.backend("default").list("data")]
            begun = [key for key in hot if key in Intervals(seen_in(ledger.values))]
            if begun:
                key = random.choice(begun)
                await store.copy("data", key, "data", key, source_backend="default")
        if tally is None:
            tally = await run_once(store, job, ledger, key_range, None)

        assert tally is not None
        moved = [key for key in concerned if key not in unchanged]
        assert tally.examined == len(concerned)
        assert tally.changed == len(moved)
        assert tally.unchanged == len(concerned) - len(moved)
        assert tally.bytes == 5 * len(moved)


async def test_pages_without_work_are_not_recorded() -> None:
    async with Trove(MemoryDriver()) as store:
        await store.create_bucket("data")
        for number in range(30):
            await store.put("data", str(number), b"")
        ledger = Ledger(Random(1))
        job = Rebalance(store, "data", "", dry_run=False, delete_shadowed=False)
        tally = await run_once(store, job, ledger, KeyRange(), None)
        assert (tally.examined if tally else 0, ledger.saves) == (30, 0)

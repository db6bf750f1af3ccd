"""Helpers shared by the benchmarks: fresh processes, measurements, medians and tables."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

MiB = 1024 * 1024
SHARED = "/dev/shm"  # noqa: S108 - a file system in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """How long an amount of work took.

    Attributes:
        amount: The amount of work, in the benchmark's own unit: calls, MiB or keys.
        seconds: The elapsed time.
        cpu: The CPU seconds of the process that did the work.
    """

    amount: float
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        """Amount per second."""
        return self.amount / self.seconds


async def concurrently(
    count: int, limit: int, work: Callable[[int], Awaitable[object]]
) -> Measurement:
    """Run `work` for the numbers from 0 to `count` - 1, `limit` at a time, and measure it."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await work(number)

    started, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(limit):
            group.create_task(worker())
    return Measurement(
        amount=count, seconds=time.perf_counter() - started, cpu=time.process_time() - cpu
    )


async def once(amount: float, work: Awaitable[object]) -> Measurement:
    """Await `work`, which does `amount` of work, and measure it."""
    started, cpu = time.perf_counter(), time.process_time()
    await work
    return Measurement(
        amount=amount, seconds=time.perf_counter() - started, cpu=time.process_time() - cpu
    )


def measured(amount: float, work: Callable[[], object]) -> Measurement:
    """Run blocking work, which does `amount` of work, and measure it.

    The CPU time includes the commands that `work` runs and waits for.
    """
    started, cpu = time.perf_counter(), _cpu()
    work()
    return Measurement(amount=amount, seconds=time.perf_counter() - started, cpu=_cpu() - cpu)


def _cpu() -> float:
    """Return the CPU seconds of this process and of the child processes that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def memory_folder() -> TemporaryDirectory[str]:
    """Return a temporary folder, in memory if possible, so that no disk is measured."""
    return TemporaryDirectory(dir=SHARED if os.access(SHARED, os.W_OK) else None)


def peak_rss() -> float:
    """Return this process's peak resident memory in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MiB if sys.platform == "darwin" else 1024)


class Memory:
    """The peak growth of resident memory since this object was created. Linux only."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak
        self._before = _status("VmRSS")

    @property
    def peak(self) -> float:
        """The peak growth in MiB."""
        return _status("VmHWM") - self._before


def _status(field: str) -> float:
    """Return a field of this process's status, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


def in_fresh_process(script: str, *arguments: str) -> dict[str, dict[str, float]]:
    """Run a script in a new process and return the JSON object on its last line of output.

    Raises:
        CalledProcessError: The process failed before it printed a result. Later failures are
            ignored, because some libraries sometimes abort when their process ends.
    """
    run = subprocess.run(  # noqa: S603 - a benchmark runs itself
        [sys.executable, script, *arguments], check=False, stdout=subprocess.PIPE, text=True
    )
    if not run.stdout.strip():
        run.check_returncode()
    result: dict[str, dict[str, float]] = json.loads(run.stdout.splitlines()[-1])
    return result


def median_ratio(figures: Sequence[float], references: Sequence[float]) -> float:
    """Return the median over all rounds of a round's figure divided by its reference.

    Changes in the machine's speed between two rounds cancel out.
    """
    pairs = zip(figures, references, strict=True)
    return statistics.median(figure / reference for figure, reference in pairs)


def ratio_of_medians(figures: Sequence[float], references: Sequence[float]) -> float:
    """Return the median of the figures divided by the median of the references."""
    return statistics.median(figures) / statistics.median(references)


# -- beside peers ------------------------------------------------------------------------------------

COMPARED = "<!-- compared: "
"""The start of the line from which `run_all` reads comparisons. Markdown does not show it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Our figures for some work, divided by a peer's.

    Attributes:
        work: The work, and what it runs against.
        peer: The peer.
        rate: The ratio of the rates. Above 1, we are faster.
        cpu: The ratio of the CPU times. Below 1, we need less. None: they were not measured.
    """

    work: str
    peer: str
    rate: float
    cpu: float | None = None


def compare(
    work: str, peer: str, ours: Sequence[Measurement], theirs: Sequence[Measurement]
) -> Comparison:
    """Return the ratios of the medians of two series of measurements."""
    return Comparison(
        work=work,
        peer=peer,
        rate=ratio_of_medians([one.rate for one in ours], [one.rate for one in theirs]),
        cpu=ratio_of_medians(
            [one.cpu / one.amount for one in ours], [one.cpu / one.amount for one in theirs]
        ),
    )


def print_comparisons(comparisons: Iterable[Comparison]) -> None:
    """Print comparisons as JSON, for the table of `run_all`."""
    rows = [
        {
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in row.items()
        }
        for row in map(asdict, comparisons)
    ]
    print(f"\n{COMPARED}{json.dumps(rows, ensure_ascii=False)} -->", flush=True)


# -- cores -------------------------------------------------------------------------------------------


def can_choose_cores() -> bool:
    """Return whether processes can be bound to cores here, and there are two."""
    return hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1


@contextmanager
def on_one_core() -> Iterator[int]:
    """Bind this process, and those that it starts, to one core. Yield another core, for a server."""
    cores = os.sched_getaffinity(0)
    first, second, *_ = sorted(cores)
    os.sched_setaffinity(0, {first})
    try:
        yield second
    finally:
        os.sched_setaffinity(0, cores)


# -- printing ----------------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def machine(*packages: str) -> str:
    """Return a line that describes the machine, Python and the versions of packages."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{os.cpu_count()} cores{_processor()}, {platform.system()} {platform.machine()},"
        f" Python {platform.python_version()}" + (f"; {versions}" if versions else "")
    )


def _processor() -> str:
    """Return the model of the processor, in parentheses, if Linux reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f" ({models[0]})" if models else ""

"""Is the command line as fast as s5cmd and rclone, on the same S3 server?

Each tool runs as a process, so that its start is counted. Each round runs all tools in turn, in another order,
on SeaweedFS on this machine: many small files up, a sync without changes, down, and a deletion; one large file up
and down. The ratios are those of trove's median to the other tool's, so less is faster. Peak memory is that of
the whole process. s5cmd reads no configuration, and rclone gets its own from the environment.

    python benchmarks/command_line.py [--rounds 3] [--files 5000] [--large 1024]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from _harness import (
    Comparison,
    MiB,
    machine,
    memory_folder,
    print_comparisons,
    table,
)

from trove_async.testing.servers import S3Server, seaweedfs

SMALL = 4096

LIMITS = {
    ("up", "s5cmd"): 0.95,
    ("down", "s5cmd"): 1.1,
    ("sync unchanged", "s5cmd"): 1.0,
    ("rm", "s5cmd"): 1.0,
    ("large up", "s5cmd"): 0.9,
    ("large down", "s5cmd"): 1.05,
}
"""The largest ratios of wall time."""

MAX_MEMORY = 64
"""The largest peak of memory for small files, in MiB."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a command: seconds, CPU seconds, and the peak of its memory in MiB."""

    seconds: float
    cpu: float
    memory: float


class Tools:
    """The commands of each tool.

    Args:
        server: The S3 server.
        folder: A folder for files.
        bucket: A bucket.
    """

    def __init__(self, server: S3Server, folder: Path, bucket: str) -> None:
        self._folder = folder
        self._bucket = bucket
        self._programs = {
            "trove": [str(Path(sys.executable).with_name("trove"))],
            "s5cmd": [
                str(Path(sys.executable).with_name("s5cmd")),
                f"--endpoint-url={server.endpoint_url}",
                "--numworkers=64",
                "--log=error",
            ],
        }
        if rclone := shutil.which("rclone"):
            self._programs["rclone"] = [rclone, "--transfers=64", "--checkers=64", "--quiet"]
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "AWS_ACCESS_KEY_ID": server.access_key_id,
            "AWS_SECRET_ACCESS_KEY": server.secret_access_key,
            "AWS_DEFAULT_REGION": server.region,
            "AWS_REGION": server.region,
            "AWS_ENDPOINT_URL": server.endpoint_url,
            "RCLONE_CONFIG_W_TYPE": "s3",
            "RCLONE_CONFIG_W_PROVIDER": "SeaweedFS",
            "RCLONE_CONFIG_W_ENV_AUTH": "true",
            "RCLONE_CONFIG_W_ENDPOINT": server.endpoint_url,
        }

    @property
    def names(self) -> Sequence[str]:
        """The tools that are installed."""
        return tuple(self._programs)

    def make_bucket(self) -> None:
        """Create the bucket."""
        command = [*self._programs["trove"], "mb", f"s3://{self._bucket}", "--quiet"]
        subprocess.run(command, env=self._environment, check=True)  # noqa: S603 - our own program

    def arguments(self, tool: str, work: str, number: int) -> list[str]:
        """Return the arguments of a tool for one piece of work of a round."""
        small, large, out = self._folder / "small", self._folder / "large", self._folder / tool
        url = f"w:{self._bucket}" if tool == "rclone" else f"s3://{self._bucket}"
        there, one = f"{url}/{tool}/", f"{url}/{tool}.large.{number}"
        commands = {
            "trove": {
                "up": ["cp", str(small), there],
                "sync unchanged": ["sync", str(small), there],
                "down": ["cp", there, str(out)],
                "rm": ["rm", "-r", there],
                "large up": ["cp", str(large), one],
                "large down": ["cp", one, f"{out}.large"],
            },
            "s5cmd": {
                "up": ["cp", f"{small}/*", there],
                "sync unchanged": ["sync", f"{small}/", there],
                "down": ["cp", f"{there}*", f"{out}/"],
                "rm": ["rm", f"{there}*"],
                "large up": ["cp", str(large), one],
                "large down": ["cp", one, f"{out}.large"],
            },
            "rclone": {
                "up": ["copy", str(small), there],
                "sync unchanged": ["sync", str(small), there],
                "down": ["copy", there, str(out)],
                "rm": ["delete", there],
                "large up": ["copyto", str(large), one],
                "large down": ["copyto", one, f"{out}.large"],
            },
        }
        return self._programs[tool] + commands[tool][work]

    def run(self, tool: str, work: str, number: int) -> Run:
        """Run a command. It must succeed."""
        started = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603 - commands of this program
            self.arguments(tool, work, number),
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{tool} failed: {work}")
        return Run(
            time.perf_counter() - started,
            usage.ru_utime + usage.ru_stime,
            usage.ru_maxrss / 1024,
        )

    def check(self, tool: str, files: int) -> None:
        """Check that a tool has downloaded what was uploaded, and remove it."""
        out = self._folder / tool
        count = sum(path.is_file() for path in out.rglob("*"))
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        if (count, size) != (files, files * SMALL):
            raise RuntimeError(f"{tool} has downloaded {count} files with {size} bytes")
        shutil.rmtree(out)
        Path(f"{out}.large").unlink()


WORK = ("up", "sync unchanged", "down", "rm", "large up", "large down")


def main() -> int:
    """Run the benchmark. Return 1 if a ratio or the memory is above its limit."""
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--files", type=int, default=5000)
    options.add_argument("--large", type=int, default=1024, help="MiB")
    given = options.parse_args()
    runs: dict[tuple[str, str], list[Run]] = {}
    with memory_folder() as name, seaweedfs() as server:
        folder = Path(name)
        make_files(folder, given.files, given.large)
        tools = Tools(server, folder, f"bench-{uuid4().hex[:8]}")
        tools.make_bucket()
        for number in range(given.rounds):
            order = list(tools.names)
            order = order[number % len(order) :] + order[: number % len(order)]
            for work in WORK:
                for tool in order:
                    runs.setdefault((tool, work), []).append(tools.run(tool, work, number))
            for tool in order:
                tools.check(tool, given.files)
    return report(runs, tools.names, given.files, given.large)


def make_files(folder: Path, count: int, large: int) -> None:
    """Make the files to transfer."""
    for number in range(count):
        path = folder / "small" / f"{number % 50:02}" / f"{number}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(SMALL))
    with (folder / "large").open("wb") as file:
        for _ in range(large):
            file.write(os.urandom(MiB))


def report(
    runs: dict[tuple[str, str], list[Run]], names: Sequence[str], files: int, large: int
) -> int:
    """Print the medians and ratios. Return 1 if one is above its limit."""
    print(f"{machine()}. {files:,} files of {SMALL} bytes; one of {large} MiB.\n")
    rows, comparisons, missed = [], [], 0
    for work in WORK:
        ours = runs["trove", work]
        for tool in names:
            seconds = statistics.median(run.seconds for run in runs[tool, work])
            cpu = statistics.median(run.cpu for run in runs[tool, work])
            memory = max(run.memory for run in runs[tool, work])
            ratio = statistics.median(run.seconds for run in ours) / seconds
            cpu_ratio = statistics.median(run.cpu for run in ours) / cpu
            limit = LIMITS.get((work, tool))
            verdict = "" if limit is None else f"{limit:.2f}{' missed' if ratio > limit else ''}"
            missed += limit is not None and ratio > limit
            if tool != "trove":
                comparisons.append(Comparison(work=work, peer=tool, rate=1 / ratio, cpu=cpu_ratio))
            rows.append(
                (
                    work,
                    tool,
                    f"{seconds:.2f}",
                    f"{cpu:.2f}",
                    f"{memory:.0f}",
                    f"{ratio:.2f}",
                    f"{cpu_ratio:.2f}",
                    verdict,
                )
            )
    print(table(("work", "tool", "seconds", "CPU s", "MiB", "trove / tool", "CPU", "limit"), rows))
    peak = max(run.memory for work in WORK[:4] for run in runs["trove", work])
    print(f"\nPeak memory of trove for small files: {peak:.0f} MiB (limit {MAX_MEMORY}).")
    print_comparisons(comparisons)
    return int(bool(missed) or peak > MAX_MEMORY)


if __name__ == "__main__":
    sys.exit(main())

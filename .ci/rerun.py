"""Run the failed tests once more, each alone. Print those that pass as ``FLAKY name``.

Exit with 1 if one of them fails again. Exit with 1 without a rerun if no failure is recorded, if more than
`MAX_RERUNS` are, or if the records do not match the summary of the run: it was killed, or a file could not
be collected. The results are also appended to the log.

Usage: ``rerun.py LOG PYTHON [OPTION …]``. The options are those that pytest needs to select these tests.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

MAX_RERUNS = 20  # more failures are not flaky tests


def main() -> int:
    """Return the exit status."""
    log = Path(sys.argv[1])
    text = log.read_text(errors="replace")
    summary = re.findall(r"^=+ (.* in [0-9.]+s.*) =+$", text, re.MULTILINE)
    last_failed = Path(".pytest_cache/v/cache/lastfailed")
    failed = sorted(json.loads(last_failed.read_text())) if last_failed.exists() else []
    counts = re.findall(r"(\d+) (?:failed|errors?)", summary[-1]) if summary else []
    complete = sum(map(int, counts)) >= len(failed) and all("::" in name for name in failed)
    if not complete or not 0 < len(failed) <= MAX_RERUNS:
        print(f"no rerun: {len(failed)} failures recorded, {'+'.join(counts) or 0} in the summary")
        return 1
    failed_twice = [name for name in failed if not passes(name)]
    with log.open("a") as out:
        for name in failed:
            line = f"{'FAILED TWICE' if name in failed_twice else 'FLAKY'} {name}"
            print(line)
            print(line, file=out)
    return 1 if failed_twice else 0


def passes(name: str) -> bool:
    """Run one test by itself. Return whether it passes."""
    command = [sys.argv[2], "-m", "pytest", "--cache-clear", *sys.argv[3:], name]
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())

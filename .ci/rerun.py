"""Run the failed tests once more, each alone. Print those that pass as ``FLAKY name``.

Exit with 1 if one of them fails again, or if the failures are not known because the run did not end by
itself. The results are also appended to the log.

Usage: ``rerun.py LOG [OPTION …]``, with the options with which pytest selects these tests.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

MOST = 20  # more failures are not flaky tests


def main() -> int:
    """Return the exit status."""
    log = Path(sys.argv[1])
    text = log.read_text(errors="replace")
    summary = re.findall(r"^=+ (.* in [0-9.]+s.*) =+$", text, re.MULTILINE)
    record = Path(".pytest_cache/v/cache/lastfailed")
    failed = sorted(json.loads(record.read_text())) if record.exists() else []
    counts = re.findall(r"(\d+) (?:failed|errors?)", summary[-1]) if summary else []
    known = sum(map(int, counts)) >= len(failed) and all("::" in name for name in failed)
    if not known or not 0 < len(failed) <= MOST:
        print(f"{len(failed)} failures on record, {'+'.join(counts) or 0} counted: no rerun")
        return 1
    again = [name for name in failed if not passes(name)]
    with log.open("a") as out:
        for name in failed:
            line = f"{'FAILED TWICE' if name in again else 'FLAKY'} {name}"
            print(line)
            print(line, file=out)
    return 1 if again else 0


def passes(name: str) -> bool:
    """Run one test by itself; tell whether it passes."""
    command = [".venv/bin/python", "-m", "pytest", "--cache-clear", *sys.argv[2:], name]
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())

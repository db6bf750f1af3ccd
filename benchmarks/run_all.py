"""Run every benchmark, and write the output to RESULTS.md.

python benchmarks/run_all.py
"""

from __future__ import annotations

import ast
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """Run all benchmarks. Return 1 if one fails or misses a target."""
    sections = [f"# Results\n\nLast run on {datetime.now(UTC):%Y-%m-%d} by `make bench`."]
    failed = 0
    for script in sorted(HERE.glob("[!_]*.py")):
        if script.name == Path(__file__).name:
            continue
        question = (ast.get_docstring(ast.parse(script.read_text())) or "").splitlines()[0]
        print(f"\n== {script.name}: {question}", flush=True)
        run = subprocess.run(  # noqa: S603 - the scripts in this folder
            [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, check=False
        )
        print(run.stdout)
        failed += run.returncode != 0
        sections.append(f"## {script.name}\n\n{question}\n\n{run.stdout.strip()}")
    (HERE / "RESULTS.md").write_text("\n\n".join(sections) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

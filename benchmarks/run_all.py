"""Run every benchmark, or only some, and write the output to RESULTS.md.

    python benchmarks/run_all.py [NAME …]

The results of benchmarks that are not run stay in the file, and so does its introduction.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from _harness import COMPARED, Comparison, table

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
PEERS = "Ours against each peer"
HEADER = ["benchmark", "work", "peer", "rate, ours / its", "CPU, ours / its"]


def main() -> int:
    """Run benchmarks. Return 1 if one fails or misses a target."""
    scripts = {
        script.stem: script
        for script in sorted(HERE.glob("[!_]*.py"))
        if script.name != Path(__file__).name
    }
    names = sys.argv[1:] or list(scripts)
    introduction, sections = read_results()
    rows = [row for row in comparison_rows(sections.pop(PEERS, "")) if row[0] not in names]
    failed = 0
    for name in names:
        question = (ast.get_docstring(ast.parse(scripts[name].read_text())) or "").splitlines()[0]
        print(f"\n== {name}: {question}", flush=True)
        run = subprocess.run(  # noqa: S603 - the scripts in this folder
            [sys.executable, str(scripts[name])], stdout=subprocess.PIPE, text=True, check=False
        )
        failed += run.returncode != 0
        output, comparisons = split_output(run.stdout)
        print(output)
        sections[f"{name}.py"] = f"{question}\n\nRun on {datetime.now(UTC):%Y-%m-%d}.\n\n{output}"
        rows += [comparison_row(name, comparison) for comparison in comparisons]
    text = peers_section(sorted(rows, key=lambda row: row[0]))
    print(f"\n== {PEERS}\n\n{text}")
    write_results(introduction, {PEERS: text, **dict(sorted(sections.items()))})
    return 1 if failed else 0


# -- the file ----------------------------------------------------------------------------------------


def read_results() -> tuple[str, dict[str, str]]:
    """Return the introduction of the file, and its sections by title: a script, or `PEERS`."""
    introduction, *parts = re.split(
        rf"^## (\w+\.py|{PEERS})$", RESULTS.read_text(), flags=re.MULTILINE
    )
    texts = map(str.strip, parts[1::2])
    return introduction.strip(), dict(zip(parts[::2], texts, strict=True))


def write_results(introduction: str, sections: dict[str, str]) -> None:
    """Write the file."""
    parts = [f"## {title}\n\n{text}" for title, text in sections.items()]
    RESULTS.write_text("\n\n".join([introduction, *parts]) + "\n")


def split_output(output: str) -> tuple[str, list[Comparison]]:
    """Return what a benchmark prints for people, and its comparisons with peers."""
    lines: list[str] = []
    comparisons: list[Comparison] = []
    for line in output.splitlines():
        if line.startswith(COMPARED):
            document = line.removeprefix(COMPARED).removesuffix(" -->")
            comparisons += [Comparison(**fields) for fields in json.loads(document)]
        else:
            lines.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip(), comparisons


# -- ours against each peer --------------------------------------------------------------------------


def comparison_row(benchmark: str, comparison: Comparison) -> list[str]:
    """Return a row of the table."""
    cpu = "" if comparison.cpu is None else f"{comparison.cpu:.2f}"
    return [benchmark, comparison.work, comparison.peer, f"{comparison.rate:.2f}", cpu]


def comparison_rows(section: str) -> list[list[str]]:
    """Return the rows of the table in the file, without the marks of bold text."""
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [line.replace("**", "")[2:-2].split(" | ") for line in lines[2:]]


def peers_section(rows: Sequence[list[str]]) -> str:
    """Return the table, with the rows in bold in which a peer is faster."""
    slower = [row for row in rows if float(row[3]) < 1]
    bold = [
        [f"**{cell}**" if cell else "" for cell in row] if row in slower else row for row in rows
    ]
    return (
        "Medians of the runs below. Above 1, our rate is higher; below 1, our CPU time is lower. In bold are the"
        f" {len(slower)} of {len(rows)} rows in which a peer is faster.\n\n{table(HEADER, bold)}"
    )


if __name__ == "__main__":
    sys.exit(main())

"""Commands in console blocks: what runs, and what is only checked."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tests.docs.markdown import ROOT, Block

if TYPE_CHECKING:
    from collections.abc import Sequence

_EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

_MAKEFILE = (ROOT / "Makefile").read_text().splitlines()

_PROMPT = re.compile(r"^\$ ", re.MULTILINE)

_PROGRAMS = frozenset({"cat"})
"""Programs of every system that a block may run, besides ``python`` and ``trove``."""

_SHOWN = frozenset({"aws", "tar", "uvicorn", "zstd"})
"""Programs that need a network, a server or a package of the system. Their commands do not run."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a console block.

    Attributes:
        words: The program and its arguments.
        expected: The output that the page shows.
        exit_code: The exit code that the page shows by ``echo $?``.
    """

    words: Sequence[str]
    expected: str
    exit_code: int = 0

    @property
    def runs(self) -> bool:
        """Whether the command runs in the tests."""
        return self.words[0] in {"python", "trove"} | _PROGRAMS

    def check(self) -> None:
        """Check a command that does not run.

        Raises:
            AssertionError: It names an unknown extra or target, or there is no rule for it.
        """
        match self.words:
            case ["pip", "install", *requirements]:
                [requirement] = [word for word in requirements if word.startswith("trove-async")]
                extras = requirement.partition("[")[2].rstrip("]")
                assert [name for name in extras.split(",") if name and name not in _EXTRAS] == []
            case ["make", target]:
                assert any(line.startswith(f"{target}:") for line in _MAKEFILE), target
            case [program, *_]:
                assert program in _SHOWN, f"there is no rule to check a command of {program!r}"

    def run(self) -> str:
        """Run the command in the current directory, and return what it prints.

        Raises:
            AssertionError: It has a different exit code.
        """
        match self.words:
            case ["python", *arguments]:
                command = [sys.executable, "-W", "error", *arguments]
            case ["trove", *arguments]:
                command = [sys.executable, "-m", "trove_async", *arguments]
            case _:
                command = list(self.words)
        result = subprocess.run(  # noqa: S603 - our own pages
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=50,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "88"},
        )
        assert result.returncode == self.exit_code, result.stdout
        return result.stdout


def commands_in(block: Block) -> list[Command]:
    """Return the commands of a console block: the lines that start with ``$``, and the lines below each."""
    assert block.code.startswith("$ "), "a console block starts with a command"
    commands: list[Command] = []
    for part in _PROMPT.split(block.code)[1:]:
        line, _, output = part.partition("\n")
        while line.endswith("\\"):
            more, _, output = output.partition("\n")
            line = line[:-1] + more.strip()
        if line == "echo $?":  # of the command above
            commands[-1] = replace(commands[-1], exit_code=int(output))
        else:
            commands.append(Command(shlex.split(line), output))
    return commands

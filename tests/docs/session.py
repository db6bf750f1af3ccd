"""Runs the blocks of one page: Python in this process, commands in a shell-like subset."""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import io
import os
import shlex
import subprocess
import sys
import tomllib
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.docs.markdown import OUTPUT, ROOT, Block
from trove_async import Trove
from trove_async.config import json_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

_PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

_CONFIGURATION = json_schema()["properties"].keys()

_MAKEFILE = (ROOT / "Makefile").read_text()

_ELLIPSIS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

_PROGRAMS = frozenset({"cat", "find", "head", "ls", "sort", "wc"})
"""Programs of every system that a console block may run."""

_NOT_RUN = frozenset({"aws", "curl", "git", "rclone", "uvicorn", "zstd"})
"""Programs that need a network, a server or a package of the system: their commands are shown only."""


class Session:
    """The names, files and event loop that the blocks of a page share. Its directory is the current one."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "page"}
        self.blocks_run = 0
        self._runner = asyncio.Runner()
        self._files: dict[str, Block] = {}
        self._run_files: set[str] = set()
        self._printed = ""

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            for store in {id(value): value for value in self.names.values()}.values():
                if isinstance(store, Trove):  # a store that the page has left open
                    self._runner.run(store.aclose())
        finally:
            self._runner.close()
            for name in self._files:  # other pages have modules of the same names
                sys.modules.pop(name.removesuffix(".py"), None)

    def run(self, block: Block) -> None:
        """Run one block, or compare it with what the block above it has printed."""
        if block.title == OUTPUT:
            assert_output(self._printed, block.code, block)
            return
        if block.title:
            Path(block.title).write_text(block.code, encoding="utf-8")
        match block.language:
            case "python" if block.title:
                self._files[block.title] = block
            case "python" | "setup":
                self._execute(block)
            case "console":
                self._run_commands(block)
            case "toml":
                check_toml(block)
            case _:
                return
        self.blocks_run += block.language != "setup"

    def finish(self) -> None:
        """Run the files that no command has run and no block has imported."""
        for name, block in self._files.items():
            if name not in self._run_files and name.removesuffix(".py") not in sys.modules:
                self._execute(block)

    def _execute(self, block: Block) -> None:
        printed = io.StringIO()
        # The line numbers of a traceback are those of the page.
        source = "\n" * (block.line - 1) + block.code
        code = compile(source, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        with redirect_stdout(printed):
            result = eval(code, self.names)  # noqa: S307 - our own pages
            if inspect.iscoroutine(result):
                self._runner.run(result)
        self._printed = printed.getvalue()

    def _run_commands(self, block: Block) -> None:
        for command, expected in commands_in(block):
            words = shlex.split(command)
            if words[:2] == ["pip", "install"]:
                check_requirements(words[2:], block)
            elif words[0] == "make":
                check_targets(words[1:], block)
            elif words[0] in {"python", "trove"} | _PROGRAMS:
                assert_output(self._run_program(words, block), expected, block)
            elif words[0] not in _NOT_RUN:
                raise AssertionError(f"{block.place}: no rule how to check the command {command!r}")

    def _run_program(self, words: Sequence[str], block: Block) -> str:
        match words:
            case ["python", *arguments]:
                command = [sys.executable, "-W", "error", *arguments]
                self._run_files.update(arguments)
            case ["trove", *arguments]:
                command = [sys.executable, "-m", "trove_async", *arguments]
            case _:
                command = list(words)
        result = subprocess.run(  # noqa: S603 - our own pages
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=50,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        )
        if result.returncode != 0:
            raise AssertionError(f"{block.place}: {' '.join(words)} failed:\n{result.stdout}")
        return result.stdout


def commands_in(block: Block) -> list[tuple[str, str]]:
    """Return the commands of a console block (lines that start with ``$``) and their expected output."""
    commands: list[tuple[str, str]] = []
    for line in block.code.splitlines(keepends=True):
        if line.startswith("$ "):
            commands.append((line[2:].rstrip("\n"), ""))
        elif commands[-1:] and commands[-1][0].endswith("\\"):
            commands[-1] = (commands[-1][0][:-1] + line.strip(), "")
        else:
            assert commands, f"{block.place}: a console block starts with a command"
            commands[-1] = (commands[-1][0], commands[-1][1] + line)
    return commands


def assert_output(printed: str, expected: str, block: Block) -> None:
    """Compare an output with the one that the page shows. ``...`` stands for any text."""
    if doctest.OutputChecker().check_output(expected, printed, _ELLIPSIS):
        return
    raise AssertionError(f"{block.place}: expected\n{expected}\ngot\n{printed}")


def check_toml(block: Block) -> None:
    """Make a store from a block whose keys are those of a configuration, else only parse it."""
    values = tomllib.loads(block.code)
    if values.keys() <= _CONFIGURATION:
        Trove.from_config({"default": "mem://", **values})


def check_requirements(words: Sequence[str], block: Block) -> None:
    """Check that the extras which a ``pip install`` names exist."""
    [requirement] = [word for word in words if word.startswith("trove-async")]
    extras = requirement.partition("[")[2].rstrip("]")
    for extra in filter(None, extras.split(",")):
        assert extra in _PYPROJECT["optional-dependencies"], f"{block.place}: {extra}"


def check_targets(words: Sequence[str], block: Block) -> None:
    """Check that the targets of a ``make`` exist."""
    for target in words:
        assert f"\n{target}: " in _MAKEFILE or f"\n{target}:\n" in _MAKEFILE, (
            f"{block.place}: {target}"
        )

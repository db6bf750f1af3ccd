"""Runs the blocks of one page."""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import io
import sys
import tomllib
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Self

from tests.docs.console import Command, commands_in
from tests.docs.markdown import OUTPUT, Block
from trove_async import Trove
from trove_async.config import json_schema

_CONFIGURATION = json_schema()["properties"].keys()


class Session:
    """The names, files and event loop that the blocks of a page share. Its directory is the current one."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "page"}
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
                for command in commands_in(block):
                    self._run_command(command, block)
            case "toml":
                check_toml(block)

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

    def _run_command(self, command: Command, block: Block) -> None:
        if not command.runs:
            command.check()
            return
        self._run_files.update(command.words[1:])
        assert_output(command.run(), command.expected, block)


def assert_output(printed: str, expected: str, block: Block) -> None:
    """Compare an output with the one that the page shows. ``...`` stands for any text."""
    same = doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS)
    assert same, f"{block.place}: expected\n{expected}\ngot\n{printed}"


def check_toml(block: Block) -> None:
    """Make a store from a block whose keys are those of a configuration, else only parse it."""
    values = tomllib.loads(block.code)
    if values.keys() <= _CONFIGURATION:
        Trove.from_config({"default": "mem://", **values})

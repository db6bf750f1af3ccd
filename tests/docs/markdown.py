"""The code blocks of a Markdown page, in order.

A page is one session: its Python blocks share their names, one event loop and one working directory, as if a
reader had pasted them one after the other into ``python -m asyncio``. A block with a title is a file of that
name. Comments in the page, which readers do not see, prepare the session::

    <!-- fixtures: s3, gcs -->      fixtures of `conftest.py`, for the whole page

    <!-- setup
    store = await Trove("mem://").open()
    -->                             code that runs before the next block
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import trove_async

ROOT = Path(trove_async.__file__).parent.parent
DOCS = ROOT / "docs"

OUTPUT = "output"
"""The title of a block that shows what the Python block above it prints."""

_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<info>[^`\n]*)\n(?P<code>.*?)^(?P=indent)```$"
    r"|^<!-- setup\n(?P<setup>.*?)^-->$"
    r"|^<!-- fixtures: (?P<fixtures>[a-z0-9_, ]+) -->$",
    re.DOTALL | re.MULTILINE,
)
_INCLUDED = re.compile(r'--8<-- "([\w./]+)"\n')
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One code block.

    Attributes:
        page: The path of the page.
        line: The number of the first line of the code.
        language: The language, ``"setup"`` for hidden code, or ``"fixtures"``.
        title: The title, or ``""``.
        code: The code, without the indentation of the block.
    """

    page: Path
    line: int
    language: str
    title: str
    code: str

    @property
    def place(self) -> str:
        """The page and the line, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the code blocks and hidden comments of a page, in order."""
    text = page.read_text()
    blocks = []
    for match in _BLOCK.finditer(text):
        if match["fixtures"] is not None:
            language, title, code = "fixtures", "", match["fixtures"]
        elif match["setup"] is not None:
            language, title, code = "setup", "", match["setup"]
        else:
            language = match["info"].split(" ", 1)[0]
            found = _TITLE.search(match["info"])
            title = found[1] if found else ""
            indent = len(match["indent"])
            code = "".join(
                line[indent:] or "\n" for line in match["code"].splitlines(keepends=True)
            )
        if found_file := _INCLUDED.fullmatch(code):  # of pymdownx.snippets
            code = (ROOT / found_file[1]).read_text()
        line = text.count("\n", 0, match.start()) + 2
        blocks.append(Block(page=page, line=line, language=language, title=title, code=code))
    return blocks


def fixtures_of(blocks: list[Block]) -> list[str]:
    """Return the names of the fixtures that a page needs, each once."""
    names = [
        name for block in blocks if block.language == "fixtures" for name in block.code.split(", ")
    ]
    return list(dict.fromkeys(names))


PAGES = sorted(DOCS.rglob("*.md"))
"""The pages of the site."""

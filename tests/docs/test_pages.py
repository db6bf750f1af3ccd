"""Every code block of the site runs, and prints what the page shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docs.markdown import DOCS, PAGES, blocks_of, fixtures_of
from tests.docs.session import Session

if TYPE_CHECKING:
    from pathlib import Path

    from _pytest.mark.structures import ParameterSet

CHECKED = {"python", "console", "toml", "setup", "fixtures"}
SHOWN = {"text", "http", "json"}
"""Languages of blocks that are not code."""


def test_every_block_has_a_language_that_is_checked_or_shown() -> None:
    unknown = [
        block.place
        for page in PAGES
        for block in blocks_of(page)
        if block.language not in CHECKED | SHOWN
    ]
    assert unknown == []


def parameter_of(page: Path) -> ParameterSet:
    """Return a page as a parameter. One page needs large libraries, which only `make data-test` installs."""
    name = str(page.relative_to(DOCS))
    return pytest.param(page, id=name, marks=pytest.mark.data if name == "how-to/data.md" else ())


@pytest.mark.filterwarnings("ignore:Using `httpx` with")  # starlette's test client prefers httpx2
@pytest.mark.parametrize("page", [parameter_of(page) for page in PAGES])
def test_blocks_of_page_run(
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    blocks = blocks_of(page)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with Session() as session:
        for name in fixtures_of(blocks):
            value = request.getfixturevalue(name)
            session.names.update(value if isinstance(value, dict) else {})
        for block in blocks:
            try:
                session.run(block)
            except Exception as error:
                error.add_note(block.place)
                raise
        session.finish()

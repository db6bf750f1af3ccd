"""A page with a mistake fails the tests: each kind of block is checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docs import markdown
from tests.docs.markdown import blocks_of, fixtures_of
from tests.docs.session import Session

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(markdown, "ROOT", tmp_path)  # for the places in messages


def run(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with Session() as session:
        for block in blocks_of(page):
            session.run(block)
        session.finish()


CORRECT = """
<!-- fixtures: s3, gcs -->
<!-- setup
import asyncio
-->

```python
x = 1


async def two():
    return x + 1
```

- In a list:

    ```python
    print(await two())
    ```

    ```text title="output"
    2
    ```

```python title="program.py"
print("one")
print("two")
```

```console
$ python program.py
one
...
$ pip install 'trove-async[s3,gcs]'
$ make test
$ python -c 'raise SystemExit(3)'
$ echo $?
3
```
"""


def test_correct_page_runs(tmp_path: Path) -> None:
    run(tmp_path, CORRECT)


def test_fixtures_are_named_once(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- fixtures: s3, gcs -->\n\n<!-- fixtures: s3 -->\n")
    assert fixtures_of(blocks_of(page)) == ["s3", "gcs"]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("    2\n", "    3\n"),
        ("\none\n", "\nzero\n"),
        ("s3,gcs]", "s3,gsc]"),
        ("make test", "make tset"),
        ("$ make test", "$ sudo make test"),
        ('print("two")', "raise SystemExit(1)"),
        ("\n3\n", "\n4\n"),
        ("x = 1\n", "x = y\n"),
        ("import asyncio", "import missing_module"),
    ],
)
def test_page_with_a_mistake_fails(tmp_path: Path, right: str, wrong: str) -> None:
    assert right in CORRECT
    with pytest.raises((AssertionError, NameError, ModuleNotFoundError)):
        run(tmp_path, CORRECT.replace(right, wrong, 1))


@pytest.mark.parametrize(
    "code", ['default = "mem://', 'default = "s4://bucket"', '[pool]\nmax_bytes = "64 apples"']
)
def test_malformed_configuration_fails(tmp_path: Path, code: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        run(tmp_path, f"```toml\n{code}\n```\n")


def test_file_that_no_block_runs_is_executed(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, '```python title="program.py"\n1 / 0\n```\n')


def test_included_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, '```python\n--8<-- "example.py"\n```\n')

"""The examples in the README and in docstrings run, and the paths in documents exist.

`tests/docs` runs those of the site.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import importlib
import inspect
import io
import os
import pkgutil
import re
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import trove_async
import trove_async.drivers
from tests.docs.markdown import DOCS, ROOT, blocks_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trove_async.testing.servers import S3Server

SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda code: code.strip().splitlines()[0][:40])
def test_readme_snippet_runs_when_pasted(
    snippet: str, tmp_path: Path, moto_server: S3Server
) -> None:
    credentials = {
        "AWS_ENDPOINT_URL": moto_server.endpoint_url,
        "AWS_ACCESS_KEY_ID": moto_server.access_key_id,
        "AWS_SECRET_ACCESS_KEY": moto_server.secret_access_key,
    }
    result = subprocess.run(  # noqa: S603 - our own README
        [sys.executable, "-W", "error", "-c", snippet],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={"PYTHONPATH": str(ROOT), **credentials},
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout


def test_readme_has_snippets() -> None:
    assert len(SNIPPETS) >= 2


def test_readme_links_work_on_the_package_page() -> None:
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not link.startswith("https://")] == []
    paths = [link.partition("/blob/main/")[2] for link in links if "/blob/main/" in link]
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_paths_in_contributing_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = re.findall(r"`((?:trove_async|tests|benchmarks|examples)/[a-z0-9_/.]+)`", text)
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_structure_in_contributing_is_that_of_the_import_contract() -> None:
    [diagram] = re.findall(
        r"    trove_async/\n(.*?)\n\n(?=\S)", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL
    )
    groups = [
        {
            name
            for line in group.splitlines()
            for name in re.split(r"\s{2,}", line.strip())[0].split()
        }
        for group in diagram.split("\n\n")
    ]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = [set(layer.split(" : ")) for layer in contracts["contracts"][0]["layers"]]
    package = ROOT / "trove_async"
    assert [{name.removesuffix("/").removesuffix(".py") for name in group} for group in groups] == (
        layers
    )
    assert [name for group in groups for name in group if not (package / name).exists()] == []
    assert all((package / name).is_dir() for group in groups for name in group if name[-1] == "/")


def test_service_of_the_fastapi_guide_stores_and_serves_a_file(tmp_path: Path) -> None:
    guide = blocks_of(DOCS / "how-to/fastapi.md")
    [service_code] = [block.code for block in guide if block.title == "service.py"]
    (tmp_path / "service.py").write_text(service_code)
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/files/dir/note.txt"
        command = [sys.executable, "-m", "uvicorn", "service:app", "--fd", str(listener.fileno())]
        with subprocess.Popen(  # noqa: S603 - our own page
            command, cwd=tmp_path, env=environment, pass_fds=[listener.fileno()]
        ) as service:
            try:
                # The socket is already listening, so requests wait until the service has started.
                with httpx.Client(timeout=50, verify=False) as client:  # noqa: S501 - no TLS here
                    assert client.put(url, content=b"hello").status_code == 201
                    response = client.get(url)
                    assert (response.status_code, response.content) == (200, b"hello")
                    assert client.head(url).headers["content-length"] == "5"
                    assert client.get(f"{url}x").status_code == 404
            finally:
                service.terminate()
    assert service.returncode in {0, -signal.SIGTERM}


def docstring_examples() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for info in pkgutil.walk_packages(trove_async.__path__, "trove_async."):
        if info.name.endswith("__main__"):  # a program
            continue
        module = importlib.import_module(info.name)
        for test in finder.find(module):
            if test.examples:
                yield test


DOCSTRING_EXAMPLES = list(docstring_examples())


def test_docstrings_have_examples() -> None:
    assert "trove_async.store.Trove" in {test.name for test in DOCSTRING_EXAMPLES}


@pytest.mark.parametrize("test", DOCSTRING_EXAMPLES, ids=lambda test: test.name)
def test_docstring_example_prints_the_expected_output(test: doctest.DocTest) -> None:
    drivers = {name: getattr(trove_async.drivers, name) for name in trove_async.drivers.__all__}
    names: dict[str, Any] = {**vars(trove_async), **drivers, **test.globs}
    with asyncio.Runner() as runner:
        for example in test.examples:
            printed = io.StringIO()
            code = compile(
                example.source, test.name, "single", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            )
            with contextlib.redirect_stdout(printed):
                result = eval(code, names)  # noqa: S307 - our own docstring
                if inspect.iscoroutine(result):
                    runner.run(result)
            assert printed.getvalue() == example.want

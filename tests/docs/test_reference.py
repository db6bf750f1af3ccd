"""Every public name has an entry in the reference, and every error a row in the error index."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import pytest

from tests.docs.markdown import DOCS
from trove_async import errors

_DIRECTIVE = re.compile(r"^::: (trove_async[\w.]*)\.(\w+)$", re.MULTILINE)

PACKAGES = [
    "trove_async",
    "trove_async.blocking",
    "trove_async.drivers",
    "trove_async.layers",
    "trove_async.middlewares",
    "trove_async.jobs",
    "trove_async.jobs.dask",
    "trove_async.config",
    "trove_async.testing",
]

MODULES = [
    "trove_async.driver",
    "trove_async.middleware",
    "trove_async.integrations.starlette",
    "trove_async.integrations.aiohttp",
    "trove_async.integrations.django",
    "trove_async.integrations.fsspec",
    "trove_async.integrations.logs",
    "trove_async.integrations.obspec",
    "trove_async.integrations.otel",
    "trove_async.testing.servers",
]
"""Modules without ``__all__``. Their public names are the functions and classes that they define."""

SHARED = {"object_response", "store_upload"}
"""Functions that both web frameworks have from one module."""


def documented() -> list[Any]:
    """Return the objects that the reference documents."""
    text = "\n".join(page.read_text() for page in sorted((DOCS / "reference").glob("*.md")))
    return [
        getattr(importlib.import_module(module), name) for module, name in _DIRECTIVE.findall(text)
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_exported_name_has_an_entry(package: str) -> None:
    module = importlib.import_module(package)
    entries = documented()
    missing = [
        name
        for name in module.__all__
        if not any(getattr(module, name) is entry for entry in entries)
    ]
    assert missing == []


@pytest.mark.parametrize("name", MODULES)
def test_every_public_function_and_class_has_an_entry(name: str) -> None:
    module = importlib.import_module(name)
    entries = documented()
    public = {
        member_name: member
        for member_name, member in vars(module).items()
        if not member_name.startswith("_")
        and (inspect.isclass(member) or inspect.isroutine(member))
        and (member.__module__ == name or member_name in SHARED)
    }
    assert public
    missing = [
        member_name
        for member_name, member in public.items()
        if not any(member is entry or member == entry for entry in entries)
    ]
    assert missing == []


def error_classes() -> list[str]:
    """Return the names of all errors, the base class first."""
    return [
        name
        for name, member in vars(errors).items()
        if inspect.isclass(member) and issubclass(member, errors.TroveError)
    ]


def test_error_index_has_every_error_with_its_cause_and_cure() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (DOCS / "errors.md").read_text().splitlines()
        if line.startswith("| [`")
    ]
    assert {match[1] for name, *_ in rows if (match := re.match(r"\[`(\w+)`\]", name))} == {
        *error_classes()
    }
    assert [row for row in rows if len(row) != 3 or not all(row)] == []

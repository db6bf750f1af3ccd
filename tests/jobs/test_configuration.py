"""The configuration from which other processes open a store."""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import pytest

from trove_async import BackendNotFoundError, ConfigError, Trove
from trove_async.jobs._configuration import check_configuration, store_from

CANARY = "canary-71f3b9"


def make_store(url: str = "mem://") -> Trove:
    return Trove(url)


@pytest.mark.parametrize(
    "configuration",
    [
        {"default": "mem://", "backends": {"cold": "mem://"}, "routes": [["*.log", "cold"]]},
        {"default": "mem://", "backends": {"cold": "mem://"}, "create_missing_buckets": False},
        'default = "mem://"\n[backends]\ncold = "mem://"\n',
    ],
)
def test_mapping_and_toml_build_a_store(configuration: Any) -> None:
    sent = pickle.loads(check_configuration(configuration))  # noqa: S301 - our own
    assert list(store_from(sent).backends) == ["default", "cold"]


@pytest.mark.parametrize("function", [make_store, partial(make_store, "mem://")])
def test_function_is_called_only_by_store_from(function: Any) -> None:
    sent = pickle.loads(check_configuration(function))  # noqa: S301 - our own
    assert isinstance(store_from(sent), Trove)


@pytest.mark.parametrize(
    ("configuration", "kind", "text"),
    [
        ({}, ConfigError, "default: is required"),
        ({"default": "mem://", "pol": 1}, ConfigError, "unknown key 'pol'"),
        ({"default": 1}, ConfigError, "default: must be a URL"),
        ({"default": CANARY}, ConfigError, "default: "),
        ({"default": "mem://", "routes": [["*.log", "x"]]}, BackendNotFoundError, "x"),
        (f'default = "{CANARY}" "', ConfigError, "not valid TOML \\(at line 1, column"),
        (f"{CANARY}", ConfigError, "not valid TOML"),
        (b"default", TypeError, "got bytes"),
        (lambda: Trove("mem://"), ConfigError, "importable"),
    ],
)
def test_malformed_configuration_raises(
    configuration: Any, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text) as caught:
        check_configuration(configuration)
    assert CANARY not in str(caught.value)


def test_function_must_return_a_store() -> None:
    with pytest.raises(TypeError, match="must return a Trove, got list"):
        store_from(list)  # type: ignore[arg-type]

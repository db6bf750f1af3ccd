"""What each table of a configuration makes."""

from __future__ import annotations

import base64
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trove_async import (
    BufferPool,
    CircuitBreaker,
    ConfigError,
    RetryPolicy,
    Route,
    Scope,
    Timeout,
    Trove,
)
from trove_async.config import _backends, _middleware, _store, load
from trove_async.config._tables import Table
from trove_async.drivers import GCSDriver, LocalDriver, MemoryDriver, S3Driver
from trove_async.layers import Fallback, Hedged, Mapped, Mirrored, ReadThrough
from trove_async.middlewares import (
    Compression,
    Encryption,
    Inspection,
    Keyring,
    KmsKeys,
)

KEY = Keyring.generate_key()


def arguments(**config: Any) -> dict[str, Any]:
    return load({"default": "mem://", **config}).arguments()


def backend(table: Any, **config: Any) -> Any:
    return arguments(backends={"b": table}, **config)["backends"]["b"]


# -- functions that configurations import --------------------------------------------------------------


def by_bucket(bucket: str, _key: str) -> str:
    return "cold" if bucket == "large" else ""


def in_scope(bucket: str, key: str) -> bool:
    return key.startswith(bucket)


def keyring(*, id: str) -> Keyring:
    return Keyring({id: KEY})


def driver(*, parallel_parts: int = 1) -> MemoryDriver:
    return MemoryDriver(parallel_parts=parallel_parts)


def layer(inner: MemoryDriver, *, into: str) -> Mapped:
    return Mapped(inner, into=into)


def compression(*, level: int) -> Compression:
    return Compression(level=level)


def inspector(bucket: str, key: str, content_type: str | None) -> Any:
    raise NotImplementedError


HERE = __name__


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let configurations import this module under the name of a service's module."""
    monkeypatch.setitem(sys.modules, "functions_of_a_service", sys.modules[HERE])


# -- every argument of a constructor can be set ---------------------------------------------------------


@pytest.mark.parametrize(
    ("constructor", "table", "apart"),
    [
        # Arguments with a different name or form in a table come last.
        (LocalDriver, _backends.LocalTable, {}),
        (MemoryDriver, _backends.MemoryTable, {}),
        (S3Driver, _backends.S3Table, {"tls": "ca_file"}),
        (GCSDriver, _backends.GCSTable, {"tls": "ca_file"}),
        (ReadThrough, _backends.ReadThroughTable, {"origin": None}),
        (Mirrored, _backends.MirroredTable, {"primary": None}),
        (Fallback, _backends.FallbackTable, {"primary": None}),
        (Hedged, _backends.HedgedTable, {"driver": None}),
        (Mapped, _backends.MappedTable, {"driver": None}),
        (Compression, _middleware.CompressionTable, {}),
        (Encryption, _middleware.EncryptionTable, {}),
        (Inspection, _middleware.InspectionTable, {"factory": "function"}),
        # Functions cannot be written in a file, and the time limits are those of the requests to KMS.
        (KmsKeys, _middleware.KmsKeysTable, {"encryption_context": None, "timeout": None}),
        (BufferPool, _store.PoolTable, {}),
        (RetryPolicy, _store.RetryTable, {}),
        (CircuitBreaker, _store.BreakerTable, {}),
        (Timeout, _store.TimeoutTable, {}),
        (Trove, _store.StoreTable, {"route_functions": "routes"}),
    ],
)
def test_table_has_every_argument_of_the_constructor(
    constructor: Callable[..., object], table: type[Table], apart: dict[str, str | None]
) -> None:
    names = {apart.get(name, name) for name in inspect.signature(constructor).parameters}
    extra = {"type", "layers", "bucket", "prefix", "credentials", "scope"}
    assert names - {None} <= table.model_fields.keys()
    assert table.model_fields.keys() - names <= extra


# -- backends and layers --------------------------------------------------------------------------------


def test_backend_is_a_url_or_a_table_with_a_url() -> None:
    assert isinstance(backend("file:///srv/objects"), LocalDriver)
    assert repr(backend({"url": "s3://bucket/prefix", "layers": ["read_only"]})).startswith(
        "ReadOnly(Mapped(<S3Driver"
    )


def test_local_table_passes_its_options(tmp_path: Path) -> None:
    made = backend({"type": "local", "root": str(tmp_path), "file_mode": "0640", "threads": 3})
    assert repr(made) == f"LocalDriver({str(tmp_path)!r})"
    assert made._settings.file_mode == 0o640


def test_s3_table_maps_all_buckets_into_one_and_reveals_shared_credentials() -> None:
    made = backend(
        {"type": "s3", "region": "eu-west-1", "bucket": "b", "prefix": "p/", "credentials": "aws"},
        credentials={"aws": {"access_key_id": "ID", "secret_access_key": "canary-secret"}},
    )
    assert isinstance(made, Mapped)
    assert made.place("data", "k") == S3Driver(region="eu-west-1").place("b", "p/data/k")
    assert "canary" not in repr(made)


def test_s3_table_takes_a_customer_key_in_base64() -> None:
    made = backend(
        {
            "type": "s3",
            "region": "eu-west-1",
            "sse_customer_key": base64.b64encode(bytes(32)).decode(),
        }
    )
    assert isinstance(made, S3Driver)


def test_gcs_table_takes_the_name_of_credentials_or_a_path() -> None:
    shared = {"google": {"file": "/run/secrets/sa.json"}}
    for credentials in ("google", "/run/secrets/sa.json"):
        made = backend({"type": "gcs", "credentials": credentials}, credentials=shared)
        assert isinstance(made, GCSDriver)


def test_layers_are_made_from_the_inside_outwards() -> None:
    made = backend(
        {
            "type": "memory",
            "layers": [
                {"type": "mapped", "into": "all"},
                {
                    "type": "read_through",
                    "cache": "mem://",
                    "max_bytes": "1GiB",
                    "revalidate": "5m",
                },
                {"type": "mirrored", "replicas": ["mem://", {"type": "memory"}], "acknowledge": 2},
                {"type": "fallback", "others": ["mem://"], "on_missing": True},
                {"type": "hedged", "after": 0.9},
                "read_only",
            ],
        }
    )
    layers = ("ReadOnly", "Hedged", "Fallback", "Mirrored", "ReadThrough", "Mapped")
    assert repr(made).startswith("".join(f"{layer}(" for layer in layers))
    for option in ("max_bytes=1073741824", "acknowledge=2", "on_missing=True"):
        assert option in repr(made)


def test_driver_layer_and_middleware_of_your_own_are_imported() -> None:
    made = backend(
        {
            "type": "functions_of_a_service:driver",
            "parallel_parts": 7,
            "layers": [{"type": "functions_of_a_service:layer", "into": "all"}],
        }
    )
    assert isinstance(made, Mapped)
    [middleware] = arguments(
        middleware=[{"type": "functions_of_a_service:compression", "level": 7}]
    )["middleware"]
    assert repr(middleware) == repr(Compression(level=7))


# -- rules ----------------------------------------------------------------------------------------------


def test_routes_have_every_form() -> None:
    made = arguments(
        backends={"cold": "mem://"},
        routes=[
            {"function": "functions_of_a_service:by_bucket"},
            {"function": "functions_of_a_service:by_bucket", "by": "bucket"},
            ["*.log", "cold"],
            {"pattern": "**/*.log", "backend": "cold", "bucket": "data"},
            {"prefix": "archive/", "backend": "cold"},
            {"suffix": ".log", "backend": "cold", "bucket": "data"},
            {"bucket": "large", "backend": "cold"},
        ],
    )
    assert made["routes"] == [
        Route("*.log", "cold"),
        Route("**/*.log", "cold", bucket="data"),
        Route.prefix("archive/", "cold"),
        Route.suffix(".log", "cold", bucket="data"),
        Route.bucket("large", "cold"),
    ]
    assert made["route_functions"][0]("large", "key") == "cold"
    assert len(made["route_functions"]) == 2


def test_route_function_after_another_route_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"routes\.1: functions are asked before all other"):
        arguments(
            backends={"cold": "mem://"},
            routes=[["*.log", "cold"], {"function": "functions_of_a_service:by_bucket"}],
        )


@pytest.mark.parametrize(
    ("table", "scope"),
    [
        ({}, Scope.everything()),
        ({"buckets": "tenant-*"}, Scope.buckets("tenant-*")),
        (
            {"keys": ["*.csv", "*.txt"], "backends": "cold"},
            Scope.keys("*.csv", "*.txt") & Scope.backends("cold"),
        ),
        ({"content_types": ["text/*"]}, Scope.content_types("text/*")),
        ({"not": {"backends": "default"}}, ~Scope.backends("default")),
        (
            {"any": [{"buckets": "a"}, {"keys": "b"}], "not": {"keys": "c"}},
            (Scope.buckets("a") | Scope.keys("b")) & ~Scope.keys("c"),
        ),
        ({"when": "functions_of_a_service:in_scope"}, Scope.when(in_scope)),
    ],
)
def test_scope_combines_its_keys(table: Any, scope: Scope) -> None:
    [(_, made)] = arguments(
        backends={"cold": "mem://"}, middleware=[{"type": "compression", "scope": table}]
    )["middleware"]
    assert made == scope


@pytest.mark.parametrize(
    "keys",
    [
        "env:TEST_KEYS",
        {"type": "env", "name": "TEST_KEYS"},
        "file:{file}",
        {"type": "functions_of_a_service:keyring", "id": "2026-11"},
    ],
)
def test_keys_come_from_the_environment_a_file_or_a_function(
    keys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEYS", f"2026-11:{KEY}")
    file = tmp_path / "keys"
    file.write_text(f"2026-11:{KEY}\n")
    if isinstance(keys, str):
        keys = keys.replace("{file}", str(file))
    [middleware] = arguments(middleware=[{"type": "encryption", "keys": keys}])["middleware"]
    assert repr(middleware) == "Encryption(Keyring('2026-11'))"


def test_keys_of_kms_use_shared_credentials() -> None:
    [middleware] = arguments(
        credentials={"aws": {"access_key_id": "ID", "secret_access_key": "canary-secret"}},
        middleware=[
            {
                "type": "encryption",
                "keys": {
                    "type": "kms",
                    "key_id": "alias/objects",
                    "region": "eu-west-1",
                    "credentials": "aws",
                    "max_age": "10m",
                },
            }
        ],
    )["middleware"]
    assert "alias/objects" in repr(middleware)
    assert "canary" not in repr(middleware)


def test_inspection_imports_its_function() -> None:
    [middleware] = arguments(
        middleware=[{"type": "inspection", "function": "functions_of_a_service:inspector"}]
    )["middleware"]
    assert repr(middleware) == "Inspection(inspector)"


# -- policies -------------------------------------------------------------------------------------------


def test_policies_take_sizes_and_durations() -> None:
    made = arguments(
        pool={"max_bytes": "64MiB", "part_size": 8 * 1024**2, "spill_after": "500ms"},
        retry={"attempts": 3, "base_delay": "50ms", "breaker": {"failures": 4, "pause": "2s"}},
        timeout={"connect": "5s", "total": "1h30m"},
        locate="anywhere",
        create_missing_buckets=False,
    )
    assert made["pool"].max_bytes == 64 * 1024**2
    assert made["retry"] == RetryPolicy(
        attempts=3, base_delay=0.05, breaker=CircuitBreaker(failures=4, pause=2.0)
    )
    assert made["timeout"] == Timeout(connect=5.0, total=5400.0)
    assert made["locate"] == "anywhere"
    assert made["create_missing_buckets"] is False


def test_breaker_can_be_switched_off() -> None:
    assert arguments(retry={"breaker": False})["retry"] == RetryPolicy(breaker=None)


def test_nothing_but_the_default_is_needed() -> None:
    made = load({"default": "mem://"}).arguments()
    assert made.keys() == {"default", "backends", "routes", "route_functions", "middleware"}

"""Problems of a configuration are reported with their path, the allowed values, and no value."""

from __future__ import annotations

from typing import Any

import pytest

from trove_async import BackendNotFoundError, ConfigError, PatternError, Trove, TroveError

CANARY = "canary-71f3b9"


def message_of(config: dict[str, Any], kind: type[TroveError] = ConfigError) -> str:
    with pytest.raises(kind) as caught:
        Trove.from_config({"default": "mem://", **config})
    assert CANARY not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"default": 1}, "default: must be a URL, or a table with 'url'"),
        ({"default": {"type": CANARY}}, "default: must be a URL, or a table with 'url'"),
        ({"default": "nope://x"}, "default: unknown scheme 'nope'"),
        ({"pol": {}}, "unknown key 'pol': did you mean 'pool'? The keys are backends,"),
        ({"backends": []}, "backends: must be a table"),
        (
            {"backends": {"s3": {"type": "s3", "regoin": CANARY}}},
            "backends.s3: unknown key 'regoin': did you mean 'region'?",
        ),
        ({"default": {"type": "local"}}, "default.root: is required"),
        ({"default": {"type": "local", "root": 3}}, "default.root: must be a text"),
        (
            {"default": {"type": "local", "root": "/x", "threads": CANARY}},
            "default.threads: must be a whole number",
        ),
        ({"default": {"type": "local", "root": "/x", "file_mode": CANARY}}, "permissions in octal"),
        ({"default": {"type": "local", "root": "/x", "fsync": CANARY}}, "must be true or false"),
        (
            {"default": {"type": "s3", "data_plane": CANARY}},
            "default.data_plane: must be 'lean' or 'sdk'",
        ),
        (
            {"default": {"type": "s3", "secret_access_key": CANARY}},
            "default: access_key_id and secret_access_key must be set together",
        ),
        (
            {"default": {"type": "s3", "region": "eu", "prefix": "x/"}},
            "default: 'prefix' needs 'bucket'",
        ),
        (
            {"default": {"type": "s3", "region": "eu", "sse_customer_key": f"{CANARY}!"}},
            "default: sse_customer_key: must be base64",
        ),
        (
            {"default": {"type": "s3", "region": "eu", "ca_file": "/no/such/file"}},
            "default: ca_file: '/no/such/file' cannot be read",
        ),
        (
            {"default": {"type": "s3", "credentials": "awss"}, "credentials": {"aws": {}}},
            "default: there are no credentials 'awss': [credentials] defines 'aws'",
        ),
        (
            {"default": {"type": "s3", "credentials": "g"}, "credentials": {"g": {"file": "x"}}},
            "default: the credentials 'g' have 'file', which is for Google Cloud Storage",
        ),
        (
            {
                "default": {"type": "gcs", "credentials": "aws"},
                "credentials": {"aws": {"profile": "x"}},
            },
            "default: the credentials 'aws' must have 'file' and nothing else",
        ),
        (
            {"default": {"type": "gcs", "credentials": f'{{"private_key": "{CANARY}"}}'}},
            "default: credentials: must be a name or the path of a file",
        ),
        (
            {"default": {"type": "memory", "layers": ["read_onyl"]}},
            "default.layers.0: must be a table whose 'type' is 'read_through',",
        ),
        (
            {"default": {"type": "memory", "layers": [{"type": "mirrored", "replicas": []}]}},
            "default.layers.0.replicas: must not be empty",
        ),
        (
            {
                "default": {
                    "type": "memory",
                    "layers": [{"type": "mirrored", "replicas": ["mem://"], "acknowledge": "some"}],
                }
            },
            "default.layers.0.acknowledge: must be 'all', 'primary' or a number of copies",
        ),
        (
            {
                "default": {
                    "type": "memory",
                    "layers": [{"type": "read_through", "cache": {"type": "s5"}, "max_bytes": 1}],
                }
            },
            "default.layers.0.cache: must be a URL, or a table with 'url'",
        ),
        (
            {"default": {"type": "memory", "layers": [{"type": "fallback", "others": ["s3://"]}]}},
            "default.layers.0.others.0: invalid s3:// URL",
        ),
        (
            {"default": {"type": "no_such_module:x"}},
            "default: 'no_such_module:x' cannot be imported",
        ),
        ({"default": {"type": "os:no_such_name"}}, "default: 'os:no_such_name' cannot be imported"),
        ({"default": {"type": "os:"}}, "default.type: must have the form 'package.module:name'"),
        ({"default": {"type": "os:getcwd"}}, "default: 'os:getcwd' must return a driver, got str"),
        ({"routes": [["*.log"]]}, "routes.0: must be [pattern, backend], or a table with"),
        ({"routes": [{"prefix": "x"}]}, "routes.0.backend: is required"),
        ({"routes": [{"prefix": "x", "suffix": "y", "backend": "z"}]}, "unknown key 'suffix'"),
        ({"routes": [["[", "default"]]}, "routes.0: bad pattern '['"),
        ({"middleware": ["zip"]}, "middleware.0: must be a table whose 'type' is 'compression'"),
        ({"middleware": [{"type": "compression", "level": 99}]}, "middleware.0: level must be"),
        (
            {"middleware": [{"type": "encryption", "keys": CANARY}]},
            "middleware.0.keys: must be 'env:NAME', 'file:PATH', 'kms:KEY_ID', or a table",
        ),
        (
            {"middleware": [{"type": "encryption", "keys": "file:/no/such/keys"}]},
            "middleware.0: the key file '/no/such/keys' cannot be read",
        ),
        (
            {"middleware": [{"type": "compression", "scope": {"keys": "["}}]},
            "middleware.0: bad pattern '['",
        ),
        (
            {"middleware": [{"type": "compression", "scope": {"any": []}}]},
            "middleware.0.scope.any: must not be empty",
        ),
        (
            {"pool": {"max_bytes": f"64 {CANARY}"}},
            'pool.max_bytes: must be a size, such as "64MiB"',
        ),
        ({"pool": {"max_bytes": 1}}, "pool: "),
        ({"timeout": {"idle": "soon"}}, 'timeout.idle: must be a duration, such as "30s"'),
        ({"timeout": {"idle": -1}}, "timeout: "),
        ({"retry": {"attempts": 0}}, "retry: attempts must be at least 1, and"),
        ({"retry": {"breaker": True}}, "retry.breaker: must be a table"),
        ({"locate": "everywhere"}, "locate: must be 'routed' or 'anywhere'"),
        ({"create_missing_buckets": "no"}, "create_missing_buckets: must be true, false or 'auto'"),
    ],
)
def test_problem_has_a_path_and_no_value(config: dict[str, Any], expected: str) -> None:
    message = message_of(config)
    assert message.startswith("the configuration: ")
    assert expected in message
    assert "<" not in message  # the tags of unions are internal


def test_all_problems_are_reported_at_once() -> None:
    assert message_of({"locate": "x", "retry": {"attempts": "many"}}).splitlines() == [
        "the configuration has 2 problems:",
        "  retry.attempts: must be a whole number",
        "  locate: must be 'routed' or 'anywhere'",
    ]


def test_all_problems_that_constructors_find_are_reported_at_once() -> None:
    message = message_of(
        {
            "backends": {"a": "nope://x", "b": "mem://", "c": {"type": "s3", "prefix": "x/"}},
            "routes": [["[", "b"], ["*.log", "b"]],
            "middleware": [{"type": "compression", "level": 99}],
            "pool": {"max_bytes": "0"},
            "retry": {"attempts": 0},
            "timeout": {"connect": -1},
        }
    )
    title, *lines = message.splitlines()
    assert title == "the configuration has 7 problems:"
    assert [line.split(":")[0].strip() for line in lines] == [
        "backends.a",
        "backends.c",
        "routes.0",
        "middleware.0",
        "pool",
        "retry",
        "timeout",
    ]


def test_many_problems_are_counted() -> None:
    lines = message_of({"backends": {f"b{n}": 1 for n in range(30)}}).splitlines()
    assert len(lines) == 22
    assert lines[-1] == "  and 10 more"


def test_unknown_backends_of_routes_and_scopes_are_found() -> None:
    message_of({"routes": [["*.log", "cold"]]}, BackendNotFoundError)
    scope = {"type": "compression", "scope": {"backends": "cold"}}
    message_of({"middleware": [scope]}, BackendNotFoundError)
    assert issubclass(PatternError, TroveError)

"""What is found in the environment without the SDK is what the SDK finds there."""

from __future__ import annotations

import asyncio
import errno
import os
import pwd
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from trove_async.drivers.s3._credentials import (
    Identity,
    _find_credentials,
    _resolve_endpoint,
    run_sdk,
)
from trove_async.drivers.s3._environment import environment_credentials, environment_endpoint

CANARY = "canary-secret-key"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    # The SDK must not ask an instance's metadata service for credentials.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def identity(region: str | None = None, endpoint_url: str | None = None) -> Identity:
    return Identity(
        region=region,
        endpoint_url=endpoint_url,
        access_key_id=None,
        secret_access_key=None,
        session_token=None,
        profile=None,
        role_arn=None,
    )


@pytest.mark.parametrize(
    ("environment", "region", "url"),
    [
        ({}, None, None),
        ({}, "us-east-1", None),
        ({}, "eu-west-3", None),
        ({}, "ap-southeast-7", None),
        ({"AWS_DEFAULT_REGION": "mx-central-1"}, None, None),
        ({"AWS_DEFAULT_REGION": "mx-central-1"}, "il-central-1", None),
        ({"AWS_REGION": "eu-west-1"}, None, None),  # other SDKs read it; botocore does not
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, None, None),
        ({"AWS_ENDPOINT_URL": "http://a:1", "AWS_ENDPOINT_URL_S3": "https://b"}, "x-1", None),
        ({"AWS_ENDPOINT_URL": "http://a:1", "AWS_ENDPOINT_URL_S3": ""}, None, None),
        ({"AWS_ENDPOINT_URL": "http://a:1"}, None, "http://c:3"),
    ],
)
def test_endpoint_is_that_of_the_sdk(
    environment: dict[str, str],
    region: str | None,
    url: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = environment_endpoint(region, url)
    assert found == asyncio.run(run_sdk(partial(_resolve_endpoint, identity(region, url))))


@pytest.mark.parametrize(
    ("environment", "region"),
    [
        ({"AWS_PROFILE": "x"}, None),
        ({"AWS_PROFILE": ""}, None),
        ({"AWS_DEFAULT_PROFILE": "x"}, None),
        ({"AWS_USE_FIPS_ENDPOINT": "true"}, None),
        ({"AWS_USE_FIPS_ENDPOINT": ""}, None),
        ({"AWS_USE_DUALSTACK_ENDPOINT": "true"}, None),
        ({"AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "regional"}, None),
        ({"AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": ""}, None),  # the SDK refuses it
        ({"AWS_DEFAULTS_MODE": "standard"}, None),
        ({"AWS_DEFAULTS_MODE": ""}, None),  # as above
        ({"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true", "AWS_ENDPOINT_URL": "http://a"}, None),
        ({}, "us-gov-west-1"),
        ({}, "cn-north-1"),
        ({}, "aws-global"),
        ({}, "us-iso-east-1"),
        ({}, "eusc-de-east-1"),
    ],
)
def test_everything_else_is_left_to_the_sdk(
    environment: dict[str, str], region: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert environment_endpoint(region, None) is None


@pytest.mark.parametrize(
    ("variable", "default"),
    [
        ("AWS_CONFIG_FILE", ".aws/config"),
        ("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"),
    ],
)
@pytest.mark.parametrize("is_named", [False, True])
def test_a_file_of_the_sdk_is_left_to_the_sdk(
    variable: str, default: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_named: bool
) -> None:
    path = tmp_path / ("elsewhere" if is_named else default)
    path.parent.mkdir(exist_ok=True)
    path.write_text("[default]\nregion = eu-north-1\n")
    if is_named:
        monkeypatch.setenv(variable, str(path))
    assert environment_endpoint(None, None) is None


def test_home_that_cannot_be_read_has_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a container with HOME=/root and another user. The tests may run as root, who can read everything.
    stat = os.stat

    def refuse(path: str | Path | int, **options: Any) -> os.stat_result:
        if str(path).startswith(str(tmp_path)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", refuse)
    found = environment_endpoint(None, None)
    assert found == asyncio.run(run_sdk(partial(_resolve_endpoint, identity())))


def test_user_without_a_home_has_no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(user_id: int) -> pwd.struct_passwd:
        raise KeyError(user_id)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", refuse)
    found = environment_endpoint(None, None)
    assert found == asyncio.run(run_sdk(partial(_resolve_endpoint, identity())))


@pytest.mark.parametrize(
    "environment",
    [
        {"AWS_ACCESS_KEY_ID": "ID", "AWS_SECRET_ACCESS_KEY": CANARY},
        {"AWS_ACCESS_KEY_ID": "ID", "AWS_SECRET_ACCESS_KEY": CANARY, "AWS_SESSION_TOKEN": "T"},
        {"AWS_ACCESS_KEY_ID": "ID", "AWS_SECRET_ACCESS_KEY": CANARY, "AWS_SECURITY_TOKEN": "T"},
        {
            "AWS_ACCESS_KEY_ID": "ID",
            "AWS_SECRET_ACCESS_KEY": CANARY,
            "AWS_SESSION_TOKEN": "new",
            "AWS_SECURITY_TOKEN": "old",
        },
    ],
)
def test_credentials_are_those_of_the_sdk(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    expected, refreshable = asyncio.run(run_sdk(partial(_find_credentials, identity())))
    assert environment_credentials() == expected
    assert refreshable is None


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"AWS_ACCESS_KEY_ID": "ID"},
        {"AWS_ACCESS_KEY_ID": "ID", "AWS_SECRET_ACCESS_KEY": CANARY, "AWS_SESSION_TOKEN": ""},
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": CANARY},
        {"AWS_ACCESS_KEY_ID": "ID", "AWS_SECRET_ACCESS_KEY": CANARY, "AWS_PROFILE": "x"},
        {
            "AWS_ACCESS_KEY_ID": "ID",
            "AWS_SECRET_ACCESS_KEY": CANARY,
            "AWS_CREDENTIAL_EXPIRATION": "2030-01-01T00:00:00Z",
        },
    ],
)
def test_other_credentials_are_left_to_the_sdk(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert environment_credentials() is None

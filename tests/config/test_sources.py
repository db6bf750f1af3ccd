"""Where the values of a configuration come from."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from trove_async import ConfigError, Trove
from trove_async.config import load

FILE = """
default = "mem://"

[backends.cold]
type = "s3"
region = "${REGION:-eu-west-1}"
access_key_id = "${KEY_ID}"
secret_access_key = "${SECRET}"
parallel_parts = "${PARTS:-4}"

[[routes]]
prefix = "archive/"
backend = "cold"
"""

PEM = "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n"
SERVICE_ACCOUNT = json.dumps(
    {
        "type": "service_account",
        "note": "a&b",
        "client_email": "canary@example.org",
        "private_key": PEM,
    }
)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KEY_ID", "AKIACANARY")
    monkeypatch.setenv("SECRET", "canary-secret-value")
    path = tmp_path / "trove.toml"
    path.write_text(FILE)
    return path


def settings(path: Path) -> dict[str, tuple[str, str]]:
    loaded = load(path)
    loaded.arguments()
    return {one.path: (one.value, one.origin) for one in loaded.settings}


def test_settings_name_their_origin_and_hide_secrets(file: Path) -> None:
    assert settings(file) == {
        "default": ("mem://", str(file)),
        "backends.cold.type": ("s3", str(file)),
        "backends.cold.region": ("eu-west-1", f"{file} (${{REGION}})"),
        "backends.cold.access_key_id": ("***", f"{file} (${{KEY_ID}})"),
        "backends.cold.secret_access_key": ("***", f"{file} (${{SECRET}})"),
        "backends.cold.parallel_parts": ("4", f"{file} (${{PARTS}})"),
        "routes.0.prefix": ("archive/", str(file)),
        "routes.0.backend": ("cold", str(file)),
    }


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://AKIA:canary@eu-west-1/b?storage_class=X", "s3://***@eu-west-1/b?storage_class=X"),
        ("s3://b?session_token=canary&region=eu", "s3://b?session_token=***&region=eu"),
        ("s3://b?session%5Ftoken=canary&region=eu", "s3://b?session%5Ftoken=***&region=eu"),
        ("sftp://user:canary@host/path", "sftp://***@host/path"),
        (
            f"gcs://b?credentials={quote(SERVICE_ACCOUNT)}&project=p",
            "gcs://b?credentials=***&project=p",
        ),
        (
            f"gcs://b?project=p&credentials={SERVICE_ACCOUNT}&x=canary",
            "gcs://b?project=p&credentials=***",
        ),
        (f"x://b?pem={quote(PEM)}&region=eu", "x://b?pem=***&region=eu"),
        (f"x://{PEM}", "***"),
        ("gcs://b?credentials=/etc/{name}.json", "gcs://b?credentials=/etc/{name}.json"),
    ],
)
def test_secrets_in_urls_are_hidden(url: str, shown: str) -> None:
    [setting] = [one for one in load({"default": url}).settings if one.path == "default"]
    assert setting.value == shown


@pytest.mark.parametrize("text", [SERVICE_ACCOUNT, f"\n{SERVICE_ACCOUNT}", PEM, f"x{PEM}"])
def test_private_keys_in_tables_are_hidden(text: str) -> None:
    values = {"default": "mem://", "backends": {"a": {"type": "gcs", "credentials": text}}}
    shown = {one.path: one.value for one in load(values).settings}
    assert shown["backends.a.credentials"] == "***"
    values = {"default": "mem://", "backends": {"a": {"type": "x:y", "given": [text, "/path"]}}}
    shown = {one.path: one.value for one in load(values).settings}
    assert shown["backends.a.given"] == "[***, /path]"


def test_variable_replaces_a_default(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGION", "us-east-2")
    assert settings(file)["backends.cold.region"][0] == "us-east-2"


def test_empty_variable_has_the_default_as_in_a_shell(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGION", "")
    assert settings(file)["backends.cold.region"][0] == "eu-west-1"


def test_missing_variable_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECRET")
    with pytest.raises(
        ConfigError,
        match=r"backends\.cold\.secret_access_key: the environment variable SECRET is not set",
    ):
        load(file)


def test_doubled_dollar_is_a_literal() -> None:
    [setting] = load({"default": "file:///srv/$${NAME}/$HOME"}).settings
    assert setting.value == "file:///srv/${NAME}/$HOME"


@pytest.mark.parametrize("text", ["${", "${}", "${1}", "${A B}", "${A:default}"])
def test_malformed_reference_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="default: a reference must have the form"):
        load({"default": text})


def test_variable_overrides_one_value(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TROVE__backends__cold__region", "ap-southeast-2")
    monkeypatch.setenv("TROVE__routes__0__prefix", "old/")
    monkeypatch.setenv("TROVE__retry__attempts", "2")
    monkeypatch.setenv("TROVE__backends__cold__layers", '["read_only"]')
    found = settings(file)
    name = "environment (TROVE__backends__cold__region)"
    assert found["backends.cold.region"] == ("ap-southeast-2", name)
    assert found["routes.0.prefix"][0] == "old/"
    assert found["retry.attempts"] == ("2", "environment (TROVE__retry__attempts)")
    assert found["backends.cold.layers"] == (
        "[read_only]",
        "environment (TROVE__backends__cold__layers)",
    )


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("TROVE__backends__cold__regoin", "backends.cold: unknown key 'regoin'"),
        ("TROVE__bakends__cold", "unknown key 'bakends': did you mean 'backends'"),
        ("TROVE__default__root", "cannot set 'root': default is not a table"),
        ("TROVE__routes__1__prefix", "cannot set '1': routes is a list of 1"),
        ("TROVE__routes__x", "cannot set 'x': routes is a list of 1"),
        ("TROVE__", "must name a value"),
        ("TROVE__backends____region", "must name a value"),
    ],
)
def test_override_of_an_unknown_value_is_an_error(
    file: Path, name: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "x")
    with pytest.raises(ConfigError, match=problem.replace(".", r"\.")):
        load(file)


def test_override_that_is_no_toml_is_a_text(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TROVE__credentials__a__access_key_id", "id")
    monkeypatch.setenv("TROVE__credentials__a__secret_access_key", "{abc")
    monkeypatch.setenv("TROVE__backends__hot__type", "local")
    monkeypatch.setenv("TROVE__backends__hot__root", "[data]/hot")
    found = settings(file)
    assert found["credentials.a.secret_access_key"][0] == "***"
    assert found["backends.hot.root"][0] == "[data]/hot"


def test_text_in_place_of_a_list_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TROVE__backends__cold__layers", '["read_only"')
    with pytest.raises(ConfigError, match=r"backends\.cold\.layers: must be a list"):
        load(file)


def test_mapping_is_not_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TROVE__default", "s3://other")
    [setting] = load({"default": "mem://"}).settings
    assert setting.value == "mem://"


def test_mapping_is_not_changed() -> None:
    config = {"default": "mem://", "backends": {"cold": {"url": "${X:-mem://}"}}}
    load(config)
    assert config == {"default": "mem://", "backends": {"cold": {"url": "${X:-mem://}"}}}


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the configuration file '.*/no\.toml' does not exist"):
        Trove.from_config(tmp_path / "no.toml")


def test_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Trove.from_config(str(tmp_path))


@pytest.mark.parametrize("data", [b'default = "canary', b'default = "\xff"', b"canary"])
def test_file_that_is_no_toml_is_an_error_without_its_text(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "trove.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="is not valid TOML") as caught:
        Trove.from_config(path)
    assert "canary" not in str(caught.value)


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="config must be a path or a mapping, got int"):
        Trove.from_config(3)  # type: ignore[arg-type]

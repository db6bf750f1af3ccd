"""The commands for routes, backends and jobs, on a store with three local backends."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import jsonschema
import pytest

import trove_async
from tests.cli.conftest import Trove, contents


@pytest.fixture
def filled(configured: Trove) -> Trove:
    """Return `trove` with objects on each backend, of which two are not where the routes say."""
    for key in ("a.txt", "b.log", "archive/c"):
        configured("cp", "-", f"data/{key}", stdin=key.encode())
    configured("cp", "-", "data/d.log", "--backend", "default", stdin=b"d")
    configured("cp", "-", "data/archive/e", "--backend", "cold", stdin=b"e")
    return configured


def places(trove: Trove) -> dict[str, str]:
    return {one["key"]: one["backend"] for one in trove("ls", "-r", "data", "--json").json}


def test_explain(filled: Trove) -> None:
    assert filled("explain", "data/x.log").lines == [
        "data/x.log: cold",
        (
            "  Route 1 of 2: '*.log' is the first pattern that matches the key. An object that is not there is"
            " looked for on 'default', 'archive'."
        ),
    ]
    [decision] = filled("explain", "data/x", "--json").json
    assert (decision["backend"], decision["rule"]) == ("default", None)


def test_routes(configured: Trove) -> None:
    result = configured("routes")
    assert result.lines[:6] == [
        "backend default: local",
        "backend cold: local",
        "backend archive: local",
        "pattern *.log  ->  cold",
        "prefix archive/  ->  archive",
        "everything else  ->  default",
    ]
    assert "misses keys in deeper folders" in result.lines[6]


def test_misplaced_and_rebalance(filled: Trove) -> None:
    found = filled("misplaced", "data", "--json").json
    assert {(one["key"], one["backend"], one["belongs_to"]) for one in found} == {
        ("d.log", "default", "cold"),
        ("archive/e", "cold", "archive"),
    }
    assert filled("rebalance", "data", "--dry-run", "--json").json[0]["changed"] == 2
    assert len(filled("misplaced", "data").lines) == 2
    result = filled("rebalance", "data")
    assert result.code == 0
    assert "changed 2" in result.out
    assert filled("misplaced", "data").out == ""
    assert places(filled)["d.log"] == "cold"


def test_tier(filled: Trove) -> None:
    rules = ["--rule", "to=cold,prefix=a.,larger-than=1B", "--rule", "to=archive,after=1d"]
    assert filled("tier", "data", *rules).code == 0
    assert places(filled)["a.txt"] == "cold"


def test_migrate_and_verify(filled: Trove) -> None:
    result = filled("migrate", "data", "--from", "cold", "--to", "archive", "--delete", "--json")
    assert (result.code, result.json[0]["changed"]) == (0, 2)
    assert set(places(filled).values()) == {"default", "archive"}
    [report] = filled("verify", "data", "--json").json
    assert (report["examined"], report["failed"]) == (5, 0)


def test_verify_names_every_damaged_object(filled: Trove, config: Path) -> None:
    file = config.parent / "stores/hot/data/a.txt"
    before = file.stat()
    file.write_bytes(b"A.txt")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    result = filled("verify", "data")
    assert result.code == 1
    assert "data/a.txt: IntegrityError" in result.err


def test_reencode_compresses(filled: Trove, config: Path) -> None:
    filled("cp", "-", "data/large.txt", stdin=b"x" * 100_000)
    text = config.read_text()
    config.write_text('middleware = ["compression"]\n' + text)
    [report] = filled("reencode", "data", "--json").json
    assert report["changed"] == 1
    [info] = filled("stat", "data/large.txt", "--json").json
    assert (info["transforms"], info["size"]) == (["zstd"], 100_000)
    assert info["stored_size"] < 1000
    assert filled("cat", "data/large.txt").raw == b"x" * 100_000


def test_repair(trove: Trove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trove.toml"
    path.write_text(
        f"""[default]
        url = "file://{tmp_path}/one"
        layers = [{{ type = "mirrored", replicas = ["file://{tmp_path}/two"] }}]"""
    )
    monkeypatch.setenv("TROVE_CONFIG", str(path))
    trove("mb", "data")
    trove("cp", "-", "data/x", stdin=b"1")
    (tmp_path / "two/data/x").unlink()
    assert trove("repair", "data", "--json").json[0]["changed"] == 1
    assert contents(tmp_path / "two/data") == {"x": b"1"}


def test_job_continues_from_its_checkpoint(filled: Trove, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    assert filled("verify", "data", "--checkpoint", state).code == 0
    assert json.loads(state.read_text())
    assert filled("verify", "data", "--checkpoint", state).code == 0


def test_health(configured: Trove) -> None:
    result = configured("health", "--json")
    assert result.code == 0
    assert [(one["backend"], one["ok"]) for one in result.json] == [
        ("default", True),
        ("cold", True),
        ("archive", True),
    ]


def test_health_of_a_service_that_does_not_respond(trove: Trove, unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    options = ["--endpoint-url", url, "--region", "us-east-1"]
    result = trove("health", "s3://ID:canary-secret@us-east-1/b", *options)
    assert result.code == 1
    assert f"127.0.0.1:{unused_tcp_port}" in result.err
    assert "canary" not in result.out + result.err


# -- buckets ---------------------------------------------------------------------------------------------


def test_buckets(configured: Trove) -> None:
    assert configured("mb", "data").code == 1
    assert configured("mb", "data", "--exist-ok").code == 0
    configured("cp", "-", "data/x.log", stdin=b"1")
    assert configured("rb", "data").code == 1
    assert configured("rb", "data", "--force").code == 0
    assert configured("ls").out == ""
    assert configured("rb", "data").code == 3
    assert configured("mb", "a/b").code == 2


def test_gc_uploads(trove: Trove, s3: str) -> None:
    [result] = trove("gc-uploads", s3, "--older-than", "1h", "--json").json
    assert (result["aborted"], result["bucket"]) == (0, s3.removeprefix("s3://"))


def test_gc_uploads_of_a_backend_without_uploads(configured: Trove) -> None:
    assert configured("gc-uploads", "data").code == 2


# -- presign ---------------------------------------------------------------------------------------------


def test_presign(trove: Trove, s3: str) -> None:
    result = trove("presign", f"{s3}/x y", "--expires", "1m")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/.*/x%20y\?.*X-Amz-Expires=60&.*", result.lines[0])
    assert trove("presign", f"{s3}/x", "--put").code == 0
    assert trove("presign", f"{s3}/x", "--expires", "8d").code == 2
    assert trove("presign", f"{s3}/x", "--expires", "soon").code == 2


# -- doctor ----------------------------------------------------------------------------------------------


def test_doctor_of_seaweedfs(trove: Trove, s3: str) -> None:
    result = trove("doctor", s3, "--json")
    assert result.code == 0
    verdicts = {one["check"]: one["verdict"] for one in result.json}
    assert verdicts == {
        "connection": "ok",
        "list": "ok",
        "uploads": "ok",
        "write": "ok",
        "read": "ok",
        "clock": "ok",
        "checksums": "ok",
        "metadata": "ok",
        "create if absent": "ok",
        "replace if unchanged": "ok",
        "listing": "note",  # SeaweedFS lists directories, not keys in order
        "versions": "note",
        "delete": "ok",
    }
    assert trove("ls", "-r", s3).out == ""


def test_doctor_finds_wrong_keys(trove: Trove, s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-wrong-secret")
    result = trove("doctor", s3)
    assert result.code == 1
    assert "failed   " in result.out
    assert "canary" not in result.out + result.err


def test_doctor_finds_a_missing_bucket(trove: Trove, s3: str) -> None:
    result = trove("doctor", f"{s3}-missing")
    assert result.code == 1
    assert "create it with trove mb" in result.out


def test_doctor_reads_only(trove: Trove, s3: str) -> None:
    result = trove("doctor", s3, "--read-only", "--json")
    assert [one["check"] for one in result.json] == ["connection", "list", "uploads"]


def test_doctor_examines_every_backend(configured: Trove) -> None:
    result = configured("doctor", "data/tmp/", "--json")
    assert result.code == 0
    assert {one["backend"] for one in result.json} == {"default", "cold", "archive"}
    assert configured("ls", "-r", "data").out == ""


# -- configuration ---------------------------------------------------------------------------------------


def test_config_check(trove: Trove, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TROVE__timeout__connect", "5s")
    config.write_text(
        config.read_text() + '[credentials.aws]\nsecret_access_key = "canary-secret"\n'
    )
    result = trove("config", "check", config)
    assert result.code == 0
    assert re.search(rf"locate +anywhere +{config}", result.out)
    assert re.search(r"timeout.connect +5s +environment \(TROVE__timeout__connect\)", result.out)
    assert "misses keys in deeper folders" in result.out
    assert "canary" not in result.out + result.err
    rows = trove("config", "check", "-C", config, "--json").json
    assert {"path": "locate", "value": "anywhere", "origin": str(config)} in rows


def test_config_check_names_every_problem(trove: Trove, config: Path) -> None:
    config.write_text('default = "mem://"\nlocat = "anywhere"\n')
    result = trove("config", "check", config)
    assert (result.code, result.out) == (2, "")
    assert "unknown key 'locat': did you mean 'locate'?" in result.err


def test_config_schema(trove: Trove) -> None:
    text = trove("config", "schema")
    schema = json.loads(text.out)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert trove("config", "schema", "--json").json == [schema]


def test_version(trove: Trove) -> None:
    assert trove("version").out.startswith(f"trove_async {trove_async.__version__}, Python 3.")

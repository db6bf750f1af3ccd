"""``cp``, ``mv``, ``sync`` and ``rm``."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Trove, contents, tree
from trove_async.cli._paths import Paths
from trove_async.errors import InvalidNameError

FILES = {
    "a.txt": b"one",
    "b/c.log": b"two" * 1000,
    "b/d/e.txt": b"",
    "large.bin": bytes(range(256)) * 40_000,
}


def keys(trove: Trove, url: str) -> dict[str, int]:
    found = trove("ls", "-r", url, "--json").json
    return {entry["key"]: entry["size"] for entry in found}


SIZES = {name: len(data) for name, data in FILES.items()}


def test_directory_goes_to_a_folder_and_back(trove: Trove, s3: str, tmp_path: Path) -> None:
    source = tree(tmp_path / "in", FILES)
    up = trove("cp", source, f"{s3}/dir")
    assert (up.code, up.out) == (0, "")
    assert re.fullmatch(r"trove: transferred 4 objects, 9.8 MiB, in .*\n", up.err)
    assert keys(trove, s3) == {f"dir/{name}": size for name, size in SIZES.items()}
    down = trove("cp", f"{s3}/dir/", tmp_path / "out", "--json")
    assert contents(tmp_path / "out") == FILES
    assert {(one["action"], one["source"], one["target"]) for one in down.json} == {
        ("download", f"{s3}/dir/{name}", str(tmp_path / "out" / name)) for name in FILES
    }


def test_folder_without_a_slash_needs_recursive(trove: Trove, s3: str, tmp_path: Path) -> None:
    trove("cp", tree(tmp_path / "in", FILES), f"{s3}/dir")
    assert trove("cp", f"{s3}/dir", tmp_path / "out").code == 3
    assert trove("cp", "-r", f"{s3}/dir", tmp_path / "out").code == 0
    assert contents(tmp_path / "out") == FILES


@pytest.mark.parametrize(
    ("target", "key"),
    [("", "a.txt"), ("/", "a.txt"), ("/x/", "x/a.txt"), ("/x", "x"), ("/x?y=1", "x?y=1")],
)
def test_file_gets_the_key_that_the_target_names(
    trove: Trove, s3: str, tmp_path: Path, target: str, key: str
) -> None:
    tree(tmp_path, FILES)
    assert trove("cp", tmp_path / "a.txt", f"{s3}{target}").code == 0
    assert list(keys(trove, s3)) == [key]
    assert trove("cat", f"{s3}/{key}").raw == b"one"


def test_object_gets_the_name_that_the_target_names(trove: Trove, s3: str, tmp_path: Path) -> None:
    trove("cp", "-", f"{s3}/x/key", stdin=b"data")
    (tmp_path / "dir").mkdir()
    for target, path in (("dir", "dir/key"), ("new/", "new/key"), ("file", "file")):
        slash = "/" if target.endswith("/") else ""
        assert trove("cp", f"{s3}/x/key", f"{tmp_path / target}{slash}").code == 0
        assert (tmp_path / path).read_bytes() == b"data"


def test_standard_input_and_output_are_streams_of_unknown_size(trove: Trove, s3: str) -> None:
    body = os.urandom(20 * 1024 * 1024)
    assert trove("cp", "-", f"{s3}/x", stdin=body).code == 0
    assert trove("cp", f"{s3}/x", "-").raw == body


def test_pattern_is_copied_to_a_folder(trove: Trove, s3: str, tmp_path: Path) -> None:
    trove("cp", tree(tmp_path / "in", FILES), s3)
    assert trove("cp", f"{s3}/**/*.txt", tmp_path / "out").code == 0
    assert sorted(contents(tmp_path / "out")) == ["a.txt", "b/d/e.txt"]


def test_include_and_exclude_do_not_depend_on_their_order(
    trove: Trove, s3: str, tmp_path: Path
) -> None:
    source = tree(tmp_path / "in", FILES)
    filters = [["--include", "**/*.txt"], ["--exclude", "b/d/**"]]
    for number, order in enumerate([filters, filters[::-1]]):
        folder = f"{s3}/{number}"
        assert trove("cp", source, folder, *order[0], *order[1]).code == 0
        assert list(keys(trove, f"{folder}/")) == [f"{number}/a.txt"]


def test_excluded_tree_is_not_walked(trove: Trove, s3: str, tmp_path: Path) -> None:
    source = tree(tmp_path / "in", FILES)
    (source / "b").chmod(0)
    try:
        result = trove("cp", source, s3, "--exclude", "b/**")
    finally:
        (source / "b").chmod(0o700)
    assert (result.code, sorted(keys(trove, s3))) == (0, ["a.txt", "large.bin"])


def test_headers_and_metadata_of_an_object(trove: Trove, s3: str) -> None:
    options = [
        "--content-type",
        "text/x",
        "--cache-control",
        "no-store",
        "-m",
        "a=1",
        "-m",
        "b=x=y",
    ]
    assert trove("cp", "-", f"{s3}/x", *options, stdin=b"1").code == 0
    [info] = trove("stat", f"{s3}/x", "--json").json
    assert (info["content_type"], info["cache_control"]) == ("text/x", "no-store")
    assert info["metadata"] == {"a": "1", "b": "x=y"}


def test_no_clobber_keeps_what_exists(trove: Trove, s3: str, tmp_path: Path) -> None:
    trove("cp", "-", f"{s3}/x", stdin=b"old")
    assert trove("cp", "-", f"{s3}/x", "--no-clobber", stdin=b"new").code == 1
    assert trove("cat", f"{s3}/x").raw == b"old"
    (tmp_path / "x").write_bytes(b"mine")
    assert trove("cp", f"{s3}/x", tmp_path / "x", "--no-clobber").code == 1
    assert (tmp_path / "x").read_bytes() == b"mine"


def test_object_is_copied_within_a_service_with_its_headers(trove: Trove, s3: str) -> None:
    trove("cp", "-", f"{s3}/x", "--content-type", "text/x", "-m", "a=1", stdin=b"1")
    assert trove("cp", f"{s3}/x", f"{s3}/copy/").code == 0
    [info] = trove("stat", f"{s3}/copy/x", "--json").json
    assert (info["content_type"], info["metadata"]) == ("text/x", {"a": "1"})


def test_object_is_copied_to_a_configured_store(configured: Trove, s3: str) -> None:
    configured("cp", "-", f"{s3}/x.log", "--content-type", "text/x", "-m", "a=1", stdin=b"1")
    assert configured("cp", f"{s3}/x.log", "data/").code == 0
    [info] = configured("stat", "data/x.log", "--json").json
    assert (info["content_type"], info["metadata"]) == ("text/x", {"a": "1"})
    assert info["backend"] == "cold"


@pytest.mark.parametrize("command", ["cp", "mv", "rm", "sync"])
def test_dry_run_names_both_sides_and_changes_nothing(
    trove: Trove, s3: str, tmp_path: Path, command: str
) -> None:
    source = tree(tmp_path / "in", {"a": b"1"})
    trove("cp", source, f"{s3}/x")
    sides: dict[str, list[str | Path]] = {
        "rm": ["-r", f"{s3}/x/"],
        "cp": [source, f"{s3}/y"],
        "mv": ["-r", source, f"{s3}/y"],
        "sync": [source, f"{s3}/y"],
    }
    result = trove(command, *sides[command], "--dry-run")
    verb = {"rm": "delete", "mv": "move"}.get(command, "upload")
    source_text = "" if command == "rm" else f"{source}/a -> "
    target = f"{s3}/x/a" if command == "rm" else f"{s3}/y/a"
    assert (result.code, result.lines) == (0, [f"would {verb} {source_text}{target}"])
    assert list(keys(trove, s3)) == ["x/a"]
    assert contents(source) == {"a": b"1"}


# -- mv --------------------------------------------------------------------------------------------------


def test_mv_deletes_what_it_has_copied(trove: Trove, s3: str, tmp_path: Path) -> None:
    source = tree(tmp_path / "in", FILES)
    assert trove("mv", source, f"{s3}/x").code == 0
    assert contents(source) == {}
    assert keys(trove, s3) == {f"x/{name}": size for name, size in SIZES.items()}
    assert trove("mv", "-r", f"{s3}/x", f"{s3}/y").code == 0
    assert trove("mv", f"{s3}/y/**/*.txt", f"{s3}/z/").code == 0
    assert sorted(keys(trove, s3)) == ["y/b/c.log", "y/large.bin", "z/a.txt", "z/b/d/e.txt"]
    assert trove("mv", f"{s3}/y/", tmp_path / "out").code == 0
    assert sorted(contents(tmp_path / "out")) == ["b/c.log", "large.bin"]
    assert sorted(keys(trove, s3)) == ["z/a.txt", "z/b/d/e.txt"]


def test_mv_renames_an_object(trove: Trove, s3: str) -> None:
    trove("cp", "-", f"{s3}/x", stdin=b"1")
    assert trove("mv", f"{s3}/x", f"{s3}/y").code == 0
    assert keys(trove, s3) == {"y": 1}


def test_mv_onto_itself_keeps_the_object(trove: Trove, s3: str) -> None:
    trove("cp", "-", f"{s3}/x", stdin=b"1")
    assert trove("mv", f"{s3}/x", f"{s3}/x").code == 0
    assert keys(trove, s3) == {"x": 1}


def test_mv_onto_itself_through_two_stores_keeps_the_object(
    trove: Trove, s3: str, tmp_path: Path
) -> None:
    trove("cp", "-", f"{s3}/x", stdin=b"1")
    config = tmp_path / "trove.toml"
    config.write_text('default = { type = "s3" }')
    bucket = s3.removeprefix("s3://")
    for pair in ([f"{s3}/x", f"{bucket}/x"], [f"{bucket}/x", f"{s3}/x"]):
        result = trove("mv", *pair, "-C", config)
        assert (result.code, "under another name: it was kept" in result.err) == (1, True)
        assert keys(trove, s3) == {"x": 1}
    assert trove("mv", f"{s3}/x", f"{bucket}/y", "-C", config).code == 0
    assert keys(trove, s3) == {"y": 1}


def test_mv_of_a_file_of_a_local_backend_onto_itself_keeps_it(
    configured: Trove, config: Path
) -> None:
    configured("cp", "-", "data/x", stdin=b"1")
    file = config.parent / "stores/hot/data/x"
    assert file.read_bytes() == b"1"
    for pair in ([file, "data/x"], ["data/x", file]):
        assert configured("mv", *pair).code == 1
        assert file.read_bytes() == b"1"


# -- sync ------------------------------------------------------------------------------------------------


def test_sync_transfers_and_deletes_only_differences(trove: Trove, s3: str, tmp_path: Path) -> None:
    source = tree(tmp_path / "in", FILES)
    trove("sync", source, s3)
    again = trove("sync", source, s3, "--json")
    assert (again.code, again.out) == (0, "")
    assert "trove: 4 unchanged" in again.err
    (source / "a.txt").unlink()
    (source / "new").write_bytes(b"n")
    trove("cp", "-", f"{s3}/kept.tmp", stdin=b"1")
    result = trove("sync", source, s3, "--delete", "--exclude", "*.tmp", "--json")
    assert sorted((one["action"], one["target"]) for one in result.json) == [
        ("delete", f"{s3}/a.txt"),
        ("upload", f"{s3}/new"),
    ]
    assert "kept.tmp" in keys(trove, s3)


def test_sync_with_checksums_finds_what_times_hide(trove: Trove, s3: str, tmp_path: Path) -> None:
    source = tree(tmp_path / "in", {"a": b"1"})
    trove("sync", source, s3)
    before = (source / "a").stat()
    (source / "a").write_bytes(b"2")
    os.utime(source / "a", ns=(before.st_atime_ns, before.st_mtime_ns - 10**12))
    assert trove("sync", source, s3, "--json").out == ""
    assert len(trove("sync", source, s3, "--checksum", "--json").json) == 1
    assert trove("cat", f"{s3}/a").raw == b"2"


def test_sync_of_an_empty_source_deletes_nothing(trove: Trove, s3: str, tmp_path: Path) -> None:
    trove("cp", "-", f"{s3}/x", stdin=b"1")
    (tmp_path / "empty").mkdir()
    result = trove("sync", tmp_path / "empty", s3, "--delete")
    assert result.code == 2
    assert "has nothing to sync" in result.err
    assert keys(trove, s3) == {"x": 1}
    assert trove("sync", tmp_path / "empty", s3, "--delete", "--allow-empty").code == 0
    assert keys(trove, s3) == {}


# -- rm --------------------------------------------------------------------------------------------------


def test_rm(trove: Trove, s3: str, tmp_path: Path) -> None:
    trove("cp", tree(tmp_path / "in", FILES), s3)
    assert trove("rm", f"{s3}/a.txt").code == 0
    assert trove("rm", "-r", f"{s3}/b", "--exclude", "**/*.log").code == 0
    assert sorted(keys(trove, s3)) == ["b/c.log", "large.bin"]
    assert trove("rm", f"{s3}/b/").code == 2
    assert trove("rm", s3).code == 2
    deleted = trove("rm", f"{s3}/**", "--json")
    assert sorted(one["target"] for one in deleted.json) == [f"{s3}/b/c.log", f"{s3}/large.bin"]
    assert keys(trove, s3) == {}


# -- failures --------------------------------------------------------------------------------------------


def test_every_failure_is_named_and_the_others_are_done(
    trove: Trove, s3: str, tmp_path: Path
) -> None:
    source = tree(tmp_path / "in", FILES)
    (source / "unreadable").symlink_to("nowhere")
    result = trove("cp", source, s3)
    assert result.code == 1
    assert f"upload of {source}/unreadable failed: " in result.err
    assert sorted(keys(trove, s3)) == sorted(FILES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cp", "a", "b"], "a and b are both local: use cp(1)"),
        (["cp", ".", "b"], "both are local directories: use cp(1) or rsync(1)"),
        (["cp", "a", "b", "s3://bucket/x"], "several sources need a folder as their target"),
        (["cp", "-", "s3://bucket"], "standard input needs a key as its target: s3://bucket/KEY"),
        (["cp", "x", "s3://"], "must name a bucket"),
        (["cp", "x", "ftp://host/x"], "ftp:// is not known here"),
        (["cp", "x", "file://x"], "write file:///PATH, or the path alone"),
        (["cp", "x", "trove://data/x"], "pass --config"),
        (["cp", "-m", "x", "y", "s3://bucket"], "--metadata must have the form NAME=VALUE"),
        (["cp", ".", "s3://bucket", "-m", "x=y"], "are for single objects"),
        (["cp", "x", "s3://bucket", "--include", "y"], "are for directories and folders"),
        (["ls", "s3://a:b/c"], "invalid s3:// URL"),
        (["mv", "-", "s3://bucket/x"], "use cp"),
        (["sync", "-", "s3://bucket/x"], "hold a single object"),
        (["sync", ".", "s3://bucket", "--checksum", "--size-only"], "exclude each other"),
        (["rm", "x"], "rm(1)"),
        (["rm", "-r", "s3://"], "names no bucket"),
        (["ls"], "pass --config"),
        (["ls", "-"], "standard input cannot be listed"),
        (["ls", "/"], "the root directory cannot be listed"),
        (["ls", "s3://b", "--backend", "cold"], "--backend names a backend of a configuration"),
        (["stat", "s3://bucket"], "is no object"),
        (["tier", "s3://bucket", "--rule", "after=3d"], "must name a backend with to="),
        (["tier", "s3://bucket", "--rule", "to=x,after=soon"], "after must be a duration"),
        (["config", "check"], "name a file, or set TROVE_CONFIG"),
        (["ls", "x", "-C", "no.toml"], "the configuration file 'no.toml' does not exist"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    trove: Trove,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = trove(*arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert len(result.err.splitlines()) == 1


def test_secrets_of_urls_are_in_no_message(trove: Trove, s3: str) -> None:
    bucket = s3.removeprefix("s3://")
    for arguments in (
        ["ls", f"s3://ID:canary-secret@us-east-1/{bucket}"],
        ["cat", f"s3://ID:canary-secret@{bucket}/x"],
    ):
        result = trove(*arguments)
        assert result.code == 1
        assert "canary" not in result.out + result.err


# -- names that lead astray --------------------------------------------------------------------------------


def test_rm_and_cat_of_an_object_leave_the_folder_of_its_name_alone(trove: Trove, s3: str) -> None:
    for key in ("logs", "logs/a", "logs/b/c"):
        trove("cp", "-", f"{s3}/{key}", stdin=key.encode())
    assert trove("cat", f"{s3}/logs").raw == b"logs"
    assert trove("rm", f"{s3}/logs").code == 0
    assert sorted(keys(trove, s3)) == ["logs/a", "logs/b/c"]
    refused = trove("rm", f"{s3}/logs")
    assert (refused.code, "is a folder: add --recursive" in refused.err) == (2, True)
    assert trove("cat", f"{s3}/logs").code == 3
    assert trove("rm", "-r", f"{s3}/logs").code == 0
    assert keys(trove, s3) == {}


@pytest.mark.parametrize("command", ["cp", "mv", "sync"])
def test_target_has_no_wildcards(trove: Trove, s3: str, tmp_path: Path, command: str) -> None:
    trove("cp", "-", f"{s3}/important", stdin=b"1")
    source = tree(tmp_path / "in", {"a": b"22"})
    options = ["--delete"] if command == "sync" else []
    assert trove(command, *options, source, f"{s3}/photos[1]*/").code == 0
    assert keys(trove, s3) == {"important": 1, "photos[1]*/a": 2}


@pytest.mark.parametrize(
    "alias", ["s3://us-east-1/{}/", "s3://{}/?endpoint=http://localhost:{port}"]
)
def test_two_names_of_a_bucket_never_delete_their_only_objects(
    trove: Trove, s3: str, tmp_path: Path, alias: str
) -> None:
    trove("cp", tree(tmp_path / "in", FILES), f"{s3}/a")
    before = keys(trove, s3)
    port = os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2]
    other = alias.format(s3.removeprefix("s3://"), port=port)
    folder, _, options = other.partition("?")
    query = f"?{options}" if options else ""
    result = trove("sync", "--delete", f"{s3}/a/", other)
    assert result.code in {1, 2}
    assert "overlap" in result.err
    assert keys(trove, s3).items() >= before.items()
    assert trove("mv", f"{s3}/a/a.txt", f"{folder}a/a.txt{query}").code != 0
    assert trove("mv", "-r", f"{s3}/a/", f"{folder}a/{query}").code != 0
    assert keys(trove, s3).items() >= before.items()


def test_keys_that_are_no_paths_are_not_moved(trove: Trove, s3: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (tmp_path / "out").mkdir()
    (tmp_path / "out/link").symlink_to(tmp_path)
    for key in ("ok", "link/outside"):
        trove("cp", "-", f"{s3}/x/{key}", stdin=b"1")
    result = trove("mv", f"{s3}/x/", tmp_path / "out")
    assert (result.code, outside.exists()) == (1, False)
    assert "is a link, so nothing is written below it" in result.err
    assert list(keys(trove, s3)) == ["x/link/outside"]


@pytest.mark.parametrize("key", ["x/..", "x//y", "x/./y", "/y", "../y"])
def test_paths_refuse_keys_that_lead_elsewhere(tmp_path: Path, key: str) -> None:
    with pytest.raises(InvalidNameError):
        asyncio.run(Paths(tmp_path).check(key))


def test_sources_of_one_name_are_refused(trove: Trove, s3: str, tmp_path: Path) -> None:
    tree(tmp_path, {"a/x": b"1", "b/x": b"2"})
    for command in ("cp", "mv"):
        result = trove(command, tmp_path / "a/x", tmp_path / "b/x", f"{s3}/dir/")
        assert (result.code, "several sources would become" in result.err) == (2, True)
    assert trove("mv", tmp_path / "a", tmp_path / "b", f"{s3}/dir/").code == 2
    assert contents(tmp_path) == {"a/x": b"1", "b/x": b"2"}
    assert keys(trove, s3) == {}


def test_links_are_not_moved(trove: Trove, s3: str, tmp_path: Path) -> None:
    source = tree(tmp_path / "in", {"a": b"1"})
    (source / "link").symlink_to("a")
    result = trove("mv", source / "link", f"{s3}/x")
    assert (result.code, "is no regular file" in result.err) == (2, True)
    result = trove("mv", source, s3)
    assert (result.code, "skipped, no regular file: 1" in result.err) == (0, True)
    assert [path.name for path in source.iterdir()] == ["link"]


def test_pattern_is_moved_into_a_folder_below(trove: Trove, s3: str, tmp_path: Path) -> None:
    trove("cp", tree(tmp_path / "in", {"a.log": b"1", "b.txt": b"2"}), s3)
    assert trove("mv", f"{s3}/*.log", f"{s3}/logs/").code == 0
    assert sorted(keys(trove, s3)) == ["b.txt", "logs/a.log"]
    assert trove("mv", f"{s3}/**/*.log", f"{s3}/logs/").code == 2


def test_an_argument_that_fails_does_not_stop_the_others(
    trove: Trove, s3: str, tmp_path: Path
) -> None:
    tree(tmp_path, {"a": b"1", "b": b"2"})
    result = trove("cp", tmp_path / "a", tmp_path / "missing", tmp_path / "b", f"{s3}/x/")
    assert (result.code, sorted(keys(trove, s3))) == (1, ["x/a", "x/b"])
    assert "missing: No such file or directory" in result.err
    assert trove("cat", f"{s3}/nope", f"{s3}/x/b").raw == b"2"
    assert trove("rm", f"{s3}/nope", f"{s3}/x/b").code == 1
    assert sorted(keys(trove, s3)) == ["x/a"]


def test_missing_bucket_ends_a_tree_at_once(trove: Trove, s3: str, tmp_path: Path) -> None:
    source = tree(tmp_path / "in", {str(number): b"1" for number in range(30)})
    for command in ("cp", "mv"):
        result = trove(command, source, f"{s3}-missing")
        assert (result.code, len(result.err.splitlines())) == (3, 1)
    assert len(contents(source)) == 30


def test_time_of_a_file_survives_single_transfers(trove: Trove, s3: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    os.utime(tmp_path / "a", ns=(10**18, 10**18 + 123))
    trove("cp", tmp_path / "a", f"{s3}/x", "-m", "name=value")
    [info] = trove("stat", f"{s3}/x", "--json").json
    assert info["metadata"] == {"mtime": "1000000000.000000123", "name": "value"}
    trove("cp", f"{s3}/x", tmp_path / "b")
    trove("mv", f"{s3}/x", tmp_path / "c")
    for name in "bc":
        assert (tmp_path / name).stat().st_mtime_ns == 10**18 + 123


def test_limit_of_zero_is_refused(trove: Trove, s3: str) -> None:
    assert trove("cp", "-", f"{s3}/x", "--limit-rate", "0", stdin=b"1").code == 2


def test_deletions_of_a_sync_are_counted_apart(trove: Trove, s3: str, tmp_path: Path) -> None:
    trove("cp", "-", f"{s3}/old", stdin=b"1")
    result = trove("sync", tree(tmp_path / "in", {"a": b"1"}), s3, "--delete")
    assert re.search(r"transferred 1 object, 1 B, in .*; deleted 1", result.err)

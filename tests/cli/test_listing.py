"""``ls``, ``tree``, ``du``, ``stat``, ``cat`` and ``head``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Trove, tree

FILES = {
    "a.txt": b"one\ntwo\nthree\n",
    "logs/app.log": b"line\n" * 20,
    "logs/old/x.gz": b"gz",
    "logs-old/y": b"y",
    "odd/\N{SNOWMAN} #%+?": b"odd",
}


@pytest.fixture
def data(trove: Trove, s3: str, tmp_path: Path) -> str:
    """Return the URL of a bucket with files."""
    assert trove("cp", tree(tmp_path / "in", FILES), s3, "--quiet").code == 0
    return s3


def keys(lines: list[str]) -> list[str]:
    return sorted(line.split("  ")[-1].split("/", 3)[-1] for line in lines)


@pytest.mark.parametrize(
    ("location", "options", "expected"),
    [
        ("", [], ["a.txt", "logs-old/", "logs/", "odd/"]),
        ("/", [], ["a.txt", "logs-old/", "logs/", "odd/"]),
        ("/logs", [], ["logs/app.log", "logs/old/"]),
        ("/logs/", [], ["logs/app.log", "logs/old/"]),
        ("/logs", ["-r"], ["logs/app.log", "logs/old/x.gz"]),
        ("/a.txt", [], ["a.txt"]),
        ("/*.txt", [], ["a.txt"]),
        ("/log*", [], ["logs-old/", "logs/"]),
        ("/**/*.gz", [], ["logs/old/x.gz"]),
        ("/logs/[a-b]*", [], ["logs/app.log"]),
        ("/odd/\N{SNOWMAN} #%+?", [], ["odd/\N{SNOWMAN} #%+?"]),
        ("", ["-r"], sorted(FILES)),
    ],
)
def test_ls(
    trove: Trove, data: str, location: str, options: list[str], expected: list[str]
) -> None:
    result = trove("ls", *options, f"{data}{location}")
    assert (result.code, keys(result.lines), result.err) == (0, sorted(expected), "")


def test_ls_prints_json(trove: Trove, data: str) -> None:
    result = trove("ls", f"{data}/logs", "--json")
    folder, item = sorted(result.json, key=lambda entry: "key" in entry)
    assert folder == {"prefix": "logs/old/"}
    assert (item["key"], item["size"], item["backend"]) == ("logs/app.log", 100, "default")
    assert item["last_modified"].endswith("+00:00")


def test_ls_without_a_bucket_lists_buckets(trove: Trove, s3: str) -> None:
    assert s3 in trove("ls", "s3://").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ls", "{}/nope"], "nope: there is no such object or folder"),
        (["ls", "{}/log"], "there is no such object or folder"),
        (["ls", "{}/nope/"], "there is no such object or folder"),
        (["ls", "{}/*.nope"], "there is no such object or folder"),
        (["ls", "s3://no-such-bucket"], "'no-such-bucket' does not exist: create it with trove mb"),
        (["tree", "{}/nope"], "there is no such object or folder"),
        (["du", "{}/nope"], "there is no such object or folder"),
        (["stat", "{}/nope"], "nope"),
        (["cat", "{}/nope"], "there is no such object or folder"),
        (["head", "{}/nope"], "nope"),
        (["rm", "{}/nope"], "there is no such object or folder"),
        (["cp", "{}/nope", "."], "nope"),
        (["cp", "{}/nope/", "."], "there is no such object or folder"),
        (["cp", "./no-such-file", "{}"], "no-such-file: No such file or directory"),
    ],
)
def test_missing_is_not_empty(trove: Trove, s3: str, arguments: list[str], message: str) -> None:
    result = trove(*(argument.replace("{}", s3) for argument in arguments))
    assert (result.code, result.out) == (3, "")
    assert message in result.err
    assert len(result.err.splitlines()) == 1


def test_empty_bucket_is_no_error(trove: Trove, s3: str) -> None:
    result = trove("ls", s3)
    assert (result.code, result.out, result.err) == (0, "", "")


def test_tree(trove: Trove, tmp_path: Path) -> None:
    root = tree(tmp_path / "in", {"a": b"1", "b/c": b"22", "b/d/e": b"", "z": b"4"})
    result = trove("tree", root)
    assert result.lines == [
        str(root),
        "├── a  [1 B]",
        "├── b/",
        "│   ├── c  [2 B]",
        "│   └── d/",
        "│       └── e  [0 B]",
        "└── z  [1 B]",
    ]
    assert result.err == "trove: 2 folders, 4 objects\n"
    assert trove("tree", root, "--depth", "1").lines[1:] == [
        "├── a  [1 B]",
        "├── b/",
        "└── z  [1 B]",
    ]


def test_du(trove: Trove, data: str) -> None:
    assert trove("du", data, "--json").json == [
        {"location": data, "objects": 5, "bytes": sum(map(len, FILES.values()))}
    ]
    lines = trove("du", f"{data}/logs/", "--depth", "2", "--bytes").lines
    assert [line.split() for line in lines] == [
        ["2", "1", "object", f"{data}/logs/old/"],
        ["102", "2", "objects", f"{data}/logs/"],
    ]


def test_stat(trove: Trove, data: str) -> None:
    [values] = trove("stat", f"{data}/a.txt", "--json").json
    assert (values["size"], values["content_type"]) == (14, "text/plain")
    assert float(values["metadata"]["mtime"]) > 0
    assert "content type:          text/plain" in trove("stat", f"{data}/a.txt").out


def test_cat(trove: Trove, data: str) -> None:
    assert trove("cat", f"{data}/a.txt", f"{data}/logs-old/y").raw == b"one\ntwo\nthree\ny"
    assert trove("cat", f"{data}/logs/*.log").raw == FILES["logs/app.log"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], b"one\ntwo\nthree\n"),
        (["-n", "2"], b"one\ntwo\n"),
        (["-c", "5"], b"one\nt"),
        (["-c", "500"], b"one\ntwo\nthree\n"),
    ],
)
def test_head(trove: Trove, data: str, options: list[str], expected: bytes) -> None:
    assert trove("head", f"{data}/a.txt", *options).raw == expected


def test_local_directories_are_listed_and_not_changed(trove: Trove, tmp_path: Path) -> None:
    root = tree(tmp_path / "in", {"a": b"1", "b/c": b"22"})
    assert keys(trove("ls", "-r", root).lines) == keys([f"x  {root}/a", f"x  {root}/b/c"])
    assert trove("cat", root / "a").raw == b"1"
    assert trove("du", root, "--json").json[0]["bytes"] == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_control_characters_in_keys_are_escaped(trove: Trove, tmp_path: Path) -> None:
    root = tree(tmp_path / "in", {"a\x1b[31mred": b"1"})
    assert "a\\x1b[31mred" in trove("ls", root).out
    [entry] = trove("ls", root, "--json").json
    assert entry["key"] == "a\x1b[31mred"

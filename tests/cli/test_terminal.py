"""The command line in processes of its own: on a terminal, with pipes, interrupted, and started without a file."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from tests.cli.conftest import tree
from trove_async import Trove
from trove_async.drivers import S3Driver
from trove_async.testing.servers import S3Server

COMMAND = [sys.executable, "-m", "trove_async"]
BODY = bytes(range(256)) * 4 * 1024 * 24  # 24 MiB


# Python 3.12 warns that the tests have threads. The child only executes a program.
pytestmark = pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning")


@pytest.fixture
def environment(seaweed: S3Server, tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "AWS_ENDPOINT_URL": seaweed.endpoint_url,
        "AWS_ACCESS_KEY_ID": seaweed.access_key_id,
        "AWS_SECRET_ACCESS_KEY": seaweed.secret_access_key,
        "AWS_DEFAULT_REGION": seaweed.region,
        "TERM": "xterm",
        "COLUMNS": "120",
    }


@pytest.fixture
def bucket(environment: dict[str, str]) -> str:
    url = f"s3://term-{uuid4().hex}"
    run(["mb", url], environment)
    return url


def run(
    arguments: Sequence[str | Path], environment: dict[str, str], *, body: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(  # noqa: S603 - our own program
        [*COMMAND, *map(str, arguments)],
        env=environment,
        input=body,
        capture_output=True,
        check=True,
        timeout=50,
    )


@contextmanager
def terminal(
    arguments: Sequence[str | Path], environment: dict[str, str]
) -> Iterator[tuple[int, int]]:
    """Run a command on a terminal. Yield its pid, and the file descriptor of the terminal."""
    pid, fd = pty.fork()
    if pid == 0:  # the child, which the terminal belongs to
        os.execve(COMMAND[0], [*COMMAND, *map(str, arguments)], environment)  # noqa: S606 - our own program
    try:
        yield pid, fd
    finally:
        os.close(fd)


def read_until(fd: int, found: Callable[[str], object]) -> str:
    """Read a terminal until a text is found, or to its end."""
    text = ""
    while not found(text):
        try:
            data = os.read(fd, 65536)
        except OSError:  # the process has ended
            break
        if not data:
            break
        text += data.decode(errors="replace")
    return text


def code_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_progress_is_drawn_on_a_terminal_and_removed_at_the_end(
    bucket: str, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(BODY)
    options = ["--limit-rate", "24MiB"]
    with terminal(["cp", tmp_path / "large", f"{bucket}/x", *options], environment) as (pid, fd):
        text = read_until(fd, lambda _: False)
        assert code_of(pid) == 0
    assert re.search(r"/24\.0 MiB", text)
    assert re.search(r"MiB/s", text)
    assert "trove: copied 1 object, 24.0 MiB" in text.splitlines()[-1]


def test_without_a_terminal_there_is_one_line(
    bucket: str, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "small").write_bytes(b"1")
    done = run(["cp", tmp_path / "small", f"{bucket}/x"], environment)
    assert re.fullmatch(rb"trove: copied 1 object, 1 B, in .*\n", done.stderr)
    assert run(["cp", tmp_path / "small", f"{bucket}/x", "-q"], environment).stderr == b""


async def left_behind(server: S3Server, bucket: str) -> tuple[list[str], int]:
    """Return the keys of a bucket, and the number of its unfinished uploads."""
    driver = S3Driver(
        endpoint_url=server.endpoint_url,
        region=server.region,
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
    )
    name = bucket.removeprefix("s3://")
    async with Trove(driver) as store:
        keys = [info.key for info in await store.list(name).all()]
        return keys, len(await driver.unfinished_uploads(name))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_upload_leaves_nothing_behind(
    bucket: str,
    environment: dict[str, str],
    tmp_path: Path,
    seaweed: S3Server,
    number: signal.Signals,
) -> None:
    (tmp_path / "large").write_bytes(BODY)
    command: list[str | Path] = ["cp", tmp_path / "large", f"{bucket}/x", "--limit-rate", "8MiB"]
    with terminal(command, environment) as (pid, fd):
        read_until(fd, lambda text: re.search(r"[1-9]\.\d/", text))  # a part is stored
        if number is signal.SIGINT:
            os.write(fd, b"\x03")  # Ctrl-C
        else:
            os.kill(pid, number)
        text = read_until(fd, lambda _: False)
        assert code_of(pid) == 128 + number
    assert ("trove: interrupted" if number is signal.SIGINT else "trove: terminated") in text
    assert "trove: stopped: copied 0 objects" in text
    assert asyncio.run(left_behind(seaweed, bucket)) == ([], 0)


def test_interrupted_upload_is_continued(
    bucket: str, environment: dict[str, str], tmp_path: Path, seaweed: S3Server
) -> None:
    (tmp_path / "large").write_bytes(BODY)
    command: list[str | Path] = ["cp", tmp_path / "large", f"{bucket}/x", "--resume"]
    with terminal([*command, "--limit-rate", "8MiB"], environment) as (pid, fd):
        read_until(fd, lambda text: re.search(r"[1-9]\.\d/", text))  # a part is stored
        os.kill(pid, signal.SIGKILL)
        read_until(fd, lambda _: False)
        assert code_of(pid) == -signal.SIGKILL
    assert asyncio.run(left_behind(seaweed, bucket)) == ([], 1)
    run(command, environment)
    assert asyncio.run(left_behind(seaweed, bucket)) == (["x"], 0)
    assert run(["cat", f"{bucket}/x"], environment).stdout == BODY


@pytest.mark.parametrize("is_replaced", [False, True])
def test_interrupted_download_is_continued(
    bucket: str, environment: dict[str, str], tmp_path: Path, *, is_replaced: bool
) -> None:
    run(["cp", "-", f"{bucket}/x"], environment, body=BODY)
    command: list[str | Path] = ["cp", f"{bucket}/x", tmp_path / "x", "--resume"]
    with terminal([*command, "--limit-rate", "4MiB"], environment) as (pid, fd):
        read_until(fd, lambda text: re.search(r"[1-9]\.\d/", text))
        os.write(fd, b"\x03")
        read_until(fd, lambda _: False)
        assert code_of(pid) == 130
    assert not (tmp_path / "x").exists()
    part = tmp_path / ".x.trove-part"
    assert 0 < part.stat().st_size < len(BODY)
    body = BODY
    if is_replaced:
        body = BODY[::-1]
        run(["cp", "-", f"{bucket}/x"], environment, body=body)
    run(command, environment)
    assert (tmp_path / "x").read_bytes() == body
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["x"]


def test_damaged_part_of_a_download_is_noticed(
    bucket: str, environment: dict[str, str], tmp_path: Path
) -> None:
    run(["cp", "-", f"{bucket}/x"], environment, body=BODY)
    command: list[str | Path] = ["cp", f"{bucket}/x", tmp_path / "x", "--resume"]
    with terminal([*command, "--limit-rate", "4MiB"], environment) as (pid, fd):
        read_until(fd, lambda text: re.search(r"[1-9]\.\d/", text))
        os.write(fd, b"\x03")
        read_until(fd, lambda _: False)
        code_of(pid)
    part = tmp_path / ".x.trove-part"
    part.write_bytes(b"!" + part.read_bytes()[1:])
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(command, environment)
    assert b"differs from the object, and was removed" in caught.value.stderr
    run(command, environment)
    assert (tmp_path / "x").read_bytes() == BODY


def test_interrupted_download_leaves_no_file(
    bucket: str, environment: dict[str, str], tmp_path: Path
) -> None:
    run(["cp", "-", f"{bucket}/x"], environment, body=BODY)
    target = tmp_path / "out"
    target.mkdir()
    command: list[str | Path] = ["cp", f"{bucket}/x", target, "--limit-rate", "4MiB"]
    with terminal(command, environment) as (pid, fd):
        read_until(fd, lambda text: re.search(r"[1-9]\.\d/", text))
        os.write(fd, b"\x03")
        read_until(fd, lambda _: False)
        assert code_of(pid) == 130
    assert list(target.iterdir()) == []


def test_tree_on_a_terminal_shows_totals(
    bucket: str, environment: dict[str, str], tmp_path: Path
) -> None:
    source = tree(tmp_path / "in", {f"{number:03}": bytes(100_000) for number in range(40)})
    sides: list[tuple[str | Path, str | Path]] = [
        (source, f"{bucket}/x"),
        (f"{bucket}/x/", tmp_path / "out"),
    ]
    for side in sides:
        with terminal(["cp", *side, "--limit-rate", "4MiB"], environment) as (pid, fd):
            text = read_until(fd, lambda _: False)
            assert code_of(pid) == 0
        assert "/40 objects" in text
        assert re.search(r"/3\.8 MiB", text)


def test_interrupted_tree_says_what_is_done(
    bucket: str, environment: dict[str, str], tmp_path: Path
) -> None:
    source = tree(tmp_path / "in", {f"{number:03}": bytes(100_000) for number in range(200)})
    command: list[str | Path] = ["cp", source, bucket, "--limit-rate", "1MiB", "--jobs", "4"]
    with terminal(command, environment) as (pid, fd):
        read_until(fd, lambda text: re.search(r"(?<![/\d])[1-9]\d*(?:/\d+)? objects", text))
        os.write(fd, b"\x03")
        text = read_until(fd, lambda _: False)
        assert code_of(pid) == 130
    done = re.search(r"stopped: transferred (\d+) objects?", text)
    assert done is not None
    listed = run(["ls", "-r", bucket], environment).stdout.splitlines()
    assert 0 < int(done[1]) <= len(listed) < 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_the_wait_for_standard_input(
    bucket: str, environment: dict[str, str], seaweed: S3Server, number: signal.Signals
) -> None:
    with subprocess.Popen(  # noqa: S603 - our own program
        [*COMMAND, "cp", "-", f"{bucket}/x"],
        env=environment,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b"x" * 200_000)  # more than a pipe holds: it has been read
        process.stdin.flush()
        process.send_signal(number)
        assert process.wait(50) == 128 + number
        process.stdin.close()
    assert asyncio.run(left_behind(seaweed, bucket)) == ([], 0)


def test_named_pipe_is_refused_and_a_substituted_process_is_read(
    bucket: str, environment: dict[str, str], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(["cp", tmp_path / "pipe", f"{bucket}/x"], environment)
    assert b"is a named pipe: read it with trove cp - " in caught.value.stderr
    script = f"{' '.join(COMMAND)} cp <(echo hello) {bucket}/x"
    subprocess.run(["/bin/bash", "-ec", script], env=environment, check=True, timeout=50)  # noqa: S603 - our own script
    assert run(["cat", f"{bucket}/x"], environment).stdout == b"hello\n"


def test_broken_pipe_ends_deletions_silently(
    bucket: str, environment: dict[str, str], tmp_path: Path
) -> None:
    source = tree(tmp_path / "in", {f"{n:04}-{'long' * 40}": b"" for n in range(800)})
    run(["cp", source, bucket], environment)
    with subprocess.Popen(  # noqa: S603 - our own program
        [*COMMAND, "rm", "-r", "-n", f"{bucket}/"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(50) == 141
        assert b"Broken pipe" not in process.stderr.read()


def test_output_without_unicode_is_escaped(
    bucket: str, environment: dict[str, str], tmp_path: Path
) -> None:
    run(["cp", tree(tmp_path / "in", {"\N{SNOWMAN}": b"1"}), bucket], environment)
    listed = run(["ls", bucket], {**environment, "PYTHONIOENCODING": "ascii"}).stdout
    assert b"\\u2603" in listed


def test_reader_that_goes_away_ends_the_command_silently(
    bucket: str, environment: dict[str, str]
) -> None:
    run(["cp", "-", f"{bucket}/x"], environment, body=BODY)
    with subprocess.Popen(  # noqa: S603 - our own program
        [*COMMAND, "cat", f"{bucket}/x"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(50) == 141


def test_tar_is_streamed_through_pipes(
    bucket: str, environment: dict[str, str], tmp_path: Path
) -> None:
    tree(tmp_path / "in", {"a": b"1", "b/c": b"2" * 100_000})
    trove = " ".join(COMMAND)
    script = (
        f"tar c -C {tmp_path}/in . | {trove} cp - {bucket}/x.tar && mkdir {tmp_path}/out &&"
        f" {trove} cp {bucket}/x.tar - | tar x -C {tmp_path}/out && diff -r {tmp_path}/in {tmp_path}/out"
    )
    subprocess.run(  # noqa: S603 - our own script
        ["/bin/bash", "-o", "pipefail", "-ec", script], env=environment, check=True, timeout=50
    )


def test_json_lines_of_a_long_listing_parse(
    bucket: str, environment: dict[str, str], tmp_path: Path
) -> None:
    run(["cp", tree(tmp_path / "in", {f"f{n}": b"" for n in range(50)}), bucket], environment)
    lines = run(["ls", "-r", bucket, "--json"], environment).stdout.splitlines()
    assert sorted(json.loads(line)["key"] for line in lines) == sorted(f"f{n}" for n in range(50))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_names_the_program(environment: dict[str, str], shell: str) -> None:
    script = os.path.join(os.path.dirname(sys.executable), "trove")  # noqa: PTH118, PTH120
    words = (
        {"COMP_WORDS": "trove s", "COMP_CWORD": "1"}
        if shell == "bash"
        else {"_TYPER_COMPLETE_ARGS": "trove s"}
    )
    done = subprocess.run(  # noqa: S603 - our own program
        [script],
        env={
            **environment,
            "_TROVE_COMPLETE": f"complete_{shell}",
            **words,
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
        capture_output=True,
        check=False,
        timeout=50,
    )
    for name in (b"stat", b"sync"):
        assert name in done.stdout


def test_help_imports_neither_the_store_nor_an_sdk(environment: dict[str, str]) -> None:
    program = (
        "import sys, trove_async\n"
        "import trove_async.cli._app as app\n"
        "try: app.app(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('trove_async.store', 'aiohttp', 'pydantic', 'rich') if name in sys.modules])"
    )
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        check=True,
        timeout=50,
    )
    assert done.stdout.splitlines()[-1] == b"[]"


def test_command_on_s3_imports_no_sdk(bucket: str, environment: dict[str, str]) -> None:
    program = (
        "import sys\n"
        "from trove_async.cli import main\n"
        f"sys.argv = ['trove', 'ls', '{bucket}']\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print([name for name in ('aiobotocore', 'botocore', 'aiohttp') if name in sys.modules])"
    )
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        check=True,
        timeout=50,
    )
    assert done.stdout.splitlines()[-1] == b"[]"


def test_missing_extra_is_named(environment: dict[str, str]) -> None:
    program = "import sys\nsys.modules['typer'] = None\nfrom trove_async.cli import main\nmain()"
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 1
    assert done.stderr == b"trove: typer is missing: pip install 'trove-async[cli]'\n"

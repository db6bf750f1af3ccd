"""Stores in forked processes, and at the exit of the interpreter: nothing hangs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from trove_async.testing.servers import S3Server

FORK = """
import os, sys
from trove_async import ClosedError, blocking
from trove_async.drivers import LocalDriver

def in_child(work):
    pid = os.fork()
    if not pid:
        try:
            work()
        except BaseException as error:
            import traceback; traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

def refused(call):
    try:
        call()
    except ClosedError as error:
        assert "fork" in str(error), error
    else:
        raise AssertionError("not refused")

root = sys.argv[1]
"""


def test_store_of_the_parent_is_refused_in_a_child_and_a_new_one_works(
    run_script: Any, tmp_path: Path
) -> None:
    result = run_script(
        FORK
        + """
with blocking.Trove(LocalDriver(root)) as store:
    store.create_bucket("data")
    store.put("data", "key", b"parent")
    reader = store.get("data", "key")
    file = store.open("data", "key")
    writer = store.open("data", "half", "wb")

    def child():
        refused(lambda: store.read("data", "key"))
        refused(lambda: store.bucket("data").put("key", b""))
        refused(lambda: next(store.list("data")))
        refused(reader.read)
        reader.close()
        refused(lambda: file.seek(0) or file.read1(10**7) and file.raw.readall())
        refused(lambda: writer.write(bytes(10**6)))
        store.close()
        file.close()
        with blocking.Trove(LocalDriver(root)) as own:
            assert own.read("data", "key") == b"parent"
            own.put("data", "child", b"child")

    in_child(child)
    in_child(child)
    assert store.read("data", "child") == b"child"
    assert reader.read() == b"parent"
    reader.close(), file.close()
    writer.write(b"whole")
    writer.close()
    assert store.read("data", "half") == b"whole"
""",
        str(tmp_path),
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_store_that_is_started_after_the_fork_works(run_script: Any, tmp_path: Path) -> None:
    result = run_script(
        FORK
        + """
store = blocking.Trove(LocalDriver(root))
other = blocking.Trove("mem://").start()  # the loop of the parent runs

def child():
    store.start()
    store.create_bucket("data", exist_ok=True)
    store.put("data", str(os.getpid()), b"")
    store.close()

in_child(child)
in_child(child)
with store:
    assert len(store.list("data").all()) == 2
other.close()
""",
        str(tmp_path),
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_fork_while_other_threads_call_does_not_hang_the_child(
    run_script: Any, tmp_path: Path
) -> None:
    result = run_script(
        FORK
        + """
import threading
with blocking.Trove(LocalDriver(root)) as store:
    store.create_bucket("data")
    store.put("data", "key", b"body")
    ended = False
    def work():
        while not ended:
            store.read("data", "key")
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads: thread.start()
    def child():
        refused(lambda: store.read("data", "key"))
        with blocking.Trove(LocalDriver(root)) as own:
            assert own.read("data", "key") == b"body"
    for _ in range(20):
        in_child(child)
    ended = True
    for thread in threads: thread.join()
""",
        str(tmp_path),
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_children_use_stores_of_their_own(
    run_script: Any, tmp_path: Path, method: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import multiprocessing, sys
from trove_async import blocking
from trove_async.drivers import LocalDriver

root = {str(tmp_path / "root")!r}

def start():
    global store
    store = blocking.Trove(LocalDriver(root)).start()

def work(number):
    store.put("data", str(number), b"body")
    return store.read("data", str(number))

if __name__ == "__main__":
    with blocking.Trove(LocalDriver(root)) as parent:
        parent.create_bucket("data")
        with multiprocessing.get_context({method!r}).Pool(2, start) as pool:
            assert pool.map(work, range(10)) == [b"body"] * 10
        assert len(parent.list("data").all()) == 10
"""
    )
    (tmp_path / "root").mkdir()
    result = run_script(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')")
    if method == "fork":
        assert (result.returncode, result.stderr) == (0, "")
    else:  # the children import the script by its path
        assert result.returncode == 0, result.stderr


UNCLOSED = """
import sys
from trove_async import blocking
store = blocking.Trove(sys.argv[1]).start()
store.create_bucket("data", exist_ok=True)
store.put("data", "key", b"body" * 100_000)
reader = store.get("data", "key")
assert reader.read(4) == b"body"
writer = store.open("data", "half", "wb")
writer.write(b"half")
print("done")
"""


@pytest.mark.parametrize("backend", ["memory", "local", "s3"])
@pytest.mark.parametrize("ending", ["", "raise LookupError", "sys.exit(3)"])
def test_process_ends_although_its_store_was_never_closed(
    run_script: Any, tmp_path: Path, seaweed: S3Server, backend: str, ending: str
) -> None:
    key, secret = "testkey", "testsecret"
    url = {
        "memory": "mem://",
        "local": f"file://{tmp_path}",
        "s3": f"s3://{key}:{secret}@us-east-1/?endpoint={seaweed.endpoint_url}",
    }[backend]
    result = run_script(UNCLOSED + ending, url)
    assert result.stdout == "done\n"
    assert result.returncode == {"": 0, "raise LookupError": 1, "sys.exit(3)": 3}[ending]
    lines = [line for line in result.stderr.splitlines() if line and line != "LookupError"]
    assert all("Traceback" in line or line.startswith("  ") for line in lines), result.stderr


def test_process_that_ends_with_open_files_aborts_them_and_warns(
    run_script: Any, tmp_path: Path
) -> None:
    result = run_script(
        """
import io, sys, warnings
from trove_async import blocking
from trove_async.drivers import LocalDriver
warnings.simplefilter("default", ResourceWarning)
store = blocking.Trove(LocalDriver(sys.argv[1])).start()
store.create_bucket("data")
large = store.open("data", "large", "wb")
large.write(bytes(20_000_000))
text = io.TextIOWrapper(store.open("data", "text", "wb"))
text.write("half")
with store.open("data", "closed", "wb") as closed:
    closed.write(b"whole")
large.cycle = large
""",
        str(tmp_path),
    )
    assert result.returncode == 0
    lines = sorted(line for line in result.stderr.splitlines() if "ResourceWarning" in line)
    assert len(lines) == 2
    assert "the file 'large' was not closed" in lines[0]
    assert "the file 'text' was not closed" in lines[1]
    assert "Traceback" not in result.stderr
    assert "destroyed" not in result.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert [path.name for path in files if path.stat().st_size] == ["closed"]


def test_store_is_closed_by_an_exit_handler(run_script: Any, tmp_path: Path) -> None:
    result = run_script(
        """
import atexit, sys
from trove_async import blocking
store = blocking.Trove("mem://")
atexit.register(store.close)
store.start()
store.create_bucket("data")
""",
        str(tmp_path),
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_destructor_that_uses_a_store_at_exit_does_not_hang(run_script: Any) -> None:
    result = run_script(
        """
from trove_async import ClosedError, blocking

class Service:
    def __init__(self):
        self.store = blocking.Trove("mem://").start()

    def __del__(self, ClosedError=ClosedError, print=print):
        try:
            self.store.close()
        except ClosedError as error:
            print(error)

service = Service()
"""
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "exits" in result.stdout

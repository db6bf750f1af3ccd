"""An interrupt of a thread that waits for a file of the filesystem: nothing is stored twice, nothing is hidden."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from trove_async.errors import ClosedError
from trove_async.file import FileReader, FileWriter
from trove_async.integrations.fsspec import TroveFileSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATH = "bucket/key"


class TimeLimit(Exception):  # noqa: N818 - stands for Celery's, which a signal handler raises
    pass


@pytest.fixture
def interrupt() -> Iterator[Callable[[], None]]:
    """Return a function that raises TimeLimit in the main thread."""
    main = threading.main_thread().ident
    assert main is not None

    def handle(*_: object) -> None:
        raise TimeLimit

    previous = signal.signal(signal.SIGUSR1, handle)
    yield lambda: signal.pthread_kill(main, signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, previous)


@pytest.fixture
def fs() -> Iterator[TroveFileSystem]:
    filesystem = TroveFileSystem(backend="mem://", skip_instance_cache=True)
    filesystem.mkdir("bucket")
    filesystem.pipe(PATH, b"old")
    yield filesystem
    filesystem.close()


@pytest.fixture
def ended(interrupt: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Interrupt the second write of each file after it has written, and each close and read before."""
    ended: list[str] = []

    async def hang(name: str) -> None:
        interrupt()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # as a cleanup that awaits
            ended.append(name)
            raise

    write, aclose, read = FileWriter.write, FileWriter.aclose, FileReader.read

    async def interrupted_write(self: FileWriter, data: Any) -> int:
        size = await write(self, data)
        if await self.tell() > size:
            await hang("write")
        return size

    async def interrupted_aclose(self: FileWriter) -> None:
        await hang("close")
        await aclose(self)

    async def interrupted_read(self: FileReader, n: int | None = -1) -> bytes:
        if "read" not in ended:
            await hang("read")
        return await read(self, n)

    monkeypatch.setattr(FileWriter, "write", interrupted_write)
    monkeypatch.setattr(FileWriter, "aclose", interrupted_aclose)
    monkeypatch.setattr(FileReader, "read", interrupted_read)
    return ended


@pytest.mark.parametrize("last_call", ["write", "close", "commit"])
def test_interrupted_write_is_not_sent_again(
    fs: TroveFileSystem, ended: list[str], last_call: str
) -> None:
    file = fs.open(PATH, "wb", block_size=4)
    file.write(b"AAAA")
    with pytest.raises(TimeLimit):
        file.write(b"BBBB")
    assert ended == ["write"]
    with pytest.raises(ClosedError, match="a write of this file has failed") as raised:
        file.write(b"CCCC") if last_call == "write" else getattr(file, last_call)()
    assert isinstance(raised.value.__cause__, TimeLimit)
    file.discard()
    assert file.closed
    assert fs.cat(PATH) == b"old"


def test_interrupt_of_a_close_is_raised_after_its_cleanup(
    fs: TroveFileSystem, ended: list[str]
) -> None:
    file = fs.open("bucket/new", "wb")
    file.write(b"AAAA")
    with pytest.raises(TimeLimit):
        file.close()
    assert ended == ["close"]
    assert file.closed
    assert not fs.exists("bucket/new")


def test_interrupted_read_leaves_the_position(fs: TroveFileSystem, ended: list[str]) -> None:
    with fs.open(PATH) as file:
        with pytest.raises(TimeLimit):
            file.read(2)
        assert ended == ["read"]
        assert file.tell() == 0
        assert file.read() == b"old"


def test_interrupted_opening_is_cancelled(
    fs: TroveFileSystem, interrupt: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    async def hang(*_: object) -> None:
        interrupt()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            ended.set()
            raise

    monkeypatch.setattr(fs, "_open_reader", hang)
    with pytest.raises(TimeLimit):
        fs.open(PATH)
    assert ended.is_set()


async def test_file_is_refused_on_its_own_loop() -> None:
    own = TroveFileSystem(
        backend="mem://", loop=asyncio.get_running_loop(), skip_instance_cache=True
    )
    with pytest.raises(RuntimeError, match="own event loop"):
        own.open(PATH)
    asynchronous = TroveFileSystem(backend="mem://", asynchronous=True, skip_instance_cache=True)
    with pytest.raises(RuntimeError, match="use open_async"):
        asynchronous.open(PATH)

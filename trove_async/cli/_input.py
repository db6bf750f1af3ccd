"""Reads standard input, pipes and other files that are no regular ones, so that an interrupt ends the read."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import sys
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final, cast

from trove_async._concurrency import in_thread

from ._command import UsageProblem

if TYPE_CHECKING:
    from io import BufferedReader

_CHUNK: Final = 1024 * 1024
_DESCRIPTORS: Final = ("/dev/fd/", "/proc/self/fd/")


async def standard_input() -> AsyncGenerator[bytes, None]:
    """Iterate over the chunks of standard input."""
    try:
        descriptor = sys.stdin.fileno()
        can_block = not stat.S_ISREG(os.fstat(descriptor).st_mode)
    except io.UnsupportedOperation:  # it was replaced by a file in memory
        descriptor, can_block = -1, False
    if can_block:
        async for chunk in _readable(descriptor):
            yield chunk
        return
    read = cast("BufferedReader", sys.stdin.buffer).read1
    while chunk := await in_thread(read, _CHUNK):
        yield chunk


async def special_file(path: str) -> AsyncGenerator[bytes, None]:
    """Iterate over the chunks of a pipe or a device.

    Raises:
        UsageProblem: It is a named pipe, whose opening would wait for a writer.
        OSError: It cannot be read.
    """
    mode = os.stat(path).st_mode  # noqa: PTH116 - of a pipe or a device
    if stat.S_ISFIFO(mode) and not path.startswith(_DESCRIPTORS):
        raise UsageProblem(f"{path} is a named pipe: read it with trove cp - … < {path}")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        async for chunk in _readable(descriptor):
            yield chunk
    finally:
        os.close(descriptor)


async def _readable(descriptor: int) -> AsyncGenerator[bytes, None]:
    """Iterate over the chunks of a descriptor. Each read waits until there is something to read."""
    loop = asyncio.get_running_loop()
    while True:
        ready = asyncio.Event()
        try:
            loop.add_reader(descriptor, ready.set)
        except PermissionError:  # epoll refuses what never blocks, such as /dev/zero
            ready.set()
        else:
            try:
                await ready.wait()
            finally:
                loop.remove_reader(descriptor)
        try:
            chunk = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            continue
        if not chunk:
            return
        yield chunk
        await asyncio.sleep(0)  # /dev/zero never waits

"""Store a log compressed, read a small range of it, and decompress the stored file with ``zstd``.

    python examples/compressed_logs.py

Needs the extra ``[zstd]``. The last step needs the command ``zstd``.
"""

import asyncio
import random
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from trove_async import Scope, Trove
from trove_async.driver import DriverReader
from trove_async.drivers import LocalDriver
from trove_async.middlewares import Compression
from trove_async.options import GetOptions

KiB = 1024
BUCKET, KEY = "logs", "2026-11-01.log"


class CountingDriver(LocalDriver):
    """Counts the requests for a body, and their bytes."""

    requests = 0
    requested_bytes = 0

    @asynccontextmanager
    async def get(self, bucket: str, key: str, options: GetOptions) -> AsyncIterator[DriverReader]:
        """Open a body, and count its bytes."""
        self.requests += 1
        async with super().get(bucket, key, options) as reader:
            self.requested_bytes += reader.range[1] - reader.range[0]
            yield reader


def log_lines(count: int) -> bytes:
    """Return the log of a web server."""
    numbers = random.Random(1)  # noqa: S311 - example data
    return "".join(
        f"2026-11-01T{line // 3600 % 24:02}:{line // 60 % 60:02}:{line % 60:02}Z GET"
        f" /items/{numbers.randrange(100_000)} 200 {numbers.randrange(5, 500)}ms\n"
        for line in range(count)
    ).encode()


async def main(root: Path) -> bytes:
    """Store a log, and read a range of it twice. Return the log."""
    log = log_lines(200_000)
    driver = CountingDriver(root)
    # Small frames make small ranges cheap, and compress a little less than the default of 1 MiB.
    compression = Compression(frame_size=64 * KiB)
    async with Trove(driver, middleware=[(compression, Scope.keys("**/*.log"))]) as store:
        await store.create_bucket(BUCKET)
        info = await store.put(BUCKET, KEY, log)
        ratio = info.size / info.stored_size
        print(f"{info.size} bytes are stored as {info.stored_size} bytes ({ratio:.1f} to 1)")

        # The first range of an object also needs its seek table, which the store then keeps.
        for start in (1_000_000, 9_000_000):
            driver.requests = driver.requested_bytes = 0
            piece = await store.read(BUCKET, KEY, range=(start, start + 4 * KiB))
            print(
                f"4 KiB at {start}: requests: {driver.requests}, bytes: {driver.requested_bytes},"
                f" correct: {piece == log[start : start + 4 * KiB]}"
            )
    return log


def decompress_with_zstd(path: Path) -> bytes | None:
    """Decompress a file with the command ``zstd``. None: it is not installed."""
    command = shutil.which("zstd")
    if command is None:
        return None
    arguments = [command, "--decompress", "--stdout", str(path)]
    return subprocess.run(arguments, check=True, capture_output=True).stdout  # noqa: S603 - our file


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        log = asyncio.run(main(Path(directory)))
        decompressed = decompress_with_zstd(Path(directory) / BUCKET / KEY)
        if decompressed is None:
            print("install zstd to decompress the file with: zstd -dc FILE")
        else:
            print(f"the file, decompressed by zstd -dc, is the log: {decompressed == log}")

"""A relay that delays and throttles each connection, like a link to a distant service.

    python benchmarks/_slow_link.py HOST PORT   # prints its port, and runs until its input ends

Every connection carries at most `RATE` bytes per second each way. A round trip takes `ROUND_TRIP` seconds.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

import uvloop

RATE = 40e6
ROUND_TRIP = 0.020
PIECE = 128 * 1024
PIECES = 8  # the maximum in flight: more than RATE * ROUND_TRIP, so that it does not limit the rate


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward bytes in one direction, with a delay."""
    loop = asyncio.get_running_loop()
    in_flight: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIECES)

    async def receive() -> None:
        free_at = 0.0
        data = b"first"
        while data:
            data = await reader.read(PIECE)
            free_at = max(loop.time(), free_at) + len(data) / RATE
            await in_flight.put((free_at + ROUND_TRIP / 2, data))

    async def send() -> None:
        while True:
            due, data = await in_flight.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                return
            if writer.is_closing():
                return  # the peer has disconnected, and uvloop would raise
            writer.write(data)
            await writer.drain()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(receive())
            group.create_task(send())
    except* ConnectionError:
        pass  # a peer has disconnected
    finally:
        writer.close()


async def main(host: str, port: int) -> None:
    """Serve until the input ends."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        responses, requests = await asyncio.open_connection(host, port, limit=PIECE)
        with suppress(asyncio.CancelledError):  # the relay is ending
            async with asyncio.TaskGroup() as group:
                group.create_task(relay(reader, requests))
                group.create_task(relay(responses, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=PIECE)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    input_ended = asyncio.Event()
    loop.add_reader(sys.stdin, input_ended.set)
    await input_ended.wait()
    loop.remove_reader(sys.stdin)
    server.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))

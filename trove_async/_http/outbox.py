"""Sends the small requests of one iteration of the event loop together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol


class Sender(Protocol):
    """What sends a request of an outbox: a `Connection`."""

    def send_small(self, request: Sequence[bytes | memoryview]) -> None:
        """Write the request, unless its exchange has ended."""
        ...


class Outbox:
    """Requests that are written one after the other, at the beginning of the event loop's next iteration.

    A write to an idle receiver (the process of a server, or the network device of a virtual machine) has to wake it,
    which takes several times as long as the rest of the write. Consecutive writes wake it once.
    """

    __slots__ = ("_requests",)

    def __init__(self) -> None:
        self._requests: list[tuple[Sender, Sequence[bytes | memoryview]]] = []

    def add(self, connection: Sender, request: Sequence[bytes | memoryview]) -> None:
        """Send a request with the others of this iteration, unless its exchange ends before.

        A view must stay valid until the exchange ends.
        """
        if not self._requests:
            asyncio.get_running_loop().call_soon(self._send)
        self._requests.append((connection, request))

    def _send(self) -> None:
        requests, self._requests = self._requests, []
        for connection, request in requests:
            connection.send_small(request)

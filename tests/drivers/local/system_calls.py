"""Replacements for system calls that block or fail."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Gate:
    """A call that blocks its thread until the gate is opened, for 10 seconds at most.

    Attributes:
        real: The function to call once the gate is open.
        reached: Set when a thread has reached the gate.
        opened: Set this to open the gate.
        returned: Set when the real function has returned or raised.
    """

    def __init__(self, real: Callable[..., object]) -> None:
        self.real = real
        self.reached = threading.Event()
        self.opened = threading.Event()
        self.returned = threading.Event()

    def __call__(self, *args: object, **kwargs: object) -> object:
        self.reached.set()
        self.opened.wait(10)
        try:
            return self.real(*args, **kwargs)
        finally:
            self.returned.set()


class FailingCall:
    """A call that succeeds `successes` times and then always fails with the errno `code`."""

    def __init__(self, real: Callable[..., object], code: int, successes: int = 0) -> None:
        self.real = real
        self.code = code
        self.successes = successes

    def __call__(self, *args: object, **kwargs: object) -> object:
        if self.successes:
            self.successes -= 1
            return self.real(*args, **kwargs)
        raise OSError(self.code, os.strerror(self.code))

"""Responses of the origin of `ReadThrough`, and errors that several of its readers may get."""

from __future__ import annotations

from base64 import b64decode
from contextlib import AbstractAsyncContextManager, suppress
from copy import copy
from typing import Final

from trove_async._concurrency import run_shielded
from trove_async.driver import DriverReader
from trove_async.errors import ObjectChangedError, TroveError
from trove_async.models import ObjectInfo

_CRC_BYTES: Final = 4


class Response:
    """An open response of the origin. It has one owner at a time, who closes it."""

    __slots__ = ("_context", "reader")

    def __init__(
        self, context: AbstractAsyncContextManager[DriverReader], reader: DriverReader
    ) -> None:
        self._context = context
        self.reader = reader

    async def aclose(self) -> None:
        """Close it. A failure to close is ignored: failures of the body were raised by its reads."""
        with suppress(TroveError):
            await run_shielded(self._exit())

    async def _exit(self) -> None:
        await self._context.__aexit__(None, None, None)


def recorded_crc32c(info: ObjectInfo) -> int | None:
    """Return the recorded CRC-32C of the stored bytes; None if there is none that is well-formed."""
    try:
        value = b64decode(info.checksums.get("crc32c", ""), validate=True)
    except ValueError:
        return None
    return int.from_bytes(value, "big") if len(value) == _CRC_BYTES else None


def fresh(error: BaseException) -> BaseException:
    """Return a copy of an error that several readers raise, so that each has its own context."""
    if isinstance(error, TroveError):
        copied = copy(error)
        copied.__cause__ = error.__cause__
        return copied
    return error


def replaced_error() -> ObjectChangedError:
    """Return the error of a version that the origin no longer has."""
    return ObjectChangedError("the object was replaced or deleted while it was being read")

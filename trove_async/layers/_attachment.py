"""The drivers that a layer wraps, while the layer is open."""

from __future__ import annotations

from collections.abc import Sequence

from trove_async.driver import AsyncDriver, DriverContext, DriverInUseError
from trove_async.errors import ClosedError


class Attachment:
    """Opens the inner drivers of one layer, and holds them until the layer is closed.

    Args:
        layer: The name of the layer's class, for messages.
        drivers: The inner drivers, as they were passed to the layer.

    Raises:
        TypeError: One of them is not a driver.
    """

    def __init__(self, layer: str, drivers: Sequence[AsyncDriver]) -> None:
        for driver in drivers:
            if isinstance(driver, type) or not isinstance(driver, AsyncDriver):
                kind = "a class" if isinstance(driver, type) else type(driver).__name__
                raise TypeError(f"the driver of {layer} must be a driver, got {kind}")
        self.inner = tuple(drivers)
        self._attached: tuple[AsyncDriver, ...] | None = None
        self._is_claimed = False  # from the start of `open` to the end of `close`

    @property
    def drivers(self) -> tuple[AsyncDriver, ...]:
        """The open drivers, in the order of `inner`.

        Raises:
            ClosedError: The layer is not open.
        """
        if self._attached is None:
            raise ClosedError("the layer is not open: use it through a store")
        return self._attached

    @property
    def current(self) -> tuple[AsyncDriver, ...]:
        """The open drivers, or `inner` if the layer is not open."""
        return self.inner if self._attached is None else self._attached

    async def open(self, context: DriverContext) -> None:
        """Open all inner drivers.

        Raises:
            DriverInUseError: The layer is open, or being opened, in another store.
            TroveError: An inner driver failed to open. The store closes those that were opened.
        """
        self.claim()
        await self.attach(context)

    async def attach(self, context: DriverContext) -> None:
        """Open all inner drivers of a claimed layer.

        Raises:
            TroveError: An inner driver failed to open. The store closes those that were opened.
        """
        self._attached = tuple([await context.attach(driver) for driver in self.inner])

    def claim(self) -> None:
        """Mark the layer as used by a store, before the first await of its `open`.

        Raises:
            DriverInUseError: It is used by another store already.
        """
        if self._is_claimed:
            raise DriverInUseError("this layer is open in another store: create one for each store")
        self._is_claimed = True

    def close(self) -> None:
        """Detach from the inner drivers, which the store closes. Idempotent."""
        self._attached = None
        self._is_claimed = False


def repr_of(layer: object, settings: str = "") -> str:
    """Return the repr of a layer: its drivers, whose reprs show no secrets, and its settings."""
    name = type(layer).__name__
    try:
        drivers: Sequence[AsyncDriver] = layer.inner  # type: ignore[attr-defined]  # it is a layer
    except AttributeError:
        return f"<{name}, not initialised>"  # its constructor raised
    return f"{name}({', '.join([*map(repr, drivers), *filter(None, [settings])])})"

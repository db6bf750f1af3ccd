"""The drivers: one room for each kind of backend."""


def driver_from_url(url: str):  # TEMPORARY SHIM, not committed
    from .memory import MemoryDriver

    return MemoryDriver()

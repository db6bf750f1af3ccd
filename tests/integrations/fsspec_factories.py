"""Stores that filesystems name as ``"tests.integrations.fsspec_factories:name"``, also in other processes."""

from __future__ import annotations

import os

from trove_async import Scope, Trove
from trove_async.drivers import LocalDriver, MemoryDriver
from trove_async.middlewares import Encryption, Keyring

KEY = bytes(range(32))


def in_memory() -> Trove:
    return Trove(MemoryDriver())


def routed_and_encrypted() -> Trove:
    """Return a store in the directories below ``TROVE_TEST_ROOT``: large files are encrypted elsewhere."""
    root = os.environ["TROVE_TEST_ROOT"]
    return Trove(
        LocalDriver(f"{root}/hot"),
        backends={"cold": LocalDriver(f"{root}/cold")},
        routes=[("cold/**", "cold")],
        middleware=[(Encryption(Keyring({"1": KEY}, current="1")), Scope.backends("cold"))],
    )


def no_store() -> str:
    return "not a store"

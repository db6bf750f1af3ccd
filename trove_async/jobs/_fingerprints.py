"""Descriptions of a store that can be compared between processes. They contain hashes only, no names or secrets.

A value of a class that is not known here, such as the driver that is part of the place of an object in memory,
is described by the name of its class. So two different memory backends are not told apart.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from typing import Final

from trove_async.driver import AsyncDriver, Layer
from trove_async.errors import ConfigError
from trove_async.middleware import Middleware
from trove_async.store import Trove

_KEY: Final = "key"
"""The key whose places are compared. Where the others are follows from the same settings."""

_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
"""The part of Python's default repr that differs between processes."""


def encoding_of(store: Trove) -> str:
    """Return a hash of how a put would encode objects today.

    It covers what the reprs of the middlewares and of their scopes show: the classes, the settings, and the ids
    of the keys. It does not cover the keys themselves, the code of functions, or keys that a source such as
    `TenantKeys` chooses when it is called.
    """
    listed = store._core.transforms.configured  # noqa: SLF001 - jobs are part of the library
    return _hash([[item.name, _text_of(item), repr(scope)] for item, scope in listed])


def description_of(store: Trove, bucket: str) -> Mapping[str, str]:
    """Return a hash of each setting of an open store that decides where and how a job writes objects.

    Args:
        store: The store.
        bucket: The bucket of the job.
    """
    core = store._core  # noqa: SLF001 - jobs are part of the library
    described = {
        "middleware": encoding_of(store),
        "locate": _hash(core.placement is not None),
    }
    for name in core.names:
        described[f"backend {name!r}"] = _hash(_driver(core.backends[name].driver, bucket))
    return described


def check_description(store: Trove, bucket: str, expected: Mapping[str, str]) -> None:
    """Check that a store writes to the same places, and in the same encoding, as the store of the job.

    Args:
        store: The worker's store.
        bucket: The bucket of the job.
        expected: The `description_of` the store of the job.

    Raises:
        ConfigError: They differ. The message names the settings, but not their values.
    """
    own = description_of(store, bucket)
    names = sorted(own.keys() | expected.keys())
    different = [name for name in names if own.get(name) != expected.get(name)]
    if different:
        raise ConfigError(
            f"the store of this worker differs from that of the job in: {', '.join(different)}. Give all workers"
            " the configuration of the job's store, with the same URLs and middlewares"
        )


def _text_of(middleware: Middleware) -> str:
    return _ADDRESS.sub("", repr(middleware))


def _driver(driver: AsyncDriver, bucket: str) -> object:
    place = _stable(driver.place(bucket, _KEY))
    if isinstance(driver, Layer):
        return [
            type(driver).__qualname__,
            place,
            [_driver(inner, bucket) for inner in driver.inner],
        ]
    return [driver.name, place]


def _stable(value: object) -> object:
    """Return a value whose repr is the same in every process."""
    if value is None or isinstance(value, str | bytes | int | float):
        return value
    if isinstance(value, tuple):
        return [_stable(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return [type(value).__qualname__, [_stable(getattr(value, item.name)) for item in fields]]
    return type(value).__qualname__


def _hash(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]

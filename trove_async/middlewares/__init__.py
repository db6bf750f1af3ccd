"""Middlewares: transforms of bodies on their way to a backend, and inspections of bodies.

Pass them to ``Trove(middleware=[…])``. A `trove_async.Scope` limits one to some objects. The contract
for middlewares is in `trove_async.middleware`.

A middleware's module and its library are imported when its name is first used here.

`compression`      `Compression`: the Zstandard Seekable Format, extra ``[zstd]``
`encryption`       `Encryption`: Tink's streaming AEAD, extra ``[crypto]``
`inspection`       `Inspection`: passes the bodies of puts to an inspector, which may block them
`keys`             `Keys`, the contract for sources of keys; `Keyring`, `TenantKeys`
`kms`              `KmsKeys`: keys that AWS KMS protects, extra ``[s3]``

Internal: `_seekable_zstd` and `_streaming_aead` are the formats. `_kms_client` sends the requests to AWS KMS,
and `_kms_errors` translates its errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trove_async import _extras

if TYPE_CHECKING:
    from trove_async.middlewares.compression import Compression
    from trove_async.middlewares.encryption import Encryption
    from trove_async.middlewares.inspection import Inspection
    from trove_async.middlewares.keys import DataKey, Keyring, Keys, TenantKeys
    from trove_async.middlewares.kms import KmsKeys

__all__ = [
    "Compression",
    "DataKey",
    "Encryption",
    "Inspection",
    "Keyring",
    "Keys",
    "KmsKeys",
    "TenantKeys",
]

_MODULES = {
    "Compression": "compression",
    "DataKey": "keys",
    "Encryption": "encryption",
    "Inspection": "inspection",
    "Keyring": "keys",
    "Keys": "keys",
    "KmsKeys": "kms",
    "TenantKeys": "keys",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _extras.load(f"{__name__}.{_MODULES[name]}", name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

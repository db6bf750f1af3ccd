"""Checks the arguments of the driver's constructor."""

from __future__ import annotations

import ssl
from typing import get_args

from trove_async._http import check_tls
from trove_async._settings import check_counts, check_switches
from trove_async.errors import ConfigError

from ._client import AddressingStyle
from ._dialects import DialectName


def check_arguments(
    *,
    addressing_style: str,
    dialect: str,
    data_plane: str,
    tls: ssl.SSLContext | None,
    checksums: bool,
    payload_signing: bool | None,
    trust_env: bool,
    max_connections: int,
    parallel_parts: int,
) -> None:
    """Raise ConfigError or TypeError if arguments of `S3Driver` are invalid or contradictory."""
    check_switches(checksums=checksums, payload_signing=payload_signing, trust_env=trust_env)
    check_counts(max_connections=max_connections, parallel_parts=parallel_parts)
    check_tls(tls)
    if addressing_style not in get_args(AddressingStyle):
        raise ConfigError(
            f"addressing_style must be 'auto', 'path' or 'virtual', got {addressing_style!r}"
        )
    if dialect not in get_args(DialectName):
        names = ", ".join(map(repr, get_args(DialectName)))
        raise ConfigError(f"dialect must be one of {names}, got {dialect!r}")
    if data_plane == "sdk" and tls is not None:
        raise ConfigError("tls cannot be combined with data_plane='sdk': set AWS_CA_BUNDLE instead")
    if data_plane not in {"lean", "sdk"}:
        raise ConfigError(f"data_plane must be 'lean' or 'sdk', got {data_plane!r}")
    if data_plane == "sdk" and payload_signing is not None:
        raise ConfigError("payload_signing needs data_plane='lean': the SDK decides what it signs")
    if payload_signing is False and not checksums:
        raise ConfigError(
            "checksums and payload_signing must not both be False: nothing would protect a body"
        )

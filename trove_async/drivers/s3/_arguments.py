"""Checks of the driver's constructor arguments."""

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
    """Raise ConfigError or TypeError for arguments of `S3Driver` that are wrong or contradict each other."""
    check_switches(checksums=checksums, payload_signing=payload_signing, trust_env=trust_env)
    check_counts(max_connections=max_connections, parallel_parts=parallel_parts)
    check_tls(tls)
    if addressing_style not in get_args(AddressingStyle):
        raise ConfigError("addressing_style is 'auto', 'path' or 'virtual'")
    if dialect not in get_args(DialectName):
        raise ConfigError(f"dialect is one of {', '.join(map(repr, get_args(DialectName)))}")
    if data_plane == "sdk" and tls is not None:
        raise ConfigError("the SDK takes no tls: set AWS_CA_BUNDLE")
    if data_plane not in {"lean", "sdk"}:
        raise ConfigError("data_plane is 'lean' or 'sdk'")
    if data_plane == "sdk" and payload_signing is not None:
        raise ConfigError("the SDK decides itself on payload_signing: only 'lean' takes it")
    if payload_signing is False and not checksums:
        raise ConfigError("without checksums and payload_signing nothing protects a body")

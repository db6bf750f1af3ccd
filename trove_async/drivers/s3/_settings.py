"""The driver's settings for requests and connections."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from trove_async._http import check_tls
from trove_async._secrets import Secret
from trove_async._settings import check_counts, check_switches, check_texts
from trove_async.errors import ConfigError

from ._client import AddressingStyle
from ._dialects import DialectName
from ._object_settings import check_bucket_owner

DataPlaneName: TypeAlias = Literal["lean", "sdk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Arguments of `S3Driver` that concern requests and connections.

    Attributes:
        addressing_style: Whether a bucket is in the path or in the host name.
        bucket_owner: The account that must own every bucket.
        max_connections: The maximum number of open readers. The same limit applies separately to
            concurrent writes and to other concurrent requests.
        parallel_parts: The maximum number of parts of one upload in flight, and of ranges of one
            object that are read concurrently.
        checksums: Whether to send a CRC-32C with each body, and to request checksums with reads.
        payload_signing: Whether to sign the SHA-256 of each body. None signs over plain http only.
        dialect: The dialect, or ``"auto"`` to recognise it.
        tls: The TLS context. None for the default.
        proxy: The URL of a proxy for all requests to the service.
        trust_env: Whether to use the proxies of the environment if `proxy` is None.
        data_plane: The name of the data plane.
        resume_uploads: The directory of the records of uploads. None: uploads are not resumed.
    """

    addressing_style: AddressingStyle
    bucket_owner: str | None
    max_connections: int
    parallel_parts: int
    checksums: bool
    payload_signing: bool | None
    dialect: DialectName
    tls: ssl.SSLContext | None
    proxy: Secret[str] | None
    trust_env: bool
    data_plane: DataPlaneName
    resume_uploads: str | None

    def check(self) -> None:
        """Check the settings, except the proxy.

        Raises:
            ConfigError: A setting is invalid, or two contradict each other.
            TypeError: A setting has the wrong type.
        """
        check_switches(
            checksums=self.checksums,
            payload_signing=self.payload_signing,
            trust_env=self.trust_env,
        )
        check_counts(max_connections=self.max_connections, parallel_parts=self.parallel_parts)
        check_tls(self.tls)
        check_texts(resume_uploads=self.resume_uploads)
        if self.resume_uploads == "" or "\0" in (self.resume_uploads or ""):
            raise ConfigError("resume_uploads must be the path of a directory")
        check_bucket_owner(self.bucket_owner)
        _check_choice("addressing_style", self.addressing_style, get_args(AddressingStyle))
        _check_choice("dialect", self.dialect, get_args(DialectName))
        _check_choice("data_plane", self.data_plane, get_args(DataPlaneName))
        if self.data_plane == "sdk" and self.tls is not None:
            raise ConfigError("tls requires data_plane='lean': set AWS_CA_BUNDLE for the SDK")
        if self.data_plane == "sdk" and self.payload_signing is not None:
            raise ConfigError(
                "payload_signing requires data_plane='lean': the SDK decides what it signs"
            )
        if self.payload_signing is False and not self.checksums:
            raise ConfigError(
                "checksums and payload_signing must not both be False: over plain http, a corrupted body"
                " would not be detected"
            )

    @property
    def proxy_url(self) -> str | None:
        """The URL of the proxy. Do not keep it in a variable, because it may contain a password."""
        return None if self.proxy is None else self.proxy.reveal()


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")

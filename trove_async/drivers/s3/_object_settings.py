"""Settings that a driver applies to all objects: storage class, encryption and Requester Pays.

S3 User Guide, "Protecting data with server-side encryption" and "Using Requester Pays general
purpose buckets". The properties of `ObjectSettings` are the headers for each kind of request.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import md5
from typing import TYPE_CHECKING, Final

from trove_async._names import check_header
from trove_async._secrets import Secret
from trove_async._settings import check_switches, check_texts
from trove_async.errors import ConfigError, InvalidNameError
from trove_async.options import PutOptions

if TYPE_CHECKING:
    from ._credentials import Endpoint

_SSE: Final = "x-amz-server-side-encryption"
_KEY_ID: Final = f"{_SSE}-aws-kms-key-id"
_NOT_COMPARED: Final = frozenset({f"{_SSE}-customer-key", f"{_SSE}-bucket-key-enabled"})
"""Headers that `encryption_matches` ignores. The service never returns the customer's key, and a
bucket key only affects how often the service calls the key service."""
_split_arn = re.compile("[:/]").split
_SSE_SOURCE: Final = "x-amz-copy-source-server-side-encryption"
_ENCRYPTIONS: Final = ("AES256", "aws:kms", "aws:kms:dsse")
"""S3 API Reference, "PutObject". Some services ignore any other value and store the object
unencrypted."""
_PLACEHOLDER: Final = "[hidden]"
_CUSTOMER_KEY_BYTES: Final = 32
"""AES-256. S3 User Guide, "Using server-side encryption with customer-provided keys (SSE-C)"."""

_ACCOUNT = re.compile(r"[A-Za-z0-9_-]+").fullmatch
"""Matches an account ID. Amazon's have twelve digits. Other services use names."""


def check_bucket_owner(account: str | None) -> None:
    """Check the ID of the account that must own the buckets, if there is one.

    Raises:
        ConfigError: It cannot be an account ID.
        TypeError: It is neither a str nor None.
    """
    check_texts(expected_bucket_owner=account)
    if account is not None and not _ACCOUNT(account):
        raise ConfigError(
            "expected_bucket_owner must be an account ID: letters, digits, hyphens and underscores"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectSettings:
    """Settings that a driver applies to all objects.

    Attributes:
        storage_class: The storage class of writes that do not set one.
        server_side_encryption: ``"AES256"``, ``"aws:kms"`` or ``"aws:kms:dsse"``.
        kms_key_id: The ID, ARN or alias of a key in the key management service.
        bucket_key_enabled: Whether to use a bucket key, which reduces requests to that service.
        sse_customer_key: A customer-provided key, which the service does not store.
        requester_pays: Whether the account of the credentials pays for requests.
    """

    storage_class: str | None = None
    server_side_encryption: str | None = None
    kms_key_id: str | None = None
    bucket_key_enabled: bool | None = None
    sse_customer_key: bytes | None = field(default=None, repr=False)
    requester_pays: bool = False

    def check(self) -> None:
        """Check the settings.

        The constructor does not check them, because its arguments would appear in the traceback.

        Raises:
            ConfigError: A setting is invalid, or two contradict each other.
            TypeError: A setting has the wrong type.
        """
        check_switches(
            bucket_key_enabled=self.bucket_key_enabled, requester_pays=self.requester_pays
        )
        for name in ("storage_class", "server_side_encryption", "kms_key_id"):
            value = getattr(self, name)
            try:
                check_header(name, value)
            except InvalidNameError as error:
                raise ConfigError(error.message) from None
            if value is not None and (not value.isascii() or not value.strip()):
                raise ConfigError(f"{name} must be printable ASCII and must not be empty")
        if self.server_side_encryption not in {None, *_ENCRYPTIONS}:
            values = ", ".join(map(repr, _ENCRYPTIONS))
            raise ConfigError(f"server_side_encryption must be one of {values}")
        uses_kms = (self.server_side_encryption or "").startswith("aws:kms")
        if not uses_kms and (self.kms_key_id or self.bucket_key_enabled is not None):
            raise ConfigError(
                'kms_key_id and bucket_key_enabled require server_side_encryption="aws:kms"'
                ' or "aws:kms:dsse"'
            )
        if self.sse_customer_key is None:
            return
        if not isinstance(self.sse_customer_key, bytes):
            kind = type(self.sse_customer_key).__name__
            raise TypeError(f"sse_customer_key must be bytes, got {kind}")
        if (size := len(self.sse_customer_key)) != _CUSTOMER_KEY_BYTES:
            raise ConfigError(
                f"sse_customer_key must be {_CUSTOMER_KEY_BYTES} bytes long, got {size}"
            )
        if self.server_side_encryption is not None:
            raise ConfigError("sse_customer_key and server_side_encryption are mutually exclusive")

    def check_endpoint(self, endpoint: Endpoint) -> None:
        """Check that the customer's key can safely be sent to an endpoint.

        Amazon refuses the key over plain http. Loopback addresses are allowed for tests.

        Raises:
            ConfigError: The key would be sent to another machine without encryption.
        """
        if self.sse_customer_key is not None and not endpoint.origin.keeps_secrets:
            raise ConfigError(
                "sse_customer_key requires an https endpoint, because requests contain the key"
            )

    def with_storage_class(self, options: PutOptions) -> PutOptions:
        """Return the options with the default storage class, unless they set one."""
        if self.storage_class is None or options.storage_class is not None:
            return options
        return replace(options, storage_class=self.storage_class)

    def encryption_matches(self, headers: Mapping[str, str]) -> bool:
        """Return whether an object is encrypted as requested.

        Args:
            headers: The headers of the response to a HEAD of the object.
        """
        return all(
            self._is_requested_key(headers.get(name, ""))
            if name == _KEY_ID
            else headers.get(name) == value
            for name, value in self.create_headers.items()
            if name not in _NOT_COMPARED
        )

    def _is_requested_key(self, key_id: str) -> bool:
        """Return whether a key id from a response identifies the requested key.

        Either of them may be an ARN.
        """
        requested = self.kms_key_id or ""
        if "alias/" in requested:
            return bool(key_id)  # it cannot be compared: the alias may refer to any key
        return _split_arn(key_id)[-1] == _split_arn(requested)[-1]

    @property
    def request_headers(self) -> dict[str, str]:
        """The headers to add to every request."""
        return {"x-amz-request-payer": "requester"} if self.requester_pays else {}

    @property
    def create_headers(self) -> dict[str, str]:
        """The headers to add to requests that create an object or a multipart upload."""
        headers = dict(self.customer_key_headers)
        if self.server_side_encryption is not None:
            headers[_SSE] = self.server_side_encryption
        if self.kms_key_id is not None:
            headers[_KEY_ID] = self.kms_key_id
        if self.bucket_key_enabled is not None:
            headers[f"{_SSE}-bucket-key-enabled"] = str(self.bucket_key_enabled).lower()
        return headers

    @property
    def customer_key_headers(self) -> dict[str, str]:
        """The headers to add to requests that read or write an object's body or metadata.

        They contain a placeholder for the customer's key. `secret_headers` contains the key.
        """
        return self._key_headers(_SSE)

    @property
    def source_key_headers(self) -> dict[str, str]:
        """The headers to add to requests that copy an object, to decrypt the source."""
        return self._key_headers(_SSE_SOURCE)

    @property
    def secret_headers(self) -> Secret[Mapping[str, str]] | None:
        """The headers with the customer's key, or None if no key is set.

        They replace the placeholders when a request is signed. Until then, no local variable contains
        the key.
        """
        if self.sse_customer_key is None:
            return None
        names = [f"{name}-customer-key" for name in (_SSE, _SSE_SOURCE)]
        return Secret(dict.fromkeys(names, b64encode(self.sse_customer_key).decode()))

    @property
    def secrets(self) -> tuple[str, ...]:
        """The forms in which a service may quote the customer's key: base64, raw and hex."""
        key = self.sse_customer_key
        return () if key is None else (b64encode(key).decode(), key.decode("latin-1"), key.hex())

    def _key_headers(self, prefix: str) -> dict[str, str]:
        if self.sse_customer_key is None:
            return {}
        digest = md5(self.sse_customer_key, usedforsecurity=False).digest()
        return {
            f"{prefix}-customer-algorithm": "AES256",
            f"{prefix}-customer-key": _PLACEHOLDER,
            f"{prefix}-customer-key-md5": b64encode(digest).decode(),
        }

"""What a driver asks of the service for all of its objects: their class, encryption, and who pays.

S3 User Guide, "Protecting data with server-side encryption" and "Using Requester Pays general purpose
buckets". Headers that the service wants on some requests only are worked out once, here.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import md5
from ipaddress import ip_address
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
_UNSEEN: Final = frozenset({f"{_SSE}-customer-key", f"{_SSE}-bucket-key-enabled"})
"""What nothing is concluded from: the customer's key is never sent back, and a bucket key only saves
requests."""
_ARN = re.compile("[:/]").split
_SSE_SOURCE: Final = "x-amz-copy-source-server-side-encryption"
_ENCRYPTIONS: Final = ("AES256", "aws:kms", "aws:kms:dsse")
"""S3 API Reference, PutObject. Some services ignore another value, and encrypt nothing."""
_STAND_IN: Final = "[hidden]"
_CUSTOMER_KEY_BYTES: Final = 32
"""AES-256. S3 User Guide, "Using server-side encryption with customer-provided keys (SSE-C)"."""


_ACCOUNT = re.compile(r"[A-Za-z0-9_-]+").fullmatch
"""Amazon's have twelve digits; other services have names of their own."""


def check_owner(account: str | None) -> None:
    """Raise ConfigError for what can be no account's id, TypeError for what is no str."""
    check_texts(expected_bucket_owner=account)
    if account is not None and not _ACCOUNT(account):
        raise ConfigError("expected_bucket_owner is an account's id, of digits and letters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """The defaults of one driver.

    Attributes:
        storage_class: For objects whose put chooses none.
        server_side_encryption: ``"AES256"``, ``"aws:kms"``, ``"aws:kms:dsse"``, …
        kms_key_id: Which key of the key management service.
        bucket_key_enabled: Whether a bucket key saves requests to that service.
        sse_customer_key: A key of the caller's own, which the service uses and forgets.
        requester_pays: Whether these credentials' account pays for requests.
    """

    storage_class: str | None = None
    server_side_encryption: str | None = None
    kms_key_id: str | None = None
    bucket_key_enabled: bool | None = None
    sse_customer_key: bytes | None = field(default=None, repr=False)
    requester_pays: bool = False

    def check(self) -> None:
        """Check what was given.

        Not while it is made: the customer's key would be in the traceback.

        Raises:
            ConfigError: They do not go together.
            TypeError: One is of another type.
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
                raise ConfigError(f"{name} must be printable ASCII, and not empty")
        if self.server_side_encryption not in {None, *_ENCRYPTIONS}:
            known = ", ".join(map(repr, _ENCRYPTIONS))
            raise ConfigError(f"server_side_encryption must be one of {known}")
        by_service = (self.server_side_encryption or "").startswith("aws:kms")
        if not by_service and (self.kms_key_id or self.bucket_key_enabled is not None):
            raise ConfigError(
                'kms_key_id and bucket_key_enabled need server_side_encryption="aws:kms"'
            )
        if self.sse_customer_key is None:
            return
        if not isinstance(self.sse_customer_key, bytes):
            kind = type(self.sse_customer_key).__name__
            raise TypeError(f"sse_customer_key must be bytes, got {kind}")
        if (size := len(self.sse_customer_key)) != _CUSTOMER_KEY_BYTES:
            raise ConfigError(f"sse_customer_key must have 32 bytes, got {size}")
        if self.server_side_encryption is not None:
            raise ConfigError("sse_customer_key and server_side_encryption exclude each other")

    def checked(self, endpoint: Endpoint) -> Endpoint:
        """Return the endpoint, if no customer's key would travel in the clear to another machine.

        Amazon refuses it over plain http. What does not leave this machine may be tested so.

        Raises:
            ConfigError: It would.
        """
        origin = endpoint.origin
        if self.sse_customer_key is not None and origin.scheme != "https":
            try:
                local = ip_address(origin.host.strip("[]")).is_loopback
            except ValueError:
                local = origin.host == "localhost"
            if not local:
                raise ConfigError("sse_customer_key is sent with each request: it needs https")
        return endpoint

    def applied(self, options: PutOptions) -> PutOptions:
        """Return the options of a put, with the default class where they choose none."""
        if self.storage_class is None or options.storage_class is not None:
            return options
        return replace(options, storage_class=self.storage_class)

    def are_met(self, headers: Mapping[str, str]) -> bool:
        """Return whether an object is encrypted as was asked for.

        Args:
            headers: Those that the service sends with the object.
        """
        return all(
            self._names_key(headers.get(name, ""))
            if name == _KEY_ID
            else headers.get(name) == value
            for name, value in self.made.items()
            if name not in _UNSEEN
        )

    def _names_key(self, told: str) -> bool:
        """Return whether a service names the key that was asked for, perhaps in another form."""
        asked = self.kms_key_id or ""
        if "alias/" in asked:
            return bool(told)  # what an alias stands for is not known
        return _ARN(told)[-1] == _ARN(asked)[-1]

    @property
    def always(self) -> dict[str, str]:
        """The headers of every request."""
        return {"x-amz-request-payer": "requester"} if self.requester_pays else {}

    @property
    def made(self) -> dict[str, str]:
        """The headers of requests that make an object, or begin its upload."""
        headers = dict(self.keyed)
        if self.server_side_encryption is not None:
            headers[_SSE] = self.server_side_encryption
        if self.kms_key_id is not None:
            headers[_KEY_ID] = self.kms_key_id
        if self.bucket_key_enabled is not None:
            headers[f"{_SSE}-bucket-key-enabled"] = str(self.bucket_key_enabled).lower()
        return headers

    @property
    def keyed(self) -> dict[str, str]:
        """The headers of requests that read or write the bytes of an object, or its facts.

        A customer's key is not among their values: `hidden` has it.
        """
        return self._customer_key(_SSE)

    @property
    def keyed_source(self) -> dict[str, str]:
        """The headers of requests that copy from an object."""
        return self._customer_key(_SSE_SOURCE)

    @property
    def hidden(self) -> Secret[Mapping[str, str]] | None:
        """The customer's key by the names of the headers that stand-ins are in; None: there is none.

        It is put in their place where a request is signed, so that no variable holds it meanwhile.
        """
        if self.sse_customer_key is None:
            return None
        names = [f"{name}-customer-key" for name in (_SSE, _SSE_SOURCE)]
        return Secret(dict.fromkeys(names, b64encode(self.sse_customer_key).decode()))

    @property
    def secrets(self) -> tuple[str, ...]:
        """The customer's key as a service may quote it: as it is sent, as it is, and in hex."""
        key = self.sse_customer_key
        return () if key is None else (b64encode(key).decode(), key.decode("latin-1"), key.hex())

    def _customer_key(self, name: str) -> dict[str, str]:
        if self.sse_customer_key is None:
            return {}
        digest = md5(self.sse_customer_key, usedforsecurity=False).digest()
        return {
            f"{name}-customer-algorithm": "AES256",
            f"{name}-customer-key": _STAND_IN,
            f"{name}-customer-key-MD5".lower(): b64encode(digest).decode(),
        }

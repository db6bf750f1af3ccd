"""The storage class and the encryption key of a driver's new objects.

The key is a query parameter: ``kmsKeyName`` of insert and compose, ``destinationKmsKeyName`` of rewrite
(JSON API, "Objects").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from trove_async._settings import check_texts
from trove_async.errors import ConfigError
from trove_async.options import PutOptions

from ._encoding import append_query

_PRINTABLE = re.compile(r"[!-~]{1,1024}").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """The defaults of one driver.

    Attributes:
        storage_class: The storage class of new objects if the options of the put, copy or compose
            specify none. None: the bucket's.
        kms_key_name: The resource name of a Cloud KMS key. None: the bucket's.

    Raises:
        ConfigError: A value is not a valid name.
        TypeError: A value is not a str.
    """

    storage_class: str | None = None
    kms_key_name: str | None = None

    def __post_init__(self) -> None:
        check_texts(storage_class=self.storage_class, kms_key_name=self.kms_key_name)
        for name in ("storage_class", "kms_key_name"):
            value = getattr(self, name)
            if value is not None and not _PRINTABLE(value):
                raise ConfigError(
                    f"{name} must be 1 to 1024 characters of printable ASCII without spaces"
                )

    def apply(self, options: PutOptions) -> PutOptions:
        """Return the options of a put, with the default storage class if they specify none."""
        if self.storage_class is None or options.storage_class is not None:
            return options
        return replace(options, storage_class=self.storage_class)

    @property
    def create_query(self) -> Mapping[str, str]:
        """The query of requests that create an object or start its upload."""
        return {} if self.kms_key_name is None else {"kmsKeyName": self.kms_key_name}

    @property
    def create_suffix(self) -> str:
        """`create_query`, encoded, to append to a query that is not empty."""
        return append_query(self.create_query)

    @property
    def copy_query(self) -> Mapping[str, str]:
        """The query of requests that copy an object."""
        return {} if self.kms_key_name is None else {"destinationKmsKeyName": self.kms_key_name}

"""What a driver asks of the service for all of its objects: their class, and the key that encrypts them.

JSON API, "Objects": the parameters ``kmsKeyName`` of insert and compose, ``destinationKmsKeyName`` of
rewrite.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from trove_async._settings import check_texts
from trove_async.errors import ConfigError
from trove_async.options import PutOptions

from ._encoding import encode_query

_PRINTABLE = re.compile(r"[!-~]{1,1024}").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """The defaults of one driver.

    Attributes:
        storage_class: For objects whose put chooses none.
        kms_key_name: The resource name of a Cloud KMS key.

    Raises:
        ConfigError: A value that can be no such name.
        TypeError: A value that is no str.
    """

    storage_class: str | None = None
    kms_key_name: str | None = None

    def __post_init__(self) -> None:
        check_texts(storage_class=self.storage_class, kms_key_name=self.kms_key_name)
        for name in ("storage_class", "kms_key_name"):
            value = getattr(self, name)
            if value is not None and not _PRINTABLE(value):
                raise ConfigError(f"{name} must be printable ASCII without blanks, and not empty")

    def applied(self, options: PutOptions) -> PutOptions:
        """Return the options of a put, with the default class where they choose none."""
        if self.storage_class is None or options.storage_class is not None:
            return options
        return replace(options, storage_class=self.storage_class)

    @property
    def made(self) -> Mapping[str, str]:
        """The query of requests that make an object, or begin its upload."""
        return {} if self.kms_key_name is None else {"kmsKeyName": self.kms_key_name}

    @property
    def more(self) -> str:
        """The same, to be put behind another query."""
        return f"&{encode_query(self.made)[1:]}" if self.kms_key_name is not None else ""

    @property
    def copied(self) -> Mapping[str, str]:
        """The query of requests that copy an object."""
        return {} if self.kms_key_name is None else {"destinationKmsKeyName": self.kms_key_name}

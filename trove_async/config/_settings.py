"""The list of settings of a configuration, without its secrets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, unquote_plus

from ._sources import KeyPath, Values, dotted, leaves

MASK: Final = "***"

_SECRET_NAME: Final = re.compile(
    r"secret|passw|token$|access_key|customer_key|private_key|api_key", re.IGNORECASE
)
"""Names of values that are never shown."""

_USER_INFO: Final = re.compile(r"(?<=://)[^/?#]*@")
_OPTION: Final = re.compile(r"(?<=[?&])([^=&?]*)=([^&]*)")
_SECRET_OPTION: Final = re.compile(r"secret|passw|token|access_key|customer_key", re.IGNORECASE)

_DOCUMENT: Final = re.compile(r'\s*\{\s*"')
"""The start of JSON, such as a service account's key in place of the path of its file."""
_DOCUMENT_OPTION: Final = re.compile(r'(?<==)\s*\{\s*".*', re.DOTALL)
"""JSON in a URL that is not percent-encoded. It may contain a ``&``, so everything to the end may be secret."""

_PRIVATE_KEY: Final = "PRIVATE KEY"
"""A part of the first line of every private key in PEM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One value of a configuration.

    Attributes:
        path: Where it is, such as ``backends.cold.region``.
        value: The value as text. Secrets are ``***``.
        origin: Where it comes from: the file, with the environment variables that it refers to, or the
            variable that overrides it.
    """

    path: str
    value: str
    origin: str


def settings_of(values: Values) -> Sequence[Setting]:
    """Return all settings, in the order of the configuration."""
    return tuple(
        Setting(
            path=dotted(path),
            value=_shown(path, value),
            origin=_origin(values, path),
        )
        for path, value in leaves(values.tree)
    )


def _origin(values: Values, path: KeyPath) -> str:
    for length in range(len(path), 0, -1):  # an override may have replaced a whole table
        if path[:length] in values.origins:
            return values.origins[path[:length]]
    for known, origin in values.origins.items():  # a variable inside a list of texts
        if known[: len(path)] == path:
            return origin
    return values.source


def _shown(path: KeyPath, value: object) -> str:
    if _SECRET_NAME.search(str(path[-1])):
        return MASK
    if isinstance(value, list):
        return f"[{', '.join(_shown(path, inner) for inner in value)}]"
    if not isinstance(value, str):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if _DOCUMENT.match(value):
        return MASK
    shown = _USER_INFO.sub(f"{MASK}@", _DOCUMENT_OPTION.sub(MASK, value))
    shown = _OPTION.sub(_shown_option, shown)
    return MASK if _PRIVATE_KEY in unquote_plus(shown) else shown


def _shown_option(option: re.Match[str]) -> str:
    name, value = map(unquote, option.groups())
    is_secret = _SECRET_OPTION.search(name) or _DOCUMENT.match(value) or _PRIVATE_KEY in value
    return f"{option[1]}={MASK}" if is_secret else option[0]

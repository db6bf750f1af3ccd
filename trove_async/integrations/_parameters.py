"""Parsers for Content-Type and Content-Disposition: ``value; name=value; name=value``. No I/O.

Uploaders control these values. So the patterns must not backtrack: each repetition is possessive.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

# RFC 9110, section 5.6.2 (token), 5.6.4 (quoted-string), 5.6.6 (parameters, which may be empty)
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"  # noqa: S105 - a token of the grammar
_PARAMETER = re.compile(
    rf'[ \t]*+;[ \t]*+(?:({_TOKEN})=(?:({_TOKEN})|"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\.)*+)"))?+'
)
_DISPOSITION = re.compile(_TOKEN)
_MEDIA_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}")
_ESCAPED = re.compile(r"\\(.)")

_CHARSETS = {"utf-8", "iso-8859-1"}  # RFC 8187, section 3.2.1, and RFC 5987 before it


def parse_media_type(field: str) -> str | None:
    """Return the ``type/subtype`` of a Content-Type in lower case, or None if it is malformed.

    A list, an unterminated quoted string or a repeated parameter is malformed. So is an escape in a
    quoted string: HTTP allows it, but browsers disagree about where such a string ends.
    """
    if "\\" in field:
        return None
    parsed = _parse(field, _MEDIA_TYPE)
    return None if parsed is None else parsed[0]


def file_name(field: str) -> str | None:
    """Return the file name in a Content-Disposition, or None if it is absent or malformed.

    A ``filename*`` (RFC 8187) takes precedence over a ``filename``, unless it cannot be decoded.
    """
    parsed = _parse(field, _DISPOSITION)
    if parsed is None:
        return None
    extended = parsed[1].get("filename*")
    decoded = None if extended is None else _decode(extended)
    return parsed[1].get("filename") if decoded is None else decoded


def _parse(field: str, value: re.Pattern[str]) -> tuple[str, Mapping[str, str]] | None:
    """Return the value in lower case and the parameters, or None if the field is malformed."""
    field = field.strip(" \t")
    match = value.match(field)
    if match is None:
        return None
    parameters: dict[str, str] = {}
    position = match.end()
    while position < len(field):
        parameter = _PARAMETER.match(field, position)
        if parameter is None:
            return None
        position = parameter.end()
        name, token, quoted = parameter.groups()
        if name is None:
            continue
        if name.lower() in parameters:
            return None
        parameters[name.lower()] = _ESCAPED.sub(r"\1", quoted) if token is None else token
    return match[0].lower(), parameters


def _decode(extended: str) -> str | None:
    """Decode an extended value: ``charset'language'percent-encoded``."""
    charset, quote, remainder = extended.partition("'")
    _, second, encoded = remainder.partition("'")
    if not (quote and second and charset.lower() in _CHARSETS):
        return None
    try:
        return unquote_to_bytes(encoded).decode(charset)
    except UnicodeError:  # a lone surrogate in the field cannot be encoded, either
        return None

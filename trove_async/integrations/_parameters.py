"""Parsers for Content-Type and Content-Disposition: ``value; name=value; name=value``.

Uploaders control these values, so no pattern may backtrack: every repetition is possessive.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

# RFC 9110, sections 5.6.2 (token), 5.6.4 (quoted-string) and 5.6.6 (parameters, which may be empty)
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"  # noqa: S105 - a token of the grammar, not a secret
_PARAMETER = re.compile(
    rf'[ \t]*+;[ \t]*+(?:({_TOKEN})=(?:({_TOKEN})|"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\.)*+)"))?+'
)
_DISPOSITION = re.compile(_TOKEN)
_MEDIA_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}")
_ESCAPED = re.compile(r"\\(.)")

# RFC 8187, section 3.2.1, requires UTF-8. Its predecessor, RFC 5987, also required ISO-8859-1.
_CHARSETS = {"utf-8", "iso-8859-1"}


def parse_media_type(field: str) -> str | None:
    """Return the ``type/subtype`` of a Content-Type in lower case, or None if it is malformed.

    A list, an unterminated quoted string or a repeated parameter is malformed. So is an escape in a
    quoted string: HTTP allows it, but browsers disagree about where such a string ends.
    """
    if "\\" in field:
        return None
    parsed = _parse(field, _MEDIA_TYPE)
    return None if parsed is None else parsed[0]


def parse_file_name(field: str) -> str | None:
    """Return the file name in a Content-Disposition, or None if it is absent or malformed.

    A ``filename*`` (RFC 8187) takes precedence over a ``filename``, unless it cannot be decoded.
    """
    parsed = _parse(field, _DISPOSITION)
    if parsed is None:
        return None
    _, parameters = parsed
    extended = parameters.get("filename*")
    decoded = None if extended is None else _decode(extended)
    return parameters.get("filename") if decoded is None else decoded


def _parse(field: str, value_pattern: re.Pattern[str]) -> tuple[str, Mapping[str, str]] | None:
    """Return the value in lower case and the parameters, or None if the field is malformed."""
    field = field.strip(" \t")
    match = value_pattern.match(field)
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
    """Decode an extended value: ``charset'language'percent-encoded``.

    Return None if it is malformed.
    """
    charset, first_quote, remainder = extended.partition("'")
    _language, second_quote, encoded = remainder.partition("'")
    if not (first_quote and second_quote and charset.lower() in _CHARSETS):
        return None
    try:
        return unquote_to_bytes(encoded).decode(charset)
    except UnicodeError:  # also raised by the encoder, for a lone surrogate
        return None

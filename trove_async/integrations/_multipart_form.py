"""The one file of a multipart/form-data body, as a stream, and the fields beside it: RFC 7578.

`FormFile` is fed with bytes and gives back the file's: it does no I/O and holds no more than the
other fields, and the header lines that it is in the middle of.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ._parameters import file_name

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""RFC 9110, section 5.5: what no field's value holds. The parser lets it through, servers do not."""

_FIELD = 128
"""Bytes that a field takes beside its name and its value: a tuple of two strings."""


class FormError(Exception):
    """The body is no form, or not one with exactly one file where we look for it."""


class FormFile:
    """Finds the file of a form.

    Args:
        content_type: The request's, which names the boundary.
        field: The name of the file's field; None: whichever has a file name.

    Attributes:
        found: Whether the file has begun, and its type is known.
        complete: Whether the form has ended as it should.
        content_type: The file's type, as the client says.
        other: Bytes of the form that were not the file's.
        fields: The fields that are no files, as far as they have come: names and values, in order.
        held: Bytes that they take, about.
    """

    def __init__(self, content_type: str, field: str | None) -> None:
        boundary = None
        if content_type.isascii():  # RFC 2046, section 5.1.1; nor can others be looked at
            boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise FormError("The form names no boundary.")
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._part_began,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_ended,
            "on_headers_finished": self._headers_ended,
            "on_part_data": self._data,
            "on_part_end": self._part_ended,
            "on_end": self._ended,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise FormError("The form's boundary is too long.") from error
        self._field = field
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        self._part_name = ""
        self._here = False
        self._pieces: list[bytes] = []
        self._into: bytearray | None = None
        self.fields: list[tuple[str, str]] = []
        self.held = 0
        self.found = False
        self.complete = False
        self.content_type: str | None = None
        self.other = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the file's bytes in the next ones of the form.

        Raises:
            FormError: They cannot be the next ones, or begin a second file.
        """
        self.other += len(data)
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise FormError("The form is malformed.") from error
        pieces, self._pieces = self._pieces, []
        self.other -= sum(map(len, pieces))
        return pieces

    def _part_began(self) -> None:
        self._headers = {}
        self._here = False

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ended(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _headers_ended(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        said = parse_options_header(disposition)[1]
        self._part_name = said.get(b"name", b"").decode(errors="replace")
        name = said.get(b"filename")
        if name is None:
            # RFC 7578, section 4.2, forbids filename*, and some clients send nothing else.
            extended = file_name(disposition.decode("latin-1"))
            name = None if extended is None else extended.encode()
        if name == b"":
            self._here = False  # nothing was chosen: HTML, "constructing the entry list"
        elif self._field is None:
            self._here = name is not None
        else:
            self._here = said.get(b"name") == self._field.encode()
        if not self._here:
            if name is None:
                self._into = bytearray()
                self.held += len(self._part_name) + _FIELD
            return
        if self.found:
            raise FormError("The form has more than one file.")
        self.found = True
        kind = self._headers.get(b"content-type")
        if kind is not None and _CONTROL.search(kind):
            raise FormError("The form is malformed.")
        self.content_type = None if kind is None else kind.decode("latin-1")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._here:
            self._pieces.append(data[start:end])
        elif self._into is not None:
            self._into += data[start:end]
            self.held += end - start

    def _part_ended(self) -> None:
        if self._into is not None:
            self.fields.append((self._part_name, self._into.decode(errors="replace")))
            self._into = None

    def _ended(self) -> None:
        self.complete = True

"""Parser for a multipart/form-data body (RFC 7578) with one file, which it streams.

`FormFile` takes the bytes of the form and returns the bytes of the file. It keeps only the other fields
and the headers of the current part in memory.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ._parameters import parse_file_name

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""Bytes that a header value must not contain (RFC 9110, section 5.5). The parser accepts them."""

_FIELD_OVERHEAD = 128
"""Memory of a field in bytes, without the characters of its name and value: a tuple of two strings."""


class FormError(Exception):
    """The body is not a form, or the form does not have exactly one file in the expected field."""


class FormFile:
    """Extracts the file from a form.

    Args:
        content_type: The Content-Type of the request, which contains the boundary.
        field: The name of the field with the file; None for the field that has a file name.

    Attributes:
        has_file: Whether the headers of the file have arrived.
        complete: Whether the closing boundary has arrived.
        content_type: The Content-Type that the client sent for the file; None if it sent none.
        other_bytes: Bytes of the form that do not belong to the file.
        fields: Names and values of the other fields that have arrived, in order.
        fields_memory: Approximate memory of `fields` in bytes.

    Raises:
        FormError: The boundary is missing or too long.
    """

    def __init__(self, content_type: str, field: str | None) -> None:
        boundary = None
        if content_type.isascii():  # RFC 2046, section 5.1.1. The parser fails on other characters.
            boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise FormError("The Content-Type of the form must have a boundary.")
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
        self._in_file = False
        self._pieces: list[bytes] = []
        self._field_value: bytearray | None = None
        self.fields: list[tuple[str, str]] = []
        self.fields_memory = 0
        self.has_file = False
        self.complete = False
        self.content_type: str | None = None
        self.other_bytes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Parse the next bytes of the form; return the bytes of the file among them.

        Raises:
            FormError: The form is malformed or has a second file.
        """
        self.other_bytes += len(data)
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise FormError("The form is malformed.") from error
        pieces, self._pieces = self._pieces, []
        self.other_bytes -= sum(map(len, pieces))
        return pieces

    def _part_began(self) -> None:
        self._headers = {}
        self._in_file = False

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_ended(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _headers_ended(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        parameters = parse_options_header(disposition)[1]
        self._part_name = parameters.get(b"name", b"").decode(errors="replace")
        name = parameters.get(b"filename")
        if name is None:
            # RFC 7578, section 4.2, forbids filename*, but some clients send only that.
            extended = parse_file_name(disposition.decode("latin-1"))
            name = None if extended is None else extended.encode()
        if name == b"":
            self._in_file = False  # no file was selected (HTML, "constructing the entry list")
        elif self._field is None:
            self._in_file = name is not None
        else:
            self._in_file = parameters.get(b"name") == self._field.encode()
        if not self._in_file:
            if name is None:
                # Empty fields use memory too, so the overhead of each field counts.
                self._field_value = bytearray()
                self.fields_memory += len(self._part_name) + _FIELD_OVERHEAD
            return
        if self.has_file:
            raise FormError("The form has more than one file.")
        self.has_file = True
        content_type = self._headers.get(b"content-type")
        if content_type is not None and _CONTROL.search(content_type):
            raise FormError("The form is malformed.")
        self.content_type = None if content_type is None else content_type.decode("latin-1")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._pieces.append(data[start:end])
        elif self._field_value is not None:
            self._field_value += data[start:end]
            self.fields_memory += end - start

    def _part_ended(self) -> None:
        if self._field_value is not None:
            self.fields.append((self._part_name, self._field_value.decode(errors="replace")))
            self._field_value = None

    def _ended(self) -> None:
        self.complete = True

"""Conformance tests of unusual keys.

Every key that the store accepts must come back unchanged, and must not name the same object as a
similar key. URL builders, file systems and XML parsers tend to change slashes, dots, percent signs,
control characters and characters with several Unicode forms.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import ClassVar

import pytest

from trove_async.driver import AsyncDriver
from trove_async.errors import InvalidNameError, ObjectNotFoundError
from trove_async.options import GetOptions
from trove_async.testing._harness import delete, keys, list_all, read, write
from trove_async.testing.driver._base import DriverTopic

ODD_KEYS = [
    "a",
    "a/b",
    "a/b/c",
    "a//b",
    "a///b",
    "a/ b",
    "dir/",
    "dir//",
    "dir/sub/",
    "/",
    "//",
    "/leading",
    "//leading",
    "/leading/trailing/",
    "space ",
    " space",
    "sp ace",
    "sp  ace",
    "tab\there",
    "new\nline",
    "carriage\rreturn",
    "bell\x07",
    "delete\x7f",
    "control\x85",
    "%2F",
    "%",
    "%%",
    "%00",
    "%zz",
    "a%2Fb",
    "a+b",
    "a%20b",
    "a b",
    "a?b",
    "a#b",
    "a&b=c",
    "a;b",
    "a:b",
    "C:",
    "a@b",
    "a=b",
    "a,b",
    "a~b",
    "~",
    "~user",
    "$HOME",
    "a*b",
    "*",
    "a|b",
    "<a>",
    "[a]",
    "{a}",
    "(a)",
    "a!b",
    "a^b",
    "a`b",
    "a\\b",
    "\\",
    "a\\",
    '"',
    "'",
    "quo'te",
    'quo"te',
    "-",
    "--help",
    ".hidden",
    "..hidden",
    "...",
    "....",
    "dir/.hidden",
    "dir/..hidden",
    "trailing.",
    "trailing..",
    "trailing./x",
    "dots..in/it",
    "CON",
    "nul.txt",
    "case",
    "Case",
    "CASE",
    "dir.case/x",
    "Dir.Case/x",
    "caf\u00e9",  # NFC
    "cafe\u0301",  # NFD of the same key
    "\u212b",  # the Angstrom sign, which NFC replaces with the next key
    "\u00c5",
    "stra\u00dfe",
    "strasse",
    "\u0130",
    "i\u0307",
    "\u3042\u3044",
    "\u05e9\u05dc\u05d5\u05dd",
    "\u202eright-to-left",
    "zero\u200bwidth",
    "\ufeffbom",
    "\ufffd",
    "\ue000",
    "\uffff",
    "\U0001f600",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\U0010ffff",
    "xn--a",
    "a" * 255,
    "b" * 256,
    "c" * 300,
    "d/" + "e" * 300 + "/f",
    "\u00e9" * 200,
    "g" * 300 + "/",
    "0",
    "index.html",
    "a.trove",
    ".trove",
    ".trove/a",
    "trove-a",
    ".tmp",
    "a.tmp",
    "soap?wsdl&uploads&acl",
    "?list-type=2",
    "http://example.com/a",
]
"""Keys that `Trove` accepts. All of them can exist in one bucket at the same time."""


def long_keys(size: int) -> list[str]:
    """Return three keys of `size` bytes: one segment, many segments, multi-byte characters."""
    return [
        "x" * size,
        ("y/" * size)[: size - 1] + "y",
        ("\U0001f600" * size).encode()[: size // 4 * 4].decode() + "z" * (size % 4),
    ]


class DriverOddKeys(DriverTopic):
    """Unusual keys, and keys of the maximum length.

    Attributes:
        refused_keys: Members of `ODD_KEYS` that the backend cannot store. A put of one of them must
            raise InvalidNameError and store nothing.
    """

    refused_keys: ClassVar[AbstractSet[str]] = frozenset()

    @pytest.mark.parametrize("key", ODD_KEYS, ids=ascii)
    async def test_odd_key_is_kept_unchanged(
        self, backend: AsyncDriver, bucket: str, key: str
    ) -> None:
        if key in self.refused_keys:
            with pytest.raises(InvalidNameError):
                await write(backend, bucket, key)
            # A driver that refuses the key only after a write would leave an object behind.
            assert await keys(backend, bucket) == []
            return
        put = await write(backend, bucket, key, key.encode())
        assert put.key == key
        assert (await backend.head(bucket, key)).key == key
        async with backend.get(bucket, key, GetOptions()) as reader:
            assert reader.info.key == key
            assert await reader.read(10_000) == key.encode()
        assert await keys(backend, bucket) == [key]
        assert await keys(backend, bucket, prefix=key) == [key]
        assert await keys(backend, bucket, start_after=key) == []
        await delete(backend, bucket, key)
        assert await keys(backend, bucket) == []
        with pytest.raises(ObjectNotFoundError):
            await backend.head(bucket, key)

    async def test_odd_keys_do_not_collide(self, backend: AsyncDriver, bucket: str) -> None:
        names = [key for key in ODD_KEYS if key not in self.refused_keys]
        for key in names:
            await write(backend, bucket, key, key.encode())
        for key in names:
            assert await read(backend, bucket, key) == key.encode()
        listed = await keys(backend, bucket, limit=7)
        in_order = sorted(names, key=str.encode)
        assert (
            listed if backend.capabilities.ordered else sorted(listed, key=str.encode)
        ) == in_order
        top_level = [entry.key for entry in await list_all(backend, bucket, limit=7, delimiter="/")]
        assert set(top_level) == {key[: key.find("/") + 1] or key for key in names}
        assert len(top_level) == len(set(top_level))
        # If two keys shared an object, deleting every second key would delete it.
        for key in names[::2]:
            await delete(backend, bucket, key)
        assert sorted(await keys(backend, bucket)) == sorted(names[1::2])
        for key in names[1::2]:
            assert await read(backend, bucket, key) == key.encode()

    async def test_key_of_max_key_bytes_is_kept(self, backend: AsyncDriver, bucket: str) -> None:
        size = backend.capabilities.max_key_bytes
        assert 0 < size <= 1024
        for key in long_keys(size):
            assert len(key.encode()) == size
            await write(backend, bucket, key, b"long")
            assert await read(backend, bucket, key) == b"long"
            assert await keys(backend, bucket) == [key]
            await delete(backend, bucket, key)

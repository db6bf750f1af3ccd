"""The middlewares of the library pass the conformance suite."""

from __future__ import annotations

import pytest

from trove_async.middleware import Middleware
from trove_async.middlewares import Compression, Encryption, Keyring
from trove_async.models import KiB
from trove_async.testing import MiddlewareSuite

KEYS = Keyring({"2026-11": bytes(range(32))})


class TestCompression(MiddlewareSuite):
    binds_blocks = False  # Zstandard has no key: equally long frames can be swapped

    @pytest.fixture
    def middleware(self) -> Middleware:
        return Compression()


class TestCompressionInSmallFrames(MiddlewareSuite):
    binds_blocks = False

    @pytest.fixture
    def middleware(self) -> Middleware:
        return Compression(frame_size=64 * KiB)


class TestEncryption(MiddlewareSuite):
    @pytest.fixture
    def middleware(self) -> Middleware:
        return Encryption(KEYS)


class TestEncryptionInSmallSegments(MiddlewareSuite):
    @pytest.fixture
    def middleware(self) -> Middleware:
        return Encryption(KEYS, segment_size=4 * KiB)


class TestEncryptionInOddSegments(MiddlewareSuite):
    @pytest.fixture
    def middleware(self) -> Middleware:
        return Encryption(KEYS, segment_size=100_001)


class TestBoundEncryption(MiddlewareSuite):
    @pytest.fixture
    def middleware(self) -> Middleware:
        return Encryption(KEYS, bind=True, segment_size=64 * KiB)

"""Correct middlewares pass the conformance suite."""

from __future__ import annotations

import pytest

from tests.testing.toy_middlewares import Indexed, Sealed
from trove_async.middleware import Middleware
from trove_async.testing import MiddlewareSuite


class TestSealed(MiddlewareSuite):
    @pytest.fixture
    def middleware(self) -> Middleware:
        return Sealed()


class TestIndexed(MiddlewareSuite):
    @pytest.fixture
    def middleware(self) -> Middleware:
        return Indexed()

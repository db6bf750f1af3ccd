"""The names of before for what is now in `tests.fakes`, until every test imports from there."""

from __future__ import annotations

from tests.fakes import ONCE, Sparse, Unordered, fill
from tests.fakes import CallLog as Fake
from tests.fakes import single_attempt_store as store_of

__all__ = ["ONCE", "Fake", "Sparse", "Unordered", "fill", "store_of"]

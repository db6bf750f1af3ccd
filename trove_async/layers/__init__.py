"""Layers: drivers made of drivers. Any of them can be a backend, and any nesting works."""

from __future__ import annotations

from .mapped import Mapped

__all__ = ["Mapped"]

"""Speculative requests: a second copy of a request, which is worth sending only if it costs no one else."""

from __future__ import annotations

from contextvars import ContextVar

speculative: ContextVar[bool] = ContextVar("trove_async_speculative", default=False)
"""Whether the current task sends a speculative request.

Such a request is sent at most once, and only if a permit is free that no other request waits for.
Otherwise it raises PoolTimeoutError at once. A context variable, because the request may pass through
any number of layers before it reaches the permits.
"""

"""The options of a put that a backend does not support."""

from __future__ import annotations

from collections.abc import Sequence

from trove_async.driver import Capabilities

_PUT_NEEDS = (
    ("if_none_match", "put_if_none_match", "write on a condition (if_none_match)"),
    ("if_match", "put_if_match", "write on a condition (if_match)"),
    ("metadata", "metadata", "store metadata"),
    ("tags", "tags", "store tags"),
    ("storage_class", "storage_class", "choose a storage class"),
    ("content_type", "headers", "store content_type"),
    ("cache_control", "headers", "store cache_control"),
    ("content_disposition", "headers", "store content_disposition"),
    ("content_encoding", "headers", "store content_encoding"),
    ("content_language", "headers", "store content_language"),
    ("expires", "expires", "store expires"),
)
"""The options that a backend may not support: the option, its capability, and a description."""


def refused_options(capabilities: Capabilities) -> Sequence[tuple[str, str]]:
    """Return the options of a put that a backend does not support, each with a description."""
    return [
        (option, action)
        for option, capability, action in _PUT_NEEDS
        if not getattr(capabilities, capability)
    ]

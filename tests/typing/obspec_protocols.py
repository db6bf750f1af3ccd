"""The adapters satisfy obspec's protocols. Checked by mypy --strict, never run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import obspec

from trove_async import Bucket, blocking
from trove_async.integrations.obspec import AsyncObspecStore, ObspecStore


class Async(
    obspec.CopyAsync,
    obspec.DeleteAsync,
    obspec.GetAsync,
    obspec.GetRangeAsync,
    obspec.GetRangesAsync,
    obspec.HeadAsync,
    obspec.ListAsync,
    obspec.ListWithDelimiterAsync,
    obspec.PutAsync,
    obspec.RenameAsync,
    Protocol,
):
    """All async protocols."""


class Blocking(
    obspec.Copy,
    obspec.Delete,
    obspec.Get,
    obspec.GetRange,
    obspec.GetRanges,
    obspec.Head,
    obspec.List,
    obspec.ListWithDelimiter,
    obspec.Put,
    obspec.Rename,
    Protocol,
):
    """All blocking protocols."""


def async_store(bucket: Bucket) -> Async:
    return AsyncObspecStore(bucket)


def blocking_store(bucket: blocking.Bucket) -> Blocking:
    return ObspecStore(bucket)


async def results(store: AsyncObspecStore) -> Sequence[bytes]:
    async_result: obspec.GetResultAsync = await store.get_async("key")
    await store.put_async("copy", async_result)
    return await store.get_ranges_async("key", starts=[0], lengths=[1])

"""Deletions in one request: what its answer leaves open is asked for again, key by key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast

import anyio

from trove_async._concurrency import for_each
from trove_async.driver import BulkDeleting
from trove_async.errors import BucketNotFoundError, TroveError
from trove_async.models import DeleteResult
from trove_async.options import DeleteOptions

if TYPE_CHECKING:
    from .driver import Leaf

_SINGLY: Final = 8
"""Deletions of single keys under way at once."""


class Batch:
    """The deletion of some keys of one bucket, settled.

    Args:
        leaf: The backend.
        bucket: The bucket.
    """

    def __init__(self, leaf: Leaf, bucket: str) -> None:
        self._leaf = leaf
        self._bucket = bucket

    async def delete(self, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete up to `Capabilities.bulk_delete` keys; tell what became of each, in their order."""
        leaf, bucket = self._leaf, self._bucket
        driver = cast("BulkDeleting", leaf.driver)
        doubt, begun = leaf.doubt(), leaf.clock()
        results = await leaf.retrying(
            "delete_many",
            bucket,
            None,
            lambda: doubt.over(
                leaf.request("delete_many", bucket, None, driver.delete_many, bucket, keys)
                if doubt.since is None
                else self._each(keys, doubt.delete(DeleteOptions()))
            ),
        )
        for result in results:
            if isinstance(result.error, TroveError):
                leaf.redact(result.error)
        failed = [result for result in results if getattr(result.error, "retryable", False)]
        return await self._again(results, failed, begun) if failed else results

    async def _each(self, keys: Sequence[str], options: DeleteOptions) -> Sequence[DeleteResult]:
        """Delete keys one by one, as each may have been deleted, and made anew by another."""
        leaf = self._leaf
        errors: dict[str, TroveError | None] = {}

        async def delete(key: str) -> None:
            errors[key] = None
            try:
                await leaf.request(
                    "delete", self._bucket, key, leaf.driver.delete, self._bucket, key, options
                )
            except BucketNotFoundError:
                raise
            except TroveError as error:
                if error.retryable:
                    raise
                errors[key] = error

        await for_each(keys, delete, limit=_SINGLY)
        return [DeleteResult(key=key, error=errors[key]) for key in keys]

    async def _again(
        self, results: Sequence[DeleteResult], failed: Sequence[DeleteResult], begun: float
    ) -> Sequence[DeleteResult]:
        """Delete one by one what the answer to a batch told to have failed for now."""
        leaf = self._leaf
        pause = leaf.retries().after(cast("TroveError", failed[0].error))
        if pause is None:
            return results
        await anyio.sleep(pause)
        told = {result.key: result for result in results}

        async def again(result: DeleteResult) -> None:
            doubtful = getattr(result.error, "maybe_done", False)
            options = DeleteOptions(
                in_doubt_since=begun if doubtful and leaf.capabilities.settles_doubt else None
            )
            error: TroveError | None = None
            try:
                await leaf.delete(self._bucket, result.key, options)
            except TroveError as failure:
                error = failure
            told[result.key] = DeleteResult(key=result.key, error=error)

        await for_each(failed, again, limit=_SINGLY)
        return [told[result.key] for result in results]

"""Deletions in one request: what its answer leaves open is asked for again, key by key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, cast

import anyio

from trove_async._concurrency import for_each
from trove_async.driver import BulkDeleting
from trove_async.errors import BucketNotFoundError, TroveError
from trove_async.models import DeleteResult
from trove_async.options import DeleteOptions

from .calls import Calls

_SINGLY: Final = 8
"""Deletions of single keys under way at once."""


class BulkDelete:
    """The deletion of some keys of one bucket, settled.

    Args:
        calls: The calls of the backend.
        bucket: The bucket.
        delete: Deletes one key, with retries.
    """

    def __init__(
        self,
        calls: Calls,
        bucket: str,
        delete: Callable[[str, str, DeleteOptions], Awaitable[None]],
    ) -> None:
        self._calls = calls
        self._bucket = bucket
        self._delete = delete

    async def delete(self, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete up to `Capabilities.bulk_delete` keys; tell what became of each, in their order."""
        calls, bucket = self._calls, self._bucket
        driver = cast("BulkDeleting", calls.driver)
        attempts, begun = calls.write_attempts(), calls.clock()
        results = await calls.retry(
            "delete_many",
            bucket,
            None,
            lambda: attempts.watch(
                calls.request("delete_many", bucket, None, driver.delete_many, bucket, keys)
                if attempts.since is None
                else self._each(keys, attempts.delete(DeleteOptions()))
            ),
        )
        for result in results:
            if isinstance(result.error, TroveError):
                calls.redact(result.error)
        failed = [result for result in results if getattr(result.error, "retryable", False)]
        return await self._again(results, failed, begun) if failed else results

    async def _each(self, keys: Sequence[str], options: DeleteOptions) -> Sequence[DeleteResult]:
        """Delete keys one by one, as each may have been deleted, and made anew by another."""
        calls = self._calls
        errors: dict[str, TroveError | None] = {}

        async def delete(key: str) -> None:
            errors[key] = None
            try:
                await calls.request(
                    "delete", self._bucket, key, calls.driver.delete, self._bucket, key, options
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
        calls = self._calls
        pause = calls.retries().after(cast("TroveError", failed[0].error))
        if pause is None:
            return results
        await anyio.sleep(pause)
        told = {result.key: result for result in results}

        async def again(result: DeleteResult) -> None:
            doubtful = getattr(result.error, "maybe_done", False)
            options = DeleteOptions(
                in_doubt_since=begun if doubtful and calls.capabilities.settles_doubt else None
            )
            error: TroveError | None = None
            try:
                await self._delete(self._bucket, result.key, options)
            except TroveError as failure:
                error = failure
            told[result.key] = DeleteResult(key=result.key, error=error)

        await for_each(failed, again, limit=_SINGLY)
        return [told[result.key] for result in results]

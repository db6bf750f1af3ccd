"""Deletions of many keys in one request, followed by single deletions of those that failed temporarily."""

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

_SINGLE_DELETES: Final = 8
"""Maximum number of concurrent deletions of single keys."""


class BulkDelete:
    """The deletion of up to `Capabilities.bulk_delete` keys of one bucket.

    Args:
        calls: The calls of the driver.
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
        """Delete the keys and return the result for each, in any order."""
        calls, bucket = self._calls, self._bucket
        driver = cast("BulkDeleting", calls.driver)
        lost_response, started = calls.track_lost_response(None), calls.clock()
        # 1. Delete all keys in one request. If its response is lost and the driver settles doubt
        # (`Capabilities.settles_doubt`), a retry deletes them one by one.
        results = await calls.retry(
            "delete_many",
            bucket,
            None,
            lambda: lost_response.watch(
                calls.request("delete_many", bucket, None, driver.delete_many, bucket, keys)
                if lost_response.since is None
                else self._delete_each(keys, lost_response.delete_options(DeleteOptions()))
            ),
        )
        for result in results:
            if isinstance(result.error, TroveError):
                calls.redact(result.error)
        # 2. Retry the keys for which the response reports a temporary failure.
        failed = [result for result in results if getattr(result.error, "retryable", False)]
        return await self._retry_failed(results, failed, started) if failed else results

    async def _delete_each(
        self, keys: Sequence[str], options: DeleteOptions
    ) -> Sequence[DeleteResult]:
        """Delete the keys one by one after a lost response.

        An earlier attempt may have deleted some of the objects, and another client may have stored new
        ones under the same keys since.
        """
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

        await for_each(keys, delete, limit=_SINGLE_DELETES)
        return [DeleteResult(key=key, error=errors[key]) for key in keys]

    async def _retry_failed(
        self, results: Sequence[DeleteResult], failed: Sequence[DeleteResult], started: float
    ) -> Sequence[DeleteResult]:
        """Delete the keys that failed temporarily one by one. Return the results of all keys."""
        calls = self._calls
        pause = calls.retries().after(cast("TroveError", failed[0].error))
        if pause is None:
            return results
        await anyio.sleep(pause)
        by_key = {result.key: result for result in results}

        async def retry(result: DeleteResult) -> None:
            maybe_done = getattr(result.error, "maybe_done", False)
            options = DeleteOptions(
                in_doubt_since=started if maybe_done and calls.capabilities.settles_doubt else None
            )
            error: TroveError | None = None
            try:
                await self._delete(self._bucket, result.key, options)
            except TroveError as failure:
                error = failure
            by_key[result.key] = DeleteResult(key=result.key, error=error)

        await for_each(failed, retry, limit=_SINGLE_DELETES)
        return [by_key[result.key] for result in results]

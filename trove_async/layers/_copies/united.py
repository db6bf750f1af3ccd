"""The members of `Fallback(on_missing=True)` as one set of objects.

An object is what the first member that has the key returns. Listings merge the members, and a deletion deletes
on all of them, so that nothing older appears.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, cast

from trove_async._concurrency import for_each
from trove_async.driver import AsyncDriver, BulkDeleting, check_deletable
from trove_async.errors import (
    BucketNotEmptyError,
    BucketNotFoundError,
    InvalidNameError,
    NotFoundError,
    NotSupportedError,
    ObjectNotFoundError,
    PreconditionFailedError,
    TroveError,
)
from trove_async.models import BucketInfo, DeleteResult, Entry, ObjectInfo, Prefix
from trove_async.options import DeleteOptions, ListOptions, Page
from trove_async.paging import TokenCycle

from .members import Members, cannot_have_bucket, parse_stage
from .merging import merged_page

_LOOKUPS: Final = 16
"""Maximum number of keys that are looked for on other members concurrently."""


class United:
    """The members of a layer as one set of objects.

    Args:
        members: The members, in the order in which they are read.
    """

    def __init__(self, members: Members) -> None:
        self._members = members

    def _is_read_only(self, member: int) -> bool:
        return not self._members.drivers[member].capabilities.writable

    # -- reads -----------------------------------------------------------------------------------

    async def find(self, member: int, bucket: str, key: str) -> ObjectInfo | None:
        """Return a member's object; None: it has none."""
        try:
            with self._members.naming(member):
                return await self._members.drivers[member].head(bucket, key)
        except (NotFoundError, InvalidNameError):
            return None

    async def check_current(self, bucket: str, key: str, holder: int, etag: str) -> None:
        """Raise PreconditionFailedError unless a read returns a member's object with this etag."""
        for member in self._members.numbers:
            info = await self.find(member, bucket, key)
            if info is not None:
                if member == holder and info.etag == etag:
                    return
                raise condition_failed("the current version has a different etag", bucket, key)
        await self.head_bucket(bucket)  # a missing bucket has its own error
        raise condition_failed("the object does not exist", bucket, key)

    async def head_bucket(self, bucket: str) -> BucketInfo:
        """Return the bucket's info from the first member that has it."""

        async def head(_: int, driver: AsyncDriver) -> BucketInfo:
            return await driver.head_bucket(bucket)

        return await self._members.read("head_bucket", bucket, None, head, on_missing=True)

    async def list_buckets(self) -> Sequence[BucketInfo]:
        """Return the buckets of all members."""
        found: dict[str, BucketInfo] = {}
        for member, driver in enumerate(self._members.drivers):
            with self._members.naming(member):
                infos = await driver.list_buckets()
            for info in infos:
                found.setdefault(info.name, info)
        return [found[name] for name in sorted(found)]

    async def list_page(self, bucket: str, options: ListOptions, *, ordered: bool) -> Page:
        """Return one page of the merged members, or of one in turn if they are not all `ordered`."""
        if not ordered:
            return await self._listed_in_turn(bucket, options)
        drivers = dict(enumerate(self._members.drivers))
        page = await merged_page(drivers, bucket, options)
        if len(page.missing) == len(drivers):
            raise page.missing[0]
        entries = [self._entry(*next(iter(row.entries.items()))) for row in page.rows]
        return Page(entries=entries, token=page.position)

    def _entry(self, member: int, entry: Entry) -> Entry:
        return entry if isinstance(entry, Prefix) else self._members.info(member, entry)

    async def _listed_in_turn(self, bucket: str, options: ListOptions) -> Page:
        """Return a page of one member without what earlier members have, because one is not ordered."""
        stage, token = parse_stage(options.token, len(self._members.names))
        if stage == 0 and token is None:
            await self.head_bucket(bucket)
        entries: list[Entry] = []
        cycle = TokenCycle()
        while stage < len(self._members.names):
            # 1. Get a page of the member that is listed now.
            room = options.limit - len(entries)
            found: list[Entry] = []
            following: str | None = None
            try:
                driver = self._members.drivers[stage]
                own = replace(options, token=token, limit=max(room, 1))
                with self._members.naming(stage):
                    page = await driver.list_page(bucket, own)
            except BucketNotFoundError:
                if token is not None:
                    raise  # deleted meanwhile: a listing that ended here would look complete
            except InvalidNameError:
                if stage == 0:
                    raise  # a further member has no bucket of a name that it cannot have
            else:
                following = page.token
                cycle.check(None if following is None else f"{stage}:{following}")
                found = await self._unseen(stage, bucket, page.entries)
            # 2. A full page ends here, before the first entry that does not fit.
            if found and not room:
                return Page(entries=entries, token=f"{stage}:{token or ''}")
            entries += found
            # 3. Continue with the member's next page, or with the next member.
            stage, token = (stage + 1, None) if following is None else (stage, following)
            if following is not None and entries:
                return Page(entries=entries, token=f"{stage}:{token}")
        return Page(entries=entries)

    async def _unseen(self, stage: int, bucket: str, entries: Sequence[Entry]) -> list[Entry]:
        """Return the entries of a member that no earlier member has."""
        seen: set[str] = set()

        async def look(entry: Entry) -> None:
            for driver in self._members.drivers[:stage]:
                if await _has_entry(driver, bucket, entry):
                    seen.add(entry.key)
                    return

        await for_each(entries, look, limit=_LOOKUPS)
        return [self._entry(stage, entry) for entry in entries if entry.key not in seen]

    # -- deletions -------------------------------------------------------------------------------

    async def delete(self, bucket: str, key: str, options: DeleteOptions) -> None:
        """Delete the object on all members, the first one last. See `AsyncDriver.delete`."""
        # 1. With a condition, the first member that has the object decides it.
        holder = 0
        if options.if_match is not None:
            holder, etag = self._members.untag(options.if_match)
            await self.check_current(bucket, key, holder, etag)
            options = replace(options, if_match=etag)
        # 2. A read-only member must not have the object: it would become visible.
        members = self._members.numbers[holder:]
        missing = await self._check_read_only(members, bucket, key)
        # 3. Delete what the object hides before the object itself, so that nothing older appears. Members
        # before the one that has it may have got a newer object meanwhile.
        for member in reversed(members):
            if self._is_read_only(member):
                continue
            own = options if member == holder else replace(options, if_match=None)
            try:
                with self._members.naming(member):
                    await self._members.drivers[member].delete(bucket, key, own)
            except BucketNotFoundError as error:
                missing.append(error)
            except InvalidNameError as error:
                if member == 0:
                    raise
                # A further member has no object of a name that it cannot store.
                missing.append(cannot_have_bucket(bucket, error))
        if len(missing) == len(self._members.names):
            raise missing[-1]

    async def delete_many(self, bucket: str, keys: Sequence[str]) -> Sequence[DeleteResult]:
        """Delete the keys as `delete` does. See `BulkDeleting.delete_many`."""
        failed: dict[str, DeleteResult] = {}
        missing: list[BucketNotFoundError] = []
        numbers = self._members.numbers
        # The read-only members come first, which must not have an object: it would become visible.
        for member in sorted(numbers, key=lambda number: (not self._is_read_only(number), -number)):
            # A key that a further member has kept must not be deleted on the primary.
            remaining = [key for key in keys if key not in failed]
            if not remaining:
                break
            try:
                results = await self._delete_on(member, bucket, remaining)
            except BucketNotFoundError as error:
                missing.append(error)
                continue
            failed.update({result.key: result for result in results if result.error is not None})
        if len(missing) == len(self._members.names):
            raise missing[-1]
        return [failed.get(key, DeleteResult(key=key)) for key in keys]

    async def _delete_on(
        self, member: int, bucket: str, keys: Sequence[str]
    ) -> Sequence[DeleteResult]:
        driver = self._members.drivers[member]
        if self._is_read_only(member):
            return await self._refused(member, bucket, keys)
        try:
            with self._members.naming(member):
                return await cast("BulkDeleting", driver).delete_many(bucket, keys)
        except InvalidNameError:
            if member == 0:
                raise

        async def delete(key: str) -> None:
            with suppress(InvalidNameError):  # it has no object of a name that it cannot store
                await driver.delete(bucket, key, DeleteOptions())

        await for_each(keys, delete, limit=_LOOKUPS)
        return []

    async def _refused(
        self, member: int, bucket: str, keys: Sequence[str]
    ) -> Sequence[DeleteResult]:
        """Return the results of the keys that a read-only member has."""
        refused: list[DeleteResult] = []
        missing: list[BucketNotFoundError] = []

        async def check(key: str) -> None:
            try:
                await self._check_lacks(member, bucket, key)
            except BucketNotFoundError as error:
                missing.append(error)
            except TroveError as error:
                refused.append(DeleteResult(key=key, error=error))

        await for_each(keys, check, limit=_LOOKUPS)
        if len(missing) == len(keys):
            raise missing[0]
        return refused

    async def check_deletable(
        self, bucket: str, key: str, *, members: Sequence[int] | None = None
    ) -> None:
        """Check that no read-only member has the object. See `RefusesDeletions.check_deletable`."""
        members = self._members.numbers if members is None else members
        await self._check_read_only(members, bucket, key)
        for member in members:
            await check_deletable(self._members.drivers[member], bucket, key)

    async def _check_read_only(
        self, members: Sequence[int], bucket: str, key: str
    ) -> list[BucketNotFoundError]:
        """Check that no read-only member has an object. Return the errors of those without the bucket.

        Raises:
            NotSupportedError: A read-only member has it.
        """
        missing: list[BucketNotFoundError] = []
        for member in filter(self._is_read_only, members):
            try:
                await self._check_lacks(member, bucket, key)
            except BucketNotFoundError as error:
                missing.append(error)
        return missing

    async def _check_lacks(self, member: int, bucket: str, key: str) -> None:
        """Check that a read-only member lacks an object.

        Raises:
            NotSupportedError: It has the object.
            BucketNotFoundError: It lacks the bucket as well.
        """
        try:
            with self._members.naming(member):
                await self._members.drivers[member].head(bucket, key)
        except ObjectNotFoundError:
            return
        except InvalidNameError as error:
            raise cannot_have_bucket(bucket, error) from error
        raise NotSupportedError(
            f"{self._members.names[member]} is read-only and has the object; nothing was deleted",
            bucket=bucket,
            key=key,
        )

    async def delete_bucket(self, bucket: str) -> None:
        """Delete the bucket on all members, if it is empty on all. See `AsyncDriver.delete_bucket`."""
        # 1. Check all members before anything is deleted.
        holders: list[AsyncDriver] = []
        missing: list[BucketNotFoundError] = []
        for member, driver in enumerate(self._members.drivers):
            try:
                with self._members.naming(member):
                    page = await driver.list_page(bucket, ListOptions(limit=1))
            except BucketNotFoundError as error:
                missing.append(error)
                continue
            except InvalidNameError as error:
                if member == 0:
                    raise
                missing.append(cannot_have_bucket(bucket, error))
                continue
            if page.entries:
                raise BucketNotEmptyError(
                    f"the bucket must be empty, but {self._members.names[member]} has objects in it",
                    bucket=bucket,
                )
            if self._is_read_only(member):
                raise NotSupportedError(
                    f"{self._members.names[member]} is read-only and has the bucket; nothing was deleted",
                    bucket=bucket,
                )
            holders.append(driver)
        if not holders:
            raise missing[0]
        # 2. Delete it.
        for driver in reversed(holders):
            with suppress(BucketNotFoundError):  # deleted meanwhile: the result is the same
                await driver.delete_bucket(bucket)


async def _has_entry(driver: AsyncDriver, bucket: str, entry: Entry) -> bool:
    """Return whether a driver has an object, or an object with a common prefix."""
    try:
        if isinstance(entry, Prefix):
            options = ListOptions(prefix=entry.prefix, limit=1)
            return bool((await driver.list_page(bucket, options)).entries)
        await driver.head(bucket, entry.key)
    except (NotFoundError, InvalidNameError):
        return False
    return True


def condition_failed(reason: str, bucket: str, key: str) -> PreconditionFailedError:
    """Return the error of an ``if_match`` that does not hold."""
    return PreconditionFailedError(f"if_match: {reason}", bucket=bucket, key=key)

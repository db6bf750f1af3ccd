"""Bodies that break on one member of a layer, and continue on another one with the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import Fake, content
from tests.layers.mirroring import assert_nothing_held, of_kind, store_with, write_to
from trove_async.errors import ClosedError, PoolTimeoutError, UnavailableError
from trove_async.layers import Fallback, Mirrored
from trove_async.models import RECORDS, MiB
from trove_async.options import DeleteOptions

if TYPE_CHECKING:
    from trove_async import Trove

BODY = content(3 * MiB + 100, "body")
BREAK = MiB + 17


@pytest.fixture(params=[False, True], ids=["read", "readinto"])
def members(request: pytest.FixtureRequest) -> list[Fake]:
    """Three members. The readers of the first two are of different kinds."""
    return [Fake(readinto=request.param), Fake(readinto=not request.param), Fake()]


async def fill(store: Trove, members: list[Fake]) -> None:
    """Put the object into all members."""
    await store.put("bucket", "key", BODY)
    for member in members:
        if "bucket" not in [info.name for info in await member.list_buckets()]:
            await member.create_bucket("bucket")
            await write_to(member, "key", BODY)


@pytest.mark.parametrize("layer", [Mirrored, Fallback])
async def test_body_that_breaks_continues_on_another_member(
    layer: type[Any], members: list[Fake]
) -> None:
    async with store_with(layer(*members)) as (store, events):
        await fill(store, members)
        members[0].cuts.append(BREAK)
        async with store.get("bucket", "key") as reader:
            assert await reader.read() == BODY
            assert reader.info.etag == (await store.head("bucket", "key")).etag
        assert [(name, key) for name, key, _ in of_kind(events, "fallback")] == [("get", "key")]
        assert "1 (memory)" in of_kind(events, "fallback")[0][2]
        assert_nothing_held(store, *members)


@pytest.mark.parametrize("start", [0, BREAK - 10, 2 * MiB])
async def test_range_continues_where_it_broke(start: int, members: list[Fake]) -> None:
    async with store_with(Mirrored(*members)) as (store, _):
        await fill(store, members)
        members[0].cuts.append(max(BREAK, start + 5))
        end = len(BODY) - 7
        assert await store.read("bucket", "key", range=(start, end)) == BODY[start:end]


async def test_several_members_break_in_turn(members: list[Fake]) -> None:
    async with store_with(Mirrored(*members)) as (store, events):
        await fill(store, members)
        members[0].cuts.append(BREAK)
        members[1].cuts.append(2 * MiB)
        assert await store.read("bucket", "key") == BODY
        assert len(of_kind(events, "fallback")) == 2
        for member, position in zip(members, (1, MiB, BREAK), strict=True):
            member.cuts.append(position)
        with pytest.raises(UnavailableError, match=f"breaks at byte {BREAK}") as raised:
            await store.read("bucket", "key")
        assert raised.value.member == "replica 2 (memory)"
        assert raised.value.__notes__ == [
            "(primary (memory): it failed before)",
            "(replica 1 (memory): it failed before)",
        ]
        assert_nothing_held(store, *members)


@pytest.mark.parametrize("capabilities", [{"checksums": frozenset()}, {"metadata": False}])
async def test_either_the_checksum_or_the_write_id_proves_the_bytes(
    capabilities: dict[str, Any],
) -> None:
    members = [Fake(**capabilities), Fake(**capabilities)]
    async with store_with(Mirrored(*members)) as (store, _):
        await fill(store, members)
        members[0].cuts.append(BREAK)
        assert await store.read("bucket", "key") == BODY


@pytest.mark.parametrize("case", ["other bytes", "nothing", "no bucket", "unavailable", "no proof"])
async def test_member_without_the_same_bytes_does_not_continue(case: str) -> None:
    claims: dict[str, Any] = {"checksums": frozenset()} if case == "no proof" else {}
    primary, other = Fake(**claims), Fake(**claims)
    async with store_with(Fallback(primary, other)) as (store, events):
        await fill(store, [primary, other])
        match case:
            case "other bytes":
                await write_to(other, "key", content(len(BODY), "other"))
            case "nothing":
                await other.delete("bucket", "key", DeleteOptions())
            case "no bucket":
                await other.delete("bucket", "key", DeleteOptions())
                await other.delete_bucket("bucket")
            case "unavailable":
                other.fail("head", UnavailableError("down"), times=None)
        primary.cuts.append(BREAK)
        with pytest.raises(UnavailableError, match=f"breaks at byte {BREAK}") as raised:
            await store.read("bucket", "key")
        assert "primary" in str(raised.value)
        assert of_kind(events, "fallback") == []
        assert_nothing_held(store, primary, other)


@pytest.mark.parametrize("get_conditions", [False, True])
async def test_object_that_is_replaced_meanwhile_does_not_continue(get_conditions: bool) -> None:  # noqa: FBT001
    primary, other = Fake(), Fake(get_conditions=get_conditions)
    async with store_with(Fallback(primary, other)) as (store, _):
        await fill(store, [primary, other])

        async def replace_object() -> None:
            del other.before["get"]
            await write_to(other, "key", content(len(BODY), "other"))

        other.before["get"] = replace_object
        primary.cuts.append(BREAK)
        with pytest.raises(UnavailableError, match=f"breaks at byte {BREAK}"):
            await store.read("bucket", "key")
        assert_nothing_held(store, primary, other)


@pytest.mark.parametrize("difference", ["bytes", "record"])
async def test_equal_write_id_is_no_proof_if_anything_else_differs(difference: str) -> None:
    """A tool that rewrites an object with its metadata also keeps the write_id."""
    primary, other = Fake(), Fake()
    async with store_with(Mirrored(primary, other)) as (store, _):
        info = await store.put("bucket", "key", BODY)
        body = content(len(BODY), "other") if difference == "bytes" else BODY
        metadata = {RECORDS: "[]"} if difference == "record" else {}
        await write_to(other, "key", body, write_id=info.write_id, metadata=metadata)
        primary.cuts.append(BREAK)
        with pytest.raises(UnavailableError, match="same bytes"):
            await store.read("bucket", "key", range=(0, len(BODY) - 1))


@pytest.mark.parametrize("step", ["head", "get"])
@pytest.mark.parametrize("layer", [Mirrored, Fallback])
async def test_reader_closed_while_its_body_is_continued_holds_nothing(
    layer: type[Any], step: str
) -> None:
    members = [Fake(), Fake()]
    async with store_with(layer(*members)) as (store, _):
        await fill(store, members)
        members[0].cuts.append(BREAK)
        reader = await store.get("bucket", "key")
        members[1].before[step] = reader.aclose
        with pytest.raises(ClosedError):
            await reader.read()
        assert_nothing_held(store, *members)


async def test_queue_of_this_store_is_no_reason_to_read_elsewhere() -> None:
    members = [Fake(readinto=True), Fake(readinto=True)]
    async with store_with(Mirrored(*members)) as (store, events):
        await fill(store, members)

        async def fail() -> None:
            raise PoolTimeoutError("no permit")

        members[0].before["read"] = members[0].before["readinto"] = fail
        with pytest.raises(PoolTimeoutError) as raised:
            await store.read("bucket", "key")
        assert raised.value.member == "primary (memory)"
        assert of_kind(events, "fallback") == []

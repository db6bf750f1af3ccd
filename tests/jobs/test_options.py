"""The common arguments of the jobs are checked before any I/O."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.stores import BUCKET, Backends
from trove_async import ConfigError
from trove_async.jobs import rebalance, sync, tier, verify
from trove_async.jobs._options import FileTarget, ObjectTarget, checkpoint_target


@pytest.mark.parametrize(
    ("checkpoint", "target"),
    [
        (Path("state"), FileTarget(Path("state"))),
        (Path("b/k"), FileTarget(Path("b/k"))),
        ("file:///x/y", FileTarget(Path("/x/y"))),
        ("file://localhost/x%20%3F%23", FileTarget(Path("/x ?#"))),
        ("state/job", ObjectTarget("state", "job")),
        ("bucket/a?b#c", ObjectTarget("bucket", "a?b#c")),
    ],
)
def test_place_of_a_checkpoint(checkpoint: Any, target: object) -> None:
    assert checkpoint_target(checkpoint) == target


@pytest.mark.parametrize(
    ("checkpoint", "text"),
    [
        ("file:///a%00b", "NUL"),
        (Path("a\0b"), "NUL"),
        (Path("\ud800"), "cannot be encoded"),
        (Path(), "name a file"),
        (Path("/"), "name a file"),
        ("file:////", "name a file"),
        ("file:///x?y#z", "without '\\?' and '#'"),
        ("file:///x?", "without '\\?' and '#'"),
        ("file:///x#", "without '\\?' and '#'"),
        ("file://host/x", "file:///path"),
        ("s3://bucket/key", "file:///path"),
        ("file://[x/y", "malformed URL"),
        ("state", "BUCKET/KEY"),
    ],
)
def test_malformed_checkpoint_raises(checkpoint: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        checkpoint_target(checkpoint)


async def coroutine(progress: object) -> None:
    raise AssertionError(progress)


class AsyncCallable:
    async def __call__(self, progress: object) -> None:
        raise AssertionError(progress)


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"max_bytes_per_second": 10**400}, ConfigError, "too large"),
        ({"max_objects_per_second": 10**400}, ConfigError, "too large"),
        ({"progress": coroutine}, TypeError, "plain function"),
        ({"progress": partial(coroutine)}, TypeError, "plain function"),
        ({"progress": AsyncCallable()}, TypeError, "plain function"),
        ({"progress": 1}, TypeError, "must be callable, got int"),
        ({"checkpoint": b"x"}, TypeError, "got bytes"),
    ],
)
async def test_bad_argument_raises_before_any_request(
    arguments: dict[str, Any], kind: type[Exception], text: str
) -> None:
    backends = Backends()
    async with backends.store() as store:
        for driver in backends.drivers.values():
            driver.reset()
        with pytest.raises(kind, match=text):
            await rebalance(store, BUCKET, **arguments)
        assert not any(driver.requests for driver in backends.drivers.values())


@pytest.mark.parametrize("rules", [None, 5])
async def test_rules_that_are_no_sequence_raise(rules: Any) -> None:
    async with Backends().store() as store:
        with pytest.raises(TypeError, match="rules must be a sequence of TierRule, got"):
            await tier(store, BUCKET, rules)


async def test_callback_that_returns_a_coroutine_ends_the_job(tmp_path: Path) -> None:
    def callback(progress: object) -> Any:
        return coroutine(progress)

    async with Backends().store() as store:
        await store.put(BUCKET, "k", b"x")
        with pytest.raises(TypeError, match="not return a coroutine"):
            await verify(store, BUCKET, progress=callback)
        with pytest.raises(TypeError, match="not return a coroutine"):
            await sync(store.bucket(BUCKET), tmp_path, progress=callback)
        await asyncio.sleep(0)

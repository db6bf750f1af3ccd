"""Routes, route functions, and the order in which they apply."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trove_async.errors import BackendNotFoundError, PatternError
from trove_async.router import Route, RouteFunction, Router, route_function

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection

BACKENDS = ("default", "cold", "archive", "fast")


def router(
    routes: list[Route | tuple[str, str]] | None = None,
    functions: list[RouteFunction] | None = None,
    default: str = "default",
    backends: Collection[str] = BACKENDS,
) -> Router:
    return Router(routes or [], functions or [], backends=backends, default=default)


async def resolved(router: Router, bucket: str, key: str) -> str:
    backend = router.resolve(bucket, key)
    return backend if isinstance(backend, str) else await backend


def test_without_rules_every_key_is_routed_to_the_default() -> None:
    assert router().resolve("b", "k") == "default"


def test_first_matching_route_wins() -> None:
    table = router([("archive/*", "archive"), ("*.log", "cold"), ("*", "fast")])
    assert table.resolve("b", "archive/a.log") == "archive"
    assert table.resolve("b", "a.log") == "cold"
    assert table.resolve("b", "a.txt") == "fast"
    assert table.resolve("b", "logs/a.log") == "default"


def test_bucket_prefix_and_suffix_routes_have_no_wildcards() -> None:
    table = router(
        [
            Route.bucket("large", "fast"),
            Route.prefix("logs[", "cold"),
            Route.suffix(".t*", "archive", bucket="b"),
            Route("x", "cold", bucket="b"),
        ]
    )
    assert table.resolve("large", "anything/at/all") == "fast"
    assert table.resolve("b", "logs[1]/a") == "cold"
    assert table.resolve("b", "q/a.t*") == "archive"
    assert table.resolve("c", "q/a.t*") == "default"
    assert table.resolve("b", "x") == "cold"
    assert table.resolve("c", "x") == "default"


@pytest.mark.parametrize("bucket_first", [True, False])
def test_routes_with_and_without_a_bucket_share_one_order(*, bucket_first: bool) -> None:
    routes: list[Route | tuple[str, str]] = [Route("*.log", "cold", bucket="b"), ("*.log", "fast")]
    table = router(routes if bucket_first else routes[::-1])
    assert table.resolve("b", "a.log") == ("cold" if bucket_first else "fast")
    assert table.resolve("c", "a.log") == "fast"


def test_functions_are_called_in_order_before_the_routes() -> None:
    calls: list[str] = []

    def first(bucket: str, key: str) -> str:
        calls.append(f"first {bucket}/{key}")
        return ""

    def second(bucket: str, key: str) -> str | None:
        calls.append(f"second {bucket}/{key}")
        return "cold" if key == "x" else None

    table = router([("*", "fast")], [first, second])
    assert table.resolve("b", "x") == "cold"
    assert table.resolve("b", "y") == "fast"
    assert calls == ["first b/x", "second b/x", "first b/y", "second b/y"]


async def test_route_function_may_be_async_or_return_an_awaitable() -> None:
    calls: list[str] = []

    async def slow(_bucket: str, key: str) -> str | None:
        calls.append("slow")
        return "cold" if key == "slow" else None

    def late(bucket: str, key: str) -> Awaitable[str | None] | str:
        calls.append("late")
        return slow(bucket, "slow") if key == "late" else ""

    table = router([("*.log", "archive")], [slow, late])
    assert await resolved(table, "b", "slow") == "cold"
    assert calls == ["slow"]
    assert await resolved(table, "b", "late") == "cold"
    assert calls == ["slow", "slow", "late", "slow"]
    assert await resolved(table, "b", "a.log") == "archive"
    assert await resolved(table, "b", "a.txt") == "default"
    assert router([], [lambda _b, k: k]).resolve("b", "fast") == "fast"


async def test_function_that_returns_an_unknown_backend_raises() -> None:
    table = router([], [lambda _bucket, _key: "cloud"])
    with pytest.raises(BackendNotFoundError, match=r"<lambda>.* 'cloud': .*'archive', 'cold'"):
        table.resolve("b", "k")
    with pytest.raises(BackendNotFoundError):
        await table.explain("b", "k")


@pytest.mark.parametrize("result", [0, False, 7, b"cold", []])
async def test_function_that_returns_a_wrong_type_is_named_in_the_error(result: object) -> None:
    def sync_route(_bucket: str, _key: str) -> str:
        return result  # type: ignore[return-value]  # tested at run time

    async def async_route(_bucket: str, _key: str) -> str:
        return result  # type: ignore[return-value]  # tested at run time

    with pytest.raises(
        TypeError, match=rf"route function 1 .*sync_route\).* {type(result).__name__}"
    ):
        router([], [sync_route]).resolve("b", "k")
    with pytest.raises(TypeError, match=r"async_route\) must return"):
        await resolved(router([], [async_route]), "b", "k")


async def test_exception_of_a_function_passes_through() -> None:
    def fails(_bucket: str, key: str) -> str:
        raise KeyError(key)

    with pytest.raises(KeyError):
        router([], [fails]).resolve("b", "k")
    with pytest.raises(KeyError):
        await router([], [route_function(fails, by="bucket")]).reaches("b")


def test_default_is_a_name_of_the_default_backend() -> None:
    table = router(
        [("*.log", "default")], [lambda _b, k: "default" if k == "f" else ""], "hot", ["cold"]
    )
    assert table.resolve("b", "a.log") == "hot"
    assert table.resolve("b", "f") == "hot"
    assert table.resolve("b", "q") == "hot"


def test_malformed_pattern_is_rejected_when_the_route_is_created() -> None:
    with pytest.raises(PatternError, match="position 0"):
        Route("[", "cold")
    with pytest.raises(PatternError):
        router([("a[", "cold")])


def test_unknown_backend_is_rejected_when_the_router_is_created() -> None:
    with pytest.raises(BackendNotFoundError, match=r"'clod'.*'archive', 'cold', 'default', 'fast'"):
        router([Route.suffix(".log", "clod")])


@pytest.mark.parametrize("route", ["*.log", ("*.log",), ("a", "b", "c", "d"), ["*.log", "cold"], 1])
def test_route_of_the_wrong_shape_raises_type_error(route: object) -> None:
    with pytest.raises(TypeError, match="pair"):
        router([route])  # type: ignore[list-item]  # tested at run time


def test_arguments_of_a_wrong_type_are_rejected() -> None:
    with pytest.raises(TypeError, match="callable"):
        router([], ["cold"])  # type: ignore[list-item]  # tested at run time
    with pytest.raises(TypeError, match="callable"):
        route_function("cold")  # type: ignore[call-overload]  # tested at run time
    with pytest.raises(TypeError, match="prefix of a route must be a str"):
        Route.prefix(None, "cold")  # type: ignore[arg-type]  # tested at run time
    with pytest.raises(TypeError, match="backend"):
        Route("*", None)  # type: ignore[arg-type]  # tested at run time
    with pytest.raises(TypeError, match="bucket"):
        Route("*", "cold", bucket=1)  # type: ignore[arg-type]  # tested at run time


def test_arguments_of_route_function_are_checked() -> None:
    with pytest.raises(ValueError, match=r"by must be .* got 'name'"):
        route_function(by="name")  # type: ignore[call-overload]  # tested at run time
    with pytest.raises(ValueError, match="must not be passed"):
        route_function(by="bucket", reaches=lambda _b, _p: {"cold"})


def test_declared_route_function_is_callable() -> None:
    @route_function(by="bucket")
    def large(bucket: str, key: str) -> str:
        return f"{bucket}{key}"

    assert large("a", "b") == "ab"
    assert route_function(large)("a", "b") == "ab"


def test_routes_are_values() -> None:
    routes = [
        Route("a*", "cold"),
        Route("a*", "cold", bucket="b"),
        Route.prefix("a", "cold"),
        Route.suffix("a", "cold", bucket="b"),
        Route.bucket("a", "cold"),
    ]
    assert len(set(routes)) == len(routes)
    assert list(map(repr, routes)) == [
        "Route('a*', 'cold')",
        "Route('a*', 'cold', bucket='b')",
        "Route.prefix('a', 'cold')",
        "Route.suffix('a', 'cold', bucket='b')",
        "Route.bucket('a', 'cold')",
    ]
    assert eval(repr(routes), {"Route": Route}) == routes  # noqa: S307 - what a repr promises
    assert pickle.loads(pickle.dumps(routes)) == routes == copy.deepcopy(routes)  # noqa: S301
    assert [route.pattern for route in routes] == ["a*", "a*", None, None, None]
    with pytest.raises(AttributeError):
        routes[0].backend = "hot"  # type: ignore[misc]  # tested at run time


async def test_explain_returns_the_rule_and_the_reason() -> None:
    async def pick(_bucket: str, key: str) -> str:
        return "fast" if key == "f" else ""

    table = router(
        [
            ("archive/*", "archive"),
            Route.prefix("logs/", "cold"),
            Route.suffix(".tmp", "fast", bucket="b"),
            Route.bucket("large", "cold"),
        ],
        [pick],
    )
    expected = {
        ("b", "f"): ("fast", pick.__qualname__, f"route function 1 ({pick.__qualname__}) returned"),
        ("b", "archive/x"): (
            "archive",
            "archive/*",
            "Route 1 of 4: 'archive/*' is the first pattern",
        ),
        ("b", "logs/x"): ("cold", "prefix 'logs/'", "Route 2 of 4: the key starts with 'logs/'"),
        ("b", "x.tmp"): ("fast", "suffix '.tmp'", "the key ends with '.tmp' in bucket 'b'"),
        ("large", "x"): (
            "cold",
            "bucket 'large'",
            "Route 4 of 4: it applies to every key in bucket 'large'",
        ),
        ("b", "x"): ("default", None, "No rule matches the key"),
    }
    for (bucket, key), (backend, rule, reason) in expected.items():
        decision = await table.explain(bucket, key)
        assert (decision.backend, decision.rule) == (backend, rule)
        assert reason.lower() in decision.reason.lower()
        assert decision.reason[0].isupper()
        assert decision.reason.endswith(".")
    assert "no rules" in (await router().explain("b", "k")).reason


async def test_rule_of_a_callable_without_a_name_is_its_class() -> None:
    table = router([], [partial(lambda name, _b, _k: name, "cold")])
    assert (await table.explain("b", "k")).rule == "partial"


async def test_reaches_returns_the_backends_of_routes_in_order() -> None:
    table = router(
        [
            Route("archive/*", "archive"),
            Route("*.log", "cold"),
            Route.prefix("data/", "fast", bucket="b"),
        ]
    )
    assert await table.reaches("b") == ("archive", "cold", "fast", "default")
    assert await table.reaches("b", "archive/") == ("archive", "default")
    assert await table.reaches("b", "data/x") == ("fast",)
    assert await table.reaches("c", "data/x") == ("default",)
    assert await table.reaches("b", "x") == ("cold", "default")
    assert await router().reaches("b") == ("default",)


async def test_undeclared_function_may_reach_every_backend() -> None:
    table = router([("a", "cold")], [lambda _b, _k: None])
    assert await table.reaches("b", "x/") == BACKENDS


async def test_function_by_bucket_is_called_and_ends_the_search() -> None:
    async def archive_old(bucket: str, _key: str) -> str | None:
        return "archive" if bucket == "old" else None

    table = router(
        [("*", "fast")],
        [
            route_function(reaches=lambda _b, p: ["cold"] if p.startswith("c") else [])(
                lambda _b, k: "cold" if k.startswith("c") else ""
            ),
            route_function(lambda b, _k: "fast" if b == "quick" else "", by="bucket"),
            route_function(archive_old, by="bucket"),
        ],
    )
    assert await table.reaches("quick", "c") == ("cold", "fast")
    assert await table.reaches("quick", "x") == ("fast",)
    assert await table.reaches("old", "x") == ("archive",)
    assert await table.reaches("b", "x/") == ("default",)
    assert await table.reaches("b", "x") == ("fast", "default")


async def test_result_of_reaches_is_checked() -> None:
    def router_with_reaches(names: object) -> Router:
        return router(
            [],
            [route_function(lambda _b, _k: "", reaches=lambda _b, _p: names)],  # type: ignore[arg-type,return-value]  # tested at run time
        )

    with pytest.raises(BackendNotFoundError, match=r"`reaches` of route function 1 .*'cloud'"):
        await router_with_reaches({"cloud"}).reaches("b")
    for names in ("cold", None, 3):
        with pytest.raises(TypeError, match="must return a set"):
            await router_with_reaches(names).reaches("b")
    assert await router_with_reaches({"default"}).reaches("b") == ("default",)


def test_fingerprint_depends_only_on_the_rules_and_the_backends() -> None:
    script = (
        "from trove_async.router import *\n"
        "print(Router([('*.log', 'cold'), Route.prefix('a', 'b')], backends={'cold', 'b'}).fingerprint)"
    )
    fingerprints = {
        subprocess.run(  # noqa: S603 - this interpreter, with a different hash seed
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    equal = Router([("*.log", "cold"), Route.prefix("a", "b")], backends=["b", "cold"])
    assert fingerprints == {equal.fingerprint}
    routers = [
        router(),
        router(default="fast"),
        router([("*.log", "cold")]),
        router([("*.log", "fast")]),
        router([Route("*.log", "cold", bucket="b")]),
        router([Route.suffix("*.log", "cold")]),
        router([("a", "cold"), ("b", "cold")]),
        router([("b", "cold"), ("a", "cold")]),
        router([], [lambda _b, _k: ""]),
        router([], [route_function(lambda _b, _k: "", by="bucket")]),
        router(backends=["default", "more"]),
        equal,
    ]
    assert len({table.fingerprint for table in routers}) == len(routers)


keys = st.text("ab/.", min_size=1, max_size=6)
backends = st.sampled_from(BACKENDS)
buckets = st.sampled_from(["b", "c"])
routes = st.one_of(
    st.builds(Route, st.text("ab/.*?", max_size=5), backends, st.none() | buckets),
    st.builds(Route.prefix, keys, backends, st.none() | buckets),
    st.builds(Route.suffix, keys, backends, st.none() | buckets),
    st.builds(Route.bucket, buckets, backends),
)


@given(st.lists(routes, max_size=30), buckets, keys, keys)
async def test_resolve_returns_the_first_matching_route(
    rules: list[Route], bucket: str, prefix: str, suffix: str
) -> None:
    table = Router(rules, backends=BACKENDS)
    key = prefix + suffix
    expected = next(
        (
            rule.backend
            for rule in rules
            if rule.in_bucket in {None, bucket} and rule.glob.matches(key)
        ),
        "default",
    )
    assert table.resolve(bucket, key) == expected
    assert (await table.explain(bucket, key)).backend == expected
    assert expected in await table.reaches(bucket, prefix)


@pytest.mark.parametrize("asynchronous", [False, True])
@given(rules=st.lists(routes, max_size=30), bucket=buckets, listed=st.lists(keys, max_size=8))
async def test_resolve_all_returns_the_backend_of_each_key(
    rules: list[Route], bucket: str, listed: list[str], *, asynchronous: bool
) -> None:
    calls: list[str] = []

    def by_letter(_bucket: str, key: str) -> str:
        calls.append(key)
        return "fast" if "." in key else ""

    async def by_letter_later(bucket: str, key: str) -> str:
        await asyncio.sleep(0)
        return by_letter(bucket, key)

    for functions in ([], [by_letter_later if asynchronous else by_letter]):
        table = Router(rules, functions, backends=BACKENDS)
        calls.clear()
        names = await table.resolve_all(bucket, listed, limit=3)
        assert sorted(calls) == (sorted(listed) if functions else [])
        assert list(names) == [(await table.explain(bucket, key)).backend for key in listed]


async def test_resolve_all_limits_the_concurrent_calls_and_raises_their_errors() -> None:
    running = peak = 0

    async def route(_bucket: str, key: str) -> str:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0)
        running -= 1
        return "lost" if key == "99" else "cold"

    table = router([], [route])
    numbers = [str(number) for number in range(99)]
    assert await table.resolve_all("b", numbers, limit=4) == ["cold"] * 99
    assert peak == 4
    with pytest.raises(BackendNotFoundError, match="'lost'"):
        await table.resolve_all("b", [*numbers, "99"], limit=4)

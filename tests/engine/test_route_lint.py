"""Mistakes in routes are reported, and routes that only look like mistakes are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes import CallLog, single_attempt_store
from trove_async import NotSupportedError, Route, RouteIssue, Scope
from trove_async._engine.glob_inclusion import includes
from trove_async._globs import Glob
from trove_async.layers import Mapped
from trove_async.middlewares import Compression, Inspection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trove_async.middleware import Inspector


def lint(*routes: Route | tuple[str, str], **arguments: Any) -> Sequence[RouteIssue]:
    backends = {"cold": CallLog(), "hot": CallLog(), **arguments.pop("backends", {})}
    store = single_attempt_store(
        arguments.pop("default", None), backends=backends, routes=routes, **arguments
    )
    return store.lint_routes()  # it is not open: no I/O


def kinds(*routes: Route | tuple[str, str], **arguments: Any) -> list[str]:
    return [issue.kind for issue in lint(*routes, **arguments)]


NEVER_WINS: list[tuple[Route | tuple[str, str], Route | tuple[str, str]]] = [
    (("a/**", "hot"), ("a/**", "cold")),
    (("**", "hot"), ("a", "cold")),
    (("**", "hot"), Route.bucket("data", "cold")),
    (("a/**", "hot"), ("a/b/*.log", "cold")),
    (Route.prefix("a", "hot"), ("a/**", "cold")),
    (Route.prefix("a", "hot"), Route.prefix("ab", "cold", bucket="data")),
    (Route.suffix("g", "hot"), Route.suffix(".log", "cold")),
    (Route.suffix(".log", "hot"), ("logs/**/*.log", "cold")),
    (("**/*.log", "hot"), Route.suffix(".log", "cold")),
    (("**/*.log", "hot"), ("logs/**/app.log", "cold")),
    (("a/*/c", "hot"), ("a/b/c", "cold")),
    (("[a-c]", "hot"), ("b", "cold")),
    (("dir/a*.log", "hot"), ("dir/ab?x.log", "cold")),
    (("dir/*", "hot"), ("dir/[a-z]?", "cold")),
    (Route.bucket("data", "hot"), Route.prefix("a", "cold", bucket="data")),
    (Route.bucket("data", "hot"), Route.bucket("data", "hot")),
]

MAY_WIN: list[tuple[Route | tuple[str, str], Route | tuple[str, str]]] = [
    (("a/b/**", "hot"), ("a/**", "cold")),
    (("dir/*", "hot"), ("dir/**", "cold")),
    (("dir/*", "hot"), ("dir/*/x", "cold")),
    (("dir/*", "hot"), ("dir/[^a]", "cold")),
    (("dir/*", "hot"), ("dir/[.-0]", "cold")),
    (("a?", "hot"), ("a", "cold")),
    (Route.prefix("ab", "hot"), Route.prefix("a", "cold")),
    (Route.suffix(".log", "hot"), Route.suffix("g", "cold")),
    (("**/b.log", "hot"), Route.suffix("b.log", "cold")),
    (("**/x*.log", "hot"), Route.suffix(".log", "cold")),
    (Route.bucket("data", "hot"), Route.bucket("other", "cold")),
    (Route.bucket("data", "hot"), Route.prefix("a", "cold")),
    (Route.prefix("a", "hot", bucket="data"), Route.prefix("a", "cold", bucket="other")),
    (("dir/a*b", "hot"), ("dir/ab*", "cold")),
]


@pytest.mark.parametrize(("first", "second"), NEVER_WINS)
def test_route_behind_one_that_matches_all_its_keys_never_wins(first: Any, second: Any) -> None:
    issues = [issue for issue in lint(first, second) if issue.kind == "never_wins"]
    assert [issue.route for issue in issues] == [
        second if isinstance(second, Route) else Route(*second)
    ]
    assert "route 1" in issues[0].message


@pytest.mark.parametrize(("first", "second"), MAY_WIN)
def test_route_that_matches_more_keys_may_win(first: Any, second: Any) -> None:
    assert "never_wins" not in kinds(first, second)


NARROWER = [*NEVER_WINS[3:7], *NEVER_WINS[9:14]]


@pytest.mark.parametrize(("second", "first"), NARROWER)
def test_both_routes_may_win_if_the_narrower_one_comes_first(first: Any, second: Any) -> None:
    assert "never_wins" not in kinds(first, second)


def test_pattern_of_the_empty_key_never_matches() -> None:
    assert kinds(("", "cold")) == ["never_wins"]
    assert kinds(Route.prefix("", "cold")) == []


def test_route_that_never_wins_has_one_issue() -> None:
    assert kinds(("tmp/*", "cold"), ("tmp/*", "hot")) == ["shallow", "never_wins"]


PARTS = st.lists(
    st.sampled_from(["a", "b", "/", "*", "?", "**", "[ab]", "[^a]", "[.-0]", "ab", "/**/", ".log"]),
    max_size=5,
).map("".join)
NAMES = st.lists(st.text(alphabet="ab/.log0", max_size=8), max_size=5)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(wider=PARTS, narrower=PARTS, names=NAMES)
def test_inclusion_is_certain(wider: str, narrower: str, names: list[str]) -> None:
    wide, narrow = Glob.parse(wider), Glob.parse(narrower)
    if includes(wide, narrow):
        for name in [*names, narrower.replace("*", ""), narrower.replace("*", "a")]:
            if narrow.matches(name):
                assert wide.matches(name)


SHALLOW: list[tuple[str, str]] = [
    ("tmp/*", "Route.prefix('tmp/', …)"),
    ("tmp*", "Route.prefix('tmp', …)"),
    ("a/b/*", "Route.prefix('a/b/', …)"),
    ("*.log", "Route.suffix('.log', …)"),
    ("*", "'**'"),
]


@pytest.mark.parametrize(("pattern", "advice"), SHALLOW)
def test_pattern_that_misses_deeper_keys_is_reported(pattern: str, advice: str) -> None:
    (issue,) = lint((pattern, "cold"))
    assert (issue.route, issue.kind) == (Route(pattern, "cold"), "shallow")
    assert repr(pattern) in issue.message
    assert advice in issue.message


@pytest.mark.parametrize(
    "routes",
    [
        [("tmp/**", "cold")],
        [("**/*.log", "cold")],
        [Route.prefix("tmp/", "cold")],
        [Route.suffix(".log", "cold")],
        [("a/*/c", "cold")],
        [("logs/*.gz", "cold")],
        [("report-?", "cold")],
        [("exact", "cold")],
        [("**", "cold")],
        # Another route is for the keys in deeper folders.
        [("logs/*", "hot"), ("logs/**", "cold")],
        [("logs/*", "hot"), Route.prefix("logs/", "cold")],
        [("logs/*/*", "cold"), ("logs/*", "hot")],
        [("*.log", "hot"), ("**/*.log", "cold")],
        [("*.log", "hot"), ("*/*.log", "cold")],
        [("*.log", "hot"), Route.suffix(".log", "cold")],
        [("*", "hot"), ("*/*", "cold")],
        [("*", "hot"), ("**", "cold")],
    ],
)
def test_deliberate_pattern_is_not_reported(routes: list[Any]) -> None:
    assert kinds(*routes) == []


def test_route_for_deeper_keys_of_another_kind_does_not_count() -> None:
    assert kinds(("logs/*", "hot"), ("tmp/**", "cold")) == ["shallow"]
    assert kinds(("logs/*", "hot"), ("**", "cold")) == ["shallow"]
    assert kinds(("*.log", "hot"), Route.suffix(".txt", "cold")) == ["shallow"]
    deeper_elsewhere = Route.prefix("logs/", "cold", bucket="other")
    assert kinds(Route("logs/*", "hot", bucket="data"), deeper_elsewhere) == ["shallow"]


def inspector(_bucket: str, _key: str, _content_type: str | None) -> Inspector:
    raise AssertionError


def without_metadata() -> CallLog:
    return CallLog(metadata=False)


def test_backend_that_cannot_record_a_transform_is_reported() -> None:
    route = Route.prefix("a/", "plain")
    backends = {"plain": without_metadata()}
    for middleware in (
        Compression(),
        (Compression(), Scope.backends("plain")),
        (Compression(), ~Scope.backends("default")),
        (Compression(), Scope.backends("plain") | Scope.keys("*.csv")),
        (Compression(), Scope.everything() & Scope.backends("plain", "hot")),
    ):
        (issue,) = lint(route, backends=backends, middleware=[middleware])
        assert (issue.route, issue.kind) == (route, "capability")
        assert "stores no metadata" in issue.message
        assert "~Scope.backends('plain')" in issue.message


def test_backend_that_may_store_untransformed_objects_is_not_reported() -> None:
    route = Route.prefix("a/", "plain")
    backends = {"plain": without_metadata(), "unused": without_metadata()}
    for middleware in (
        (Compression(), ~Scope.backends("plain", "unused")),
        (Compression(), Scope.keys("*.csv")),
        (Compression(), Scope.backends("plain") & Scope.keys("*.csv")),
        (Compression(), Scope.when(lambda _bucket, _key: True)),
        (Compression(), Scope.backends("hot")),
        Inspection(inspector),
    ):
        assert lint(route, backends=backends, middleware=[middleware]) == []
    assert lint(Route.prefix("a/", "cold"), middleware=[Compression()]) == []


def test_default_backend_is_reported_without_a_route() -> None:
    (issue,) = lint(default=without_metadata(), middleware=[Compression()])
    assert (issue.route, issue.kind) == (None, "capability")
    everything_elsewhere = Route("**", "cold")
    assert lint(everything_elsewhere, default=without_metadata(), middleware=[Compression()]) == []


def test_buckets_that_would_be_created_under_shared_names_are_reported() -> None:
    shared = {"cloud": CallLog(private_namespace=False)}
    route = Route.prefix("a/", "cloud")
    (issue,) = lint(route, backends=shared, create_missing_buckets=True)
    assert (issue.route, issue.kind) == (route, "capability")
    assert "Mapped" in issue.message
    assert lint(route, backends=shared) == []
    assert lint(route, backends=shared, create_missing_buckets=False) == []
    private = Route.prefix("a/", "cold")
    assert lint(private, backends=shared, create_missing_buckets=True) == []
    inside = {"cloud": Mapped(CallLog(private_namespace=False), into="one-bucket")}
    assert lint(route, backends=inside, create_missing_buckets=True) == []


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 300, "\0"])
def test_bucket_that_cannot_exist_is_reported(name: str) -> None:
    for route in (Route.bucket(name, "cold"), Route.prefix("a/", "cold", bucket=name)):
        (issue,) = lint(route)
        assert (issue.route, issue.kind) == (route, "bucket")


def test_bucket_of_any_valid_name_is_not_reported() -> None:
    assert lint(Route.bucket("Any bucket.1", "cold"), Route.bucket("é", "cold")) == []


def test_issues_are_in_the_order_of_the_routes() -> None:
    routes: list[Any] = [
        ("tmp/*", "cold"),
        Route.bucket("a/b", "cold"),
        ("tmp/*", "hot"),
        ("*.log", "hot"),
    ]
    issues = lint(*routes)
    assert [issue.kind for issue in issues] == ["shallow", "bucket", "never_wins", "shallow"]


def test_store_without_mistakes_has_no_issues() -> None:
    assert lint() == []
    assert lint(Route.prefix("archive/", "cold"), Route.suffix(".log", "hot")) == []


def test_pinned_handle_has_no_routes() -> None:
    store = single_attempt_store(backends={"cold": CallLog()})
    with pytest.raises(NotSupportedError, match="pinned to 'cold'"):
        store.backend("cold").lint_routes()


def test_route_functions_are_not_called() -> None:
    def fail(_bucket: str, _key: str) -> str:
        raise AssertionError

    assert lint(route_functions=[fail]) == []

"""Scopes: what they include, in which order they are evaluated, and what they are as values."""

from __future__ import annotations

import asyncio
import copy
import pickle
from contextvars import ContextVar
from dataclasses import FrozenInstanceError, fields
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trove_async.errors import PatternError
from trove_async.middleware import ObjectContext
from trove_async.scope import Scope, ScopeFunction

if TYPE_CHECKING:
    from collections.abc import Callable


def context(
    bucket: str = "data",
    key: str = "a/b.csv",
    backend: str = "default",
    content_type: str | None = None,
) -> ObjectContext:
    return ObjectContext(bucket=bucket, key=key, backend=backend, content_type=content_type)


def included(scope: Scope, **fields: Any) -> bool:
    """Return the result of a scope that calls no async function."""
    result = scope.includes(context(**fields))
    assert isinstance(result, bool)
    return result


async def included_later(scope: Scope, **fields: Any) -> bool:
    """Return the result of a scope that calls an async function."""
    result = scope.includes(context(**fields))
    assert not isinstance(result, bool)
    return await result


def is_large(_bucket: str, key: str) -> bool:
    return key.startswith("large")


async def is_large_later(bucket: str, key: str) -> bool:
    await asyncio.sleep(0)
    return is_large(bucket, key)


class Tenants:
    """Functions that are a method, and an instance that cannot be hashed."""

    __hash__ = None  # type: ignore[assignment]  # as a dataclass has it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tenants)

    def __call__(self, _bucket: str, _key: str) -> bool:
        return True

    def includes(self, bucket: str, _key: str) -> bool:
        return bucket == "acme"


def recorded(calls: list[str], name: str, *, result: bool) -> Scope:
    """Return a scope whose function appends `name` to `calls`."""

    def function(_bucket: str, _key: str) -> bool:
        calls.append(name)
        return result

    return Scope.when(function)


def recorded_later(calls: list[str], name: str, *, result: bool) -> Scope:
    async def function(_bucket: str, _key: str) -> bool:
        calls.append(name)
        await asyncio.sleep(0)
        return result

    return Scope.when(function)


# What each kind of scope includes


def test_bucket_patterns_match_the_whole_name() -> None:
    scope = Scope.buckets("tenant-*", "large")
    assert included(scope, bucket="tenant-a")
    assert included(scope, bucket="large")
    assert not included(scope, bucket="my-tenant-a")
    assert not included(scope, bucket="data", key="large")


def test_key_patterns_follow_the_rules_of_routes() -> None:
    assert included(Scope.keys("**/*.csv"), key="a.csv")
    assert included(Scope.keys("**/*.csv"), key="a/b/c.csv")
    assert not included(Scope.keys("*.csv"), key="a/b.csv")
    assert not included(Scope.keys("a"), key="a/b.csv")
    assert included(Scope.keys("x", "[a-c]/?.csv"), key="a/b.csv")


def test_content_type_patterns_ignore_case() -> None:
    scope = Scope.content_types("Text/*", "application/JSON")
    assert included(scope, content_type="text/csv")
    assert included(scope, content_type="application/json")
    assert included(scope, content_type="TEXT/Plain")
    assert not included(scope, content_type="application/json5")
    assert included(Scope.content_types("image/svg[+]*"), content_type="image/svg+xml")


def test_any_content_type_excludes_objects_without_one() -> None:
    for pattern in ("*/*", "**"):
        scope = Scope.content_types(pattern)
        assert included(scope, content_type="text/csv")
        assert not included(scope, content_type=None)
        assert not included(scope, content_type="")
        assert included(~scope, content_type=None)


def test_backends_are_exact_names() -> None:
    scope = Scope.backends("archive", "c*")
    assert included(scope, backend="archive")
    assert included(scope, backend="c*")
    assert not included(scope, backend="cold")


def test_everything_includes_all_objects() -> None:
    assert included(Scope.everything())
    assert not included(~Scope.everything())


def test_function_is_called_with_bucket_and_key() -> None:
    calls: list[tuple[str, str]] = []

    def function(bucket: str, key: str) -> bool:
        calls.append((bucket, key))
        return len(calls) == 2

    scope = Scope.when(function)
    assert not included(scope, bucket="b", key="k")
    assert included(scope, bucket="b", key="k")
    assert calls == [("b", "k")] * 2


async def test_async_function_makes_the_result_awaitable() -> None:
    scope = Scope.when(is_large_later)
    assert await included_later(scope, key="large.bin")
    assert not await included_later(scope, key="small.bin")
    assert not await included_later(~scope, key="large.bin")


async def test_function_may_return_any_awaitable() -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_result(True)
    assert await included_later(Scope.when(lambda _b, _k: future))


@pytest.mark.parametrize("result", [None, 1, 0, "", "yes", [True]])
async def test_result_other_than_a_bool_is_an_error_with_the_name_of_the_function(
    result: object,
) -> None:
    def returns_wrong_type(_bucket: str, _key: str) -> Any:
        return result

    async def returns_wrong_type_later(_bucket: str, _key: str) -> Any:
        return result

    kind = type(result).__name__
    with pytest.raises(TypeError, match=rf"returns_wrong_type in a scope .* got {kind}"):
        included(~Scope.when(returns_wrong_type))
    with pytest.raises(TypeError, match=rf"returns_wrong_type_later in a scope .* got {kind}"):
        await included_later(Scope.when(returns_wrong_type_later) | Scope.everything())


async def test_errors_of_functions_are_raised() -> None:
    def fails(_bucket: str, _key: str) -> bool:
        raise LookupError("no tenant")

    async def fails_later(bucket: str, key: str) -> bool:
        return fails(bucket, key)

    with pytest.raises(LookupError, match="no tenant"):
        included(Scope.everything() & Scope.when(fails))
    with pytest.raises(LookupError, match="no tenant"):
        await included_later(Scope.everything() & Scope.when(fails_later))


async def test_function_sees_the_context_variables_of_each_task() -> None:
    tenant: ContextVar[str] = ContextVar("tenant", default="")
    ready = asyncio.Barrier(2)

    async def belongs_to_tenant(bucket: str, _key: str) -> bool:
        await ready.wait()
        return bucket == tenant.get()

    def belongs_to_tenant_now(bucket: str, _key: str) -> bool:
        return bucket == tenant.get()

    scope = Scope.everything() & Scope.when(belongs_to_tenant)
    both = scope & Scope.when(belongs_to_tenant_now)
    results: dict[str, tuple[bool, bool]] = {}

    async def use_as(name: str) -> None:
        tenant.set(name)
        results[name] = (
            await included_later(scope, bucket="acme"),
            await included_later(both, bucket="acme"),
        )

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(use_as("acme"))
        tasks.create_task(use_as("other"))
    assert results == {"acme": (True, True), "other": (False, False)}


# Order


def test_parts_are_evaluated_from_left_to_right_until_the_result_is_known() -> None:
    calls: list[str] = []
    yes, no = recorded(calls, "yes", result=True), recorded(calls, "no", result=False)
    for scope, expected, called in [
        (no & yes, False, ["no"]),
        (yes & no, False, ["yes", "no"]),
        (yes | no, True, ["yes"]),
        (no | yes, True, ["no", "yes"]),
        (no & yes & yes, False, ["no"]),
        ((no & yes) | (yes & yes), True, ["no", "yes", "yes"]),
        (~yes & no, False, ["yes"]),
        (Scope.keys("*.txt") & yes, False, []),
        (yes & Scope.keys("*.txt"), False, ["yes"]),
        (Scope.everything() | yes, True, []),
    ]:
        calls.clear()
        assert included(scope) is expected
        assert calls == called


async def test_async_parts_are_evaluated_from_left_to_right_until_the_result_is_known() -> None:
    calls: list[str] = []
    yes, no = recorded(calls, "yes", result=True), recorded(calls, "no", result=False)
    yes_later = recorded_later(calls, "yes later", result=True)
    no_later = recorded_later(calls, "no later", result=False)
    for scope, expected, called in [
        (no_later & yes & yes_later, False, ["no later"]),
        (yes_later & no & yes_later, False, ["yes later", "no"]),
        (yes_later & yes & yes_later, True, ["yes later", "yes", "yes later"]),
        (yes_later & no_later & yes, False, ["yes later", "no later"]),
        (yes_later | no, True, ["yes later"]),
        (no_later | no | yes_later | no, True, ["no later", "no", "yes later"]),
        (no_later | no, False, ["no later", "no"]),
        (yes & ~yes_later & no, False, ["yes", "yes later"]),
        (no | (yes & no_later) | yes, True, ["no", "yes", "no later", "yes"]),
    ]:
        calls.clear()
        assert await included_later(scope) is expected
        assert calls == called


def test_result_is_a_bool_if_no_async_function_is_called() -> None:
    assert not included(Scope.keys("*.txt") & Scope.when(is_large_later))
    assert included(Scope.everything() | Scope.when(is_large_later))


# Arguments


PATTERN_SCOPES = [Scope.buckets, Scope.keys, Scope.content_types]


@pytest.mark.parametrize("make", [*PATTERN_SCOPES, Scope.backends])
def test_scope_without_arguments_is_an_error(make: Callable[..., Scope]) -> None:
    with pytest.raises(TypeError, match=f"Scope.{make.__name__} needs at least one argument"):
        make()


@pytest.mark.parametrize("make", [*PATTERN_SCOPES, Scope.backends])
@pytest.mark.parametrize("value", [None, b"a", 1, ["a"]])
def test_argument_that_is_not_a_str_is_an_error(make: Callable[..., Scope], value: object) -> None:
    with pytest.raises(TypeError, match=f"must be str, got {type(value).__name__}"):
        make("a", value)


@pytest.mark.parametrize("make", PATTERN_SCOPES)
@pytest.mark.parametrize("pattern", ["[", "a/[]", "\\"])
def test_malformed_pattern_is_an_error(make: Callable[..., Scope], pattern: str) -> None:
    with pytest.raises(PatternError, match=r"bad pattern .* at position"):
        make("a", pattern)


def test_content_type_with_parameters_is_an_error() -> None:
    with pytest.raises(PatternError, match="position 9: media types are matched without param"):
        Scope.content_types("text/html; charset=utf-8")


@pytest.mark.parametrize("function", [None, "is_large", True])
def test_function_that_is_not_callable_is_an_error(function: Any) -> None:
    with pytest.raises(TypeError, match="must be callable, got"):
        Scope.when(function)
    with pytest.raises(TypeError):
        Scope.when()  # type: ignore[call-arg]  # tested at run time


@pytest.mark.parametrize("arguments", [(), ("tenant-*",)])
def test_constructor_names_the_methods_that_make_a_scope(arguments: tuple[str, ...]) -> None:
    with pytest.raises(TypeError, match=r"use Scope.buckets, keys, .* or everything"):
        Scope(*arguments)  # type: ignore[abstract]  # tested at run time


@pytest.mark.parametrize("other", ["tenant-*", None, True, is_large])
def test_scope_combines_only_with_scopes(other: Any) -> None:
    scope = Scope.everything()
    with pytest.raises(TypeError, match="unsupported operand"):
        scope & other
    with pytest.raises(TypeError, match="unsupported operand"):
        scope | other
    with pytest.raises(TypeError, match="unsupported operand"):
        other & scope


def test_scope_combines_with_types_that_support_it() -> None:
    class Other:
        def __rand__(self, scope: Scope) -> str:
            return f"{scope!r} and other"

        def __ror__(self, scope: Scope) -> str:
            return f"{scope!r} or other"

    other: Any = Other()
    assert Scope.everything() & other == "Scope.everything() and other"
    assert Scope.everything() | other == "Scope.everything() or other"


def test_truth_of_a_scope_is_an_error_with_advice() -> None:
    a, b = Scope.buckets("a"), Scope.buckets("b")
    wrong: list[Callable[[], object]] = [
        lambda: bool(a),
        lambda: a and b,
        lambda: a or b,
        lambda: not a,
        lambda: not (a | b),
    ]
    for expression in wrong:
        with pytest.raises(TypeError, match=r"use &, \| and ~ instead of and, or, not"):
            expression()


# Values


def test_backend_names_are_all_that_the_scope_mentions() -> None:
    scope = Scope.keys("*") & (~Scope.backends("a", "b") | Scope.when(is_large))
    assert scope.backend_names() == {"a", "b"}
    assert (Scope.backends("a") | (scope & Scope.backends("c"))).backend_names() == {"a", "b", "c"}
    assert Scope.everything().backend_names() == frozenset()
    assert (~Scope.buckets("a")).backend_names() == frozenset()


def test_repr_is_the_expression_that_makes_the_scope() -> None:
    a, b, c = Scope.buckets("a"), Scope.keys("b", "it's"), Scope.backends("c")
    assert repr(Scope.buckets("tenant-*") & ~Scope.backends("default")) == (
        "Scope.buckets('tenant-*') & ~Scope.backends('default')"
    )
    assert repr(Scope.content_types("Text/*")) == "Scope.content_types('text/*')"
    assert repr(~Scope.everything()) == "~Scope.everything()"
    assert repr((a | b) & c) == (
        "(Scope.buckets('a') | Scope.keys('b', \"it's\")) & Scope.backends('c')"
    )
    assert repr(a & c | c) == "Scope.buckets('a') & Scope.backends('c') | Scope.backends('c')"
    assert repr(~(a & c)) == "~(Scope.buckets('a') & Scope.backends('c'))"
    assert repr(~a & c) == "~Scope.buckets('a') & Scope.backends('c')"
    assert repr(a & (c & a)) == "Scope.buckets('a') & Scope.backends('c') & Scope.buckets('a')"


def test_repr_contains_the_qualified_names_of_functions() -> None:
    assert repr(Scope.when(is_large) & Scope.when(is_large_later)) == (
        "Scope.when(is_large) & Scope.when(is_large_later)"
    )
    assert repr(Scope.when(Tenants().includes)) == "Scope.when(Tenants.includes)"
    assert repr(Scope.when(Tenants())) == "Scope.when(Tenants)"
    assert repr(Scope.when(partial(is_large))) == "Scope.when(partial)"


def test_equal_arguments_make_equal_scopes() -> None:
    def make() -> list[Scope]:
        return [
            Scope.buckets("a"),
            Scope.buckets("a", "b"),
            Scope.keys("a"),
            Scope.content_types("a"),
            Scope.backends("a"),
            Scope.everything(),
            Scope.when(is_large),
            Scope.when(is_large_later),
            ~Scope.buckets("a"),
            Scope.buckets("a") & Scope.keys("a"),
            Scope.keys("a") & Scope.buckets("a"),
            Scope.buckets("a") | Scope.keys("a"),
        ]

    assert make() == make()
    assert len(set(make() + make())) == len(make())
    assert Scope.content_types("TEXT/*") == Scope.content_types("text/*")
    others: list[object] = ["a", is_large, None]
    assert Scope.buckets("a") not in others
    assert Scope.when(is_large) not in others


def test_grouping_of_equal_operators_and_double_complements_do_not_matter() -> None:
    a, b, c = Scope.buckets("a"), Scope.keys("b"), Scope.backends("c")
    assert (a & b) & c == a & (b & c)
    assert (a | b) | c == a | (b | c)
    assert (a | b) & c != a | (b & c)
    assert ~~a == a
    assert ~~(a & b) == a & b


def test_functions_are_compared_by_identity() -> None:
    first, second = Tenants(), Tenants()
    assert first == second
    assert Scope.when(first) == Scope.when(first)
    assert Scope.when(first) != Scope.when(second)
    assert Scope.when(first.includes) == Scope.when(first.includes)
    assert Scope.when(first.includes) != Scope.when(second.includes)
    assert len({Scope.when(first.includes), Scope.when(first.includes), Scope.when(first)}) == 2


@pytest.mark.parametrize(
    "scope",
    [
        Scope.buckets("a"),
        Scope.backends("a"),
        Scope.when(is_large),
        Scope.buckets("a") & Scope.keys("b"),
        ~Scope.buckets("a"),
    ],
)
def test_attributes_of_a_scope_cannot_be_changed(scope: Any) -> None:
    for attribute in fields(scope):
        with pytest.raises(FrozenInstanceError):
            setattr(scope, attribute.name, None)
        with pytest.raises(FrozenInstanceError):
            delattr(scope, attribute.name)


def test_combining_a_scope_does_not_change_it() -> None:
    combined = part = Scope.buckets("a") & Scope.keys("b")
    combined &= Scope.keys("c")
    assert part == Scope.buckets("a") & Scope.keys("b")
    assert combined == Scope.buckets("a") & Scope.keys("b") & Scope.keys("c")


def test_scope_is_copied_and_pickled() -> None:
    scope = Scope.buckets("t-[0-9]*") & (Scope.content_types("text/*") | ~Scope.when(is_large))
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        restored = pickle.loads(pickle.dumps(scope, protocol))  # noqa: S301 - our own bytes
        assert restored == scope
        assert hash(restored) == hash(scope)
        assert included(restored, bucket="t-1", key="small")
        assert not included(restored, bucket="t-1", key="large")
    assert copy.copy(scope) == copy.deepcopy(scope) == scope


def test_scope_with_a_lambda_is_not_pickled() -> None:
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(Scope.everything() & Scope.when(lambda _b, _k: True))


def test_long_chains_are_not_nested() -> None:
    scope = Scope.buckets("b0")
    for number in range(1, 2000):
        scope |= Scope.buckets(f"b{number}")
    assert included(scope, bucket="b1999")
    assert not included(scope, bucket="b2000")
    assert repr(scope).endswith(" | Scope.buckets('b1999')")


# Random scopes, with a model: a function of the object

Model = tuple[Scope, "Callable[[ObjectContext], bool]"]

names = st.text("ab/", min_size=1, max_size=3)
content_types = st.sampled_from(["a/a", "a/b", "b/a"])
contexts = st.builds(
    ObjectContext,
    bucket=names,
    key=names,
    backend=st.sampled_from(["default", "cold"]),
    content_type=st.none() | content_types,
)
patterns = st.lists(st.text("ab?", min_size=1, max_size=3), min_size=1, max_size=3)


def matches(name: str, patterns: list[str]) -> bool:
    return any(
        len(name) == len(pattern)
        and all(c == p or (p == "?" and c != "/") for c, p in zip(name, pattern, strict=True))
        for pattern in patterns
    )


def bucket_model(patterns: list[str]) -> Model:
    return Scope.buckets(*patterns), lambda c: matches(c.bucket, patterns)


def key_model(patterns: list[str]) -> Model:
    return Scope.keys(*patterns), lambda c: matches(c.key, patterns)


def content_type_model(types: list[str]) -> Model:
    return Scope.content_types(*map(str.upper, types)), lambda c: c.content_type in types


def backend_model(backends: list[str]) -> Model:
    return Scope.backends(*backends), lambda c: c.backend in backends


def function_model(letter: str, *, later: bool) -> Model:
    def function(bucket: str, key: str) -> bool:
        return letter in bucket + key

    async def function_later(bucket: str, key: str) -> bool:
        await asyncio.sleep(0)
        return function(bucket, key)

    chosen: ScopeFunction = function_later if later else function
    return Scope.when(chosen), lambda c: function(c.bucket, c.key)


def combined_models(models: st.SearchStrategy[Model]) -> st.SearchStrategy[Model]:
    def both(left: Model, right: Model) -> Model:
        return left[0] & right[0], lambda c: left[1](c) and right[1](c)

    def either(left: Model, right: Model) -> Model:
        return left[0] | right[0], lambda c: left[1](c) or right[1](c)

    def complement(model: Model) -> Model:
        return ~model[0], lambda c: not model[1](c)

    return (
        st.builds(both, models, models)
        | st.builds(either, models, models)
        | st.builds(complement, models)
    )


simple_models = st.one_of(
    st.builds(bucket_model, patterns),
    st.builds(key_model, patterns),
    st.builds(content_type_model, st.lists(content_types, min_size=1)),
    st.builds(backend_model, st.lists(st.sampled_from(["default", "cold"]), min_size=1)),
    st.just((Scope.everything(), lambda _c: True)),
)
function_models = st.builds(function_model, st.sampled_from("ab"), later=st.booleans())
models_without_functions = st.recursive(simple_models, combined_models)
models = st.recursive(simple_models | function_models, combined_models)


@given(models, st.lists(contexts, min_size=1, max_size=5))
async def test_random_scope_includes_what_its_model_includes(
    model: Model, objects: list[ObjectContext]
) -> None:
    scope, expected = model
    for each in objects:
        result = scope.includes(each)
        if not isinstance(result, bool):
            assert isawaitable(result)
            result = await result
        assert result is expected(each)


@given(models_without_functions, contexts)
def test_repr_of_a_scope_without_functions_evaluates_to_an_equal_scope(
    model: Model, each: ObjectContext
) -> None:
    scope, expected = model
    restored = eval(repr(scope), {"Scope": Scope})  # noqa: S307 - our own repr
    assert restored == scope
    assert hash(restored) == hash(scope)
    assert restored.includes(each) is expected(each)
    assert pickle.loads(pickle.dumps(scope)) == scope  # noqa: S301 - our own bytes

"""The values of `trove_async.models`: ranges, infos and timeouts, and the options of a put."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, asdict, fields, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trove_async import (
    BucketInfo,
    ByteRange,
    ConfigError,
    ObjectInfo,
    Prefix,
    RangeError,
    Timeout,
)
from trove_async.options import PutOptions

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2024, 1, 1, tzinfo=UTC)
INFO = ObjectInfo(
    bucket="data",
    key="key",
    size=5,
    stored_size=7,
    etag="e",
    last_modified=NOW,
    content_type="text/plain",
    metadata={"a": "1"},
    tags={"b": "2"},
    storage_class="COLD",
    cache_control="no-store",
    content_disposition="inline",
    content_encoding="gzip",
    checksums={"crc32c": "AAAA"},
    version_id="v",
    backend="cold",
    complete=False,
    write_id="w",
)

# -- ranges ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("range", "size", "resolved"),
    [
        ((0, 1), 10, (0, 1)),
        ((0, 10), 10, (0, 10)),
        ((0, 11), 10, (0, 10)),
        ((9, 10), 10, (9, 10)),
        ((9, 10**18), 10, (9, 10)),
        ((0, None), 10, (0, 10)),
        ((9, None), 10, (9, 10)),
        (ByteRange.last(1), 10, (9, 10)),
        (ByteRange.last(10), 10, (0, 10)),
        (ByteRange.last(11), 10, (0, 10)),
        ((10, None), 10, None),
        ((10, 11), 10, None),
        ((11, 12), 10, None),
        ((0, None), 0, None),
        ((0, 1), 0, None),
        (ByteRange.last(1), 0, None),
    ],
)
def test_range_is_resolved_for_a_size(
    range: ByteRange | tuple[int, int | None], size: int, resolved: tuple[int, int] | None
) -> None:
    byte_range = ByteRange.of(range)
    if resolved is None:
        with pytest.raises(RangeError, match=f"the object's {size} bytes"):
            byte_range.resolve(size)
    else:
        assert byte_range.resolve(size) == resolved


@pytest.mark.parametrize(
    "create",
    [
        lambda: ByteRange(5, 5),
        lambda: ByteRange(5, 4),
        lambda: ByteRange(0, 0),
        lambda: ByteRange(-1),
        lambda: ByteRange(-5, -1),
        lambda: ByteRange.last(0),
        lambda: ByteRange.last(-3),
        lambda: ByteRange.of((3, 1)),
    ],
)
def test_range_invalid_for_every_object_is_rejected(create: Callable[[], ByteRange]) -> None:
    with pytest.raises(RangeError) as caught:
        create()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "create",
    [
        lambda: ByteRange("0"),  # type: ignore[arg-type]  # tested at run time, as below
        lambda: ByteRange(0, 1.5),  # type: ignore[arg-type]
        lambda: ByteRange.of((0,)),  # type: ignore[arg-type]
        lambda: ByteRange.of("12"),  # type: ignore[arg-type]
        lambda: ByteRange.of(None),  # type: ignore[arg-type]
        lambda: ByteRange.of(range(5)),  # type: ignore[arg-type]
    ],
)
def test_range_of_a_wrong_type_raises_type_error(create: Callable[[], ByteRange]) -> None:
    with pytest.raises(TypeError, match="range"):
        create()


@given(st.integers(0, 50), st.integers(0, 50), st.none() | st.integers(0, 60))
def test_resolved_range_is_what_a_slice_selects(size: int, start: int, end: int | None) -> None:
    body = bytes(range(size))
    selected = body[start:end]
    try:
        resolved_start, resolved_end = ByteRange(start, end).resolve(size)
    except RangeError:
        assert not selected
    else:
        assert selected == body[resolved_start:resolved_end] != b""


@given(st.integers(0, 50), st.integers(1, 60))
def test_last_bytes_are_what_a_slice_selects(size: int, count: int) -> None:
    body = bytes(range(size))
    byte_range = ByteRange.last(count)
    assert byte_range.suffix == count
    if size:
        start, end = byte_range.resolve(size)
        assert body[start:end] == body[-count:]


def test_of_returns_a_range_unchanged() -> None:
    byte_range = ByteRange(1, 2)
    assert ByteRange.of(byte_range) is byte_range
    assert byte_range.suffix is None
    assert ByteRange.of((1, 2)) == byte_range


# -- values ----------------------------------------------------------------------------------------


def test_info_is_frozen_hashable_and_comparable() -> None:
    with pytest.raises(FrozenInstanceError):
        INFO.size = 6  # type: ignore[misc]  # tested at run time
    assert replace(INFO) == INFO
    assert hash(INFO) == hash(replace(INFO))
    assert replace(INFO, size=6) != INFO
    assert "write_id" not in repr(INFO)


@pytest.mark.parametrize(
    "duplicate",
    [lambda info: pickle.loads(pickle.dumps(info)), copy.copy, copy.deepcopy],  # noqa: S301 - our own
)
def test_info_survives_pickling_and_copying(
    duplicate: Callable[[ObjectInfo], ObjectInfo],
) -> None:
    copied = duplicate(INFO)
    assert copied == INFO
    assert copied.write_id == "w"


def test_infos_have_defaults() -> None:
    info = ObjectInfo(bucket="b", key="k", size=3, etag="e", last_modified=NOW)
    assert (info.stored_size, info.complete, info.backend) == (3, True, "")
    assert info.metadata == info.tags == info.checksums == {}
    assert BucketInfo(name="b").backends == ()


def test_located_changes_only_names() -> None:
    located = INFO.located(backend="x", bucket="y", key="z")
    assert (located.backend, located.bucket, located.key) == ("x", "y", "z")
    for field in fields(ObjectInfo):
        if field.name not in {"backend", "bucket", "key"}:
            assert getattr(located, field.name) == getattr(INFO, field.name)
    assert INFO.located() == INFO


def test_key_of_a_prefix_is_the_prefix() -> None:
    assert Prefix(bucket="b", prefix="a/").key == "a/"


def test_put_options_are_conditional_with_a_condition() -> None:
    assert not PutOptions().conditional
    assert PutOptions(if_match="e").conditional
    assert PutOptions(if_none_match="*").conditional


@pytest.mark.parametrize("limit", [field.name for field in fields(Timeout)])
@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_timeout_must_be_positive(limit: str, seconds: float) -> None:
    with pytest.raises(ConfigError, match=f"{limit} must be (more than 0 seconds|a number)"):
        Timeout(**{limit: seconds})


@pytest.mark.parametrize(
    "limit", [{"connect": "3"}, {"idle": None}, {"total": "3"}, {"permit": True}]
)
def test_timeout_must_be_a_number(limit: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(limit))} must be a number"):
        Timeout(**limit)


def test_only_the_total_timeout_can_be_none() -> None:
    assert Timeout(total=None).total is None
    assert Timeout(total=5, idle=float("inf")).total == 5


@pytest.mark.parametrize("bounds", [(None, 3), ("0", 3), (0, 1.5)])
def test_bounds_of_a_wrong_type_are_rejected(bounds: tuple[Any, Any]) -> None:
    with pytest.raises(TypeError, match="the bounds of a range must be ints"):
        ByteRange.of(bounds)


def test_count_of_the_last_bytes_must_be_an_int() -> None:
    with pytest.raises(TypeError, match="count must be an int, got str"):
        ByteRange.last(cast("Any", "1"))


def test_attributes_of_a_listed_info_are_computed_once_on_first_access() -> None:
    requested: list[str] = []

    def find(raw: dict[str, object], name: str) -> object:
        requested.append(name)
        return raw.get(name)

    raw: dict[str, object] = {"etag": "e", "last_modified": NOW}
    listed = ObjectInfo.listed("b", "k", 3, backend="cold", find=find, raw=raw)
    assert requested == []
    assert (listed.etag, listed.etag, listed.last_modified) == ("e", "e", NOW)
    assert (listed.storage_class, listed.storage_class) == (None, None)
    assert requested == ["etag", "last_modified", "storage_class"]
    assert listed == ObjectInfo(
        bucket="b", key="k", size=3, etag="e", last_modified=NOW, backend="cold", complete=False
    )
    assert replace(listed, key="l").etag == "e"
    assert (listed.stored_size, listed.metadata, listed.complete) == (3, {}, False)


def test_a_listed_page_has_the_given_attributes() -> None:
    page = ObjectInfo.listed_page(
        "b",
        ["k", "l"],
        [3, 2**70],
        backend="cold",
        etags=["e", None],
        dates=[NOW, NOW + timedelta(days=1)],
        storage_classes=["GLACIER", ""],
    )
    assert page == [
        ObjectInfo(
            bucket="b",
            key="k",
            size=3,
            etag="e",
            last_modified=NOW,
            storage_class="GLACIER",
            backend="cold",
            complete=False,
        ),
        ObjectInfo(
            bucket="b",
            key="l",
            size=2**70,
            etag=None,
            last_modified=NOW + timedelta(days=1),
            backend="cold",
            complete=False,
        ),
    ]
    assert (page[0].stored_size, page[0].metadata, page[0].records) == (3, {}, None)
    assert pickle.loads(pickle.dumps(page)) == copy.deepcopy(page) == page  # noqa: S301 - our own
    with pytest.raises(ValueError, match="zip"):
        ObjectInfo.listed_page(
            "b", ["k"], [], backend="cold", etags=[], dates=[], storage_classes=[]
        )


def test_listed_infos_are_frozen() -> None:
    single = ObjectInfo.listed("b", "k", 3, backend="cold", find=lambda *_: None, raw=None)
    [of_page] = ObjectInfo.listed_page(
        "b", ["k"], [3], backend="cold", etags=["e"], dates=[NOW], storage_classes=[None]
    )
    for info in (single, of_page):
        assert type(info) is ObjectInfo
        with pytest.raises(FrozenInstanceError):
            info.key = "other"  # type: ignore[misc] # frozen
        with pytest.raises(FrozenInstanceError):
            del info.key


def test_pickle_of_a_listed_info_has_only_the_attributes() -> None:
    attributes: dict[str, object] = {"etag": "e", "last_modified": NOW, "storage_class": "COLD"}
    listed = ObjectInfo.listed(
        "b", "k", 3, backend="cold", find=lambda _, name: attributes[name], raw=object()
    )
    pickled = pickle.loads(pickle.dumps(listed))  # noqa: S301 - our own
    assert pickled == copy.deepcopy(listed) == listed
    assert (pickled.etag, pickled.last_modified, pickled.storage_class) == ("e", NOW, "COLD")
    assert asdict(listed).keys() == ObjectInfo.__annotations__.keys()

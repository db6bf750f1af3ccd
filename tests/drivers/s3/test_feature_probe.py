"""Services that ignore what they are asked for: found out before the object is stored."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.drivers.s3.linking import boto
from tests.drivers.s3.script import FACTS, answer, refusal
from tests.drivers.s3.test_conformance import driver_of
from trove_async import BufferPool, Trove, _http
from trove_async.drivers.s3 import driver as driver_module
from trove_async.drivers.s3._defaults import Defaults
from trove_async.drivers.s3._dialects import CEPH, S3, SEAWEEDFS, UNRECOGNISED
from trove_async.drivers.s3._features import ALL, Feature, features_of
from trove_async.errors import (
    NotSupportedError,
    ObjectExistsError,
    PermissionDeniedError,
    PreconditionFailedError,
)
from trove_async.layers import Mapped
from trove_async.models import GetOptions, MiB, PutOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trove_async._http import Answer, Origin, Transport
    from trove_async.testing.servers import S3Server

LARGE = bytes(6 * MiB)
TAGS = {"team": "blue"}
SSE = "x-amz-server-side-encryption"


class Ignoring:
    """A transport to a service that ignores headers: it does not send them. Moto minds no signature.

    Attributes:
        requests: How many were sent.
        target: Of the last one.
        hang_at: The number of the request that never gets a response; None: each does.
    """

    def __init__(self, inner: Transport, ignores: Callable[[str, Mapping[str, str]], bool]) -> None:
        self.inner = inner
        self.ignores = ignores
        self.requests = 0
        self.target = ""
        self.hang_at: int | None = None
        self.hanging = asyncio.Event()

    async def send(
        self,
        method: str,
        origin: Origin,
        target: str,
        headers: Mapping[str, str],
        views: Any = (),
        *,
        patient: bool = False,
    ) -> Answer:
        self.requests += 1
        number, self.target = self.requests, target
        sent = {name: value for name, value in headers.items() if not self.ignores(name, headers)}
        response = await self.inner.send(method, origin, target, sent, views, patient=patient)
        if number == self.hang_at:
            response.close()
            self.hanging.set()
            await asyncio.Event().wait()
        return response

    async def aclose(self) -> None:
        await self.inner.aclose()


def nothing(_name: str, _headers: Mapping[str, str]) -> bool:
    return False


@pytest.fixture
def ignoring(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Ignoring]]:
    """Have the driver's service ignore headers; return where its transport will be found."""

    def start(ignores: str | Callable[[str, Mapping[str, str]], bool]) -> list[Ignoring]:
        made: list[Ignoring] = []
        judge = (lambda name, _: name == ignores) if isinstance(ignores, str) else ignores

        def wrapped(*args: Any, **settings: Any) -> Ignoring:
            made.append(Ignoring(_http.transport_over(*args, **settings), judge))
            return made[-1]

        monkeypatch.setattr(driver_module, "transport_over", wrapped)
        return made

    return start


@pytest.fixture
def bucket(moto_server: S3Server) -> str:
    """A bucket of moto's with one object, ``old``."""
    name = f"features-{uuid4().hex[:20]}"
    client = boto(moto_server)
    client.create_bucket(Bucket=name)
    client.put_object(Bucket=name, Key="old", Body=b"old")
    return name


def stored(server: S3Server, bucket: str) -> dict[str, bytes]:
    """Return what there is, unfinished uploads included, asked past the driver."""
    client = boto(server)
    found = {
        entry["Key"]: client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
        for entry in client.list_objects_v2(Bucket=bucket).get("Contents", ())
    }
    uploads = client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())
    return found | {f"upload of {upload['Key']}": b"" for upload in uploads}


def store_of(server: S3Server, **settings: Any) -> Trove:
    return Trove(
        driver_of(server, **settings), pool=BufferPool(max_bytes=40 * MiB, part_size=5 * MiB)
    )


WRITES: Mapping[str, Callable[[Trove, str], Any]] = {
    "create": lambda store, bucket: store.put(bucket, "new", b"x", if_none_match="*"),
    "replace": lambda store, bucket: store.put(bucket, "old", b"x", if_match="0" * 32),
    "tags of a put": lambda store, bucket: store.put(bucket, "new", b"x", tags=TAGS),
    "tags of an upload": lambda store, bucket: store.put(bucket, "new", LARGE, tags=TAGS),
    "tags of a copy": lambda store, bucket: store.copy(bucket, "old", bucket, "new", tags=TAGS),
    "put": lambda store, bucket: store.put(bucket, "new", b"x"),
    "upload": lambda store, bucket: store.put(bucket, "new", LARGE),
    "copy": lambda store, bucket: store.copy(bucket, "old", bucket, "new"),
}


@pytest.mark.parametrize(
    ("header", "write", "settings"),
    [
        ("if-none-match", "create", {}),
        ("if-match", "replace", {}),
        ("x-amz-tagging", "tags of a put", {}),
        ("x-amz-tagging", "tags of an upload", {}),
        ("x-amz-tagging", "tags of a copy", {}),
        *(
            (SSE, write, {"server_side_encryption": "AES256"})
            for write in ("put", "upload", "copy")
        ),
    ],
)
async def test_what_the_service_ignores_is_refused_and_nothing_is_stored(  # noqa: PLR0917
    moto_server: S3Server,
    bucket: str,
    ignoring: Any,
    header: str,
    write: str,
    settings: dict[str, Any],
) -> None:
    ignoring(header)
    await check_refused(store_of(moto_server, **settings), moto_server, bucket, write)


@pytest.mark.parametrize("plane", ["lean", "sdk"])
@pytest.mark.parametrize("write", ["put", "upload", "copy"])
async def test_customers_key_that_the_service_ignores_is_refused(
    moto_server: S3Server, bucket: str, write: str, plane: str
) -> None:
    store = store_of(moto_server, data_plane=plane, sse_customer_key=bytes(range(32)))
    await check_refused(store, moto_server, bucket, write)  # moto knows no SSE-C


async def check_refused(store: Trove, server: S3Server, bucket: str, write: str) -> None:
    async with store:
        for _ in range(2):
            with pytest.raises(NotSupportedError, match="the service ignores"):
                await WRITES[write](store, bucket)
    assert await asyncio.to_thread(stored, server, bucket) == {"old": b"old"}


async def test_copy_whose_tags_the_service_ignores_goes_through_here(
    moto_server: S3Server, bucket: str, ignoring: Any
) -> None:
    ignoring(lambda name, headers: name == "x-amz-tagging" and "x-amz-copy-source" in headers)
    async with store_of(moto_server) as store:
        await store.copy(bucket, "old", bucket, "new", tags=TAGS)
        assert (await store.head(bucket, "new")).tags == TAGS
    assert await asyncio.to_thread(stored, moto_server, bucket) == {"old": b"old", "new": b"old"}


@pytest.mark.parametrize("plane", ["lean", "sdk"])
@pytest.mark.parametrize("write", WRITES)
async def test_what_the_service_honours_is_tried_once_and_leaves_nothing_behind(
    moto_server: S3Server, bucket: str, ignoring: Any, write: str, plane: str
) -> None:
    made = ignoring(nothing)
    settings = {} if "tags" in write else {"server_side_encryption": "aws:kms", "kms_key_id": "id"}
    async with store_of(moto_server, data_plane=plane, **settings) as store:
        asked = []
        for _ in range(2):
            before = made[0].requests
            if write == "replace":
                with pytest.raises(PreconditionFailedError):
                    await WRITES[write](store, bucket)
            else:
                await WRITES[write](store, bucket)
                await store.delete(bucket, "new")
            asked.append(made[0].requests - before)
    assert plane == "sdk" or asked[0] > asked[1]
    assert await asyncio.to_thread(stored, moto_server, bucket) == {"old": b"old"}


async def test_nothing_is_tried_for_a_plain_put(
    moto_server: S3Server, bucket: str, ignoring: Any
) -> None:
    made = ignoring(nothing)
    async with store_of(moto_server) as store:
        before = made[0].requests
        await store.put(bucket, "new", b"x", metadata={"a": "b"}, content_type="text/plain")
        assert made[0].requests - before == 1


async def test_nothing_is_tried_where_the_user_vouches_for_the_service(
    moto_server: S3Server, bucket: str, ignoring: Any
) -> None:
    made = ignoring(nothing)
    settings = {"server_side_encryption": "AES256", "dialect": "s3"}
    async with store_of(moto_server, **settings) as store:
        before = made[0].requests
        await store.put(bucket, "new", b"x", tags=TAGS, if_none_match="*")
        assert made[0].requests - before == 1


async def test_many_writes_at_once_try_a_feature_once(
    moto_server: S3Server, bucket: str, ignoring: Any
) -> None:
    made = ignoring(nothing)
    async with store_of(moto_server) as store:
        before = made[0].requests
        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(store.put(bucket, f"new/{number}", b"x", tags=TAGS))
        # A put, a HEAD, a request for the tags and a delete; then the eight.
        assert made[0].requests - before == 4 + 8


async def test_no_version_is_left_of_what_was_tried(moto_server: S3Server, bucket: str) -> None:
    client = boto(moto_server)
    await asyncio.to_thread(
        client.put_bucket_versioning,
        Bucket=bucket,
        VersioningConfiguration={"Status": "Enabled"},
    )
    async with store_of(moto_server, server_side_encryption="AES256") as store:
        await store.put(bucket, "new", b"x", tags=TAGS, if_none_match="*")
        await store.put(bucket, "large", LARGE, tags=TAGS)
        await store.copy(bucket, "old", bucket, "copy", tags=TAGS)
    left = await asyncio.to_thread(client.list_object_versions, Bucket=bucket)
    assert {one["Key"] for one in left["Versions"]} == {"old", "new", "large", "copy"}
    assert "DeleteMarkers" not in left


@pytest.mark.parametrize(
    ("write", "requests"),
    [
        ("tags of a put", range(1, 5)),
        ("tags of an upload", range(1, 7)),
        ("tags of a copy", range(2, 9)),  # the store looks at the source before
    ],
)
async def test_write_that_is_cancelled_while_a_feature_is_tried_leaves_nothing(
    moto_server: S3Server, bucket: str, ignoring: Any, write: str, requests: range
) -> None:
    made = ignoring(nothing)
    loop = asyncio.get_running_loop()
    litter: set[str] = set()
    for number in requests:
        async with store_of(moto_server) as store:
            transport = made[-1]
            transport.hang_at = transport.requests + number
            work = loop.create_task(WRITES[write](store, bucket))
            await transport.hanging.wait()
            assert "/trove-probe-" in transport.target
            work.cancel()
            await asyncio.wait({work})
            assert work.cancelled()
        left = await asyncio.to_thread(stored, moto_server, bucket)
        litter |= {key for key in left if key.startswith("upload of")}
        assert left.keys() - litter == {"old"}, number
    # An upload whose id never arrived is for `gc_uploads`.
    assert len(litter) <= 1
    assert not litter or write == "tags of an upload"


async def test_denied_trial_says_what_to_set(play: Any) -> None:
    denied = refusal(403, "AccessDenied")
    _, opening = play(
        refusal(403, "AccessDenied"), denied, answer(204), endpoint_url="http://h:9"
    )  # fmt: skip
    async with opening as driver:
        with pytest.raises(PermissionDeniedError, match=r"the tags of a put.*dialect='s3'"):
            await driver.put("data", "key", [], PutOptions(tags=TAGS))


async def test_service_that_refuses_a_feature_by_itself_is_left_to_it(play: Any) -> None:
    script, opening = play(
        refusal(403, "AccessDenied"),
        answer(said=FACTS),
        refusal(501, "NotImplemented"),
        answer(204),
        answer(204),
        refusal(501, "NotImplemented"),
        endpoint_url="http://h:9",
    )
    async with opening as driver:
        with pytest.raises(NotSupportedError, match="501"):
            await driver.put("data", "key", [], PutOptions(if_none_match="*"))
    assert script.asked[-1] == "PUT http://h:9/data/key"


async def test_bucket_inside_another_is_made_where_conditions_are_ignored(
    moto_server: S3Server, bucket: str, ignoring: Any
) -> None:
    ignoring("if-none-match")
    async with Trove(Mapped(driver_of(moto_server), into=bucket)) as store:
        await store.create_bucket("logical")
        await store.put("logical", "key", b"x")
        assert await store.read("logical", "key") == b"x"


@pytest.mark.parametrize(
    ("options", "etag"),
    [
        (GetOptions(if_match="wanted"), '"other"'),
        (GetOptions(if_none_match="wanted"), '"wanted"'),
    ],
)
async def test_condition_of_a_get_that_the_service_ignores_is_compared_here(
    play: Any, options: GetOptions, etag: str
) -> None:
    found = answer(200, b"body", {**FACTS, "etag": etag, "content-length": "4"})
    script, opening = play(found, endpoint_url="http://h:9", dialect="s3")
    async with opening as driver:
        with pytest.raises(PreconditionFailedError, match="the object is"):
            async with driver.get("data", "key", options):
                pytest.fail("it was opened")
    assert script.given[0].closed


# -- SeaweedFS -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 6 * MiB])
async def test_seaweedfs_takes_a_directory_for_an_object_to_create(
    seaweed: S3Server, size: int
) -> None:
    name = f"features-{uuid4().hex[:20]}"
    body = bytes(size)
    async with store_of(seaweed) as store:
        await store.create_bucket(name)
        await store.put(name, "a/b", b"x")
        with pytest.raises(NotSupportedError, match="takes a directory of that name"):
            await store.put(name, "a", body, if_none_match="*")
        await store.put(name, "a", b"y")
        with pytest.raises(ObjectExistsError):
            await store.put(name, "a", body, if_none_match="*")
        assert await store.read(name, "a/b") == b"x"


@pytest.mark.parametrize("write", ["put", "upload", "copy"])
async def test_seaweedfs_encrypts_or_refuses(seaweed: S3Server, write: str) -> None:
    name = f"features-{uuid4().hex[:20]}"
    async with store_of(seaweed) as plain:
        await plain.create_bucket(name)
        await plain.put(name, "old", b"old")
    async with store_of(seaweed, server_side_encryption="AES256") as store:
        try:
            await WRITES[write](store, name)
        except NotSupportedError:
            assert [entry.key for entry in await store.list(name).all()] == ["old"]
        else:
            client = boto(seaweed)
            head = await asyncio.to_thread(client.head_object, Bucket=name, Key="new")
            assert head["ServerSideEncryption"] == "AES256"


# -- pure ------------------------------------------------------------------------------------------


def test_features_of_a_write() -> None:
    everything = PutOptions(tags=TAGS, if_none_match="*")
    assert features_of("put", PutOptions(), encrypts=False) == frozenset()
    assert features_of("put", PutOptions(if_match="e"), encrypts=False) == {Feature.IF_MATCH}
    assert features_of("put", everything, encrypts=True) == {
        Feature.IF_NONE_MATCH, Feature.PUT_TAGS, Feature.PUT_ENCRYPTION
    }  # fmt: skip
    assert features_of("upload", everything, encrypts=True) == {
        Feature.UPLOAD_TAGS, Feature.UPLOAD_ENCRYPTION
    }  # fmt: skip
    assert features_of("copy", everything, encrypts=True) == {
        Feature.COPY_TAGS, Feature.COPY_ENCRYPTION
    }  # fmt: skip


def test_what_is_known_of_services() -> None:
    assert S3.honours == ALL
    assert not UNRECOGNISED.honours | UNRECOGNISED.ignores
    encryption = {one for one in Feature if "ENCRYPTION" in one.name}
    for dialect in (SEAWEEDFS, CEPH):
        # Whether it encrypts is a matter of its configuration.
        assert not encryption & (dialect.honours | dialect.ignores)


ARN = "arn:aws:kms:us-east-1:111122223333:key/1234abcd"
CUSTOMER_KEY = Defaults(sse_customer_key=bytes(32))


@pytest.mark.parametrize(
    ("asked", "said", "met"),
    [
        ({"server_side_encryption": "AES256"}, {SSE: "AES256"}, True),
        ({"server_side_encryption": "AES256"}, {}, False),
        ({"server_side_encryption": "aws:kms"}, {SSE: "AES256"}, False),
        ({"server_side_encryption": "aws:kms"}, {SSE: "aws:kms"}, True),
        ({"kms_key_id": "1234abcd"}, {f"{SSE}-aws-kms-key-id": ARN}, True),
        ({"kms_key_id": ARN}, {f"{SSE}-aws-kms-key-id": ARN}, True),
        ({"kms_key_id": "alias/mine"}, {f"{SSE}-aws-kms-key-id": ARN}, True),
        ({"kms_key_id": "alias/mine"}, {}, False),
        ({"kms_key_id": "1234abcd"}, {}, False),
        ({"kms_key_id": "1234abcd"}, {f"{SSE}-aws-kms-key-id": f"{ARN}ef"}, False),
        ({"bucket_key_enabled": True}, {}, True),
        ({"sse_customer_key": bytes(32)}, {}, False),
        ({"sse_customer_key": bytes(32)}, CUSTOMER_KEY.keyed, True),
        ({"sse_customer_key": bytes(range(32))}, CUSTOMER_KEY.keyed, False),
    ],
)
def test_encryption_is_compared(
    asked: dict[str, Any],
    said: Mapping[str, str],
    met: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    assert Defaults(**asked).are_met(said) is met

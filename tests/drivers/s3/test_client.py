"""What no test server shows: regions, clocks, sessions and answers that contradict their status."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, formatdate
from typing import TYPE_CHECKING, Any

import pytest

from trove_async.drivers.s3 import S3Driver
from trove_async.drivers.s3 import driver as driver_room
from trove_async.drivers.s3._copying import Copier
from trove_async.drivers.s3._plane import UploadId
from trove_async.drivers.s3._sdk_client import SdkBody
from trove_async.drivers.s3._session import Session
from trove_async.drivers.s3._signing import Credentials
from trove_async.drivers.s3._uploads import PartedUpload
from trove_async.errors import (
    BackendError,
    BucketExistsError,
    BucketNotFoundError,
    ConfigError,
    IntegrityError,
    InvalidNameError,
    ObjectChangedError,
    ObjectExistsError,
    ObjectNotFoundError,
    PermissionDeniedError,
    PreconditionFailedError,
    RangeError,
    TroveError,
    UnauthenticatedError,
    UnavailableError,
)
from trove_async.models import (
    ByteRange,
    CopyOptions,
    DeleteOptions,
    GetOptions,
    ListOptions,
    ObjectInfo,
    Part,
    PutOptions,
)
from trove_async.testing import opened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trove_async._http import Answer, Origin

SECRET = "wJalrXUtnFEMI/K7MDENG"
TOKEN = "IQoJb3JpZ2luX2VjEXAMPLE"
EMPTY_PAGE = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
FACTS = {
    "etag": '"e"',
    "last-modified": "Wed, 01 Jan 2025 00:00:00 GMT",
    "content-length": "0",
    "date": "Wed, 01 Jan 2025 00:00:00 GMT",
}


class FakeAnswer:
    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self._body = body
        self.closed = False

    async def read(self, size: int) -> bytes:
        data, self._body = self._body[:size], self._body[size:]
        return data

    async def readinto(self, buffer: memoryview) -> int:
        data = await self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    async def read_all(self, limit: int) -> bytes:
        assert len(self._body) <= limit
        return await self.read(limit)

    def close(self) -> None:
        self.closed = True


def answer(
    status: int = 200,
    body: bytes | str = b"",
    said: Mapping[str, str] | None = None,
    **headers: str,
) -> FakeAnswer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = body.encode() if isinstance(body, str) else body
    return FakeAnswer(status, {**(said or {}), **named}, content)


def refusal(
    status: int, code: str, more: str = "", said: Mapping[str, str] | None = None, **headers: str
) -> FakeAnswer:
    document = f"<Error><Code>{code}</Code><Message>m</Message>{more}</Error>"
    return answer(status, document, said, **headers)


class Script:
    """A transport that answers by a script, and notes what it was asked."""

    def __init__(self, *answers: FakeAnswer) -> None:
        self.answers = list(answers)
        self.given: list[FakeAnswer] = []
        self.patient: list[bool] = []
        self.sent: list[tuple[str, str, dict[str, str], bytes]] = []

    async def send(
        self,
        method: str,
        origin: Origin,
        target: str,
        headers: Mapping[str, str],
        views: Sequence[memoryview] = (),
        *,
        patient: bool = False,
    ) -> Answer:
        self.patient.append(patient)
        self.sent.append((method, origin.url + target, dict(headers), b"".join(views)))
        self.given.append(self.answers.pop(0))
        return self.given[-1]

    async def aclose(self) -> None:
        assert not self.answers, "the script has more"
        assert all(one.closed for one in self.given), "an answer was left open"

    @property
    def asked(self) -> list[str]:
        return [f"{method} {url}" for method, url, _, _ in self.sent]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Open a driver whose service answers by a script."""

    def start(*answers: FakeAnswer, **settings: Any) -> tuple[Script, Any]:
        script = Script(*answers)
        monkeypatch.setattr(driver_room, "transport_over", lambda *_, **__: script)
        given: dict[str, Any] = {
            "region": "us-east-1",
            "endpoint_url": "https://s3.us-east-1.amazonaws.com",
            "access_key_id": "KEYID",
            "secret_access_key": SECRET,
            **settings,
        }
        return script, opened(S3Driver(**given))

    return start


# -- where requests go ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "bucket", "url"),
    [
        ({}, "data", "https://data.s3.us-east-1.amazonaws.com/a%20b"),
        ({}, "da.ta", "https://s3.us-east-1.amazonaws.com/da.ta/a%20b"),
        ({}, "DATA", "https://s3.us-east-1.amazonaws.com/DATA/a%20b"),
        ({}, "da_ta", "https://s3.us-east-1.amazonaws.com/da_ta/a%20b"),
        ({"addressing_style": "path"}, "data", "https://s3.us-east-1.amazonaws.com/data/a%20b"),
        ({"endpoint_url": "http://h:9", "dialect": "s3"}, "data", "http://h:9/data/a%20b"),
        (
            {"endpoint_url": "http://h:9", "dialect": "s3", "addressing_style": "virtual"},
            "data",
            "http://data.h:9/a%20b",
        ),
    ],
)
async def test_bucket_stands_in_the_host_where_it_fits(
    play: Any, settings: dict[str, Any], bucket: str, url: str
) -> None:
    script, opening = play(answer(said=FACTS), **settings)
    async with opening as driver:
        await driver.head(bucket, "a b")
    assert script.asked == [f"HEAD {url}"]


@pytest.mark.parametrize("bucket", ["ab", "b\u00fccher", "a b c", "a/b", "%2F%2F", "-abc", ".abc"])
async def test_bucket_that_could_not_be_addressed_is_refused_unasked(
    play: Any, bucket: str
) -> None:
    _, opening = play()
    async with opening as driver:
        with pytest.raises(InvalidNameError):
            await driver.head(bucket, "key")


async def test_every_request_names_the_owner_that_is_expected(play: Any) -> None:
    script, opening = play(answer(), answer(body=EMPTY_PAGE), expected_bucket_owner="123")
    async with opening as driver:
        await driver.head_bucket("data")
        await driver.list_page("data", ListOptions())
    assert all(headers["x-amz-expected-bucket-owner"] == "123" for *_, headers, _ in script.sent)
    assert all("x-amz-expected-bucket-owner" in sent[2]["Authorization"] for sent in script.sent)


@pytest.mark.parametrize(("scheme", "digest"), [("https", "UNSIGNED-PAYLOAD"), ("http", "2cf24")])
async def test_body_is_signed_where_nothing_else_protects_it(
    play: Any, scheme: str, digest: str
) -> None:
    script, opening = play(
        answer(said=FACTS), endpoint_url=f"{scheme}://s3.us-east-1.amazonaws.com"
    )
    async with opening as driver:
        await driver.put("data", "key", [memoryview(b"hello")], PutOptions())
    assert script.sent[0][2]["x-amz-content-sha256"].startswith(digest)


# -- regions -------------------------------------------------------------------------------------------

ELSEWHERE = [
    refusal(
        301,
        "PermanentRedirect",
        "<Endpoint>evil.example</Endpoint>",
        said={"x-amz-bucket-region": "eu-west-1"},
    ),
    refusal(400, "AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>"),
    refusal(
        307,
        "TemporaryRedirect",
        location="https://evil.example/",
        said={"x-amz-bucket-region": "eu-west-1"},
    ),
    answer(301, said={"x-amz-bucket-region": "eu-west-1"}),
    answer(400, said={"x-amz-bucket-region": "eu-west-1"}),
]


@pytest.mark.parametrize("number", range(len(ELSEWHERE)))
async def test_bucket_in_another_region_is_found_once(play: Any, number: int) -> None:
    first = ELSEWHERE[number]
    told = FakeAnswer(first.status, first.headers, first._body)
    script, opening = play(told, answer(said=FACTS), answer(said=FACTS))
    async with opening as driver:
        await driver.head("data", "key")
        await driver.head("data", "key")
    assert script.asked == [
        "HEAD https://data.s3.us-east-1.amazonaws.com/key",
        "HEAD https://data.s3.eu-west-1.amazonaws.com/key",
        "HEAD https://data.s3.eu-west-1.amazonaws.com/key",
    ]
    assert "/eu-west-1/s3/" in script.sent[1][2]["Authorization"]


@pytest.mark.parametrize(
    "region",
    ["evil.example", "evil.example/", "eu-west-1.evil.example#", "us-east-1", "", "\u00e9"],
)
async def test_region_that_is_none_leads_nowhere(play: Any, region: str) -> None:
    script, opening = play(refusal(301, "PermanentRedirect", f"<Region>{region}</Region>"))
    async with opening as driver:
        with pytest.raises(BackendError, match="region"):
            await driver.put("data", "key", [], PutOptions())
    assert len(script.sent) == 1


async def test_regions_that_send_one_round_in_circles_end(play: Any) -> None:
    def sent_to(region: str) -> FakeAnswer:
        return refusal(301, "PermanentRedirect", f"<Region>{region}</Region>")

    _, opening = play(sent_to("eu-west-1"), sent_to("us-east-1"))
    async with opening as driver:
        with pytest.raises(BackendError):
            await driver.put("data", "key", [], PutOptions())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_of_another_service_is_never_followed(play: Any, status: int) -> None:
    script, opening = play(
        answer(status, location="https://evil.example/", said={"x-amz-bucket-region": "eu-west-1"}),
        endpoint_url="https://minio.example",
        dialect="s3",
    )
    async with opening as driver:
        with pytest.raises(BackendError):
            await driver.put("data", "key", [], PutOptions())
    assert script.asked == ["PUT https://minio.example/data/key"]


# -- time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["RequestTimeTooSkewed", ""])
async def test_clock_that_is_wrong_is_put_right_once(play: Any, code: str) -> None:
    late = formatdate(time.time() + 3600, usegmt=True)
    told = refusal(403, code, date=late) if code else answer(403, date=late)
    script, opening = play(told, answer(said=FACTS), answer(said=FACTS))
    async with opening as driver:
        await driver.head("data", "key")
        await driver.head("data", "key")
    dates = [headers["x-amz-date"] for *_, headers, _ in script.sent]
    assert dates[0] < dates[1] <= dates[2]
    assert abs(int(dates[1][9:11]) - int(dates[0][9:11])) in {1, 23}


async def test_clock_that_stays_wrong_is_an_error(play: Any) -> None:
    late = formatdate(time.time() + 3600, usegmt=True)
    told = [refusal(403, "RequestTimeTooSkewed", date=late) for _ in range(2)]
    _, opening = play(*told)
    async with opening as driver:
        with pytest.raises(UnauthenticatedError, match="clock"):
            await driver.put("data", "key", [], PutOptions())


@pytest.mark.parametrize("date", ["", "yesterday", "now"])
async def test_denial_teaches_no_time(play: Any, date: str) -> None:
    _, opening = play(answer(403, date=formatdate(usegmt=True) if date == "now" else date))
    async with opening as driver:
        with pytest.raises(PermissionDeniedError):
            await driver.head("data", "key")


# -- sessions ------------------------------------------------------------------------------------------


@pytest.fixture
def renewals(monkeypatch: pytest.MonkeyPatch) -> list[Credentials]:
    """Give the driver a session whose credentials can be renewed; return those that were."""
    stale: list[Credentials] = []
    held = [Credentials("ONE", SECRET, TOKEN), Credentials("TWO", SECRET, TOKEN)]

    async def credentials(_: Session) -> Credentials:
        return held[len(stale) % 2]

    async def renewed(_: Session, old: Credentials) -> Credentials:
        stale.append(old)
        return held[len(stale) % 2]

    monkeypatch.setattr(Session, "credentials", credentials)
    monkeypatch.setattr(Session, "renewed", renewed)
    return stale


@pytest.mark.parametrize("code", ["ExpiredToken", "TokenRefreshRequired", ""])
async def test_session_that_has_expired_is_renewed_once(
    play: Any, renewals: list[Credentials], code: str
) -> None:
    told = refusal(400, code) if code else answer(400)
    script, opening = play(told, answer(said=FACTS))
    async with opening as driver:
        await driver.head("data", "key")
    assert [one.access_key for one in renewals] == ["ONE"]
    assert "Credential=TWO/" in script.sent[1][2]["Authorization"]


async def test_session_that_cannot_be_renewed_is_an_error(
    play: Any, renewals: list[Credentials]
) -> None:
    _, opening = play(refusal(400, "ExpiredToken"), refusal(400, "ExpiredToken"))
    async with opening as driver:
        with pytest.raises(UnauthenticatedError):
            await driver.put("data", "key", [], PutOptions())
    assert len(renewals) == 1


async def test_given_credentials_cannot_be_renewed(play: Any) -> None:
    script, opening = play(refusal(400, "ExpiredToken"), session_token=TOKEN)
    async with opening as driver:
        with pytest.raises(UnauthenticatedError) as caught:
            await driver.put("data", "key", [], PutOptions())
    assert script.sent[0][2]["x-amz-security-token"] == TOKEN
    for shown in (str(caught.value), repr(caught.value), repr(driver._identity)):
        assert SECRET not in shown
        assert TOKEN not in shown


# -- what answers mean ---------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["InternalError", "SlowDown"])
async def test_completion_that_fails_in_a_success_may_be_tried_again(play: Any, code: str) -> None:
    upload = (
        b"<InitiateMultipartUploadResult><UploadId>u/1</UploadId></InitiateMultipartUploadResult>"
    )
    done = b"<CompleteMultipartUploadResult><ETag>&quot;e-1&quot;</ETag></CompleteMultipartUploadResult>"
    script, opening = play(
        answer(body=upload), answer(said=FACTS), refusal(200, code), answer(body=b"  " + done)
    )
    async with opening as driver, driver.upload("data", "key", PutOptions()) as one:
        part = Part(number=1, offset=0, size=5, last=True)
        await one.send(part, [memoryview(b"hello")])
        with pytest.raises(UnavailableError):
            await one.commit({"crc32c": "mnG7TA=="})
        info = await one.commit({"crc32c": "mnG7TA=="})
    assert (info.etag, info.size) == ("e-1", 5)
    assert script.asked[2].endswith("?uploadId=u%2F1")
    headers = script.sent[2][2]
    assert headers["x-amz-checksum-crc32c"] == "mnG7TA=="
    assert headers["x-amz-checksum-type"] == "FULL_OBJECT"
    assert headers["x-amz-mp-object-size"] == "5"


@pytest.mark.parametrize("body", [b"", b"<html>", b"<ListBucketResult><Contents>", b"\xff"])
async def test_answer_that_is_garbage_may_be_asked_for_again(play: Any, body: bytes) -> None:
    _, opening = play(answer(body=body))
    async with opening as driver:
        with pytest.raises(UnavailableError, match="no sense"):
            await driver.list_page("data", ListOptions())


async def test_refusal_that_is_no_document_goes_by_its_status(play: Any) -> None:
    _, opening = play(answer(503, "<html>busy</html>", retry_after="7"))
    async with opening as driver:
        with pytest.raises(UnavailableError) as caught:
            await driver.list_page("data", ListOptions())
    assert caught.value.retry_after == 7


async def test_missing_object_is_told_from_a_missing_bucket_by_one_look(play: Any) -> None:
    script, opening = play(answer(404), answer(), answer(404), answer(404), answer(404))
    async with opening as driver:
        for _ in range(2):
            with pytest.raises(ObjectNotFoundError):
                await driver.head("data", "key")
        with pytest.raises(BucketNotFoundError):
            await driver.head("other", "key")
    assert [method for method, *_ in script.sent] == ["HEAD"] * 5
    assert script.asked[1] == "HEAD https://data.s3.us-east-1.amazonaws.com/"


async def test_bucket_is_looked_for_before_it_is_made(play: Any) -> None:
    script, opening = play(
        answer(), answer(403), refusal(409, "BucketAlreadyExists"), answer(404), answer()
    )
    async with opening as driver:
        for name in ("mine", "theirs"):
            with pytest.raises(BucketExistsError):
                await driver.create_bucket(name)
        await driver.create_bucket("new")
    assert [method for method, *_ in script.sent] == ["HEAD", "HEAD", "PUT", "HEAD", "PUT"]
    assert script.sent[-1][3] == b""


async def test_bucket_is_made_in_the_driver_s_region(play: Any) -> None:
    script, opening = play(
        answer(404), answer(), region="eu-west-1", endpoint_url="https://s3.eu-west-1.amazonaws.com"
    )
    async with opening as driver:
        await driver.create_bucket("new")
    assert b"<LocationConstraint>eu-west-1<" in script.sent[-1][3]


async def test_version_that_is_gone_is_a_condition_that_fails(play: Any) -> None:
    _, opening = play(refusal(404, "NoSuchKey"), refusal(404, "NoSuchKey"))
    async with opening as driver:
        with pytest.raises(PreconditionFailedError):
            await driver.put("data", "key", [], PutOptions(if_match="e"))
        with pytest.raises(PreconditionFailedError):
            await driver.delete("data", "key", DeleteOptions(if_match="e"))


async def test_whole_object_is_never_taken_for_a_range(play: Any) -> None:
    whole = {**FACTS, "content-length": "10"}
    _, opening = play(answer(body=b"0123456789", said=whole), answer(said=FACTS))
    async with opening as driver:
        with pytest.raises(BackendError, match="asked for"):
            await driver.get("data", "key", GetOptions(range=ByteRange(2, 4))).__aenter__()
        with pytest.raises(RangeError):
            await driver.get("data", "key", GetOptions(range=ByteRange(0, 4))).__aenter__()


async def test_body_that_ends_early_is_no_end(play: Any) -> None:
    _, opening = play(answer(body=b"01234", said={**FACTS, "content-length": "10"}))
    async with opening as driver, driver.get("data", "key", GetOptions()) as reader:
        assert await reader.read(100) == b"01234"
        with pytest.raises(UnavailableError, match="5 bytes early"):
            await reader.read(100)


async def test_keys_that_no_document_can_name_are_deleted_one_by_one(play: Any) -> None:
    gone = b"<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>b</Key><Code>AccessDenied</Code></Error></DeleteResult>"
    script, opening = play(answer(body=gone), answer(204))
    async with opening as driver:
        results = await driver.delete_many("data", ["a", "bell\x07", "b"])
    assert [(one.key, type(one.error)) for one in results] == [
        ("a", type(None)),
        ("bell\x07", type(None)),
        ("b", PermissionDeniedError),
    ]
    assert script.asked == [
        "POST https://data.s3.us-east-1.amazonaws.com/?delete",
        "DELETE https://data.s3.us-east-1.amazonaws.com/bell%07",
    ]
    assert "content-md5" in script.sent[0][2]


def listing(*keys: str, token: str = "") -> FakeAnswer:
    more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    entries = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2025-01-01T00:00:00.000Z</LastModified>"
        '<ETag>"e"</ETag><Size>1</Size><StorageClass>STANDARD</StorageClass></Contents>'
        for key in keys
    )
    truncated = str(bool(token)).lower()
    return answer(
        body=f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{more}{entries}"
        "</ListBucketResult>"
    )


async def test_listing_out_of_order_is_not_taken_for_one_in_order(play: Any) -> None:
    _, opening = play(listing("b", "a"), listing("a"))
    async with opening as driver:
        with pytest.raises(BackendError, match="order"):
            await driver.list_page("data", ListOptions())
        with pytest.raises(BackendError, match="order"):
            await driver.list_page("data", ListOptions(start_after="b"))


async def test_listing_that_leads_nowhere_ends(play: Any) -> None:
    _, opening = play(listing("a", token="t"))
    async with opening as driver:
        with pytest.raises(BackendError, match="again and again"):
            await driver.list_page("data", ListOptions(token="t"))


async def test_empty_pages_are_passed_over(play: Any) -> None:
    script, opening = play(listing(token="t"), listing("a"))
    async with opening as driver:
        page = await driver.list_page("data", ListOptions())
    assert [entry.key for entry in page.entries] == ["a"]
    assert "continuation-token=t" in script.asked[1]


async def test_url_that_is_presigned_shows_no_secret(play: Any) -> None:
    _, opening = play(session_token=TOKEN)
    async with opening as driver:
        url = await driver.presign("GET", "data", "a b", 59.5)
        with pytest.raises(ConfigError):
            await driver.presign("GET", "data", "key", 604_801)
    assert url.startswith("https://data.s3.us-east-1.amazonaws.com/a%20b?")
    assert "X-Amz-Expires=60" in url
    assert SECRET not in url


# -- copies --------------------------------------------------------------------------------------------


async def test_copy_tells_which_condition_failed(play: Any) -> None:
    refused = [refusal(412, "PreconditionFailed") for _ in range(2)]
    _, opening = play(
        refused[0], answer(said=FACTS), refused[1], answer(said={**FACTS, "etag": '"f"'})
    )
    source = ObjectInfo(bucket="data", key="from", size=5, etag="e", last_modified=_now())
    options = CopyOptions(source=source, put=PutOptions(if_match="x"))
    async with opening as driver:
        for kind in (PreconditionFailedError, ObjectChangedError):
            with pytest.raises(TroveError) as caught:
                await driver.copy("data", "from", "data", "to", options)
            assert type(caught.value) is kind


async def test_copy_of_an_older_version_tells_which_condition_failed(play: Any) -> None:
    script, opening = play(refusal(412, "PreconditionFailed"), answer(said=FACTS))
    source = ObjectInfo(
        bucket="data", key="from", size=5, etag="e", last_modified=_now(), version_id="v1"
    )
    options = CopyOptions(source=source, put=PutOptions(if_none_match="*"))
    async with opening as driver:
        with pytest.raises(ObjectExistsError):
            await driver.copy("data", "from", "data", "to", options)
    assert script.asked[1].endswith("/from?versionId=v1")


@pytest.mark.parametrize("largest", [1000, 100])
async def test_source_of_a_copy_must_belong_to_the_owner_too(play: Any, largest: int) -> None:
    upload = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
    etag = "<ETag>&quot;e&quot;</ETag>"
    whole = [answer(body=f"<CopyObjectResult>{etag}</CopyObjectResult>")]
    pieces = [
        answer(body=upload),
        answer(body=f"<CopyPartResult>{etag}</CopyPartResult>"),
        answer(body=f"<CompleteMultipartUploadResult>{etag}</CompleteMultipartUploadResult>"),
    ]
    answers = whole if largest == 1000 else pieces
    script, opening = play(*answers, expected_bucket_owner="123")
    source = ObjectInfo(bucket="theirs", key="from", size=200, etag="e", last_modified=_now())
    options = CopyOptions(source=source, put=PutOptions())
    async with opening as driver:
        copier = Copier(driver._plane, driver._known.exists, largest=largest, piece=200)
        await copier.copy("theirs", "from", "data", "to", options)
    [headers] = [headers for *_, headers, _ in script.sent if "x-amz-copy-source" in headers]
    assert headers["x-amz-source-expected-bucket-owner"] == "123"


async def test_copy_tells_which_bucket_is_missing(play: Any) -> None:
    missing = [refusal(404, "NoSuchBucket") for _ in range(2)]
    _, opening = play(missing[0], answer(404), missing[1], answer())
    source = ObjectInfo(bucket="data", key="from", size=5, etag="e", last_modified=_now())
    options = CopyOptions(source=source, put=PutOptions())
    async with opening as driver:
        for bucket in ("target", "data"):
            with pytest.raises(BucketNotFoundError) as caught:
                await driver.copy("data", "from", "target", "to", options)
            assert caught.value.bucket == bucket


async def test_large_object_is_copied_in_pieces(play: Any) -> None:
    upload = (
        b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
    )
    piece = b"<CopyPartResult><ETag>&quot;p&quot;</ETag></CopyPartResult>"
    done = b"<CompleteMultipartUploadResult><ETag>&quot;e-3&quot;</ETag></CompleteMultipartUploadResult>"
    script, opening = play(
        answer(body=upload), *[answer(body=piece) for _ in range(3)], answer(body=done)
    )
    source = ObjectInfo(bucket="data", key="a b", size=250, etag="e", last_modified=_now())
    async with opening as driver:
        copier = Copier(driver._plane, driver._known.exists, largest=100, piece=100)
        info = await copier.copy(
            "data", "a b", "data", "to", CopyOptions(source=source, put=PutOptions())
        )
    assert (info.etag, info.size) == ("e-3", 250)
    assert script.patient == [False, True, True, True, True]  # only to begin with is at once
    ranges = sorted(headers["x-amz-copy-source-range"] for *_, headers, _ in script.sent[1:4])
    assert ranges == ["bytes=0-99", "bytes=100-199", "bytes=200-249"]
    for *_, headers, _ in script.sent[1:4]:
        assert headers["x-amz-copy-source"] == "/data/a%20b"
        assert headers["x-amz-copy-source-if-match"] == '"e"'


async def test_piece_of_a_copy_that_fails_is_copied_again_and_no_other(play: Any) -> None:
    upload = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
    piece = "<CopyPartResult><ETag>&quot;p&quot;</ETag></CopyPartResult>"
    done = "<CompleteMultipartUploadResult><ETag>&quot;e-1&quot;</ETag></CompleteMultipartUploadResult>"
    script, opening = play(
        answer(body=upload), refusal(503, "SlowDown"), answer(body=piece), answer(body=done)
    )
    source = ObjectInfo(bucket="data", key="from", size=101, etag="e", last_modified=_now())
    async with opening as driver:
        copier = Copier(driver._plane, driver._known.exists, largest=100, piece=101)
        options = CopyOptions(source=source, put=PutOptions())
        assert (await copier.copy("data", "from", "data", "to", options)).size == 101
    assert len(script.sent) == 4
    assert script.asked[1] == script.asked[2]


def _now() -> datetime:
    return datetime.now(UTC)


# -- arguments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"access_key_id": "a"},
        {"secret_access_key": "a"},
        {"session_token": "a"},
        {"endpoint_url": "minio.example"},
        {"endpoint_url": "ftp://minio.example"},
        {"endpoint_url": "https://minio.example/path"},
        {"endpoint_url": "https://key:secret@minio.example"},
        {"addressing_style": "diagonal"},
        {"data_plane": "astral"},
        {"dialect": "klingon"},
        {"max_connections": 0},
        {"parallel_parts": 0},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        S3Driver(**settings)


@pytest.mark.parametrize("server", ["MinIO", "SeaweedFS 8000GB 4.48"])
async def test_service_says_what_it_is(play: Any, server: str) -> None:
    _, opening = play(answer(403, server=server), endpoint_url="http://h:9")
    async with opening as driver:
        assert driver.capabilities.ordered == (server == "MinIO")
        assert driver.capabilities.delete_if_match == (server != "MinIO")
        assert driver.capabilities.private_namespace


async def test_head_whose_tags_are_refused_holds_no_connection(play: Any) -> None:
    tagged = answer(said=FACTS, x_amz_tagging_count="1")
    script, opening = play(tagged, refusal(503, "SlowDown"))
    async with opening as driver:
        with pytest.raises(UnavailableError):
            await driver.head("data", "key")
        assert tagged.closed
    assert [sent[0] for sent in script.sent] == ["HEAD", "GET"]


async def test_success_without_an_etag_is_no_put(play: Any) -> None:
    _, opening = play(answer(body="<html>Welcome, please log in</html>"))
    async with opening as driver:
        with pytest.raises(UnavailableError, match="makes no sense"):
            await driver.put("data", "key", [memoryview(b"body")], PutOptions())


async def test_clock_of_a_service_that_tells_nonsense_is_not_learnt(play: Any) -> None:
    date = f"Tue, 24 Nov 2026 11:00:50 +{'9' * 20}"
    _, opening = play(refusal(403, "RequestTimeTooSkewed", date=date))
    async with opening as driver:
        with pytest.raises(UnauthenticatedError):
            await driver.head_bucket("data")


class Endless(FakeAnswer):
    async def read_all(self, limit: int) -> bytes:
        raise IntegrityError(f"the answer has more than {limit} bytes")


async def test_error_with_a_long_page_is_told_by_its_status(play: Any) -> None:
    _, opening = play(Endless(503, {}, b""))
    async with opening as driver:
        with pytest.raises(UnavailableError, match="503"):
            await driver.head_bucket("data")


async def test_buffer_is_not_waited_full_for_by_the_sdk() -> None:
    class Slow:
        async def read(self, _size: int) -> bytes:
            return pieces.pop(0)

    pieces = [b"some", b"more"]
    assert await SdkBody(Slow()).readinto(memoryview(bytearray(100))) == 4
    assert pieces == [b"more"]


async def test_credentials_that_may_not_list_buckets_are_in_good_health(play: Any) -> None:
    _, opening = play(refusal(403, "AccessDenied"), refusal(403, "InvalidAccessKeyId"))
    async with opening as driver:
        await driver.ping()
        with pytest.raises(UnauthenticatedError):
            await driver.ping()


async def test_upload_under_which_the_driver_was_closed_is_not_aborted_again_and_again() -> None:
    class Closing:
        aborts = 0

        async def create_upload(self, bucket: str, key: str, _options: PutOptions) -> UploadId:
            return UploadId(bucket, key, "u")

        async def abort_upload(self, _upload: UploadId) -> None:
            self.aborts += 1
            raise UnavailableError("the connections are closed", retryable=False)

    plane: Any = Closing()
    async with PartedUpload(plane, "data", "key", PutOptions()):
        pass
    assert plane.aborts == 1


def uploads(initiated: datetime, more: str = "") -> str:
    return (
        "<ListMultipartUploadsResult><Upload><Key>key</Key><UploadId>u</UploadId>"
        f"<Initiated>{initiated.isoformat().replace('+00:00', 'Z')}</Initiated></Upload>{more}"
        "</ListMultipartUploadsResult>"
    )


async def test_upload_is_forgotten_by_the_clock_that_says_when_it_began(play: Any) -> None:
    begun = _now() - timedelta(hours=5)  # by this machine's clock; by the service's it just began
    late = format_datetime(begun + timedelta(minutes=1), usegmt=True)
    later = format_datetime(begun + timedelta(hours=2), usegmt=True)
    _, opening = play(
        answer(body=uploads(begun), date=late), answer(body=uploads(begun), date=later), answer(204)
    )
    async with opening as driver:
        assert await driver.gc_uploads("data", older_than=3600) == 0
        assert await driver.gc_uploads("data", older_than=3600) == 1


async def test_lists_that_lead_to_the_same_page_again_end(play: Any) -> None:
    page = uploads(_now(), "<IsTruncated>true</IsTruncated><NextKeyMarker>key</NextKeyMarker>")
    buckets = (
        "<ListAllMyBucketsResult><Buckets/><ContinuationToken>t</ContinuationToken>"
        "</ListAllMyBucketsResult>"
    )
    _, opening = play(*[answer(body=body) for body in (page, page, buckets, buckets)])
    async with opening as driver:
        with pytest.raises(BackendError, match="same page"):
            await driver.gc_uploads("data", older_than=3600)
        with pytest.raises(BackendError, match="same page"):
            await driver.list_buckets()


async def test_bucket_that_was_seen_while_it_was_deleted_is_missing_after_that(play: Any) -> None:
    _, opening = play(answer(), answer(204), answer(404), answer(404))
    async with opening as driver:
        delete = driver._plane.delete_bucket

        async def delete_while_another_looks(bucket: str) -> None:
            assert await driver._known.exists(bucket)
            await delete(bucket)

        driver._plane.delete_bucket = delete_while_another_looks
        await driver.delete_bucket("data")
        with pytest.raises(BucketNotFoundError):
            await driver.head("data", "key")

"""The SigV4 signer, compared with botocore's and with AWS's published examples."""

from __future__ import annotations

import re
import string
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, quote, urlsplit

import botocore.auth
import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from hypothesis import given
from hypothesis import strategies as st

from trove_async.drivers.s3._sigv4 import (
    EMPTY_SHA256,
    MAX_EXPIRES,
    UNSIGNED_PAYLOAD,
    Credentials,
    Signer,
)
from trove_async.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

# S3 API Reference, "Signature Calculations for the Authorization Header: Transferring Payload in a
# Single Chunk", and "Authenticating Requests: Using Query Parameters", examples.
PUBLISHED = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
PUBLISHED_HOST = "examplebucket.s3.amazonaws.com"
PUBLISHED_NOW = datetime(2013, 5, 24, tzinfo=UTC)
BODY_SHA256 = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"

texts = st.text(st.characters(codec="utf-8"), max_size=20)
paths = texts.map(lambda key: "/bucket/" + quote(key, safe="/-._~"))
queries = st.dictionaries(texts.filter(bool), texts, max_size=4)
values = st.text(string.ascii_letters + string.digits + " \t,;=%\"'é", max_size=20)
names = st.from_regex(r"x-amz-meta-[a-z0-9!#$%&'*+.^_`|~-]{1,8}", fullmatch=True)
request_headers = st.dictionaries(
    st.sampled_from(["Range", "content-type", "If-Match", "User-Agent", "Expect"]) | names,
    values,
    max_size=5,
)
all_credentials = st.builds(
    Credentials,
    access_key=st.text(string.ascii_uppercase + string.digits, min_size=1, max_size=20),
    secret_key=st.text(string.ascii_letters + "/+", min_size=1, max_size=80),
    token=st.none() | st.text(string.ascii_letters + "/+=", min_size=1, max_size=60),
)
moments = st.datetimes(datetime(1970, 1, 2), datetime(2099, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds are naive


class UnsignedRequest(NamedTuple):
    credentials: Credentials
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    now: datetime

    @property
    def target(self) -> str:
        return f"{self.path}?{encode_query(self.query)}" if self.query else self.path


requests = st.builds(
    UnsignedRequest,
    all_credentials,
    st.sampled_from(["GET", "PUT"]),
    paths,
    queries,
    request_headers,
    moments,
)


def encode_query(query: Mapping[str, str]) -> str:
    return "&".join(
        f"{quote(name, safe='-._~')}={quote(value, safe='-._~')}" for name, value in query.items()
    )


def sign_with_botocore(
    auth_class: type[S3SigV4Auth | S3SigV4QueryAuth],
    unsigned: UnsignedRequest,
    request: AWSRequest,
    **settings: int,
) -> AWSRequest:
    credentials = unsigned.credentials
    boto_credentials = BotoCredentials(
        credentials.access_key, credentials.secret_key, credentials.token
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: unsigned.now)
        auth_class(boto_credentials, "s3", "eu-central-1", **settings).add_auth(request)
    return request


@given(requests)
def test_signs_as_botocore_does(unsigned: UnsignedRequest) -> None:
    request = AWSRequest(
        method=unsigned.method,
        url=f"http://example.com:9000{unsigned.target}",
        headers=unsigned.headers,
    )
    expected = sign_with_botocore(S3SigV4Auth, unsigned, request).headers

    signed = sign(
        Signer("eu-central-1"),
        unsigned.credentials,
        method=unsigned.method,
        target=unsigned.target,
        host="example.com:9000",
        headers=unsigned.headers,
        payload_hash=EMPTY_SHA256,
        now=unsigned.now.timestamp(),
    )

    assert signed == {name: expected[name] for name in signed}
    assert ("x-amz-security-token" in signed) == ("X-Amz-Security-Token" in expected)


@given(requests)
def test_presigns_as_botocore_does(unsigned: UnsignedRequest) -> None:
    request = AWSRequest(
        method=unsigned.method,
        url=f"https://example.com{unsigned.target}",
        headers=unsigned.headers,
    )
    expected = urlsplit(sign_with_botocore(S3SigV4QueryAuth, unsigned, request, expires=77).url)

    signed = urlsplit(
        Signer("eu-central-1").presign(
            unsigned.credentials,
            method=unsigned.method,
            target=unsigned.target,
            host="example.com",
            scheme="https",
            expires=77,
            now=unsigned.now.timestamp(),
            headers=unsigned.headers,
        )
    )

    assert signed[:3] == expected[:3]
    query, expected_query = (
        sorted(parse_qsl(url.query, keep_blank_values=True, strict_parsing=True))
        for url in (signed, expected)
    )
    assert query == expected_query


@pytest.mark.parametrize(
    ("request_line", "headers", "payload_hash", "signed_headers", "signature"),
    [
        (
            "GET /test.txt",
            {"Range": "bytes=0-9"},
            EMPTY_SHA256,
            "host;range;x-amz-content-sha256;x-amz-date",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT /test%24file.text",
            {
                "Date": "Fri, 24 May 2013 00:00:00 GMT",
                "x-amz-storage-class": "REDUCED_REDUNDANCY",
            },
            BODY_SHA256,
            "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET /?lifecycle",
            {},
            EMPTY_SHA256,
            "host;x-amz-content-sha256;x-amz-date",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET /?max-keys=2&prefix=J",
            {},
            EMPTY_SHA256,
            "host;x-amz-content-sha256;x-amz-date",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
    ids=["get-range", "put", "lifecycle", "list"],
)
def test_signs_the_published_examples(
    request_line: str,
    headers: Mapping[str, str],
    payload_hash: str,
    signed_headers: str,
    signature: str,
) -> None:
    method, _, target = request_line.partition(" ")
    added = sign(
        Signer("us-east-1"),
        PUBLISHED,
        method=method,
        target=target,
        host=PUBLISHED_HOST,
        headers=headers,
        payload_hash=payload_hash,
        now=PUBLISHED_NOW.timestamp(),
    )
    assert added == {
        "Authorization": (
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
            f"SignedHeaders={signed_headers}, Signature={signature}"
        ),
        "x-amz-date": "20130524T000000Z",
        "x-amz-content-sha256": payload_hash,
    }


def test_presigns_the_published_example() -> None:
    url = Signer("us-east-1").presign(
        PUBLISHED,
        method="GET",
        target="/test.txt",
        host=PUBLISHED_HOST,
        scheme="https",
        expires=86400,
        now=PUBLISHED_NOW.timestamp(),
    )
    assert url == (
        "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
        "&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


ADDED = ("Authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token")


def sign(signer: Signer, credentials: Credentials = PUBLISHED, **changes: object) -> dict[str, str]:
    request: dict[str, object] = {
        "method": "GET",
        "target": "/b/k",
        "host": "s3.example",
        "headers": {},
        "payload_hash": UNSIGNED_PAYLOAD,
        "common": {},
        "now": PUBLISHED_NOW.timestamp(),
    }
    signed = signer.signed_headers(credentials, **{**request, **changes})  # type: ignore[arg-type] # keyword arguments in a dict
    return {name: signed[name] for name in ADDED if name in signed}


def test_cached_keys_do_not_change_signatures() -> None:
    cached_signer = Signer("us-east-1")
    other = Credentials("OTHER", "another/secret", "a-token")
    for step in range(600):
        header = {f"x-amz-meta-{step % 300}": "1"}
        # In some steps only the day, the credentials or the second change.
        day = (PUBLISHED_NOW + timedelta(days=step // 7 % 3, seconds=step // 2 % 2)).timestamp()
        credentials = (PUBLISHED, other)[step // 5 % 2]
        assert sign(cached_signer, credentials, headers=header, now=day) == sign(
            Signer("us-east-1"), credentials, headers=header, now=day
        )


def test_time_is_signed_in_whole_seconds() -> None:
    assert sign(Signer("r"), now=PUBLISHED_NOW.timestamp() + 0.9) == sign(Signer("r"))


def test_signer_headers_override_those_of_the_request() -> None:
    stale = {"Host": "old", "X-Amz-Date": "old", "x-amz-content-sha256": "old"}
    assert sign(Signer("r"), headers=stale) == sign(Signer("r"))


@pytest.mark.parametrize(
    ("query", "canonical"),
    [
        ("b=2&a=1", "a=1&b=2"),
        ("a-b=1&a=2", "a=2&a-b=1"),
        ("acl", "acl="),
        ("&a=1&&b=2&", "a=1&b=2"),
        ("a=%2f%41", "a=%2FA"),
        ("k=a+b", "k=a%2Bb"),
        ("k=a/b", "k=a%2Fb"),
        ("k=a=b", "k=a%3Db"),
    ],
)
def test_query_is_signed_in_canonical_form(query: str, canonical: str) -> None:
    signed, expected = (
        sign(Signer("r"), target=f"/b?{text}")["Authorization"] for text in (query, canonical)
    )
    assert signed == expected


@pytest.mark.parametrize("expires", [0, -1, MAX_EXPIRES + 1])
def test_presign_rejects_an_invalid_expiry(expires: int) -> None:
    with pytest.raises(ConfigError, match=r"1 to 604800 seconds"):
        Signer("r").presign(
            PUBLISHED,
            method="GET",
            target="/b/k",
            host="s3.example",
            scheme="https",
            expires=expires,
            now=PUBLISHED_NOW.timestamp(),
        )


def test_repr_of_credentials_does_not_show_secrets() -> None:
    text = repr(Credentials("AKIA", "the-secret", "the-token"))
    assert "AKIA" in text
    assert not re.search(r"the-(secret|token)", text)

"""Listings as services write them, and as botocore reads them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, unquote_plus
from xml.sax.saxutils import escape

from botocore.awsrequest import HeadersDict
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import RestXMLParser
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


@cache
def service() -> Any:  # botocore has no types
    return ServiceModel(Loader().load_service_model("s3", "service-2"))


def by_botocore(
    operation: str, body: bytes, headers: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    answer = {"body": body, "headers": HeadersDict(headers), "status_code": 200}
    parsed: dict[str, Any] = RestXMLParser().parse(
        answer, service().operation_model(operation).output_shape
    )
    return parsed


def listed_by_botocore(body: bytes) -> tuple[list[dict[str, Any]], list[str], str | None]:
    """Its objects and prefixes, decoded, and the token of the next page."""
    parsed = by_botocore("ListObjectsV2", body)
    decoded = unquote_plus if parsed.get("EncodingType") == "url" else str
    objects = [{**item, "Key": decoded(item["Key"])} for item in parsed.get("Contents", [])]
    prefixes = [decoded(item["Prefix"]) for item in parsed.get("CommonPrefixes", [])]
    return objects, prefixes, parsed.get("NextContinuationToken")


@dataclass(frozen=True, kw_only=True)
class Writer:
    """How one service writes.

    Attributes:
        order: Of an object's elements.
        encoding: How keys are percent-encoded; None: they are not.
        quote: How an etag's quotes are written.
        namespace: What the root says of it.
        gap: What stands between elements.
        facts_last: Whether what is told of the page comes after its objects.
    """

    order: tuple[str, ...]
    encoding: str | None = "+"
    quote: str = "&quot;"
    namespace: str = f' xmlns="{NAMESPACE}"'
    gap: str = ""
    facts_last: bool = False
    declaration: str = '<?xml version="1.0" encoding="UTF-8"?>\n'

    def key(self, key: str) -> str:
        if self.encoding is None:
            return escape(key, {"\r": "&#xD;", '"': "&#34;"})
        encode = quote_plus if self.encoding == "+" else quote
        return escape(encode(key, safe="/"))

    def page(
        self, objects: list[dict[str, str]], prefixes: list[str], token: str | None = None
    ) -> bytes:
        facts = [
            "<Name>bucket</Name><Prefix/><MaxKeys>1000</MaxKeys>",
            f"<IsTruncated>{str(token is not None).lower()}</IsTruncated>",
        ]
        if self.encoding is not None:
            facts.append("<EncodingType>url</EncodingType>")
        if token is not None:
            facts.append(f"<NextContinuationToken>{escape(token)}</NextContinuationToken>")
        items = [
            "<Contents>"
            + self.gap
            + self.gap.join(map(item.__getitem__, self.order))
            + "</Contents>"
            for item in map(self._elements, objects)
        ]
        items += [
            f"<CommonPrefixes>{self.gap}<Prefix>{self.key(prefix)}</Prefix></CommonPrefixes>"
            for prefix in prefixes
        ]
        pieces = items + facts if self.facts_last else facts + items
        inner = self.gap.join(["", *pieces, ""])
        document = f"{self.declaration}<ListBucketResult{self.namespace}>{inner}</ListBucketResult>"
        return document.encode()

    def _elements(self, item: dict[str, str]) -> dict[str, str]:
        etag = f"{self.quote}{item['ETag']}{self.quote}"
        written = {**item, "Key": self.key(item["Key"]), "ETag": etag}
        elements = {name: f"<{name}>{text}</{name}>" for name, text in written.items()}
        elements["Checksums"] = (
            "<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>"
        )
        elements["Owner"] = "<Owner><ID>75aa57</ID><DisplayName>web</DisplayName></Owner>"
        return elements


AWS = Writer(order=("Key", "LastModified", "ETag", "Checksums", "Size", "StorageClass"))
SEAWEEDFS = Writer(
    order=("Key", "ETag", "Size", "Owner", "StorageClass", "LastModified"), quote="&#34;"
)
MOTO = Writer(
    order=("Key", "LastModified", "ETag", "Checksums", "Size", "StorageClass", "Owner"),
    encoding="%20",
    quote='"',
    facts_last=True,
)
R2 = Writer(order=("Key", "Size", "LastModified", "ETag", "StorageClass"), declaration="")
PLAIN = Writer(order=("Key", "LastModified", "ETag", "Size"), encoding=None, namespace="")
PRETTY = Writer(
    order=("Key", "LastModified", "ETag", "Size", "StorageClass"), encoding=None, gap="\n  "
)
UNQUOTED = Writer(order=("StorageClass", "Size", "Key", "LastModified", "ETag"), quote="")
WRITERS = {
    "aws": AWS,
    "seaweedfs": SEAWEEDFS,
    "moto": MOTO,
    "r2": R2,
    "plain": PLAIN,
    "pretty": PRETTY,
    "unquoted": UNQUOTED,
}

# Those that XML 1.0 carries: what a service does that encodes no keys with the others is its own.
keys = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff")
    | st.sampled_from("\t\n\r /+%&;<>'\"#"),
    min_size=1,
    max_size=20,
)
dates = st.datetimes().map(
    lambda date: date.replace(microsecond=0).isoformat(timespec="milliseconds") + "Z"
)
objects = st.fixed_dictionaries(
    {
        "Key": keys,
        "LastModified": dates,
        "ETag": st.from_regex(r"[0-9a-f]{32}(-[0-9]{1,5})?", fullmatch=True),
        "Size": st.integers(0, 5 << 40).map(str),
        "StorageClass": st.sampled_from(["STANDARD", "GLACIER", "INTELLIGENT_TIERING", ""]),
    }
)

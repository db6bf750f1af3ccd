"""ListObjectsV2 documents in the styles of several services."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, quote_plus
from xml.sax.saxutils import escape

from hypothesis import strategies as st

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclass(frozen=True, kw_only=True)
class ListingStyle:
    """How a service writes a ListObjectsV2 document.

    Attributes:
        order: The names of an object's elements, in order.
        encoding: How spaces in percent-encoded keys are written. None: keys are not encoded.
        etag_quote: The escaped quotes around an ETag, or an empty string.
        namespace: The namespace attribute of the root element.
        whitespace: The whitespace between elements.
        summary_last: Whether IsTruncated and the page's other elements follow its entries.
        declaration: The XML declaration.
    """

    order: tuple[str, ...]
    encoding: str | None = "+"
    etag_quote: str = "&quot;"
    namespace: str = f' xmlns="{NAMESPACE}"'
    whitespace: str = ""
    summary_last: bool = False
    declaration: str = '<?xml version="1.0" encoding="UTF-8"?>\n'

    def encoded_key(self, key: str) -> str:
        """Return a key or prefix as it appears in the document."""
        if self.encoding is None:
            return escape(key, {"\r": "&#xD;", '"': "&#34;"})
        encode = quote_plus if self.encoding == "+" else quote
        return escape(encode(key, safe="/"))

    def document(
        self, objects: list[dict[str, str]], prefixes: list[str], token: str | None = None
    ) -> bytes:
        """Return a page of objects and prefixes. It is truncated if there is a token."""
        summary = [
            "<Name>bucket</Name><Prefix/><MaxKeys>1000</MaxKeys>",
            f"<IsTruncated>{str(token is not None).lower()}</IsTruncated>",
        ]
        if self.encoding is not None:
            summary.append("<EncodingType>url</EncodingType>")
        if token is not None:
            summary.append(f"<NextContinuationToken>{escape(token)}</NextContinuationToken>")
        items = [
            "<Contents>"
            + self.whitespace
            + self.whitespace.join(map(item.__getitem__, self.order))
            + "</Contents>"
            for item in map(self._elements, objects)
        ]
        items += [
            f"<CommonPrefixes>{self.whitespace}<Prefix>{self.encoded_key(prefix)}</Prefix></CommonPrefixes>"
            for prefix in prefixes
        ]
        pieces = items + summary if self.summary_last else summary + items
        inner = self.whitespace.join(["", *pieces, ""])
        text = f"{self.declaration}<ListBucketResult{self.namespace}>{inner}</ListBucketResult>"
        return text.encode()

    def _elements(self, item: dict[str, str]) -> dict[str, str]:
        etag = f"{self.etag_quote}{item['ETag']}{self.etag_quote}"
        texts = {**item, "Key": self.encoded_key(item["Key"]), "ETag": etag}
        elements = {name: f"<{name}>{text}</{name}>" for name, text in texts.items()}
        elements["Checksums"] = (
            "<ChecksumAlgorithm>CRC64NVME</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>"
        )
        elements["Owner"] = "<Owner><ID>75aa57</ID><DisplayName>web</DisplayName></Owner>"
        return elements


AWS = ListingStyle(order=("Key", "LastModified", "ETag", "Checksums", "Size", "StorageClass"))
SEAWEEDFS = ListingStyle(
    order=("Key", "ETag", "Size", "Owner", "StorageClass", "LastModified"), etag_quote="&#34;"
)
MOTO = ListingStyle(
    order=("Key", "LastModified", "ETag", "Checksums", "Size", "StorageClass", "Owner"),
    encoding="%20",
    etag_quote='"',
    summary_last=True,
)
R2 = ListingStyle(order=("Key", "Size", "LastModified", "ETag", "StorageClass"), declaration="")
PLAIN = ListingStyle(order=("Key", "LastModified", "ETag", "Size"), encoding=None, namespace="")
PRETTY = ListingStyle(
    order=("Key", "LastModified", "ETag", "Size", "StorageClass"), encoding=None, whitespace="\n  "
)
UNQUOTED = ListingStyle(
    order=("StorageClass", "Size", "Key", "LastModified", "ETag"), etag_quote=""
)
STYLES = {
    "aws": AWS,
    "seaweedfs": SEAWEEDFS,
    "moto": MOTO,
    "r2": R2,
    "plain": PLAIN,
    "pretty": PRETTY,
    "unquoted": UNQUOTED,
}

# Only characters that XML 1.0 can contain: without key encoding, services differ in the others.
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

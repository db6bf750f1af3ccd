"""botocore's parsers, which the tests compare with the driver's."""

from __future__ import annotations

from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from botocore.awsrequest import HeadersDict
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import RestXMLParser

if TYPE_CHECKING:
    from collections.abc import Mapping


@cache
def s3_model() -> Any:  # botocore has no types
    return ServiceModel(Loader().load_service_model("s3", "service-2"))


def parse_with_botocore(
    operation: str, body: bytes, headers: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    response = {"body": body, "headers": HeadersDict(headers), "status_code": 200}
    parsed: dict[str, Any] = RestXMLParser().parse(
        response, s3_model().operation_model(operation).output_shape
    )
    return parsed


def parse_list_with_botocore(body: bytes) -> tuple[list[dict[str, Any]], list[str], str | None]:
    """Return the objects, the prefixes and the next page's token of a ListObjectsV2 response.

    Keys and prefixes are decoded.
    """
    parsed = parse_with_botocore("ListObjectsV2", body)
    decode = unquote_plus if parsed.get("EncodingType") == "url" else str
    objects = [{**item, "Key": decode(item["Key"])} for item in parsed.get("Contents", [])]
    prefixes = [decode(item["Prefix"]) for item in parsed.get("CommonPrefixes", [])]
    return objects, prefixes, parsed.get("NextContinuationToken")

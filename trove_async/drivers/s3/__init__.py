"""The driver for Amazon S3 and S3-compatible services.

The driver
`driver`            `S3Driver`: the driver contract, built from S3's operations
`_components`       builds the components of an open driver
`_settings`         settings for requests and connections
`_capabilities`     what the driver supports, by service, data plane and settings
`_object_settings`  settings for all objects: storage class, encryption, requester pays
`_multipart`        multipart uploads; `_copy`: server-side copies; `_buckets`: buckets
`_pages`            pages of listings, as the dialect requires

How services deviate from Amazon S3
`_dialects`         the known services, and how to recognise them
`_ceph`             workarounds for Ceph; `_directories`: for SeaweedFS
`_features`         features that some services ignore; `_unusual_keys`: keys that some rename
`_write_checks`     checks before a request that relies on a feature or has an unusual key
`_feature_probe`    tests a feature; `_key_probe`: tests an unusual key; `_trials`: trial objects

The HTTP data plane
`_data_plane`       the protocol of both data planes: one method for each operation of S3
`_operations`       requests for objects and buckets; `_http_multipart`: for multipart uploads
`_client`           signs and sends requests; repeats one after it corrects clock, region or credentials
`_credentials`      finds the endpoint, the region and the credentials through the SDK
`_sigv4`            signatures
`_requests`         headers of request documents; presigned URLs for both data planes
`_headers`          object headers; `_encoding`: keys, queries, ETags and bucket names
`_responses`        reads response documents; `_documents`: parses and builds documents; `_xml`: XML
`_list_objects`     parses ListObjectsV2; `_versions`: ListObjectVersions
`_errors`           translates S3's errors

The aiobotocore data plane
`_lazy_sdk`         imports the modules below when they are first needed
`_sdk`              requests for objects and buckets; `_sdk_multipart`: for multipart uploads
`_sdk_client`       aiobotocore's client; `_sdk_session`: its session, which does not follow redirects
`_sdk_parameters`   headers as the SDK's parameters
"""

from __future__ import annotations

from importlib.util import find_spec

# Check now: aiobotocore is imported on first use, which is too late for a helpful message.
for _package in ("aiohttp", "aiobotocore"):
    if find_spec(_package) is None:
        raise ModuleNotFoundError(
            f"{__name__} needs {_package}: pip install 'trove-async[s3]'", name=_package
        )

from trove_async.drivers.s3.driver import S3Driver  # noqa: E402 - after the check for its packages

__all__ = ["S3Driver"]

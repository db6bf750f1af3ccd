"""The driver for Google Cloud Storage and servers with the same API.

The contract
`driver`            `GCSDriver`: the methods of the driver contract, and those that only GCS has
`_components`       creates the components of an open driver
`_capabilities`     the features and limits that the driver declares
`_defaults`         the storage class and the encryption key of new objects

Requests
`_client`           sends one request with an access token and returns a successful response
`_credentials`      access tokens, the project and signatures
`_encoding`         buckets, keys and queries in URLs, and the names that the service rejects
`_errors`           maps error responses to exceptions
`_resources`        object metadata: options to JSON, and JSON or headers to `ObjectInfo`

Objects
`_multipart`        the body of an upload in one request
`_upload`           uploads in parts
`_resumable`        the ranges and sizes of chunks in such an upload
`_download`         bodies of objects
`_copy`             copies on the server
`_compose`          concatenation on the server
`_batch_delete`     many keys in one request
`_custom_time`      the date of an object that lifecycle rules can refer to
`_signing`          signed URLs
`_lost_responses`   retries of a write whose earlier attempt may have succeeded

Buckets
`_buckets`          creates, looks up, lists and deletes buckets, and sets their versioning
`_list_objects`     one page of objects
`_versions`         one page of versions
"""

from __future__ import annotations

from importlib.util import find_spec

# The SDK is imported on first use, which is too late for this message.
for _package in ("aiohttp", "gcloud"):
    if find_spec(_package) is None:
        raise ModuleNotFoundError(
            f"{__name__} needs {_package}: pip install 'trove-async[gcs]'", name=_package
        )

from trove_async.drivers.gcs.driver import GCSDriver  # noqa: E402 - after the check for its packages

__all__ = ["GCSDriver"]

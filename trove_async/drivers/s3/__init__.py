"""Objects in S3, or in a service that speaks as S3 does."""

from __future__ import annotations

from importlib.util import find_spec

for _package in (
    "aiohttp",
    "aiobotocore",
):  # the second is imported when it is needed: too late to say so
    if find_spec(_package) is None:
        raise ModuleNotFoundError(
            f"{__name__} needs {_package}: pip install 'trove-async[s3]'", name=_package
        )

from trove_async.drivers.s3.driver import S3Driver  # noqa: E402 - only then can it be imported

__all__ = ["S3Driver"]

"""Objects in Google Cloud Storage."""

from __future__ import annotations

from importlib.util import find_spec

for _package in (
    "aiohttp",
    "gcloud",
):  # the second is imported when it is needed: too late to say so
    if find_spec(_package) is None:
        raise ModuleNotFoundError(
            f"{__name__} needs {_package}: pip install 'trove-async[gcs]'", name=_package
        )

from trove_async.drivers.gcs.driver import GCSDriver  # noqa: E402 - only then can it be imported

__all__ = ["GCSDriver"]

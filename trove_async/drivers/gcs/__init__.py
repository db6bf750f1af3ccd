"""Objects in Google Cloud Storage."""

from __future__ import annotations

from trove_async.drivers.gcs.driver import GCSDriver

__all__ = ["GCSDriver"]

"""Objects in S3, or in a service that speaks as S3 does."""

from __future__ import annotations

from trove_async.drivers.s3.driver import S3Driver

__all__ = ["S3Driver"]

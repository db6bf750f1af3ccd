"""S3 over https, on asyncio and uvloop. TLS protects the bodies: signatures do not cover them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.listening import behind_tls
from trove_async import Trove
from trove_async.drivers.s3 import S3Driver
from trove_async.testing import StoreBodies, StoreCopies, StoreReading

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from trove_async.testing.servers import S3Server

pytestmark = pytest.mark.uvloop


class TestOverTLS(StoreBodies, StoreReading, StoreCopies):
    @pytest_asyncio.fixture
    async def store(  # type: ignore[override]  # a fixture: pytest passes its arguments
        self, seaweed: S3Server, tls: tuple[ssl.SSLContext, ssl.SSLContext]
    ) -> AsyncIterator[Trove]:
        server_tls, client_tls = tls
        async with behind_tls(seaweed.endpoint_url, server_tls) as url:
            driver = S3Driver(
                region=seaweed.region,
                endpoint_url=url,
                access_key_id=seaweed.access_key_id,
                secret_access_key=seaweed.secret_access_key,
                tls=client_tls,
            )
            async with Trove(driver) as store:
                yield store

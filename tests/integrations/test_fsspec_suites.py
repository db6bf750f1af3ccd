"""fsspec's own tests of a filesystem, over the memory and local drivers and two S3 servers.

Every case of the suites copy, get, put, open and pipe is run. fsspec's module ``mv`` is not a suite: its
cases test only fsspec's local filesystem. `test_fsspec.py` has tests of `mv`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from fsspec.tests import abstract

from tests.integrations.backend_urls import s3_url
from trove_async.integrations.fsspec import TroveFileSystem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trove_async.testing.servers import S3Server


class _Suites(
    abstract.AbstractFixtures,  # type: ignore[misc]  # fsspec has no types
    abstract.AbstractCopyTests,  # type: ignore[misc]
    abstract.AbstractGetTests,  # type: ignore[misc]
    abstract.AbstractPutTests,  # type: ignore[misc]
    abstract.AbstractOpenTests,  # type: ignore[misc]
    abstract.AbstractPipeTests,  # type: ignore[misc]
):
    @pytest.fixture
    def fs(self, backend: str) -> Iterator[TroveFileSystem]:
        filesystem = TroveFileSystem(backend=backend, skip_instance_cache=True)
        yield filesystem
        filesystem.close()

    @pytest.fixture
    def fs_path(self, fs: TroveFileSystem) -> Iterator[str]:
        bucket = f"suites-{uuid4().hex[:12]}"
        fs.mkdir(bucket)
        yield bucket
        fs.rm(bucket, recursive=True)

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)

    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class TestMemory(_Suites):
    @pytest.fixture
    def backend(self) -> str:
        return "mem://"


class TestLocal(_Suites):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> str:
        root = tmp_path / "root"
        root.mkdir()
        return f"file://{root}"


class TestMoto(_Suites):
    @pytest.fixture
    def backend(self, moto_server: S3Server) -> str:
        return s3_url(moto_server)


# They delete a directory and compare a listing. SeaweedFS goes on listing the directory as a common prefix,
# although no key is in it.
_EMPTY_DIRECTORIES = {
    "test_copy_directory_to_existing_directory",
    "test_copy_directory_to_new_directory",
    "test_copy_glob_to_existing_directory",
    "test_put_directory_to_existing_directory",
    "test_put_directory_to_new_directory",
    "test_put_glob_to_existing_directory",
}


class TestSeaweed(_Suites):
    @pytest.fixture(autouse=True)
    def expect_empty_directories(self, request: pytest.FixtureRequest) -> None:
        if request.node.originalname in _EMPTY_DIRECTORIES:
            reason = "SeaweedFS lists empty directories"
            failures = (AssertionError, pytest.fail.Exception)
            request.applymarker(pytest.mark.xfail(raises=failures, reason=reason))

    @pytest.fixture
    def backend(self, seaweed: S3Server) -> str:
        return s3_url(seaweed)

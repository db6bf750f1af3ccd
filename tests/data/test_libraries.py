"""Libraries that read and write routed and encrypted objects through fsspec."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.dataframe
import duckdb
import joblib
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import xarray
import zarr
from pandas.testing import assert_frame_equal
from pyarrow.fs import FileSelector, FileType, FSSpecHandler, PyFileSystem
from upath import UPath

from tests.data.conftest import BUCKET
from trove_async.integrations.upath import TrovePath

if TYPE_CHECKING:
    from trove_async.integrations.fsspec import TroveFileSystem

pytestmark = [pytest.mark.data, pytest.mark.timeout(180)]

ROOT = f"trove://{BUCKET}/cold"
FRAME = pd.DataFrame({"a": range(1000), "b": [f"text {number}" for number in range(1000)]})


def stored_bytes(tmp_path: Path) -> bytes:
    """Return the content of all files of the backend with encryption."""
    return b"".join(path.read_bytes() for path in (tmp_path / "cold").rglob("*") if path.is_file())


@pytest.mark.usefixtures("fs")
def test_pandas_parquet(options: dict[str, Any], tmp_path: Path) -> None:
    FRAME.to_parquet(f"{ROOT}/frame.parquet", storage_options=options)
    assert b"PAR1" not in stored_bytes(tmp_path)
    read = pd.read_parquet(f"{ROOT}/frame.parquet", storage_options=options)
    assert_frame_equal(read, FRAME)
    column = pd.read_parquet(f"{ROOT}/frame.parquet", columns=["a"], storage_options=options)
    assert list(column.columns) == ["a"]


@pytest.mark.usefixtures("fs")
def test_pandas_csv(options: dict[str, Any], tmp_path: Path) -> None:
    for name in ("frame.csv", "frame.csv.gz"):
        FRAME.to_csv(f"{ROOT}/{name}", index=False, storage_options=options)
        assert_frame_equal(pd.read_csv(f"{ROOT}/{name}", storage_options=options), FRAME)
    assert b"text 1" not in stored_bytes(tmp_path)


def test_polars(fs: TroveFileSystem) -> None:
    frame = pl.from_pandas(FRAME)
    with fs.open(f"{ROOT}/frame.parquet", "wb") as file:
        frame.write_parquet(file)
    with fs.open(f"{ROOT}/frame.parquet") as file:
        assert pl.read_parquet(file).equals(frame)
    dataset = ds.dataset(f"{BUCKET}/cold/frame.parquet", filesystem=PyFileSystem(FSSpecHandler(fs)))
    lazy = pl.scan_pyarrow_dataset(dataset).filter(pl.col("a") > 990).collect()
    assert lazy.height == 9


def test_pyarrow_dataset(fs: TroveFileSystem) -> None:
    filesystem = PyFileSystem(FSSpecHandler(fs))
    table = pa.table({"part": [number % 3 for number in range(900)], "value": range(900)})
    ds.write_dataset(
        table,
        f"{BUCKET}/cold/set",
        format="parquet",
        partitioning=["part"],
        filesystem=filesystem,
    )
    dataset = ds.dataset(f"{BUCKET}/cold/set", partitioning=["part"], filesystem=filesystem)
    assert dataset.count_rows() == 900
    filtered = dataset.to_table(filter=ds.field("part") == 1)
    assert filtered.num_rows == 300
    assert sum(filtered["value"].to_pylist()) == sum(range(1, 900, 3))


def test_pyarrow_filesystem_operations(fs: TroveFileSystem) -> None:
    filesystem = PyFileSystem(FSSpecHandler(fs))
    path = f"{BUCKET}/cold/dir/file"
    filesystem.create_dir(f"{BUCKET}/cold/dir", recursive=True)
    with filesystem.open_output_stream(path) as stream:
        stream.write(b"0123456789")
    with filesystem.open_append_stream(path) as stream:
        stream.write(b"abc")
    with filesystem.open_input_file(path) as file:
        assert file.size() == 13
        assert file.read_at(3, 9) == b"9ab"
    with filesystem.open_input_stream(path) as stream:
        assert stream.read() == b"0123456789abc"
    info = filesystem.get_file_info(path)
    assert (info.type, info.size) == (FileType.File, 13)
    assert info.mtime is not None
    assert filesystem.get_file_info(f"{BUCKET}/cold/nothing").type == FileType.NotFound
    selected = filesystem.get_file_info(FileSelector(f"{BUCKET}/cold", recursive=True))
    assert [(each.path, each.type) for each in selected] == [
        (f"{BUCKET}/cold/dir", FileType.Directory),
        (path, FileType.File),
    ]
    filesystem.copy_file(path, f"{path}-2")
    filesystem.move(f"{path}-2", f"{BUCKET}/cold/moved")
    filesystem.delete_dir(f"{BUCKET}/cold/dir")
    assert fs.find(BUCKET) == [f"{BUCKET}/cold/moved"]
    with pytest.raises(FileNotFoundError):
        filesystem.open_input_file(path)


@pytest.mark.usefixtures("fs")
@pytest.mark.filterwarnings("ignore:The inplace keyword")  # of pandas, for dask
def test_dask_dataframe_in_other_processes(options: dict[str, Any]) -> None:
    frame = dask.dataframe.from_pandas(FRAME, npartitions=4)
    with dask.config.set(scheduler="processes", num_workers=2):
        frame.to_parquet(f"{ROOT}/frames", storage_options=options)
        read = dask.dataframe.read_parquet(f"{ROOT}/frames", storage_options=options)
        assert read["a"].sum().compute() == FRAME["a"].sum()
        frame.to_csv(f"{ROOT}/csv/*.csv", index=False, storage_options=options)
        lines = dask.dataframe.read_csv(f"{ROOT}/csv/*.csv", storage_options=options)
        assert len(lines) == len(FRAME)


def test_duckdb(fs: TroveFileSystem) -> None:
    with duckdb.connect() as connection:
        connection.register_filesystem(fs)
        connection.register("frame", FRAME)
        connection.execute(f"COPY frame TO '{ROOT}/frame.parquet' (FORMAT parquet)")
        connection.execute(f"COPY frame TO '{ROOT}/frame.csv' (HEADER)")
        for name in ("frame.parquet", "frame.csv", "*.parquet"):
            query = f"SELECT sum(a), count(*) FROM '{ROOT}/{name}'"  # noqa: S608 - constants
            assert connection.execute(query).fetchall() == [(499_500, 1000)]


def test_zarr(fs: TroveFileSystem, options: dict[str, Any]) -> None:
    data = np.arange(10_000).reshape(100, 100)
    array = zarr.create_array(
        f"{ROOT}/array.zarr",
        shape=(100, 100),
        chunks=(10, 100),
        dtype="i8",
        storage_options=options,
    )
    array[:] = data
    opened = zarr.open_array(f"{ROOT}/array.zarr", mode="r", storage_options=options)
    np.testing.assert_array_equal(opened[35:57, 3:5], data[35:57, 3:5])
    assert len(fs.find(f"{BUCKET}/cold/array.zarr/c")) == 10


@pytest.mark.usefixtures("fs")
def test_xarray(options: dict[str, Any]) -> None:
    dataset = xarray.Dataset(
        {"value": (("x", "y"), np.arange(600.0).reshape(20, 30))}, coords={"x": range(20)}
    )
    dataset.to_zarr(f"{ROOT}/set.zarr", storage_options=options, zarr_format=3, consolidated=False)
    with xarray.open_zarr(
        f"{ROOT}/set.zarr", storage_options=options, chunks=None, consolidated=False
    ) as read:
        xarray.testing.assert_identical(read.load(), dataset)


@pytest.mark.usefixtures("fs")
def test_universal_pathlib(options: dict[str, Any]) -> None:
    root = UPath(ROOT, **options)
    assert isinstance(root, TrovePath)
    assert (root.anchor, root.parts) == (f"{BUCKET}/", (f"{BUCKET}/", "cold"))
    file = root / "dir" / "file.txt"
    file.write_text("text")
    assert file.read_text() == "text"
    assert (file.is_file(), file.is_dir(), file.parent.is_dir()) == (True, False, True)
    assert file.stat().st_size == 4
    assert [path.name for path in root.iterdir()] == ["dir"]
    assert [path.name for path in root.rglob("*.txt")] == ["file.txt"]
    renamed = file.rename(root / "dir" / "new.txt")
    assert not file.exists()
    assert renamed.exists()
    with pytest.raises(FileNotFoundError):
        file.read_bytes()
    (root / "other").touch()
    moved = renamed.rename(Path(root.path) / "moved.txt")
    assert moved.read_text() == "text"
    moved.unlink()
    assert not moved.exists()


def test_joblib(fs: TroveFileSystem) -> None:
    model = {"weights": np.arange(100_000), "name": "model"}
    with fs.open(f"{ROOT}/model.joblib", "wb") as file:
        joblib.dump(model, file)
    with fs.open(f"{ROOT}/model.joblib", "rb") as file:
        loaded = joblib.load(file)
    np.testing.assert_array_equal(loaded["weights"], model["weights"])

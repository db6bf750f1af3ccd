"""Paths of universal_pathlib: ``UPath("trove://bucket/key", backend="s3://…")``.

universal_pathlib finds `TrovePath` through its entry point, so no program need import this module.
"""

from __future__ import annotations

try:
    from upath._flavour import WrappedFileSystemFlavour  # there is no public name for it
    from upath.implementations.cloud import CloudPath
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{__name__} requires a package: pip install 'universal_pathlib>=0.3.10'", name=error.name
    ) from error

from fsspec import register_implementation

from trove_async.integrations.fsspec import TroveFileSystem

# universal_pathlib parses paths with the classes that fsspec has loaded, and warns of others.
register_implementation("trove", TroveFileSystem, clobber=True)


class TrovePath(CloudPath):
    """A path in a store. The bucket is its anchor, as it is that of an S3Path."""

    __slots__ = ()

    parser = WrappedFileSystemFlavour(TroveFileSystem, netloc_is_anchor=True)

"""Drivers, each a module or package, and their URLs.

A driver's module and its SDK are imported when its name is first used here, so that
``from trove_async.drivers import LocalDriver`` imports no cloud SDK.

=======================  ==========================================  ==============================
URL                      backend                                     options
=======================  ==========================================  ==============================
``file:///abs/olute``    `LocalDriver` on that directory             ``fsync``, ``file_mode``, …
``local:///abs/olute``   the same                                    the same
``local://./rel/ative``  the same, on that relative path             the same
``mem://``               a new, empty `MemoryDriver`                 ``parallel_parts``, …
``memory://``            the same                                    the same
``s3://BUCKET/PREFIX``   `S3Driver`, everything in that bucket       ``region``, ``endpoint``, …
``s3://ID:KEY@REGION/``  `S3Driver`, signing with these keys         ``endpoint``, …
``gcs://BUCKET/PREFIX``  `GCSDriver`, everything in that bucket      ``credentials``, …
``gs://BUCKET/PREFIX``   the same                                    the same
=======================  ==========================================  ==============================

The options of a `LocalDriver` are ``fsync``, ``mkdir``, ``file_mode`` and ``dir_mode`` (permissions
in octal, ``file:///srv/objects?file_mode=0640&dir_mode=0750``), ``threads``, ``max_reads`` and
``max_writes``.

The host of an ``s3`` URL is a region if it looks like one (``eu-west-1``), else a bucket. A bucket
may follow a region (``s3://eu-west-1/BUCKET/PREFIX``), and access keys may precede either. Without
keys, the SDK's default credential chain applies. More options: ``path_style=true``, ``profile``,
``role_arn``, ``dialect``, ``storage_class``, and every other argument of `S3Driver` that is text, a
number or a switch, except for the access keys. In a secret, write ``/``, ``?`` and ``#`` as
``%2F``, ``%3F`` and ``%23``.

A ``gcs`` URL without a bucket (``gcs://?project=P``) maps each bucket to the bucket with the same
name. The options are ``credentials`` (a file's path), ``project``, ``endpoint``, ``storage_class``,
``token_origins`` (one origin from which tokens may be fetched), and every other argument of
`GCSDriver` that is text, a number or a switch.

Options are a query (``file:///data?fsync=false``); switches are ``true`` or ``false``. In a path,
write ``#``, ``%`` and ``?`` as ``%23``, ``%25`` and ``%3F``.

Other packages add schemes through entry points in the group ``trove_async.drivers``. The name of an
entry point is the scheme. It refers to a driver class with a ``from_url(url)``, or to a callable that
takes the unparsed URL and returns a driver. The schemes above cannot be replaced. If two packages
register different drivers for a scheme, its use raises ConfigError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trove_async import _extras

from ._urls import ENTRY_POINTS as ENTRY_POINTS
from ._urls import MODULES
from ._urls import Address as Address
from ._urls import SplitURL as SplitURL
from ._urls import address_from_url as address_from_url

if TYPE_CHECKING:
    from trove_async.drivers.gcs import GCSDriver
    from trove_async.drivers.local import LocalDriver
    from trove_async.drivers.memory import MemoryDriver
    from trove_async.drivers.s3 import S3Driver

__all__ = ["GCSDriver", "LocalDriver", "MemoryDriver", "S3Driver"]


def __getattr__(name: str) -> object:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _extras.load(MODULES[name], name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

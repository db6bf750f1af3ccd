"""The drivers: one room for each kind of backend. And the URLs that stand for them.

A driver's module, and the SDK that it needs, is imported when its name is first used here, so that
``from trove_async.drivers import LocalDriver`` costs what the local driver costs.

=======================  ==========================================  ==============================
URL                      backend                                     options
=======================  ==========================================  ==============================
``file:///abs/olute``    `LocalDriver` on that directory             ``fsync``, ``file_mode``, …
``local:///abs/olute``   the same                                    the same
``local://./rel/ative``  one below the working directory             the same
``mem://``               `MemoryDriver`, empty, of its own           ``parallel_parts``, …
``memory://``            the same                                    the same
``s3://BUCKET/PREFIX``   `S3Driver`, everything in that bucket       ``region``, ``endpoint``, …
``s3://ID:KEY@REGION/``  `S3Driver`, signing with these keys         ``endpoint``, …
``gcs://BUCKET/PREFIX``  `GCSDriver`, everything in that bucket      ``credentials``, …
``gs://BUCKET/PREFIX``   the same                                    the same
=======================  ==========================================  ==============================

The options of a directory are ``fsync``, ``mkdir``, ``file_mode`` and ``dir_mode`` (permissions in
octal, ``file:///srv/objects?file_mode=0640&dir_mode=0750``), ``threads``, ``max_reads`` and
``max_writes``.

What an ``s3`` URL calls a region looks like one (``eu-west-1``); a bucket may follow it
(``s3://eu-west-1/BUCKET/PREFIX``), and keys may stand before either. Without keys the SDK's usual
chain has them. More options: ``path_style=true``, ``profile``, ``role_arn``, ``dialect``,
``storage_class``, and every other argument of `S3Driver` that is text, a number or a switch; a secret
with a ``/``, ``?`` or ``#`` is written with ``%2F``, ``%3F`` or ``%23``.

A ``gcs`` URL without a bucket (``gcs://?project=P``) has buckets as themselves. Its options are
``credentials`` (a file's path), ``project``, ``endpoint``, ``storage_class``, ``token_origins`` (one
origin that tokens may be fetched from), and every other argument of `GCSDriver` that is text, a number
or a switch.

Options are a query (``file:///data?fsync=false``); switches are ``true`` or ``false``. In a path,
``%23``, ``%25`` and ``%3F`` stand for ``#``, ``%`` and ``?``.

Other packages add schemes by an entry point of the group ``trove_async.drivers``: its name is the
scheme, and it loads a driver's class with a ``from_url(url)``, or a callable that takes the URL as
it was written and returns a driver. The schemes above cannot be replaced, and one that two packages
claim is refused rather than chosen among.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

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
    try:
        return getattr(import_module(MODULES[name]), name)
    except ModuleNotFoundError as error:
        return _without_its_extra(name, error)


def _without_its_extra(name: str, error: ModuleNotFoundError) -> type:
    """Return what stands for a driver whose extra is not installed.

    An error raised here would break `hasattr`, `help` and ``import *`` on the module, for users of
    the other drivers as well. The class can be looked at, and says what is missing when it is called.
    """
    why = str(error)

    def refuse(*_args: object, **_options: object) -> None:
        raise ImportError(why, name=error.name)

    return type(name, (), {"__init__": refuse, "__doc__": why, "__module__": __name__})


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""Stores from configuration files, validated by pydantic (extra ``[config]``).

`Trove.from_config` makes a store from a TOML file or a mapping. This package shows what such a
configuration contains: `load` checks one and lists its settings with their origins, and `json_schema` describes
all of them, so that an editor can complete and check a file.

::

    default = "file:///srv/hot"
    locate = "anywhere"
    routes = [{ prefix = "archive/", backend = "archive" }, ["*.log", "cold"]]

    [backends]
    archive = "gcs://my-archive?storage_class=COLDLINE"

    [backends.cold]
    type = "s3"
    region = "eu-central-1"
    bucket = "my-cold-objects"
    credentials = "aws"
    layers = [{ type = "read_through", cache = "file:///var/cache/trove", max_bytes = "20GiB" }]

    [credentials.aws]
    access_key_id = "${AWS_KEY_ID}"
    secret_access_key = "${AWS_SECRET}"

    [[middleware]]
    type = "encryption"
    keys = "env:TROVE_KEYS"
    scope = { not = { backends = "default" } }

    [pool]
    max_bytes = "64MiB"

- A backend is a URL or a table with a ``type`` and the arguments of the driver. The type of a driver, layer,
  middleware or source of keys of your own is ``package.module:name``.
- ``${NAME}`` and ``${NAME:-default}`` in a text are replaced from the environment; ``$${`` is a literal ``${``.
- Sizes are numbers of bytes, or texts such as ``"64MiB"``. Durations are seconds, or texts such as ``"30s"``.
- An environment variable ``TROVE__backends__cold__region`` overrides one value of a file. Indexes select
  entries of lists (``TROVE__routes__0__backend``). A list or a table is written in TOML; everything else is a
  text.
- Relative paths are relative to the current directory.

`_sources` reads the values, `_store`, `_backends`, `_credentials`, `_routes` and `_middleware` are the tables, `_tables` what they
have in common, `_values` the types of values, `_problems` collects problems, and `_settings` is the list of settings.
"""

from ._load import Loaded, json_schema, load
from ._settings import Setting
from ._sources import parse_toml

__all__ = [
    "Loaded",
    "Setting",
    "json_schema",
    "load",
    "parse_toml",
]

"""Drivers from URLs: schemes, options, entry points and error messages."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module, invalidate_caches
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from trove_async import drivers
from trove_async.drivers import (
    Address,
    GCSDriver,
    LocalDriver,
    MemoryDriver,
    S3Driver,
    SplitURL,
    address_from_url,
)
from trove_async.drivers import _urls as urls
from trove_async.errors import ConfigError
from trove_async.layers import Mapped, driver_from_url

if TYPE_CHECKING:
    from collections.abc import Callable

INVALID_URLS = [
    ("", "must begin with its scheme"),
    ("/data", "LocalDriver"),
    ("file:/data", "must begin with its scheme"),
    ("://x", "must begin with its scheme"),
    ("file://", "must name a directory"),
    ("local://", "must name a directory"),
    ("file://data/hot", "three slashes"),
    ("file:///data?fsync=maybe", "fsync must be true or false"),
    ("file:///data?fsync=true&fsync=false", "twice"),
    (
        "file:///data?fast=true",
        "unknown option 'fast': known options: dir_mode, file_mode, fsync, ",
    ),
    ("file:///data?file_mode=rw", "file_mode must be permissions in octal, such as 0640"),
    ("file:///data?dir_mode=0x1ff", "dir_mode must be permissions in octal"),
    ("file:///data?file_mode=0040", "file_mode must give the owner access"),
    ("file:///data?threads=0", "threads must be a number from 1 to 999999999"),
    ("file:///data?fsync", "malformed"),
    ("file:///%ff", "malformed"),
    ("file:///da%00ta", "NUL"),
    ("file:///data#hot", "%23"),
    ("file:///my data", "%20"),
    ("file:///a\tb", "%20"),
    ("local://[x/y", "malformed"),
    ("mem://name", "no host and no path"),
    ("mem:///name", "no host and no path"),
    ("memory://?size=1", "unknown option 'size': known options: max_connections, parallel_parts"),
    ("s3://", "must name a bucket or a region"),
    ("s3:///prefix", "must name a bucket before the prefix"),
    ("s3://eu-west-1//prefix", "must name a bucket before the prefix"),
    ("s3://eu-west-1/?region=eu-west-2", "one region, got two"),
    ("s3://key@bucket", "separated by a colon"),
    ("s3://:secret@bucket", "separated by a colon"),
    ("s3://key:@bucket", "separated by a colon"),
    ("s3://KEY:se/cret@eu-west-1/bucket", "in a secret as %2F"),
    ("s3://bucket?path_style=yes", "path_style must be true or false"),
    ("s3://bucket?path_style=true&addressing_style=virtual", "addressing_style or path_style, not"),
    ("s3://bucket?max_connections=0", "max_connections must be a number from 1 to 999999999"),
    ("s3://bucket?max_connections=-1", "max_connections must be a number from 1 to 999999999"),
    ("s3://bucket?dialect=klingon", "dialect must be"),
    ("s3://bucket?endpoint=ftp://host", "an endpoint must be"),
    ("s3://bucket?endpoint=http://host/path", "an endpoint must be"),
    ("s3://bucket?endpoint=http://key:secret@host", "an endpoint must be"),
    ("s3://bucket?color=red", "unknown option 'color'"),
    ("gcs:///prefix", "must name a bucket before the prefix"),
    ("gs://bucket?anonymous=yes", "anonymous must be true or false"),
    ("gcs://bucket?anonymous=true&credentials=/x", "anonymous and credentials exclude each other"),
    ("gcs://bucket?max_connections=few", "max_connections must be a number from 1 to 999999999"),
    ("gcs://bucket?endpoint=ftp://host", "an endpoint must be"),
    ("gcs://bucket?region=EU", "unknown option 'region'"),
    (
        "ftp://host/",
        "unknown scheme 'ftp': known schemes are file, gcs, gs, local, mem, memory, s3",
    ),
]


@pytest.mark.parametrize(("url", "message"), INVALID_URLS)
def test_invalid_url_raises_a_one_line_message(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        driver_from_url(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "s3://KEY:SECRET@eu-west-1/bucket?color=SECRET",
        "s3://KEY:SECRET@eu-west-1/?endpoint=https://KEY:SECRET@host",
        "s3://KEY:SECRET@",
        "s3://KEYSECRET@bucket",
        "s3://KEY:SECRET/SECRET@eu-west-1/bucket",
        "gcs://bucket?credentials=KEY&secret=SECRET",
        "gcs://bucket?endpoint=https://KEY:SECRET@host",
        "file://KEY:SECRET@host/data",
        "local:///data?fsync=SECRET",
        "mem://KEY:SECRET@x",
        "file:///x?fsync=false&fsync=SECRET",
        "KEY:SECRET@host",
        "file://KEY:SECRET@[/",
    ],
)
def test_message_shows_no_credentials(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        driver_from_url(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert "SECRET" not in str(error)
        assert "KEY" not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize("mode", ["0640", "640", "0o640"])
def test_file_permissions_are_options(mode: str) -> None:
    driver = driver_from_url(f"file:///data?file_mode={mode}&dir_mode=0750&threads=2&max_reads=3")
    assert isinstance(driver, LocalDriver)
    assert (driver._settings.file_mode, driver._settings.dir_mode) == (0o640, 0o750)
    assert driver.capabilities.max_reads == 3


def test_path_object_is_not_a_url() -> None:
    with pytest.raises(TypeError, match="PosixPath"):
        driver_from_url(Path("/data"))  # type: ignore[arg-type]  # the wrong type


@pytest.mark.parametrize("url", ["mem://", "memory://", "MEM://", "mem:///"])
def test_each_memory_url_creates_a_new_backend(url: str) -> None:
    driver = driver_from_url(url)
    assert isinstance(driver, MemoryDriver)
    assert driver_from_url(url) is not driver


def test_parts_of_a_url_are_decoded_and_hidden_in_the_repr() -> None:
    parts = SplitURL.of("x+y://ho%20st/a%2Fb%3F?c=%26+&d=")
    assert parts == SplitURL(
        scheme="x+y",
        host="ho st",
        netloc="ho%20st",
        path="/a/b?",
        options={"c": "&+", "d": ""},
    )
    assert SplitURL.of("x://a%40b@c").netloc == "a%40b@c"
    assert repr(parts) == "SplitURL(scheme='x+y')"


def test_drivers_are_imported_lazily() -> None:
    script = (
        "import sys, trove_async.drivers as d\n"
        "loaded = lambda: {m for m in sys.modules if m.startswith('trove_async.drivers.') and m != 'trove_async.drivers._urls'}\n"
        "assert not loaded(), loaded()\n"
        "d.MemoryDriver\n"
        "assert loaded() == {'trove_async.drivers.memory'}, loaded()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)  # noqa: S603 - our own interpreter


WITHOUT_EXTRAS = """
import inspect, pydoc, sys
sys.modules[{missing!r}] = None
import trove_async.drivers as drivers
from trove_async import Trove
from trove_async.drivers import *
assert hasattr(drivers, {driver!r})
assert {driver!r} in dict(inspect.getmembers(drivers))
assert "LocalDriver" in pydoc.render_doc(drivers)
assert MemoryDriver().name == "memory"
for use in (lambda: getattr(drivers, {driver!r})(), lambda: Trove({url!r})):
    try:
        use()
    except ImportError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("driver", "url", "missing", "extra"),
    [
        ("S3Driver", "s3://bucket", "aiobotocore", "s3"),
        ("S3Driver", "s3://bucket", "aiohttp", "s3"),
        ("GCSDriver", "gcs://bucket", "gcloud", "gcs"),
        ("GCSDriver", "gcs://bucket", "aiohttp", "gcs"),
    ],
)
def test_missing_extra_is_named_when_the_driver_is_used(
    driver: str, url: str, missing: str, extra: str
) -> None:
    script = WITHOUT_EXTRAS.format(driver=driver, url=url, missing=missing)
    completed = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert (completed.returncode, completed.stderr) == (0, "")
    message = f"trove_async.drivers.{extra} needs {missing}: pip install 'trove-async[{extra}]'\n"
    assert completed.stdout == message * 2


def test_module_lists_its_drivers() -> None:
    assert set(drivers.__all__) <= set(dir(drivers))
    with pytest.raises(AttributeError, match="NoDriver"):
        _ = drivers.NoDriver


class Plugin:
    url: str

    @classmethod
    def from_url(cls, url: str) -> MemoryDriver:
        cls.url = url
        return MemoryDriver()


def make_no_driver(_url: str) -> int:
    return 1


not_callable = 7


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that installs distributions with entry points, as pip would."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "installed_plugin", sys.modules[__name__])

    def register(**schemes: str) -> None:
        for number, (scheme, value) in enumerate(schemes.items()):
            info = tmp_path / f"plugin{number}_{len(list(tmp_path.iterdir()))}-1.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Name: {info.name}\nVersion: 1\n")
            (info / "entry_points.txt").write_text(f"[trove_async.drivers]\n{scheme} = {value}\n")
        invalidate_caches()

    return register


def test_entry_point_adds_a_scheme(install: Callable[..., None]) -> None:
    install(plug="installed_plugin:Plugin", func="installed_plugin:Plugin.from_url")
    assert isinstance(driver_from_url("plug://a?b#c"), MemoryDriver)
    assert Plugin.url == "plug://a?b#c"
    assert isinstance(driver_from_url("FUNC://a"), MemoryDriver)
    with pytest.raises(
        ConfigError, match=r"known schemes are file, func, gcs, gs, local, mem, memory, plug, s3$"
    ):
        driver_from_url("other://a")


def test_entry_point_cannot_replace_a_built_in_scheme(install: Callable[..., None]) -> None:
    install(mem="installed_plugin:make_no_driver")
    assert isinstance(driver_from_url("mem://"), MemoryDriver)


def test_scheme_that_two_packages_register_is_rejected(install: Callable[..., None]) -> None:
    install(plug="installed_plugin:Plugin")
    install(plug="installed_plugin:Plugin")
    assert isinstance(driver_from_url("plug://"), MemoryDriver)
    install(plug="installed_plugin:Plugin.from_url")
    with pytest.raises(ConfigError, match="several packages"):
        driver_from_url("plug://")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("installed_plugin:make_no_driver", "must return a driver, got int"),
        ("installed_plugin:not_callable", "must be callable or have a from_url"),
        ("installed_plugin:missing", "cannot be imported"),
        ("no_such_package_at_all:Driver", "cannot be imported"),
    ],
)
def test_invalid_entry_point_is_named_in_the_message(
    install: Callable[..., None], value: str, message: str
) -> None:
    install(plug=value)
    with pytest.raises(ConfigError, match=message) as caught:
        driver_from_url("plug://")
    assert value in str(caught.value)


def test_url_with_a_bucket_maps_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = MemoryDriver()
    monkeypatch.setitem(
        vars(urls)["_SCHEMES"],
        "cloud",
        lambda url: Address(driver=inner, into=url.host, prefix=url.path[1:]),
    )
    assert address_from_url("cloud://acme/team").into == "acme"
    layer = driver_from_url("cloud://acme/team")
    assert isinstance(layer, Mapped)
    assert layer.place("data", "key") == inner.place("acme", "team/data/key")


@pytest.mark.parametrize(
    ("url", "region", "into", "prefix"),
    [
        ("s3://bucket", None, "bucket", ""),
        ("s3://bucket/", None, "bucket", ""),
        ("s3://bucket/a/b", None, "bucket", "a/b"),
        ("S3://bucket?region=eu-west-1", "eu-west-1", "bucket", ""),
        ("s3://eu-west-1", "eu-west-1", None, ""),
        ("s3://eu-west-1/", "eu-west-1", None, ""),
        ("s3://us-gov-west-1/bucket/a", "us-gov-west-1", "bucket", "a"),
        ("s3://bucket/eu-west-1", None, "bucket", "eu-west-1"),
        ("s3://key:secret@bucket/a", None, "bucket", "a"),
    ],
)
def test_s3_url_names_a_bucket_or_a_region(
    url: str, region: str | None, into: str | None, prefix: str
) -> None:
    address = address_from_url(url)
    assert isinstance(address.driver, S3Driver)
    assert address.driver._identity.region == region
    assert (address.into, address.prefix) == (into, prefix)


def test_s3_url_options_reach_the_driver() -> None:
    options = (
        "endpoint=http%3A%2F%2Flocalhost%3A9000&path_style=true&max_connections=7&profile=p"
        "&role_arn=arn:aws:iam::1:role/r&dialect=s3&expected_bucket_owner=123&payload_signing=false"
    )
    driver = address_from_url(f"s3://KEY:a%2Fb+c%3Ad@us-east-1/?{options}").driver
    assert isinstance(driver, S3Driver)
    identity = driver._identity
    assert (identity.access_key_id, identity.secret_access_key) == ("KEY", "a/b+c:d")
    assert (identity.endpoint_url, identity.profile) == ("http://localhost:9000", "p")
    assert identity.role_arn == "arn:aws:iam::1:role/r"
    assert driver.capabilities.max_reads == 7
    assert driver._settings.addressing_style == "path"
    assert driver._settings.payload_signing is False
    assert "a/b" not in repr(identity)
    assert "KEY" not in repr(identity)


def proxy_settings(driver: Any) -> tuple[str | None, bool]:
    """Return the URL of a driver's proxy, and whether it uses proxies from the environment."""
    if isinstance(driver, S3Driver):
        return driver._settings.proxy_url, driver._settings.trust_env
    return driver._proxy_url, driver._trust_env


@pytest.mark.parametrize("url", ["s3://bucket?", "gcs://bucket?"])
def test_proxy_is_an_option(url: str) -> None:
    driver: Any = address_from_url(f"{url}proxy=http%3A%2F%2Fme%3Asecret%40h%3A3128").driver
    assert proxy_settings(driver) == ("http://me:secret@h:3128", True)
    driver = address_from_url(f"{url}trust_env=false").driver
    assert proxy_settings(driver) == (None, False)
    with pytest.raises(ConfigError, match="socks5") as caught:
        address_from_url(f"{url}proxy=socks5%3A%2F%2Fme%3ASECRET%40h")
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "into", "prefix"),
    [
        ("gcs://bucket", "bucket", ""),
        ("gs://bucket/a/b", "bucket", "a/b"),
        ("GCS://bucket/", "bucket", ""),
        ("gcs://?project=p", None, ""),
    ],
)
def test_gcs_url_may_name_a_bucket(url: str, into: str | None, prefix: str) -> None:
    address = address_from_url(url)
    assert isinstance(address.driver, GCSDriver)
    assert (address.into, address.prefix) == (into, prefix)


def test_gcs_url_options_reach_the_driver() -> None:
    options = (
        "credentials=%2Fpath%2Fto%2Fsa.json&project=p&endpoint=http://localhost:4443"
        "&anonymous=false&location=EU&max_connections=7"
    )
    driver = address_from_url(f"gcs://?{options}").driver
    assert isinstance(driver, GCSDriver)
    identity = driver._identity
    assert (identity.credentials.reveal(), identity.project) == ("/path/to/sa.json", "p")
    assert driver.place("b", "k") == GCSDriver(endpoint_url="http://localhost:4443").place("b", "k")
    assert driver.capabilities.max_reads == 7
    assert driver.capabilities.presign
    assert driver._location == "EU"
    assert "sa.json" not in repr(identity)


def is_directory(path: str) -> bool:
    return Path(path).is_dir()


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("file:///{root}", "{root}"),
        ("file://localhost/{root}", "{root}"),
        ("local:///{root}", "{root}"),
        ("FILE:///{root}?fsync=false&mkdir=true", "{root}"),
        ("file:///{root}/a%23b%25", "{root}/a#b%"),
        ("local://./here", "./here"),
        ("local://here/b", "here/b"),
        ("local://../here", "../here"),
    ],
)
async def test_file_url_stores_in_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, root: str
) -> None:
    # Check the directory on disk, not private attributes of the driver.
    from trove_async.testing import opened  # noqa: PLC0415 - used in this test only

    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    base = str(tmp_path / "root")
    async with opened(driver_from_url(url.format(root=base.lstrip("/")))) as driver:
        assert driver.name == "local"
        await driver.create_bucket("bucket")
    assert is_directory(root.format(root=base))


def test_lazily_imported_names_are_the_drivers() -> None:
    for name in drivers.__all__:
        driver = getattr(drivers, name)
        assert driver.__name__ == name
        assert getattr(import_module(driver.__module__), name) is driver


OUTSIDE_THE_QUERY = {
    "s3": {
        "region",
        "access_key_id",
        "secret_access_key",
    },  # the host, and the text before "@"
    "gcs": set(),
    "file": {"root"},
    "mem": set(),
}
"""Arguments that are part of a URL outside its query."""
NOT_IN_URLS = {"tls", "sse_customer_key"}
"""Arguments that a URL cannot carry: an SSL context and a key in bytes."""
OPTION_NAMES = {"endpoint_url": "endpoint"}
VALUES: dict[str, str] = {
    "addressing_style": "path",
    "data_plane": "sdk",
    "dialect": "s3",
    "server_side_encryption": "aws:kms",
    "credentials": "/k.json",
    "endpoint_url": "http://localhost:1",
    "proxy": "http://h:1",
    "token_origins": "https://h:1",
    "file_mode": "0640",
    "dir_mode": "0750",
}
PARSED_VALUES = {"7": 7, "0640": 0o640, "0750": 0o750}
URL_STARTS = {"session_token": "s3://KEY:SECRET@us-east-1/"}
REQUIRED_OPTIONS = {
    "kms_key_id": "&server_side_encryption=aws:kms",
    "bucket_key_enabled": "&server_side_encryption=aws:kms",
}


@pytest.mark.parametrize(
    ("scheme", "driver"),
    [("s3", S3Driver), ("gcs", GCSDriver), ("file", LocalDriver), ("mem", MemoryDriver)],
)
def test_every_text_number_or_switch_argument_is_a_url_option(
    scheme: str, driver: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = {"file": "file:///data", "mem": "mem://"}.get(scheme, f"{scheme}://bucket")
    received: dict[str, object] = {}
    init: Any = vars(driver)["__init__"]

    def recording_init(self: object, *args: object, **settings: object) -> None:
        received.update(settings)
        init(self, *args, **settings)

    parameters = signature(driver).parameters
    monkeypatch.setattr(driver, "__init__", recording_init)
    options = parameters.keys() - OUTSIDE_THE_QUERY[scheme] - NOT_IN_URLS
    assert len(options) > 1
    for name in sorted(options):
        annotation = str(parameters[name].annotation)
        value: object = VALUES.get(name, "7" if "int" in annotation else "TEXT")
        if annotation.startswith("bool"):
            value = not parameters[name].default
        received.clear()
        text = quote(str(value).lower() if isinstance(value, bool) else str(value), safe="")
        address_from_url(
            f"{URL_STARTS.get(name, start)}?{OPTION_NAMES.get(name, name)}={text}{REQUIRED_OPTIONS.get(name, '')}"
        )
        assert received[name] == PARSED_VALUES.get(str(value), value), name

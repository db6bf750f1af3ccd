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

BAD = [
    ("", "begins with its scheme"),
    ("/data", "LocalDriver"),
    ("file:/data", "begins with its scheme"),
    ("://x", "begins with its scheme"),
    ("file://", "names no directory"),
    ("local://", "names no directory"),
    ("file://data/hot", "three slashes"),
    ("file:///data?fsync=maybe", "fsync is true or false"),
    ("file:///data?fsync=true&fsync=false", "twice"),
    ("file:///data?fast=true", "unknown option 'fast': there are dir_mode, file_mode, fsync, "),
    ("file:///data?file_mode=rw", "file_mode must be permissions in octal, such as 0640"),
    ("file:///data?dir_mode=0x1ff", "dir_mode must be permissions in octal"),
    ("file:///data?file_mode=0040", "file_mode lets at least the owner in"),
    ("file:///data?threads=0", "threads is a number above 0"),
    ("file:///data?fsync", "malformed"),
    ("file:///%ff", "malformed"),
    ("file:///da%00ta", "NUL"),
    ("file:///data#hot", "%23"),
    ("file:///my data", "%20"),
    ("file:///a\tb", "%20"),
    ("local://[x/y", "malformed"),
    ("mem://name", "nothing follows"),
    ("mem:///name", "nothing follows"),
    ("memory://?size=1", "unknown option 'size': there are max_connections, parallel_parts"),
    ("s3://", "neither a bucket nor a region"),
    ("s3:///prefix", "neither a bucket nor a region"),
    ("s3://eu-west-1/?region=eu-west-2", "its region twice"),
    ("s3://key@bucket", "a colon between"),
    ("s3://:secret@bucket", "a colon between"),
    ("s3://key:@bucket", "a colon between"),
    ("s3://KEY:se/cret@eu-west-1/bucket", "written %2F"),
    ("s3://bucket?path_style=yes", "path_style is true or false"),
    ("s3://bucket?path_style=true&addressing_style=virtual", "addressing_style or path_style, not"),
    ("s3://bucket?max_connections=0", "max_connections is a number above 0"),
    ("s3://bucket?max_connections=-1", "max_connections is a number above 0"),
    ("s3://bucket?dialect=klingon", "dialect is"),
    ("s3://bucket?endpoint=ftp://host", "an endpoint is"),
    ("s3://bucket?endpoint=http://host/path", "an endpoint is"),
    ("s3://bucket?endpoint=http://key:secret@host", "an endpoint is"),
    ("s3://bucket?color=red", "unknown option 'color'"),
    ("gcs:///prefix", "it names no bucket"),
    ("gs://bucket?anonymous=yes", "anonymous is true or false"),
    ("gcs://bucket?anonymous=true&credentials=/x", "anonymous sends no credentials"),
    ("gcs://bucket?max_connections=few", "max_connections is a number above 0"),
    ("gcs://bucket?endpoint=ftp://host", "an endpoint is"),
    ("gcs://bucket?region=EU", "unknown option 'region'"),
    ("ftp://host/", "unknown scheme 'ftp': there are file, gcs, gs, local, mem, memory, s3"),
]


@pytest.mark.parametrize(("url", "why"), BAD)
def test_url_that_cannot_be_used_is_refused_in_one_line(url: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
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
def test_no_message_shows_credentials(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        driver_from_url(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert "SECRET" not in str(error)
        assert "KEY" not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize("mode", ["0640", "640", "0o640"])
def test_permissions_of_files_are_options(mode: str) -> None:
    driver = driver_from_url(f"file:///data?file_mode={mode}&dir_mode=0750&threads=2&max_reads=3")
    assert isinstance(driver, LocalDriver)
    assert (driver._settings.file_mode, driver._settings.dir_mode) == (0o640, 0o750)
    assert driver.capabilities.max_reads == 3


def test_url_is_text() -> None:
    with pytest.raises(TypeError, match="PosixPath"):
        driver_from_url(Path("/data"))  # type: ignore[arg-type]  # what is tested


@pytest.mark.parametrize("url", ["mem://", "memory://", "MEM://", "mem:///"])
def test_memory_urls_make_a_backend_of_their_own(url: str) -> None:
    made = driver_from_url(url)
    assert isinstance(made, MemoryDriver)
    assert driver_from_url(url) is not made


def test_parts_of_a_url_are_decoded_and_hidden() -> None:
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


def test_names_are_imported_when_used() -> None:
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
def test_driver_without_its_extra_names_it_when_it_is_used(
    driver: str, url: str, missing: str, extra: str
) -> None:
    script = WITHOUT_EXTRAS.format(driver=driver, url=url, missing=missing)
    ran = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    why = f"trove_async.drivers.{extra} needs {missing}: pip install 'trove-async[{extra}]'\n"
    assert ran.stdout == why * 2


def test_names_are_listed_and_others_are_missing() -> None:
    assert set(drivers.__all__) <= set(dir(drivers))
    with pytest.raises(AttributeError, match="NoDriver"):
        _ = drivers.NoDriver


class Plugin:
    url: str

    @classmethod
    def from_url(cls, url: str) -> MemoryDriver:
        cls.url = url
        return MemoryDriver()


def no_driver(_url: str) -> int:
    return 1


not_callable = 7


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Install distributions that register entry points, as pip would."""
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
        ConfigError, match=r"there are file, func, gcs, gs, local, mem, memory, plug, s3$"
    ):
        driver_from_url("other://a")


def test_entry_point_cannot_replace_a_built_in_scheme(install: Callable[..., None]) -> None:
    install(mem="installed_plugin:no_driver")
    assert isinstance(driver_from_url("mem://"), MemoryDriver)


def test_scheme_that_two_packages_claim_is_refused(install: Callable[..., None]) -> None:
    install(plug="installed_plugin:Plugin")
    install(plug="installed_plugin:Plugin")
    assert isinstance(driver_from_url("plug://"), MemoryDriver)
    install(plug="installed_plugin:Plugin.from_url")
    with pytest.raises(ConfigError, match="several packages"):
        driver_from_url("plug://")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("installed_plugin:no_driver", "made a int, which is no driver"),
        ("installed_plugin:not_callable", "neither callable"),
        ("installed_plugin:missing", "cannot be imported"),
        ("no_such_package_at_all:Driver", "cannot be imported"),
    ],
)
def test_entry_point_that_makes_no_driver_is_named(
    install: Callable[..., None], value: str, why: str
) -> None:
    install(plug=value)
    with pytest.raises(ConfigError, match=why) as caught:
        driver_from_url("plug://")
    assert value in str(caught.value)


def test_url_that_names_a_bucket_is_mapped_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_s3_url_says_all_that_the_driver_takes() -> None:
    options = (
        "endpoint=http%3A%2F%2Flocalhost%3A9000&path_style=true&max_connections=7&profile=p"
        "&role_arn=arn:aws:iam::1:role/r&dialect=s3&expected_bucket_owner=123&payload_signing=false"
    )
    driver = address_from_url(f"s3://KEY:a%2Fb+c%3Ad@us-east-1/?{options}").driver
    assert isinstance(driver, S3Driver)
    told = driver._identity
    assert (told.access_key_id, told.secret_access_key) == ("KEY", "a/b+c:d")
    assert (told.endpoint_url, told.profile) == ("http://localhost:9000", "p")
    assert told.role_arn == "arn:aws:iam::1:role/r"
    assert driver.capabilities.max_reads == 7
    assert driver._addressing == "path"
    assert driver._payload_signing is False
    assert "a/b" not in repr(told)
    assert "KEY" not in repr(told)


@pytest.mark.parametrize("url", ["s3://bucket?", "gcs://bucket?"])
def test_url_says_by_which_proxy(url: str) -> None:
    driver: Any = address_from_url(f"{url}proxy=http%3A%2F%2Fme%3Asecret%40h%3A3128").driver
    assert (driver._proxy_url, driver._trust_env) == ("http://me:secret@h:3128", True)
    driver = address_from_url(f"{url}trust_env=false").driver
    assert (driver._proxy_url, driver._trust_env) == (None, False)
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
def test_gcs_url_names_a_bucket_or_none(url: str, into: str | None, prefix: str) -> None:
    address = address_from_url(url)
    assert isinstance(address.driver, GCSDriver)
    assert (address.into, address.prefix) == (into, prefix)


def test_gcs_url_says_all_that_the_driver_takes() -> None:
    options = (
        "credentials=%2Fpath%2Fto%2Fsa.json&project=p&endpoint=http://localhost:4443"
        "&anonymous=false&location=EU&max_connections=7"
    )
    driver = address_from_url(f"gcs://?{options}").driver
    assert isinstance(driver, GCSDriver)
    told = driver._identity
    assert (told.credentials.reveal(), told.project) == ("/path/to/sa.json", "p")
    assert driver.place("b", "k") == GCSDriver(endpoint_url="http://localhost:4443").place("b", "k")
    assert driver.capabilities.max_reads == 7
    assert driver.capabilities.presign
    assert driver._location == "EU"
    assert "sa.json" not in repr(told)


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
async def test_directories_keep_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, root: str
) -> None:
    # By what lands on disk: the driver's own attributes are its own.
    from trove_async.testing import opened  # noqa: PLC0415 - with its driver only

    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    base = str(tmp_path / "root")
    async with opened(driver_from_url(url.format(root=base.lstrip("/")))) as driver:
        assert driver.name == "local"
        await driver.create_bucket("bucket")
    assert is_directory(root.format(root=base))


def test_lazy_names_are_the_drivers() -> None:
    for name in drivers.__all__:
        made = getattr(drivers, name)
        assert made.__name__ == name
        assert getattr(import_module(made.__module__), name) is made


ELSEWHERE = {
    "s3": {
        "region",
        "access_key_id",
        "secret_access_key",
    },  # where it looks like a region's or a user's
    "gcs": set(),
    "file": {"root"},
    "mem": set(),
}
"""Arguments that stand in a URL beside its options."""
NO_TEXT = {"tls", "sse_customer_key"}
"""Arguments that are neither text nor a number: contexts, and keys in bytes."""
CALLED = {"endpoint_url": "endpoint"}
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
READ_AS = {"7": 7, "0640": 0o640, "0750": 0o750}
STARTS = {"session_token": "s3://KEY:SECRET@us-east-1/"}
NEEDS = {
    "kms_key_id": "&server_side_encryption=aws:kms",
    "bucket_key_enabled": "&server_side_encryption=aws:kms",
}


@pytest.mark.parametrize(
    ("scheme", "driver"),
    [("s3", S3Driver), ("gcs", GCSDriver), ("file", LocalDriver), ("mem", MemoryDriver)],
)
def test_every_argument_that_is_text_or_a_number_is_an_option_of_urls(
    scheme: str, driver: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = {"file": "file:///data", "mem": "mem://"}.get(scheme, f"{scheme}://bucket")
    given: dict[str, object] = {}
    made: Any = vars(driver)["__init__"]

    def note(self: object, *args: object, **settings: object) -> None:
        given.update(settings)
        made(self, *args, **settings)

    parameters = signature(driver).parameters
    monkeypatch.setattr(driver, "__init__", note)
    options = parameters.keys() - ELSEWHERE[scheme] - NO_TEXT
    assert len(options) > 1
    for name in sorted(options):
        kind = str(parameters[name].annotation)
        value: object = VALUES.get(name, "7" if "int" in kind else "TEXT")
        if kind.startswith("bool"):
            value = not parameters[name].default
        given.clear()
        written = quote(str(value).lower() if isinstance(value, bool) else str(value), safe="")
        address_from_url(
            f"{STARTS.get(name, start)}?{CALLED.get(name, name)}={written}{NEEDS.get(name, '')}"
        )
        assert given[name] == READ_AS.get(str(value), value), name

"""What the SDK would find in the environment, without importing it.

The SDK takes half a second to import and to resolve an endpoint. In a container, and on a command line, most
programs have their access key and region in the environment. The functions here return what the SDK returns in
the cases that the environment alone decides, and None in all others, in which the SDK is asked.

Names and precedence: AWS SDKs and Tools Reference Guide, "Environment variables", "Service-specific endpoints",
and botocore's `configprovider`.
"""

from __future__ import annotations

import os
import re
from typing import Final

from ._sigv4 import Credentials

_PROFILES: Final = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")

_TOKENS: Final = ("AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
"""The variables of a session token. The first one that is set counts."""

_FILES: Final = {
    "AWS_CONFIG_FILE": "~/.aws/config",
    "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
}
"""The variables that name the SDK's files, and their defaults. Both may contain a region and an endpoint."""

_ENDPOINT_SWITCHES: Final = (
    "AWS_DEFAULTS_MODE",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_USE_FIPS_ENDPOINT",
)
"""Variables with which the SDK decides about the endpoint in further ways. It refuses some empty values."""

_COMMERCIAL_REGION: Final = re.compile(
    r"(?:af|ap|ca|eu|il|me|mx|sa|us)-(?:central|east|north|northeast|south|southeast|west)-[1-9]"
).fullmatch
"""Regions of the partition "aws". Its endpoints are in the domain amazonaws.com."""

_GLOBAL_REGION: Final = "us-east-1"


def environment_endpoint(region: str | None, url: str | None) -> tuple[str, str] | None:
    """Return the region and the endpoint's URL, or None if the SDK must decide.

    Blocks, because it looks for files.

    Args:
        region: The region that the user has passed.
        url: The URL that the user has passed.
    """
    environment = os.environ
    if _names_profile() or any(name in environment for name in _ENDPOINT_SWITCHES) or _has_files():
        return None
    region = region or environment.get("AWS_DEFAULT_REGION") or _GLOBAL_REGION
    url = url or environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    if url:
        return region, url
    if not _COMMERCIAL_REGION(region):
        return None
    host = "s3" if region == _GLOBAL_REGION else f"s3.{region}"
    return region, f"https://{host}.amazonaws.com"


def environment_credentials() -> Credentials | None:
    """Return the access key in the environment, which precedes all other sources, or None."""
    environment = os.environ
    if _names_profile() or environment.get("AWS_CREDENTIAL_EXPIRATION"):
        return None
    if not (environment.get("AWS_ACCESS_KEY_ID") and environment.get("AWS_SECRET_ACCESS_KEY")):
        return None
    tokens = [environment[name] for name in _TOKENS if name in environment]
    if not all(tokens):
        return None
    return Credentials(
        environment["AWS_ACCESS_KEY_ID"],
        environment["AWS_SECRET_ACCESS_KEY"],
        tokens[0] if tokens else None,
    )


def _names_profile() -> bool:
    """Return whether a variable names a profile. An empty name is one that does not exist."""
    return any(name in os.environ for name in _PROFILES)


def _has_files() -> bool:
    # As the SDK, with functions that raise nothing: a container's user may lack a home directory, or the
    # permission to read it.
    return any(
        os.path.exists(os.path.expanduser(os.environ.get(name) or default))  # noqa: PTH110, PTH111
        for name, default in _FILES.items()
    )

"""Builds jobs from their names and arguments, on the workers of an executor."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from trove_async.errors import ConfigError
from trove_async.store import Trove

from ._checkpoint import fingerprint
from ._fingerprints import check_description
from ._job import Job
from ._migrate import Migrate
from ._rebalance import Rebalance
from ._reencode import Reencode
from ._repair import Repair
from ._tier import Tier, TierRule
from ._verify import Verify

_OF_THE_STORE: Final = ("routes", "encoding")
"""The entries of `Job.arguments` that describe the store."""


def build_job(
    store: Trove, name: str, arguments: Mapping[str, Any], description: Mapping[str, str]
) -> Job[Any]:
    """Return the job that has this name and these arguments.

    Args:
        store: The worker's store.
        name: `Job.name`.
        arguments: `Job.arguments`, possibly after a round trip through JSON.
        description: The `description_of` the store of the job.

    Raises:
        ConfigError: The job is unknown, or the worker's store has other rules, places or middlewares.
    """
    job = _build(
        store, name, {key: value for key, value in arguments.items() if key not in _OF_THE_STORE}
    )
    if fingerprint(name, job.arguments) != fingerprint(name, arguments):
        raise ConfigError(
            "the store of this worker has other backends or rules: give all workers one configuration"
        )
    check_description(store, job.bucket, description)
    return job


def _build(store: Trove, name: str, arguments: Mapping[str, Any]) -> Job[Any]:
    match name:
        case "rebalance":
            return Rebalance(store, **arguments)
        case "migrate":
            return Migrate(store, **arguments)
        case "reencode":
            return Reencode(store, **arguments)
        case "repair":
            return Repair(store, **arguments)
        case "verify":
            return Verify(store, **arguments)
        case "tier":
            now = arguments["now"]
            return Tier(
                store,
                arguments["bucket"],
                arguments["prefix"],
                [_tier_rule(rule) for rule in arguments["rules"]],
                now=None if now is None else datetime.fromisoformat(now),
                dry_run=arguments["dry_run"],
            )
    raise ConfigError(f"there is no job {name!r}")


def _tier_rule(values: Mapping[str, Any]) -> TierRule:
    after = values["after"]
    return TierRule(
        to=values["to"],
        after=None if after is None else timedelta(seconds=after),
        prefix=values["prefix"],
        larger_than=values["larger_than"],
    )

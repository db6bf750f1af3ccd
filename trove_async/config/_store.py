"""The table of a whole store."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from trove_async.errors import ConfigError
from trove_async.middleware import Inspecting, Middleware
from trove_async.models import Timeout
from trove_async.pool import BufferPool
from trove_async.retry import CircuitBreaker, RetryPolicy
from trove_async.router import Route, RouteFunction
from trove_async.scope import Scope

from ._backends import Backend, driver_of
from ._credentials import Credentials
from ._middleware import AnyMiddleware
from ._problems import collected, message_of
from ._routes import AnyRoute, FunctionRouteTable
from ._tables import Shorthand, Table, located
from ._values import Seconds, Size, problem


class PoolTable(Table):
    """The memory that all transfers share."""

    max_bytes: Size | None = None
    """The size of the pool."""
    part_size: Size | None = None
    """The size of a part of an upload."""
    spill_after: Seconds | None = None
    """For how long a put waits for memory before it uses a temporary file."""
    spill_dir: str | None = None
    """The directory for temporary files."""
    spill_max_bytes: Size | None = None
    """The maximum size of all temporary files."""
    deadline: Seconds | None = None
    """For how long a transfer waits for memory before it fails."""


class BreakerTable(Table):
    """When requests to a failing backend pause."""

    failures: int | None = None
    """The number of consecutive failures after which they pause."""
    duration: Seconds | None = None
    """For how long the failures must have lasted."""
    pause: Seconds | None = None
    """The first pause."""
    max_pause: Seconds | None = None
    """The longest pause."""


def _none_if_false(value: object) -> object:
    return None if value is False or value == "false" else value


class RetryTable(Table):
    """How failed requests are repeated."""

    attempts: int | None = None
    """The maximum number of attempts."""
    base_delay: Seconds | None = None
    """The longest first delay."""
    max_delay: Seconds | None = None
    """The longest delay."""
    budget: int | None = None
    """The number of retries that a backend may have at once."""
    breaker: Annotated[BreakerTable | None, Shorthand(_none_if_false, {"const": False})] = None
    """The circuit breaker. ``false``: none."""

    def policy(self) -> RetryPolicy:
        """Return the policy."""
        options = self.options("breaker")
        if "breaker" in self.model_fields_set:
            breaker = self.breaker
            options["breaker"] = None if breaker is None else CircuitBreaker(**breaker.options())
        return RetryPolicy(**options)


class TimeoutTable(Table):
    """The time limits."""

    connect: Seconds | None = None
    """For a connection."""
    first_byte: Seconds | None = None
    """From the end of a request to the first byte of its response."""
    idle: Seconds | None = None
    """Between two chunks of a body."""
    permit: Seconds | None = None
    """For waiting until a request may be sent."""
    total: Seconds | None = None
    """For a whole operation. Without it, none."""


def _switch_or_auto(value: object) -> object:
    """Check the value here: a union would report each of its types as a problem."""
    known: dict[object, object] = {"auto": "auto", "true": True, "false": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in known:
        return known[value]
    raise problem("must be true, false or 'auto'")


class StoreTable(Table):
    """The configuration of a store of trove_async."""

    default: Backend
    """The default backend."""
    backends: dict[str, Backend] = Field(default_factory=dict)
    """The named backends."""
    credentials: dict[str, Credentials] = Field(default_factory=dict)
    """Credentials that backends refer to by name."""
    routes: list[AnyRoute] = Field(default_factory=list)
    """The routes. The first match wins; functions come first."""
    middleware: list[AnyMiddleware] = Field(default_factory=list)
    """The middlewares, in the order of a put."""
    pool: PoolTable | None = None
    """The memory that all transfers share."""
    retry: RetryTable | None = None
    """How failed requests are repeated."""
    timeout: TimeoutTable | None = None
    """The time limits."""
    locate: Literal["routed", "anywhere"] | None = None
    """Where to look for an object."""
    create_missing_buckets: (
        Annotated[bool | Literal["auto"], BeforeValidator(_switch_or_auto)] | None
    ) = None
    """Whether a put creates a bucket that the default backend has and the object's backend lacks."""

    def arguments(self, source: str) -> dict[str, Any]:
        """Return the arguments of `Trove`.

        Args:
            source: The name of the configuration, for errors.

        Raises:
            ConfigError: Values are not valid. The message contains the path of each.
            ImportError: An extra is missing.
        """
        arguments = self.options(
            "default", "backends", "credentials", "routes", "middleware", "pool", "retry", "timeout"
        )
        problems: list[ConfigError] = []
        # 1. The backends.
        with collected(problems):
            arguments["default"] = driver_of(self.default, "default", self.credentials)
        arguments["backends"] = {}
        for name, backend in self.backends.items():
            with collected(problems):
                driver = driver_of(backend, f"backends.{name}", self.credentials)
                arguments["backends"][name] = driver
        # 2. The rules.
        functions: list[RouteFunction] = []
        routes: list[Route] = []
        for index, route in enumerate(self.routes):
            with collected(problems), located(f"routes.{index}"):
                if not isinstance(route, FunctionRouteTable):
                    routes.append(route.route())
                elif routes:
                    raise problem("functions are asked before all other routes: list them first")
                else:
                    functions.append(route.route_function())
        arguments |= {"routes": routes, "route_functions": functions}
        middleware: list[Middleware | Inspecting | tuple[Middleware | Inspecting, Scope]] = []
        for index, table in enumerate(self.middleware):
            with collected(problems), located(f"middleware.{index}"):
                made = table.middleware(self.credentials)
                middleware.append(made if table.scope is None else (made, table.scope.scope()))
        arguments["middleware"] = middleware
        # 3. The policies.
        if self.pool is not None:
            with collected(problems), located("pool"):
                arguments["pool"] = BufferPool(**self.pool.options())
        if self.retry is not None:
            with collected(problems), located("retry"):
                arguments["retry"] = self.retry.policy()
        if self.timeout is not None:
            with collected(problems), located("timeout"):
                arguments["timeout"] = Timeout(**self.timeout.options())
        # 4. The problems of all of them.
        if problems:
            message = message_of(source, [error.message for error in problems])
            raise ConfigError(message) from problems[0].__cause__
        return arguments

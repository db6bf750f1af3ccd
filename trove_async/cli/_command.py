"""Turns an async function into a command: common options, interrupts, exit codes."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Final, get_type_hints

import typer

from trove_async.errors import (
    BucketNotFoundError,
    NotFoundError,
    NotSupportedError,
    TroveError,
)

from ._output import Output
from ._places import Connection, Object, Place, Places

FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
INTERRUPTED: Final = 128 + signal.SIGINT
TERMINATED: Final = 128 + signal.SIGTERM
BROKEN_PIPE: Final = 128 + signal.SIGPIPE


class UsageProblem(Exception):  # noqa: N818 - it is reported, not caught by programs
    """Raised for arguments with which a command cannot run. The message contains the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Common:
    """The options of every command."""

    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            "-C",
            envvar="TROVE_CONFIG",
            help="Configuration file (TOML).",
            metavar="FILE",
        ),
    ] = None
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Use this backend of the configuration only; nothing is routed."
        ),
    ] = None
    endpoint_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="URL of the service, for s3:// and gcs:// arguments."),
    ] = None
    region: Annotated[
        str | None, typer.Option(metavar="NAME", help="Region, for s3:// arguments.")
    ] = None
    profile: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Profile of the AWS configuration, for s3:// arguments."),
    ] = None
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")] = (
        False
    )
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Print every change, and log requests that failed."),
    ] = False


class Session:
    """What one run of a command uses.

    Attributes:
        output: Prints results and errors.
    """

    def __init__(self, output: Output, connection: Connection, stack: AsyncExitStack) -> None:
        self.output = output
        self._connection = connection
        self._places = Places(connection)
        self._stack = stack
        self._opened: set[int] = set()

    @property
    def config(self) -> str | None:
        """The path of the configuration."""
        return self._connection.config

    def connect(self, *, limit_rate: float | None, resume: bool = False) -> None:
        """Set options of all transfers. Call it before `locate`.

        Args:
            limit_rate: The maximum number of bytes a second.
            resume: Whether interrupted uploads are kept and continued.
        """
        connection = replace(self._connection, limit_rate=limit_rate, resume=resume)
        self._places = Places(connection)

    async def locate(self, *texts: str) -> list[Place]:
        """Return what arguments name. All are checked before a store is opened for any of them."""
        places = [self._places.parse(text) for text in texts]
        await self._open(places)
        return places

    async def locate_object(self, text: str) -> Object:
        """Return the object or folder that an argument names. A local path is one in a read-only store."""
        place = self._places.readable(self._places.parse(text))
        await self._open([place])
        return place

    async def _open(self, places: Sequence[Place]) -> None:
        for place in places:
            if isinstance(place, Object) and id(place.owner) not in self._opened:
                await self._stack.enter_async_context(place.owner)
                self._opened.add(id(place.owner))


def command(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Return a function with the common options, for typer, that runs an async one and exits with its code.

    Args:
        function: Its first argument is the `Session`, the others are those of the command.
    """
    hints = get_type_hints(function, include_extras=True)
    own = list(inspect.signature(function).parameters.values())[1:]
    common_hints = get_type_hints(_Common, include_extras=True)
    parameters = [one.replace(annotation=hints[one.name]) for one in own]
    parameters += [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=common_hints[field.name],
        )
        for field in fields(_Common)
    ]

    def run(**values: Any) -> None:  # noqa: ANN401 - of all types
        common = _Common(**{field.name: values.pop(field.name) for field in fields(_Common)})
        raise typer.Exit(_run(function, common, values))

    # Typer reads these. `functools.wraps` would lead it to the function's own signature.
    described: Any = run
    described.__doc__ = function.__doc__
    described.__name__ = getattr(function, "__name__", "command")
    described.__signature__ = inspect.Signature(parameters)
    described.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def _run(function: Callable[..., Awaitable[None]], common: _Common, values: dict[str, Any]) -> int:
    """Run a command. Return its exit code."""
    output = Output(as_json=common.json, quiet=common.quiet, verbose=common.verbose)
    connection = Connection(
        config=common.config,
        backend=common.backend,
        endpoint_url=common.endpoint_url,
        region=common.region,
        profile=common.profile,
    )

    termination = _Termination()

    async def main() -> None:
        with termination:
            async with AsyncExitStack() as stack:
                await function(Session(output, connection, stack), **values)

    try:
        asyncio.run(main())
        output.flush()
    except (KeyboardInterrupt, asyncio.CancelledError):
        output.error("terminated" if termination.requested else "interrupted")
        return TERMINATED if termination.requested else INTERRUPTED
    except BrokenPipeError:
        # The reader has closed the pipe. A later write, also by the interpreter at its exit, would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except BaseExceptionGroup as group:
        return max(_report(output, error) for error in _leaves(group))
    except Exception as error:  # noqa: BLE001 - a bug is raised again by `_report`
        return _report(output, error)
    return FAILED if output.failures else 0


def _report(output: Output, error: BaseException) -> int:
    """Print an error that ends the command. Return the exit code.

    Raises:
        BaseException: The error is neither a problem of the arguments nor one of a service: it is a bug.
    """
    if not isinstance(error, (TroveError, UsageProblem, OSError, ImportError, ValueError)):
        raise error
    output.error(describe(error), error)
    return exit_code(error)


def exit_code(error: BaseException) -> int:
    """Return the exit code for an error."""
    if isinstance(error, (NotFoundError, FileNotFoundError)):
        return NOT_FOUND
    # ConfigError, InvalidNameError and PatternError are ValueErrors.
    usage = (UsageProblem, ValueError, NotADirectoryError, NotSupportedError, ImportError)
    return USAGE if isinstance(error, usage) else FAILED


def describe(error: BaseException) -> str:
    """Return an error as one line."""
    if isinstance(error, BucketNotFoundError):
        return f"the bucket {error.bucket!r} does not exist: create it with trove mb"
    if isinstance(error, OSError) and not isinstance(error, TroveError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    text = str(error) or type(error).__name__
    return " ".join(text.split()) if isinstance(error, TroveError) else text


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves


class _Termination:
    """Cancels the task on SIGTERM, so that it cleans up as after Ctrl-C.

    Attributes:
        requested: Whether the signal has arrived.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task

        def terminate() -> None:
            self.requested = True
            task.cancel()

        with suppress(NotImplementedError, RuntimeError, ValueError):  # not in the main thread
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)

    def __exit__(self, *_: object) -> None:
        with suppress(NotImplementedError, RuntimeError, ValueError):
            asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)

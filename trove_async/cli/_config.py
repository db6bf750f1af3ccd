"""``config check``, ``config schema`` and ``version``."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from typing import Annotated

import typer

import trove_async

from ._command import Session, UsageProblem, command

config = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@config.callback()
def _group() -> None:
    """Check a configuration file, or print its JSON schema."""


@config.command("check")
@command
async def _check(
    session: Session,
    file: Annotated[
        str, typer.Argument(help="The file. Without it, that of --config.", metavar="FILE")
    ] = "",
) -> None:
    """Show what a configuration sets, where each value comes from, and probable mistakes in its routes.

    Secrets are masked, and no request is sent.
    """
    from trove_async.config import load  # noqa: PLC0415 - pydantic is slow to import

    path = file or session.config
    if path is None:
        raise UsageProblem("name a file, or set TROVE_CONFIG")
    loaded = load(path)
    store = trove_async.Trove(**loaded.arguments())
    output = session.output
    widths = [
        max((len(text) for text in column), default=0) for column in _columns(loaded.settings)
    ]
    for one in loaded.settings:
        output.result(
            f"{one.path:{widths[0]}}  {one.value:{min(widths[1], 60)}}  {one.origin}",
            path=one.path,
            value=one.value,
            origin=one.origin,
        )
    for issue in store.lint_routes():
        output.result(
            f"note: {issue.message}",
            issue=issue.kind,
            route=repr(issue.route),
            message=issue.message,
        )
    output.note(f"{path} is valid: {store!r}")


@config.command("schema")
@command
async def _schema(session: Session) -> None:
    """Print the JSON schema of configurations, with which editors complete and check them."""
    from trove_async.config import json_schema  # noqa: PLC0415 - pydantic is slow to import

    schema = json_schema()
    session.output.result(json.dumps(schema, indent=2), **schema)


@command
async def version(session: Session) -> None:
    """Show the version."""
    session.output.result(
        f"trove_async {trove_async.__version__}, Python {platform.python_version()}",
        version=trove_async.__version__,
        python=platform.python_version(),
    )


def _columns(settings: Sequence[trove_async.config.Setting]) -> tuple[list[str], list[str]]:
    return [one.path for one in settings], [one.value for one in settings]

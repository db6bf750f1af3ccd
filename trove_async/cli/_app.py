"""The group of all commands. It imports a command's module when the command is used."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

_SECTIONS: Final = {
    "Objects": {
        "ls": ("_listing", "List buckets, folders and objects."),
        "tree": ("_listing", "Show folders and objects as a tree."),
        "du": ("_listing", "Sum up the sizes of objects."),
        "stat": ("_listing", "Show everything that is known about an object."),
        "cat": ("_reading", "Write objects to standard output."),
        "head": ("_reading", "Write the beginning of an object to standard output."),
        "cp": ("_transfer", "Copy files and objects, in any direction."),
        "mv": ("_transfer", "Move files and objects, in any direction."),
        "sync": ("_transfer", "Make a directory or folder equal to another one."),
        "rm": ("_removal", "Delete objects."),
        "presign": ("_placement", "Make a URL that allows anyone to get or put an object."),
    },
    "Buckets": {
        "mb": ("_buckets", "Create a bucket."),
        "rb": ("_buckets", "Delete a bucket."),
        "gc-uploads": ("_buckets", "Abort unfinished uploads, which cost storage."),
    },
    "Backends": {
        "explain": ("_placement", "Show which backend a key belongs to, and why."),
        "routes": ("_placement", "Show the routes, and probable mistakes in them."),
        "misplaced": ("_placement", "List the objects that are not where the routes say."),
        "health": ("_placement", "Ping all backends."),
        "doctor": ("_doctor", "Find out what works with a backend, and what does not."),
    },
    "Work over many objects": {
        "rebalance": ("_jobs", "Move every object to the backend that the routes name."),
        "tier": ("_jobs", "Move objects to other backends by age, size and prefix."),
        "migrate": ("_jobs", "Copy or move the objects of one backend to another."),
        "verify": ("_jobs", "Read every object and compare its checksum."),
        "reencode": ("_jobs", "Apply today's middleware: rotate keys, compress."),
        "repair": ("_jobs", "Bring the replicas of a mirrored backend up to date."),
    },
    "Configuration": {
        "config": ("_config", "Check a configuration file, or print its JSON schema."),
        "version": ("_config", "Show the version."),
    },
}
_COMMANDS: Final = {
    name: entry for section in _SECTIONS.values() for name, entry in section.items()
}


class _Commands(TyperGroup):
    """The commands. Their names and summaries are known without importing them."""

    # The classes of the arguments are private to typer.

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | TyperGroup | None:  # noqa: ANN401, ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, summary = _COMMANDS[cmd_name]
        found = getattr(import_module(f".{module}", __package__), cmd_name.replace("-", "_"))
        if isinstance(found, typer.Typer):
            command = get_command(found)
        else:
            single = typer.Typer(add_completion=False, rich_markup_mode=None)
            single.command(cmd_name)(found)
            command = get_command(single)
        command.name, command.short_help = cmd_name, summary
        return cast("TyperCommand | TyperGroup", command)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002
        for section, commands in _SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name, summary) for name, (_, summary) in commands.items()])


_HELP: Final = """Copy, list, move and check objects in S3, Google Cloud Storage and local directories.

Arguments are URLs such as s3://BUCKET/KEY and gcs://BUCKET/KEY, or paths. With --config or TROVE_CONFIG,
BUCKET/KEY is an object of the configured store, which is routed to a backend; write ./PATH for a local path then.
A hyphen (-) is standard input or output."""

app: Final = typer.Typer(
    cls=_Commands,
    help=_HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.callback()
def _group() -> None:
    """Do nothing: the group has no options of its own."""

"""The command line ``trove`` (extra ``[cli]``). ``python -m trove_async`` is the same.

`main` runs it. A command's module is imported when the command is used, so ``trove --help`` imports no store.

`_app`         the group of all commands, and its help
`_command`     turns an async function into a command: common options, interrupts, exit codes
`_options`     the options that several commands share
`_places`      what arguments name: local paths, objects in a store, standard input and output
`_output`      prints results, as text or JSON lines, and errors
`_progress`    progress bars on a terminal, and lines elsewhere
`_throttle`    limits the bytes a second
`_services`    what only some services have
`_work`        runs an action for many objects, some at a time
`_listing`     ``ls``, ``tree``, ``du``, ``stat``
`_reading`     ``cat``, ``head``
`_input`       reads standard input and pipes, so that an interrupt ends the read
`_paths`       checks the paths that keys become
`_transfer`    ``cp``, ``mv``, ``sync``
`_trees`       transfers of directories and folders
`_files`       single transfers: files, standard input and output
`_partial_file`  the file of an interrupted download
`_removal`     ``rm``
`_buckets`     ``mb``, ``rb``, ``gc-uploads``
`_placement`   ``explain``, ``routes``, ``misplaced``, ``presign``, ``health``
`_jobs`        ``rebalance``, ``tier``, ``migrate``, ``verify``, ``reencode``, ``repair``
`_doctor`      ``doctor``
`_config`      ``config check``, ``config schema``

**Exit codes.** 0: everything was done. 1: something failed; each failure is named. 2: wrong usage or
configuration. 3: what was named does not exist. 130: interrupted. 143: terminated. 141: the reader of the output is
gone.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line, and exit."""
    # Typer uses pydantic, which would look for plugins in every installed package: 20 ms.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    if sys.stdout is None:  # it was closed by the caller
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - until the end
    try:
        from ._app import app  # noqa: PLC0415 - typer is an extra
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("trove_async"):
            raise
        sys.exit(f"trove: {error.name} is missing: pip install 'trove-async[cli]'")
    except KeyboardInterrupt:
        sys.exit(130)
    app()

"""Checks of the paths that keys become below a directory."""

from __future__ import annotations

import os
from pathlib import Path

from trove_async._concurrency import in_thread
from trove_async.errors import InvalidNameError
from trove_async.jobs._sync.paths import check_path


class Paths:
    """The paths below a directory. No key leads out of it, and none becomes the path of another key.

    Args:
        directory: The directory.
    """

    def __init__(self, directory: object) -> None:
        self._directory = str(directory)

    async def check(self, key: str) -> None:
        """Check the path of a key.

        Raises:
            InvalidNameError: It is no path of a file below the directory, or a link is in the way.
        """
        check_path(key)
        if "/" in key:
            await in_thread(self._refuse_links, key)

    def _refuse_links(self, key: str) -> None:
        path = Path(self._directory)
        for segment in key.split("/")[:-1]:
            path /= segment
            if os.path.islink(path):  # noqa: PTH114 - os.path also accepts what lstat refuses
                raise InvalidNameError(f"{path} is a link, so nothing is written below it")

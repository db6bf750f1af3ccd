"""What a refused condition means: the service says the same of all of them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from trove_async.errors import ObjectExistsError, ObjectNotFoundError, PreconditionFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trove_async.models import DeleteOptions, PutOptions


@contextmanager
def conditioned(options: PutOptions | DeleteOptions) -> Iterator[None]:
    """Raise what the contract says of a condition for what the service answers.

    A version that is to be replaced, and is not there at all, is a 404 for AWS (S3 User Guide,
    "How to prevent object overwrites with conditional writes") and a 412 for others.
    """
    try:
        yield
    except PreconditionFailedError as error:
        if getattr(options, "if_none_match", None) is None:
            raise
        raise ObjectExistsError("if_none_match: there is an object of that key") from error
    except ObjectNotFoundError as error:
        if options.if_match is None:
            raise
        raise PreconditionFailedError("if_match: there is no such object") from error

"""Error responses: one table from the store's errors to HTTP statuses.

Bodies are problem details (RFC 9457). They contain the kind of the error, but no backends, names or
services; those are logged.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from trove_async import TroveError, errors

from ._response import ServerResponse

_logger = logging.getLogger("trove_async.integrations")

RETRY_AFTER = 1
"""Minimum Retry-After in seconds, also used if the service sent none."""

_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class Problem:
    """The status and the detail of the response for one class of errors."""

    status: int
    detail: str


PROBLEMS: Mapping[type[TroveError], Problem] = {
    errors.TroveError: Problem(500, "The object store failed."),
    errors.NotFoundError: Problem(404, "There is no such thing."),
    errors.ObjectNotFoundError: Problem(404, "There is no such object."),
    errors.BucketNotFoundError: Problem(404, "There is no such bucket."),
    errors.BackendNotFoundError: Problem(500, "The object store is set up wrongly."),
    errors.AlreadyExistsError: Problem(409, "It exists already."),
    errors.ObjectExistsError: Problem(409, "The object exists already."),
    errors.BucketExistsError: Problem(409, "The bucket exists already."),
    errors.PreconditionFailedError: Problem(412, "The object is not in the state asked for."),
    errors.ObjectChangedError: Problem(409, "The object was changed meanwhile."),
    errors.BucketNotEmptyError: Problem(409, "The bucket is not empty."),
    errors.PermissionDeniedError: Problem(403, "The object store refuses access."),
    errors.UnauthenticatedError: Problem(502, "The object store does not know this service."),
    errors.InvalidNameError: Problem(400, "No object can have such a name or header."),
    errors.PatternError: Problem(500, "The object store is set up wrongly."),
    errors.CursorError: Problem(400, "This is no cursor of this listing."),
    errors.ConfigError: Problem(500, "The object store is set up wrongly."),
    errors.NotSupportedError: Problem(501, "The object store cannot do this."),
    errors.RangeError: Problem(416, "The object has no such range."),
    errors.IntegrityError: Problem(502, "The object arrived damaged."),
    errors.StorageFullError: Problem(507, "There is no room left."),
    errors.StreamError: Problem(500, "The object store failed."),
    errors.ClosedError: Problem(503, "The service is starting or stopping."),
    errors.BodyConsumedError: Problem(500, "The object store failed."),
    errors.BackendError: Problem(502, "The object store failed."),
    errors.UnavailableError: Problem(503, "The object store is not available now."),
    errors.TimedOutError: Problem(504, "The object store did not answer in time."),
    errors.PoolTimeoutError: Problem(503, "The service is busy."),
}
"""Covers every class of `trove_async.errors`. A backend that throttles this service is a 503, not a
429, because the client is not the cause."""


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, *, close: bool = False
) -> ServerResponse:
    """Return a problem details response. For `close`, see `ServerResponse`."""
    phrase = HTTPStatus(status).phrase
    content = json.dumps(
        {"type": "about:blank", "title": phrase, "status": status, "detail": detail}
    ).encode()
    return ServerResponse(
        status=status,
        headers={
            **(headers or {}),
            "Content-Type": "application/problem+json",
            "Content-Length": str(len(content)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        },
        content=content,
        close=close,
    )


def problem_of(error: TroveError) -> ServerResponse:
    """Return the response for an error of the store. Log the error if its status is 5xx."""
    found = next(PROBLEMS[cls] for cls in type(error).__mro__ if cls in PROBLEMS)
    if found.status >= _SERVER_ERROR:
        _logger.warning("answered with %d: %s", found.status, error, exc_info=error)
    headers = {}
    if found.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(max(math.ceil(error.retry_after or 0), RETRY_AFTER))
    return problem(found.status, found.detail, headers)

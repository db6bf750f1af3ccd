"""Error responses: one table from the errors of the store to HTTP statuses.

Bodies are problem details (RFC 9457), which describe only the kind of the error. The names of backends,
buckets and keys, and the messages of services, are not sent. For a 5xx, they are logged.
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
"""Minimum Retry-After in seconds, also used if the service of the backend sent none."""

_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class Problem:
    """The status and the detail of the response for one class of errors."""

    status: int
    detail: str


PROBLEMS: Mapping[type[TroveError], Problem] = {
    errors.TroveError: Problem(500, "The object store failed."),
    errors.NotFoundError: Problem(404, "The resource does not exist."),
    errors.ObjectNotFoundError: Problem(404, "The object does not exist."),
    errors.BucketNotFoundError: Problem(404, "The bucket does not exist."),
    errors.BackendNotFoundError: Problem(500, "The object store is misconfigured."),
    errors.AlreadyExistsError: Problem(409, "The resource already exists."),
    errors.ObjectExistsError: Problem(409, "The object already exists."),
    errors.BucketExistsError: Problem(409, "The bucket already exists."),
    errors.PreconditionFailedError: Problem(
        412, "The object does not meet the conditions of the request."
    ),
    errors.ObjectChangedError: Problem(409, "The object changed during the request."),
    errors.BucketNotEmptyError: Problem(409, "The bucket is not empty."),
    errors.PermissionDeniedError: Problem(403, "The object store denied access."),
    errors.UnauthenticatedError: Problem(
        502, "The object store rejected the credentials of this service."
    ),
    errors.InvalidNameError: Problem(400, "The name or a header of the object is invalid."),
    errors.PatternError: Problem(500, "The object store is misconfigured."),
    errors.CursorError: Problem(400, "The cursor does not belong to this listing."),
    errors.ConfigError: Problem(500, "The object store is misconfigured."),
    errors.NotSupportedError: Problem(501, "The object store does not support this operation."),
    errors.RangeError: Problem(416, "The range is outside the object."),
    errors.IntegrityError: Problem(502, "The object store sent a damaged object."),
    errors.DecryptionError: Problem(502, "The object cannot be decrypted."),
    errors.ContentBlockedError: Problem(422, "The content of the object was rejected."),
    errors.StorageFullError: Problem(507, "The object store is full."),
    errors.StreamError: Problem(500, "The object store failed."),
    errors.ClosedError: Problem(503, "The service is starting or stopping."),
    errors.BodyConsumedError: Problem(500, "The object store failed."),
    errors.BackendError: Problem(502, "The object store failed."),
    errors.UnavailableError: Problem(503, "The object store is temporarily unavailable."),
    errors.TimedOutError: Problem(504, "The object store did not respond in time."),
    errors.PoolTimeoutError: Problem(503, "The service is busy."),
}
"""The response to every class of `trove_async.errors`. If a backend throttles this service, the client
gets a 503, not a 429, because the client is not the cause."""


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


def problem_for(error: TroveError) -> ServerResponse:
    """Return the response to an error of the store. Log the error if the status is 5xx."""
    # A subclass from another package has the problem of its nearest base class.
    entry = next(PROBLEMS[cls] for cls in type(error).__mro__ if cls in PROBLEMS)
    if entry.status >= _SERVER_ERROR:
        _logger.warning("responded with %d: %s", entry.status, error, exc_info=error)
    headers = {}
    if entry.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(max(math.ceil(error.retry_after or 0), RETRY_AFTER))
    return problem(entry.status, entry.detail, headers)

"""Options of gets that read one version of an object, as far as its backend supports this."""

from __future__ import annotations

from trove_async.models import ByteRange, ObjectInfo
from trove_async.options import GetOptions

from .backends import Backend, BackendInfo


def pinned_options(
    backend: Backend | BackendInfo,
    info: ObjectInfo,
    *,
    range: ByteRange | None = None,
    version_id: str | None = None,
) -> GetOptions:
    """Return the options of a get that fails if the object was replaced.

    The pin is a condition, or else the id of the version. A backend may support neither, so the caller must
    also compare the response with `info`.

    Args:
        backend: The backend of the object.
        info: The version to read.
        range: The range of the stored bytes. None: all of them.
        version_id: The id of the version that the user has passed, if any.
    """
    capabilities = backend.capabilities
    pin = info.etag if capabilities.get_conditions else None
    known_id = info.version_id if capabilities.versions and pin is None else None
    return GetOptions(range=range, if_match=pin, version_id=version_id or known_id)

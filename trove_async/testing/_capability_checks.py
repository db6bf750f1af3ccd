"""Assertions that a store uses only what the capabilities of a driver claim.

`Faulty` makes them before it calls the driver. A driver need not handle an option that it does not
claim, because the store refuses it with NotSupportedError. A failure here is a bug in the store.
"""

from __future__ import annotations

from collections.abc import Sequence

from trove_async.driver import Capabilities, PartSource
from trove_async.options import CopyOptions, DeleteOptions, GetOptions, Part, PutOptions


def check_put(claimed: Capabilities, options: PutOptions, views: Sequence[memoryview] = ()) -> None:
    """Raise AssertionError if a put has an unclaimed option or size, or an empty view."""
    assert options.if_none_match in {None, "*"}, "if_none_match of a put must be '*' or None"
    assert options.if_none_match is None or claimed.put_if_none_match, (
        "if_none_match is not claimed"
    )
    assert options.if_match is None or claimed.put_if_match, "if_match is not claimed"
    assert not options.metadata or claimed.metadata, "metadata is not claimed"
    assert not options.tags or claimed.tags, "tags are not claimed"
    assert options.storage_class is None or claimed.storage_class, "storage_class is not claimed"
    assert options.in_doubt_since is None or claimed.settles_doubt, "settles_doubt is not claimed"
    for value in (
        options.content_type,
        options.cache_control,
        options.content_disposition,
        options.content_encoding,
        options.content_language,
    ):
        assert value is None or claimed.headers, "headers are not claimed"
    assert options.expires is None or claimed.expires, "expires is not claimed"
    assert all(len(view) for view in views), "a view is empty"
    size = sum(map(len, views))
    assert size <= claimed.max_put, f"a put of {size} bytes exceeds max_put"
    assert (options.size or 0) <= claimed.max_object, (
        f"an object of {options.size} bytes exceeds max_object"
    )


def check_upload(claimed: Capabilities, options: PutOptions) -> None:
    """Raise AssertionError if an upload, or one of its options, is not claimed."""
    assert claimed.upload, "uploads are not claimed"
    assert claimed.commit_conditions or not options.conditional, "commit_conditions is not claimed"
    assert claimed.upload_tags or not options.tags, "upload_tags is not claimed"
    check_put(claimed, options)


def check_copy(claimed: Capabilities, options: CopyOptions) -> None:
    """Raise AssertionError if a server-side copy, or one of its options, is not claimed."""
    assert claimed.server_copy, "copies are not claimed"
    assert claimed.copy_conditions or not options.put.conditional, "copy_conditions is not claimed"
    assert claimed.copy_tags or not options.put.tags, "copy_tags is not claimed"
    assert options.source.stored_size <= claimed.max_copy, (
        f"a copy of {options.source.stored_size} bytes exceeds max_copy"
    )
    check_put(claimed, options.put)


def check_get(claimed: Capabilities, options: GetOptions) -> None:
    """Raise AssertionError if an option of get is not claimed."""
    assert options.range is None or claimed.ranges, "ranges are not claimed"
    assert options.version_id is None or claimed.versions, "versions are not claimed"
    assert options.if_match is None or claimed.get_conditions, "if_match is not claimed"
    assert options.if_none_match is None or claimed.get_conditions, "if_none_match is not claimed"


def check_delete(claimed: Capabilities, options: DeleteOptions) -> None:
    """Raise AssertionError if an option of delete is not claimed."""
    assert options.version_id is None or claimed.versions, "versions are not claimed"
    assert options.if_match is None or claimed.delete_if_match, "if_match is not claimed"
    assert options.in_doubt_since is None or claimed.settles_doubt, "settles_doubt is not claimed"


def check_part(claimed: Capabilities, part: Part, views: Sequence[memoryview]) -> None:
    """Raise AssertionError if a part violates the limits, or does not match its views."""
    assert all(len(view) for view in views), "a view is empty"
    assert sum(map(len, views)) == part.size, "the views and the part differ in size"
    _check_part(claimed, part)


def check_streamed_part(claimed: Capabilities, part: Part, source: PartSource) -> None:
    """Raise AssertionError if a streamed part is not allowed, or differs in size from its source."""
    assert claimed.streamed_parts, "streamed parts are not claimed"
    assert source.size == part.size, "the source and the part differ in size"
    _check_part(claimed, part)


def _check_part(claimed: Capabilities, part: Part) -> None:
    assert 1 <= part.number <= claimed.max_parts, (
        f"part number {part.number} is not in 1..max_parts"
    )
    assert part.size <= claimed.max_part, f"a part of {part.size} bytes exceeds max_part"
    if not part.last:  # the last part may have any size up to max_part
        assert part.size >= claimed.min_part, (
            f"a part of {part.size} bytes is smaller than min_part"
        )
        assert part.size % claimed.part_multiple == 0, (
            f"a part of {part.size} bytes is not a multiple of part_multiple"
        )

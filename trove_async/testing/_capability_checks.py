"""Assertions that a store requests only what a driver's capabilities claim.

`Faulty` runs them before each call. A driver never needs to handle an option that it does not
claim, because the store refuses it first with NotSupportedError; a failure here is a bug in the
store.
"""

from __future__ import annotations

from collections.abc import Sequence

from trove_async.driver import Capabilities, PartSource
from trove_async.options import CopyOptions, DeleteOptions, GetOptions, Part, PutOptions


def check_put(claimed: Capabilities, options: PutOptions, views: Sequence[memoryview] = ()) -> None:
    """Raise AssertionError for an option of put that is not claimed."""
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
    assert size <= claimed.max_put, f"a put of {size} bytes is not claimed"
    assert (options.size or 0) <= claimed.max_object, (
        f"an object of {options.size} bytes is not claimed"
    )


def check_upload(claimed: Capabilities, options: PutOptions) -> None:
    """Raise AssertionError for an option of an upload that is not claimed."""
    assert claimed.upload, "uploads are not claimed"
    assert claimed.commit_conditions or not options.conditional, "commit_conditions is not claimed"
    assert claimed.upload_tags or not options.tags, "tags of an upload are not claimed"
    check_put(claimed, options)


def check_copy(claimed: Capabilities, options: CopyOptions) -> None:
    """Raise AssertionError for an option of a server-side copy that is not claimed."""
    assert claimed.server_copy, "copies are not claimed"
    assert claimed.copy_conditions or not options.put.conditional, "copy_conditions is not claimed"
    assert claimed.copy_tags or not options.put.tags, "tags of a copy are not claimed"
    assert options.source.stored_size <= claimed.max_copy, (
        f"a copy of {options.source.stored_size} bytes is not claimed"
    )
    check_put(claimed, options.put)


def check_get(claimed: Capabilities, options: GetOptions) -> None:
    """Raise AssertionError for an option of get that is not claimed."""
    assert options.range is None or claimed.ranges, "ranges are not claimed"
    assert options.version_id is None or claimed.versions, "versions are not claimed"
    assert options.if_match is None or claimed.get_conditions, "if_match is not claimed"
    assert options.if_none_match is None or claimed.get_conditions, "if_none_match is not claimed"


def check_delete(claimed: Capabilities, options: DeleteOptions) -> None:
    """Raise AssertionError for an option of delete that is not claimed."""
    assert options.version_id is None or claimed.versions, "versions are not claimed"
    assert options.if_match is None or claimed.delete_if_match, "if_match is not claimed"
    assert options.in_doubt_since is None or claimed.settles_doubt, "settles_doubt is not claimed"


def check_part(claimed: Capabilities, part: Part, views: Sequence[memoryview]) -> None:
    """Raise AssertionError for a part that is not claimed, or that does not match its `Part`."""
    assert all(len(view) for view in views), "a view is empty"
    assert sum(map(len, views)) == part.size, "the views and the part differ in size"
    _check_part(claimed, part)


def check_streamed(claimed: Capabilities, part: Part, source: PartSource) -> None:
    """Raise AssertionError for a streamed part that is not claimed, or that does not match its `Part`."""
    assert claimed.streamed_parts, "streamed parts are not claimed"
    assert source.size == part.size, "the source and the part differ in size"
    _check_part(claimed, part)


def _check_part(claimed: Capabilities, part: Part) -> None:
    assert 1 <= part.number <= claimed.max_parts, f"part number {part.number} is not claimed"
    assert part.size <= claimed.max_part, f"a part of {part.size} bytes is not claimed"
    if not part.last:  # services accept a last part of any size
        assert part.size >= claimed.min_part, f"a part of {part.size} bytes is below min_part"
        assert part.size % claimed.part_multiple == 0, (
            f"a part of {part.size} bytes is not a multiple of part_multiple"
        )

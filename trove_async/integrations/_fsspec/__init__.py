"""The parts of the fsspec filesystem.

`stores`       the store of each event loop, opened on first use
`paths`        paths as bucket and key, and the dicts that describe them
`listings`     directories as prefixes of keys
`reads`        reads of many objects, and byte ranges as fsspec's users write them
`deletions`    deletions of directories and buckets
`files`        the file objects that `open` returns
`async_files`  those that `open_async` returns
`errors`       the builtin exceptions that fsspec promises
"""

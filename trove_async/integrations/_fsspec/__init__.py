"""The parts of the fsspec filesystem.

`stores`       the store of each event loop, opened on first use
`paths`        paths as bucket and key, and the dicts that describe them
`listings`     directories as prefixes of keys
`reads`        byte ranges as fsspec's users write them
`files`        the file objects that `open` returns
`async_files`  those that `open_async` returns
`errors`       the builtin exceptions that fsspec promises
"""

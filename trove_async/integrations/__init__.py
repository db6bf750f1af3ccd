"""Adapters between a store and web frameworks, Django, logging and tracing.

Each public module imports its own framework, so import it by name::

    from trove_async.integrations.starlette import object_response

Public
`starlette`         downloads, uploads, errors and lifespan for FastAPI and Starlette
`aiohttp`           the same for aiohttp.web
`django`            a storage backend for Django
`fsspec`            a filesystem for fsspec, and so for pandas, pyarrow, dask, zarr and others
`upath`             the paths of universal_pathlib, over `fsspec`
`obspec`            the protocols of obspec over a bucket
`otel`              OpenTelemetry spans and metrics
`logs`              logging with the standard library

The parts of a module
`_fsspec`           of `fsspec`
`_obspec`           of `obspec`

Shared by the web frameworks
`_endpoints`        `object_response` and `store_upload`, independent of the framework
`_download`         the response to a GET or HEAD request
`_upload`           storing the body of a request as an object
`_response`         a response before it is converted to the framework's class
`_problem_details`  the response to each class of errors (RFC 9457)
`_conditions`       If-Match and the other conditional headers
`_byteranges`       Range requests and multipart/byteranges bodies
`_headers`          the header fields of a response with an object
`_parameters`       parsers of Content-Type and Content-Disposition
`_multipart_form`   a parser of multipart/form-data
`_digests`          Content-MD5 and Content-Digest
`_pacing`           the size of the chunks of a download
`_lifespan`         opening and closing the store with the app
"""

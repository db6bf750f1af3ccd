"""Where the store meets what services are made of: web frameworks, logs and traces.

`starlette` (FastAPI included) and `aiohttp` serve and take objects over HTTP; `otel` and `logs` hang
on the store's events. Each imports its own framework and is imported by its own name::

    from trove_async.integrations.starlette import object_response
"""

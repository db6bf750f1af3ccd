"""Permits, timeouts, retries and resumed reads around every driver of a service.

`driver`          wraps the driver of a service
`calls`           makes one request: permit, time limit, retries, events and error context
`retries`         the retries of one request, and the retry budget of a driver
`breaker`         lets requests fail at once while the backend is unavailable
`upload`          an upload whose parts and commit are retried
`download`        a body that resumes at its offset, with the same version
`readahead`       fetches the next ranges of a body over additional connections
`bulk_delete`     deletes many keys in few requests
`lost_responses`  tracks whether an earlier attempt of a write may have succeeded
"""

"""What surrounds every driver of a service: permits, timeouts, retries and resuming reads.

`driver`          the driver that every leaf driver is wrapped in
`upload`          an upload whose parts are retried
`download`        a body that resumes at its offset with the same version
`readahead`       the next piece of a body, fetched on a second connection
`bulk_delete`     many keys deleted by few requests
`lost_responses`  how a retry recognises what the first attempt has done
"""

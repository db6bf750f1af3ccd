"""The parts of `Mirrored` and `Fallback`, the layers over several drivers.

`members`   the drivers of the layer: requests that fail over, and values of one member
`bodies`    the body of one get, which another member may continue
`combined`  the capabilities that all members have in common
`merging`   merges listings of several members
`united`    the members as one set of objects: merged listings, deletions on all
`replicas`  runs the copies of a write on replicas
`upload`    an upload to a primary and its replicas
`repairs`   finds and repairs differences between replicas
`transfer`  copies an object to another driver, and compares copies
"""

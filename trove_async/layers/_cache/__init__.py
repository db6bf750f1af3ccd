"""The parts of `ReadThrough`.

`core`            the state that all its readers share, and requests for the current version
`versions`        the versions that the origin has confirmed
`reader`          the body of one get
`fills`           requests to the origin whose bodies go to the cache
`received_block`  the memory and the bytes of a block that is being received
`responses`       responses of the origin
`block_store`     reads, stores and evicts blocks
`blocks`          the index of the blocks
`listing`         lists the blocks
`written`         bodies that are written through the layer
`sieve`           the order of eviction
`ledger`          the shares of several processes in one cache
`calls`           calls with a deadline, and pauses after failures
"""

"""The engine: implements the store's operations on top of the driver contract.

It is the same for every driver. `Trove` checks the arguments of a call and delegates to it.

Operations
`operations`        one method for each public operation
`runtime`           the state that all handles of one store share; `backends`: its open drivers
`validation`        checks options, on their own and against a backend's capabilities
`health`            pings the backends

Writing
`sources`           turns any body into a source of bytes; `chunks`, `file_sources` and `body_file`: the
                    kinds of bodies; `client_responses`: detects HTTP responses, which cannot be bodies;
                    `consumed`: records which bodies were read
`intake`            counts and hashes a body and checks its size on the way into an upload
`upload`            runs one put; `parts` and `streamed_parts`: how a body is split into parts
`media_types`       guesses a media type from a key

Reading
`verified`          compares a body with its checksums while it is read
`ranges`            reads many ranges of one version

Many objects
`listing`           merges the listings of all backends; `page_stream`: the pages of one backend;
                    `cursors`: positions in a listing as text
`copy`, `move`      copy and move between any two locations
`bulk_delete`       deletes many keys, on any number of backends
`buckets`           one logical bucket on many backends
"""

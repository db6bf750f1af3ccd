"""What a store does once its arguments are checked: everything that holds for every driver alike.

Operations
`operations`        one method for each public operation
`runtime`           what the handles of one store share; `backends`: its drivers, open
`validation`        whether options make sense, and whether a backend can honour them
`health`            pings

Writing
`sources`           any body as a source of bytes; `chunks`, `file_sources`, `body_file` and
                    `client_responses`: the kinds of bodies; `consumed`: bodies that were read before
`intake`            a source on its way into an upload: counted, hashed, held to its size
`upload`            one put; `parts` and `streamed_parts`: how its body is cut
`media_types`       the media type that a key suggests

Reading
`verified`          a body compared with its checksums while it is read
`ranges`            many ranges of one version

Many objects
`listing`           the listings of all backends, merged; `page_stream`: one backend's; `cursors`
`copy`, `move`      between any two places
`bulk_delete`       many keys, on whichever backends they are
`buckets`           a bucket on all its backends
"""

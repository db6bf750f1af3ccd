"""The engine: implements the store's operations on top of the driver contract.

It is the same for every driver. `Trove` checks the arguments of a call and delegates to it.

Operations
`operations`        one method for each public operation
`runtime`           the state that all handles of one store share; `backends`: its open drivers
`anywhere`          the same operations on a store that looks for objects on all backends; `search`: looks
                    for one object; `placement`: coordinates searches, moves and deletions
`validation`        checks options on their own; `backend_checks`: against a backend's capabilities
`health`            pings the backends
`route_lint`        finds mistakes in the routes; `glob_inclusion`: compares patterns

Writing
`sources`           turns any body into a source of bytes; `chunks`, `file_sources` and `body_file`: the
                    kinds of bodies; `client_responses`: detects HTTP responses, which cannot be bodies;
                    `consumed`: records which bodies were read
`intake`            counts and hashes a body and checks its size on the way into an upload
`puts`              puts a body with its inspections and middlewares
`upload`            sends one body; `parts` and `streamed_parts`: how it is split into parts
`media_types`       guesses a media type from a key

Reading
`verified`          compares a body with its checksums while it is read
`ranges`            reads many ranges of one version; `pinning`: gets of one version
`opening`           opens a body, and decodes it by the records of its object
`decoded_objects`   one version of a transformed object: its decoders, and ranges of its body

Middlewares
`transforms`        the middlewares of a store, and which of them apply to an object
`inspecting`        passes the bodies of puts to inspectors
`encoding`          encodes a body between its source and the upload; `file_input`: a body that is a file
`decoding`          decodes a body while it is read
`checked_encoder`,
`checked_decoder`   check what users' encoders and decoders return
`block_workers`     threads and buffers for the blocks of all bodies
`records`           the records of transforms in an object's metadata
`index_cache`       the records, indexes and sizes of objects that were read recently

Many objects
`listing`           merges the listings of all backends; `queries`: which backends and keys;
                    `page_stream`: the pages of one backend; `cursors`: positions in a listing as text
`first_copies`      which of several objects of one key a listing shows
`iterators`         what users iterate over; `misplaced`: the objects that are not where the rules say
`copy`, `move`      copy and move between any two locations; `copy_overrides`: the options that a copy
                    changes; `move_checks`: what is checked before anything is written
`job_steps`         what jobs do with single objects; `relocation`: moves an object while users read and
                    write; `copy_marks`: recognises its copies; `key_guard`: keeps users' writes apart
`direct_copies`     copies on a server, and from one driver directly to another: when they are possible
`locations`         the location of an object: a backend, a bucket and a key
`bulk_delete`       deletes many keys, on any number of backends
`buckets`           one logical bucket on many backends
"""

"""Puts of bodies, with the inspections and middlewares of their object or without any."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from trove_async.errors import BucketNotFoundError
from trove_async.middleware import Inspecting, Middleware, ObjectContext
from trove_async.models import RECORDS, ObjectInfo
from trove_async.options import PutOptions

from . import backend_checks
from .encoding import encode_source
from .inspecting import Inspectors
from .locations import Location, located
from .runtime import Runtime
from .sources import Source
from .transforms import decoded_info
from .upload import Progress, Put


@dataclass(frozen=True, slots=True, kw_only=True)
class PutResult:
    """The result of a put.

    Attributes:
        stored: The object as its backend reported it.
        stored_size: The number of bytes that were sent.
        checksums: The checksums of these bytes, by kind.
        body_size: The number of bytes of the body. None: they are those that were sent.
    """

    stored: ObjectInfo
    stored_size: int
    checksums: Mapping[str, str]
    body_size: int | None

    @property
    def public(self) -> ObjectInfo:
        """The public metadata of the object."""
        return self.stored if self.body_size is None else decoded_info(self.stored, self.body_size)


class PutBody(Protocol):
    """Puts a body through middlewares. See `Puts.put_body`."""

    def __call__(
        self,
        target: Location,
        source: Source,
        options: PutOptions,
        *,
        context: ObjectContext,
        middlewares: Sequence[Middleware],
        progress: Progress | None,
    ) -> Awaitable[PutResult]: ...


class Puts:
    """Puts bodies to the backends of one handle.

    Args:
        runtime: The state of the store.
        create_bucket: Called with the backend, bucket and error of a missing bucket. It creates the
            bucket, or raises.
    """

    def __init__(
        self,
        runtime: Runtime,
        create_bucket: Callable[[Location, BucketNotFoundError], Awaitable[None]],
    ) -> None:
        self._runtime = runtime
        self._create_bucket = create_bucket

    def put(
        self,
        target: Location,
        options: PutOptions,
        progress: Progress | None,
        *,
        planned_size: int | None = None,
        finish: Callable[[PutOptions], PutOptions] | None = None,
        read_once: bool = False,
    ) -> Put:
        """Return a put of stored bytes, which has not started. See `Put`."""
        return Put(
            target.backend,
            target.bucket,
            target.key,
            options,
            pool=self._runtime.pool,
            events=self._runtime.events,
            progress=progress,
            create_bucket=lambda error: self._create_bucket(target, error),
            planned_size=planned_size,
            finish=finish,
            read_once=read_once,
        )

    async def put_inspected(
        self,
        target: Location,
        source: Source,
        options: PutOptions,
        *,
        context: ObjectContext,
        inspections: Sequence[Inspecting],
        middlewares: Sequence[Middleware],
        progress: Progress | None,
    ) -> PutResult:
        """Put a user's body: inspect it, and put it through middlewares. Both may be none.

        Args:
            target: The destination.
            source: The body.
            options: The options of the put.
            context: The object, for the inspections and middlewares.
            inspections: The inspections of the body.
            middlewares: The middlewares to apply, in order.
            progress: The user's callback.
        """
        with located(target):  # a middleware or an inspector does not know it
            if not inspections:
                return await self.put_body(
                    target,
                    source,
                    options,
                    context=context,
                    middlewares=middlewares,
                    progress=progress,
                )
            async with Inspectors(inspections, context, source, options.size) as inspectors:
                return await self.put_body(
                    target,
                    await inspectors.inspected(),
                    options,
                    context=context,
                    middlewares=middlewares,
                    progress=progress,
                    read_once=True,
                )

    async def put_body(
        self,
        target: Location,
        source: Source,
        options: PutOptions,
        *,
        context: ObjectContext,
        middlewares: Sequence[Middleware],
        progress: Progress | None,
        read_once: bool = False,
    ) -> PutResult:
        """Put a body through middlewares, which may be none. The caller closes it after an error.

        Args:
            target: The destination.
            source: The body.
            options: The options of the put.
            context: The object, for the middlewares.
            middlewares: The middlewares to apply, in order.
            progress: The user's callback.
            read_once: See `Put`. It is true of every encoded body.
        """
        encoded = None
        if middlewares:
            backend_checks.check_transformable(target.backend)
            workers = self._runtime.transforms.workers
            encoded = await encode_source(source, options.size, middlewares, context, workers)
        if encoded is None:
            put = self.put(target, options, progress, read_once=read_once)
            stored, body_size = await put.run(source), None
        else:
            records = encoded.records

            def finish(options: PutOptions) -> PutOptions:
                options = with_records(options, records())
                backend_checks.check_metadata_size(target.backend, options.metadata)
                return options

            # The declared size is that of the body, and is verified while the body is read.
            put = self.put(
                target,
                replace(options, size=None),
                progress,
                planned_size=encoded.planned_size,
                finish=finish,
                read_once=True,
            )
            stored, body_size = await put.run(encoded), encoded.body_size
        return PutResult(
            stored=stored,
            stored_size=put.sent_bytes,
            checksums=put.checksums,
            body_size=body_size,
        )


def with_records(options: PutOptions, records: str | None) -> PutOptions:
    """Return options that store the records of an object's transforms."""
    if records is None:
        return options
    return replace(options, metadata={**options.metadata, RECORDS: records})

"""OpenTelemetry: a span for every operation of a store, and metrics of operations and bodies.

Example::

    stop = instrument(store)

A span is a child of the caller's span, and the parent of the spans of an instrumented SDK. Spans
are named after the operation (``trove put``). They carry the bucket, the key and the backend that
the router chose. Failed attempts, waits and spills are span events. The module listens to
`Trove.events`, so a store that is not instrumented has no overhead.

============================  ==========  ====================================================
metric                        unit
============================  ==========  ====================================================
trove.operation.duration      s           each operation; a get until its body is open
trove.body.duration           s           from opening a body to closing it
trove.io                      By          bytes of bodies, by direction and backend
trove.retries                 {attempt}   attempts after the first
trove.pool.limit              By          limit of the store's `BufferPool`
trove.pool.leased             By          leased bytes
trove.pool.waiting            {transfer}  transfers that wait for memory
trove.pool.spilled            By          parts that wait on disk
============================  ==========  ====================================================
"""

from __future__ import annotations

import asyncio

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.trace import Status, StatusCode
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{__name__} needs its extra: pip install 'trove-async[otel]'", name=error.name
    ) from error

from collections.abc import Callable, Iterable, Mapping
from contextvars import Token

from opentelemetry.context import Context
from opentelemetry.metrics import Meter, MeterProvider
from opentelemetry.trace import Span, Tracer, TracerProvider

from trove_async import BufferPool, Event, Trove, __version__

_POOL = [
    ("limit", "By", "What a store's transfers may hold of memory", "max_bytes"),
    ("leased", "By", "What they hold", "leased"),
    ("waiting", "{transfer}", "How many wait for memory", "waiting"),
    ("spilled", "By", "What waits on disk instead", "spilled"),
]


def instrument(
    store: Trove,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> Callable[[], None]:
    """Trace and measure a store, open or not; return a function that stops it.

    Args:
        store: The store. Its handles (`Trove.backend`) are included.
        tracer_provider: The provider of the tracer; None uses the global one.
        meter_provider: The provider of the meter; None uses the global one.
    """
    listener = _Listener(
        trace.get_tracer("trove_async", __version__, tracer_provider),
        metrics.get_meter("trove_async", __version__, meter_provider),
        store.pool,
    )
    unsubscribe = store.events.subscribe(listener)
    return lambda: listener.stop(unsubscribe)


class _Running:
    """The span of one operation in flight."""

    def __init__(self, span: Span, token: Token[Context]) -> None:
        self.span = span
        self.token = token
        self.backends: list[str] = []


class _Listener:
    """Turns the events of a store into spans and metrics."""

    def __init__(self, tracer: Tracer, meter: Meter, pool: BufferPool) -> None:
        self._tracer = tracer
        self._running: dict[int, _Running] = {}
        self._leave: Callable[[], None] | None = None
        self._pool: BufferPool | None = pool
        self._operations = meter.create_histogram(
            "trove.operation.duration", "s", "How long operations take"
        )
        self._bodies = meter.create_histogram(
            "trove.body.duration", "s", "How long bodies are open for reading"
        )
        self._io = meter.create_counter("trove.io", "By", "Bytes of bodies moved")
        self._retries = meter.create_counter(
            "trove.retries", "{attempt}", "Attempts after the first"
        )
        for name, unit, description, figure in _POOL:
            meter.create_observable_gauge(
                f"trove.pool.{name}", [self._observing(figure)], unit, description
            )

    def stop(self, leave: Callable[[], None]) -> None:
        """End open spans and stop observing; unsubscribe when no operation is in flight.

        Events of operations in flight are still handled: the span of each is the current span of
        its task, and only that task can detach it.
        """
        if self._leave is not None:
            return
        self._pool = None
        self._leave = leave
        for running in self._running.values():
            running.span.end()
        if not self._running:
            leave()

    def __call__(self, event: Event) -> None:
        """Handle one event."""
        if self._leave is not None:
            self._stopped(event, self._leave)
        elif event.kind == "start":
            self._start(event)
        elif event.kind == "operation":
            self._end(event)
        else:
            self._within(event)

    def _start(self, event: Event) -> None:
        named = {"trove.bucket": event.bucket, "trove.key": event.key}
        span = self._tracer.start_span(
            f"trove {event.operation}",
            attributes={
                "trove.operation": event.operation,
                **{name: value for name, value in named.items() if value is not None},
            },
        )
        token = context.attach(trace.set_span_in_context(span))
        self._running[event.operation_id] = _Running(span, token)

    def _end(self, event: Event) -> None:
        running = self._running.pop(event.operation_id, None)
        attributes = {"trove.operation": event.operation}
        if running is not None and running.backends:
            attributes["trove.backend"] = running.backends[0]
        if event.error is not None:
            attributes["error.type"] = type(event.error).__name__
        self._operations.record(event.duration, attributes)
        if running is None:
            return  # the operation started before the subscription
        context.detach(running.token)
        span = running.span
        span.set_attributes(attributes)
        if len(running.backends) > 1:
            span.set_attribute("trove.backends", running.backends)
        if event.error is not None and not isinstance(event.error, asyncio.CancelledError):
            span.set_status(Status(StatusCode.ERROR, str(event.error)))
            span.record_exception(event.error)
        span.end()

    def _stopped(self, event: Event, leave: Callable[[], None]) -> None:
        running = self._running.pop(event.operation_id, None) if event.kind == "operation" else None
        if running is not None:
            context.detach(running.token)
        if not self._running:
            leave()

    def _within(self, event: Event) -> None:
        by = {"trove.operation": event.operation, "trove.backend": event.backend}
        if event.kind == "part":
            self._io.add(event.size, {"trove.direction": "write", "trove.backend": event.backend})
        elif event.kind == "body":
            self._io.add(event.size, {"trove.direction": "read", "trove.backend": event.backend})
            self._bodies.record(event.duration, by)
        elif event.kind == "attempt" and event.attempt > 1:
            self._retries.add(1, by)
        running = self._running.get(event.operation_id)
        if running is None:
            return
        if event.backend and event.backend not in running.backends:
            running.backends.append(event.backend)
        if event.kind == "attempt" and event.error is not None:
            failed: dict[str, str | int] = {
                **by,
                "trove.attempt": event.attempt,
                "error.type": type(event.error).__name__,
                "error.message": str(event.error),
            }
            running.span.add_event("attempt failed", failed)
        elif event.kind in {"wait", "spill", "park", "resume"}:
            running.span.add_event(event.kind, _measured(event, by))

    def _observing(self, figure: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            if self._pool is not None:
                yield Observation(getattr(self._pool.statistics(), figure))

        return observe


def _measured(event: Event, by: Mapping[str, str]) -> dict[str, str | int | float]:
    found: dict[str, str | int | float] = {**by, "trove.duration": event.duration}
    if event.size:
        found["trove.size"] = event.size
    return found

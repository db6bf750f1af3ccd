"""OpenTelemetry: a span for every operation of a store, and metrics of operations and bodies.

Example::

    stop = instrument(store)

A span is a child of the span of the caller, and the parent of the spans of an instrumented SDK. It is
named after the operation (``trove put``). Its attributes include the bucket, the key and the backend
that the router chose. Failed attempts and the events ``wait``, ``spill``, ``park``, ``resume``,
``breaker`` and ``hedge`` (see `Event`) are span events. The module subscribes to `Trove.events`, so a store that is not instrumented
has no overhead.

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
trove.pool.spilled            By          bytes of parts that wait on disk
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
        f"{__name__} requires an extra: pip install 'trove-async[otel]'", name=error.name
    ) from error

from collections.abc import Callable, Iterable, Mapping
from contextvars import Token

from opentelemetry.context import Context
from opentelemetry.metrics import Meter, MeterProvider
from opentelemetry.trace import Span, Tracer, TracerProvider

from trove_async import BufferPool, Event, Trove, __version__

_POOL = [
    # Name, unit, description, attribute of the statistics of a `BufferPool`
    ("limit", "By", "Maximum memory of the transfers of a store", "max_bytes"),
    ("leased", "By", "Memory leased by transfers", "leased"),
    ("waiting", "{transfer}", "Transfers waiting for memory", "waiting"),
    ("spilled", "By", "Bytes of parts waiting on disk", "spilled"),
]


def instrument(
    store: Trove,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> Callable[[], None]:
    """Trace and measure a store, open or not; return a function that stops the instrumentation.

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


class _OpenSpan:
    """The span of one operation in flight."""

    def __init__(self, span: Span, token: Token[Context]) -> None:
        self.span = span
        self.token = token
        self.backends: list[str] = []


class _Listener:
    """Turns the events of a store into spans and metrics."""

    def __init__(self, tracer: Tracer, meter: Meter, pool: BufferPool) -> None:
        self._tracer = tracer
        self._open_spans: dict[int, _OpenSpan] = {}
        self._unsubscribe: Callable[[], None] | None = None
        self._pool: BufferPool | None = pool
        self._durations = meter.create_histogram(
            "trove.operation.duration", "s", "Duration of operations"
        )
        self._body_durations = meter.create_histogram(
            "trove.body.duration", "s", "Duration of open bodies"
        )
        self._io = meter.create_counter("trove.io", "By", "Bytes of bodies read and written")
        self._retries = meter.create_counter(
            "trove.retries", "{attempt}", "Attempts after the first"
        )
        for name, unit, description, statistic in _POOL:
            meter.create_observable_gauge(
                f"trove.pool.{name}", [self._observer(statistic)], unit, description
            )

    def stop(self, unsubscribe: Callable[[], None]) -> None:
        """End open spans and stop the metrics; unsubscribe once no operation is in flight.

        Events of operations in flight are still handled: the span of each is the current span of
        its task, and only that task can detach it.
        """
        if self._unsubscribe is not None:
            return
        self._pool = None
        self._unsubscribe = unsubscribe
        for open_span in self._open_spans.values():
            open_span.span.end()
        if not self._open_spans:
            unsubscribe()

    def __call__(self, event: Event) -> None:
        """Handle one event."""
        if self._unsubscribe is not None:
            self._after_stop(event, self._unsubscribe)
        elif event.kind == "start":
            self._on_start(event)
        elif event.kind == "operation":
            self._on_end(event)
        else:
            self._on_progress(event)

    def _on_start(self, event: Event) -> None:
        names = {"trove.bucket": event.bucket, "trove.key": event.key}
        span = self._tracer.start_span(
            f"trove {event.operation}",
            attributes={
                "trove.operation": event.operation,
                **{name: value for name, value in names.items() if value is not None},
            },
        )
        token = context.attach(trace.set_span_in_context(span))
        self._open_spans[event.operation_id] = _OpenSpan(span, token)

    def _on_end(self, event: Event) -> None:
        open_span = self._open_spans.pop(event.operation_id, None)
        attributes = {"trove.operation": event.operation}
        if open_span is not None and open_span.backends:
            attributes["trove.backend"] = open_span.backends[0]
        if event.error is not None:
            attributes["error.type"] = type(event.error).__name__
        self._durations.record(event.duration, attributes)
        # The operation may have started before the subscription.
        if open_span is None:
            return
        context.detach(open_span.token)
        span = open_span.span
        span.set_attributes(attributes)
        # A copy between backends has two backends: its source's and its target's.
        if len(open_span.backends) > 1:
            span.set_attribute("trove.backends", open_span.backends)
        # A cancelled operation has not failed.
        if event.error is not None and not isinstance(event.error, asyncio.CancelledError):
            span.set_status(Status(StatusCode.ERROR, str(event.error)))
            span.record_exception(event.error)
        span.end()

    def _after_stop(self, event: Event, unsubscribe: Callable[[], None]) -> None:
        open_span = (
            self._open_spans.pop(event.operation_id, None) if event.kind == "operation" else None
        )
        if open_span is not None:
            context.detach(open_span.token)
        if not self._open_spans:
            unsubscribe()

    def _on_progress(self, event: Event) -> None:
        labels = {"trove.operation": event.operation, "trove.backend": event.backend}
        if event.kind == "part":
            self._io.add(event.size, {"trove.direction": "write", "trove.backend": event.backend})
        elif event.kind == "body":
            self._io.add(event.size, {"trove.direction": "read", "trove.backend": event.backend})
            self._body_durations.record(event.duration, labels)
        elif event.kind == "attempt" and event.attempt > 1:
            self._retries.add(1, labels)
        open_span = self._open_spans.get(event.operation_id)
        if open_span is None:
            return
        if event.backend and event.backend not in open_span.backends:
            open_span.backends.append(event.backend)
        if event.kind == "attempt" and event.error is not None:
            attributes: dict[str, str | int] = {
                **labels,
                "trove.attempt": event.attempt,
                "error.type": type(event.error).__name__,
                "error.message": str(event.error),
            }
            open_span.span.add_event("attempt failed", attributes)
        elif event.kind in {"wait", "spill", "park", "resume", "breaker", "hedge"}:
            open_span.span.add_event(event.kind, _event_attributes(event, labels))

    def _observer(self, statistic: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            if self._pool is not None:
                yield Observation(getattr(self._pool.statistics(), statistic))

        return observe


def _event_attributes(event: Event, labels: Mapping[str, str]) -> dict[str, str | int | float]:
    attributes: dict[str, str | int | float] = {**labels, "trove.duration": event.duration}
    if event.size:
        attributes["trove.size"] = event.size
    if event.state:
        attributes["trove.state"] = event.state
    return attributes

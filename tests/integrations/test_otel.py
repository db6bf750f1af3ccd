"""Spans, events and metrics of the OpenTelemetry integration."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.fakes import Fake, content, store_of
from trove_async import Event, ObjectNotFoundError, UnavailableError
from trove_async.integrations.otel import instrument
from trove_async.models import MiB

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from opentelemetry.sdk.trace import ReadableSpan

    from trove_async import Trove


class InstrumentedStore:
    """An instrumented store over two fakes, and its exported telemetry.

    Keys that begin with ``b/`` are routed to the second fake.
    """

    def __init__(self, store: Trove, fakes: tuple[Fake, Fake]) -> None:
        self.store = store
        self.fakes = fakes
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._meter_provider = MeterProvider([self._reader])
        self.stop: Callable[[], None] = instrument(
            store, tracer_provider=self.tracer_provider, meter_provider=self._meter_provider
        )

    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def metrics(self) -> dict[str, list[tuple[dict[str, Any], Any]]]:
        data = self._reader.get_metrics_data()
        points: dict[str, list[tuple[dict[str, Any], Any]]] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points[metric.name] = [
                        (dict(point.attributes or {}), getattr(point, "value", None))
                        for point in metric.data.data_points
                    ]
        return points

    def close(self) -> None:
        self.stop()
        self.tracer_provider.shutdown()
        self._meter_provider.shutdown()


@pytest.fixture
async def instrumented() -> AsyncIterator[InstrumentedStore]:
    fakes = Fake(), Fake()
    async with store_of(*fakes) as store:
        instrumented_store = InstrumentedStore(store, fakes)
        yield instrumented_store
        instrumented_store.close()


async def test_operation_is_a_span_with_its_routed_backend(instrumented: InstrumentedStore) -> None:
    tracer = instrumented.tracer_provider.get_tracer("caller")
    with tracer.start_as_current_span("request") as parent:
        await instrumented.store.put("bucket", "b/key", b"body")
        assert trace.get_current_span() is parent
    span, _ = instrumented.spans()
    assert span.name == "trove put"
    assert span.attributes == {
        "trove.operation": "put",
        "trove.bucket": "bucket",
        "trove.key": "b/key",
        "trove.backend": "b",
    }
    assert span.parent is not None
    assert span.parent.span_id == parent.get_span_context().span_id
    assert span.status.is_unset


async def test_spans_of_the_sdk_are_children(instrumented: InstrumentedStore) -> None:
    tracer = instrumented.tracer_provider.get_tracer("sdk")

    async def requesting() -> None:
        with tracer.start_as_current_span("HTTP PUT"):
            pass

    instrumented.fakes[0].before["put"] = requesting
    await instrumented.store.put("bucket", "key", b"body")
    child, span = instrumented.spans()
    assert (child.name, span.name) == ("HTTP PUT", "trove put")
    assert child.parent is not None
    assert span.context is not None
    assert child.parent.span_id == span.context.span_id


async def test_retries_are_events_and_are_counted(instrumented: InstrumentedStore) -> None:
    instrumented.fakes[0].fail("put", UnavailableError("busy"), UnavailableError("still busy"))
    await instrumented.store.put("bucket", "key", b"body")
    (span,) = instrumented.spans()
    assert [(event.name, (event.attributes or {})["trove.attempt"]) for event in span.events] == [
        ("attempt failed", 1),
        ("attempt failed", 2),
    ]
    assert "still busy" in str((span.events[1].attributes or {})["error.message"])
    assert span.status.is_unset  # the last attempt succeeded
    labels = {"trove.operation": "put", "trove.backend": "default"}
    assert instrumented.metrics()["trove.retries"] == [(labels, 2)]


async def test_failure_sets_error_status_and_cancel_does_not(
    instrumented: InstrumentedStore,
) -> None:
    with pytest.raises(ObjectNotFoundError):
        await instrumented.store.head("bucket", "key")
    put_started = instrumented.fakes[0].hang("put")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(instrumented.store.put("bucket", "key", b"body"))
        await put_started.wait()
        task.cancel()
    failed, cancelled = instrumented.spans()
    assert failed.status.status_code is trace.StatusCode.ERROR
    assert (failed.attributes or {})["error.type"] == "ObjectNotFoundError"
    assert [event.name for event in failed.events] == ["attempt failed", "exception"]
    assert cancelled.status.is_unset
    assert (cancelled.attributes or {})["error.type"] == "CancelledError"


async def test_bytes_are_counted_in_both_directions(instrumented: InstrumentedStore) -> None:
    body = content(3 * MiB)
    await instrumented.store.put("bucket", "b/key", body)
    async with instrumented.store.get("bucket", "b/key") as reader:
        await reader.read(1000)
    await instrumented.store.read("bucket", "b/key", range=(0, 10))
    await instrumented.store.get_ranges("bucket", "b/key", [(0, 5), (100, 105)])
    points = instrumented.metrics()
    assert sorted(points["trove.io"], key=lambda point: str(point[0])) == [
        ({"trove.direction": "read", "trove.backend": "b"}, 1020),
        ({"trove.direction": "write", "trove.backend": "b"}, 3 * MiB),
    ]
    assert {labels["trove.operation"] for labels, _ in points["trove.body.duration"]} == {
        "get", "read", "get_ranges",
    }  # fmt: skip
    assert {labels["trove.operation"] for labels, _ in points["trove.operation.duration"]} == {
        "put", "get", "read", "get_ranges",
    }  # fmt: skip


async def test_copy_names_both_backends(instrumented: InstrumentedStore) -> None:
    await instrumented.store.put("bucket", "key", b"body")
    await instrumented.store.copy("bucket", "key", "bucket", "b/key")
    span = instrumented.spans()[-1]
    assert (span.attributes or {})["trove.backend"] == "default"
    assert (span.attributes or {})["trove.backends"] == ("default", "b")


async def test_pool_metrics_are_exported(instrumented: InstrumentedStore) -> None:
    with await instrumented.store.pool.lease(MiB):
        points = instrumented.metrics()
    assert {name: points[name][0][1] for name in points if name.startswith("trove.pool.")} == {
        "trove.pool.limit": instrumented.store.pool.max_bytes,
        "trove.pool.leased": MiB,
        "trove.pool.waiting": 0,
        "trove.pool.spilled": 0,
    }


async def test_spill_is_a_span_event(instrumented: InstrumentedStore) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield content(MiB)

    with await instrumented.store.pool.lease(MiB), await instrumented.store.pool.lease(MiB):
        await instrumented.store.put("bucket", "key", body())
    (span,) = instrumented.spans()
    (spilled,) = [event for event in span.events if event.name == "spill"]
    assert (spilled.attributes or {})["trove.size"] == MiB


async def test_circuit_breakers_and_hedges_are_span_events(instrumented: InstrumentedStore) -> None:
    async def change() -> None:
        events = instrumented.store.events
        events.emit(Event(kind="breaker", operation="breaker", backend="default", state="open"))
        events.emit(Event(kind="hedge", operation="head", backend="default"))

    instrumented.fakes[0].before["head"] = change
    with pytest.raises(ObjectNotFoundError):
        await instrumented.store.head("bucket", "key")
    (span,) = instrumented.spans()
    events = {event.name: dict(event.attributes or {}) for event in span.events}
    assert events["breaker"]["trove.state"] == "open"
    assert "hedge" in events


async def test_stop_ends_open_spans(instrumented: InstrumentedStore) -> None:
    put_started = instrumented.fakes[0].hang("put")
    spans_at_exit: list[trace.Span] = []

    async def putting() -> None:
        try:
            await instrumented.store.put("bucket", "key", b"body")
        finally:
            spans_at_exit.append(trace.get_current_span())

    async with asyncio.TaskGroup() as group:
        task = group.create_task(putting())
        await put_started.wait()
        instrumented.stop()
        assert [span.name for span in instrumented.spans()] == ["trove put"]
        assert not await instrumented.store.exists("bucket", "key")  # starts no span
        task.cancel()
    assert len(instrumented.spans()) == 1
    assert spans_at_exit == [trace.INVALID_SPAN]
    assert not instrumented.store.events


async def test_concurrent_operations_keep_their_own_spans(instrumented: InstrumentedStore) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(20):
            key = f"{'b/' if number % 2 else ''}{number}"
            group.create_task(instrumented.store.put("bucket", key, content(3 * MiB)))
    spans = instrumented.spans()
    assert len(spans) == 20
    for span in spans:
        attributes = span.attributes or {}
        is_b = str(attributes["trove.key"]).startswith("b/")
        assert attributes["trove.backend"] == ("b" if is_b else "default")
        assert span.parent is None


async def test_stopped_instrumentation_exports_nothing(instrumented: InstrumentedStore) -> None:
    instrumented.stop()
    await instrumented.store.put("bucket", "key", b"body")
    assert instrumented.spans() == []
    assert not instrumented.store.events
    assert not any(
        name.startswith("trove.pool") and points for name, points in instrumented.metrics().items()
    )


async def test_instrumenting_during_an_operation_exports_no_span_of_it(
    instrumented: InstrumentedStore,
) -> None:
    instrumented.stop()
    put_started = instrumented.fakes[0].hang("put")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(instrumented.store.put("bucket", "key", b"body"))
        await put_started.wait()
        stop = instrument(instrumented.store, tracer_provider=instrumented.tracer_provider)
        task.cancel()
    stop()
    assert instrumented.spans() == []


async def test_events_of_one_operation_share_its_id(instrumented: InstrumentedStore) -> None:
    events: list[Event] = []
    instrumented.store.events.subscribe(events.append)
    await instrumented.store.put("bucket", "key", content(3 * MiB))
    async with instrumented.store.get("bucket", "key") as reader:
        pass
    del reader
    operation_ids = {
        event.operation_id
        for event in events
        if event.operation in {"put", "send", "upload", "commit"}
    }
    assert len(operation_ids) == 1
    gets = [event for event in events if event.operation == "get"]
    assert [event.kind for event in gets] == ["start", "attempt", "operation", "body"]
    assert len({event.operation_id for event in gets}) == 1
    assert gets[0].operation_id not in operation_ids

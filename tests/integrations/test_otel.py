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


class Scene:
    """An instrumented store over two fakes, and its exported telemetry.

    Keys that begin with ``b/`` are routed to the second fake.
    """

    def __init__(self, store: Trove, fakes: tuple[Fake, Fake]) -> None:
        self.store = store
        self.fakes = fakes
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracing = TracerProvider()
        self.tracing.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._metering = MeterProvider([self._reader])
        self.stop: Callable[[], None] = instrument(
            store, tracer_provider=self.tracing, meter_provider=self._metering
        )

    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def metrics(self) -> dict[str, list[tuple[dict[str, Any], Any]]]:
        data = self._reader.get_metrics_data()
        found: dict[str, list[tuple[dict[str, Any], Any]]] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = [
                        (dict(point.attributes or {}), getattr(point, "value", None))
                        for point in metric.data.data_points
                    ]
        return found

    def close(self) -> None:
        self.stop()
        self.tracing.shutdown()
        self._metering.shutdown()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    fakes = Fake(), Fake()
    async with store_of(*fakes) as store:
        made = Scene(store, fakes)
        yield made
        made.close()


async def test_operation_is_a_span_with_its_routed_backend(scene: Scene) -> None:
    tracer = scene.tracing.get_tracer("caller")
    with tracer.start_as_current_span("request") as parent:
        await scene.store.put("bucket", "b/key", b"body")
        assert trace.get_current_span() is parent
    span, _ = scene.spans()
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


async def test_spans_of_the_sdk_are_children(scene: Scene) -> None:
    tracer = scene.tracing.get_tracer("sdk")

    async def requesting() -> None:
        with tracer.start_as_current_span("HTTP PUT"):
            pass

    scene.fakes[0].before["put"] = requesting
    await scene.store.put("bucket", "key", b"body")
    below, span = scene.spans()
    assert (below.name, span.name) == ("HTTP PUT", "trove put")
    assert below.parent is not None
    assert span.context is not None
    assert below.parent.span_id == span.context.span_id


async def test_retries_are_events_and_are_counted(scene: Scene) -> None:
    scene.fakes[0].fail("put", UnavailableError("busy"), UnavailableError("still busy"))
    await scene.store.put("bucket", "key", b"body")
    (span,) = scene.spans()
    assert [(one.name, (one.attributes or {})["trove.attempt"]) for one in span.events] == [
        ("attempt failed", 1),
        ("attempt failed", 2),
    ]
    assert "still busy" in str((span.events[1].attributes or {})["error.message"])
    assert span.status.is_unset  # the last attempt succeeded
    by = {"trove.operation": "put", "trove.backend": "default"}
    assert scene.metrics()["trove.retries"] == [(by, 2)]


async def test_failure_sets_error_status_and_cancel_does_not(scene: Scene) -> None:
    with pytest.raises(ObjectNotFoundError):
        await scene.store.head("bucket", "key")
    reached = scene.fakes[0].hang("put")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(scene.store.put("bucket", "key", b"body"))
        await reached.wait()
        task.cancel()
    failed, cancelled = scene.spans()
    assert failed.status.status_code is trace.StatusCode.ERROR
    assert (failed.attributes or {})["error.type"] == "ObjectNotFoundError"
    assert [event.name for event in failed.events] == ["attempt failed", "exception"]
    assert cancelled.status.is_unset
    assert (cancelled.attributes or {})["error.type"] == "CancelledError"


async def test_bytes_are_counted_both_ways(scene: Scene) -> None:
    body = content(3 * MiB)
    await scene.store.put("bucket", "b/key", body)
    async with scene.store.get("bucket", "b/key") as reader:
        await reader.read(1000)
    await scene.store.read("bucket", "b/key", range=(0, 10))
    await scene.store.get_ranges("bucket", "b/key", [(0, 5), (100, 105)])
    found = scene.metrics()
    assert sorted(found["trove.io"], key=lambda point: str(point[0])) == [
        ({"trove.direction": "read", "trove.backend": "b"}, 1020),
        ({"trove.direction": "write", "trove.backend": "b"}, 3 * MiB),
    ]
    assert {by["trove.operation"] for by, _ in found["trove.body.duration"]} == {
        "get", "read", "get_ranges",
    }  # fmt: skip
    assert {by["trove.operation"] for by, _ in found["trove.operation.duration"]} == {
        "put", "get", "read", "get_ranges",
    }  # fmt: skip


async def test_copy_names_both_backends(scene: Scene) -> None:
    await scene.store.put("bucket", "key", b"body")
    await scene.store.copy("bucket", "key", "bucket", "b/key")
    span = scene.spans()[-1]
    assert (span.attributes or {})["trove.backend"] == "default"
    assert (span.attributes or {})["trove.backends"] == ("default", "b")


async def test_pool_metrics_are_exported(scene: Scene) -> None:
    with await scene.store.pool.lease(MiB):
        found = scene.metrics()
    assert {name: found[name][0][1] for name in found if name.startswith("trove.pool.")} == {
        "trove.pool.limit": scene.store.pool.max_bytes,
        "trove.pool.leased": MiB,
        "trove.pool.waiting": 0,
        "trove.pool.spilled": 0,
    }


async def test_spill_is_a_span_event(scene: Scene) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield content(MiB)

    with await scene.store.pool.lease(MiB), await scene.store.pool.lease(MiB):
        await scene.store.put("bucket", "key", body())
    (span,) = scene.spans()
    (spilled,) = [event for event in span.events if event.name == "spill"]
    assert (spilled.attributes or {})["trove.size"] == MiB


async def test_stop_ends_open_spans(scene: Scene) -> None:
    reached = scene.fakes[0].hang("put")
    left: list[trace.Span] = []

    async def putting() -> None:
        try:
            await scene.store.put("bucket", "key", b"body")
        finally:
            left.append(trace.get_current_span())

    async with asyncio.TaskGroup() as group:
        task = group.create_task(putting())
        await reached.wait()
        scene.stop()
        assert [span.name for span in scene.spans()] == ["trove put"]
        assert not await scene.store.exists("bucket", "key")  # starts no span
        task.cancel()
    assert len(scene.spans()) == 1
    assert left == [trace.INVALID_SPAN]
    assert not scene.store.events


async def test_concurrent_operations_keep_their_own_spans(scene: Scene) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(20):
            key = f"{'b/' if number % 2 else ''}{number}"
            group.create_task(scene.store.put("bucket", key, content(3 * MiB)))
    spans = scene.spans()
    assert len(spans) == 20
    for span in spans:
        attributes = span.attributes or {}
        is_b = str(attributes["trove.key"]).startswith("b/")
        assert attributes["trove.backend"] == ("b" if is_b else "default")
        assert span.parent is None


async def test_stopped_instrumentation_exports_nothing(scene: Scene) -> None:
    scene.stop()
    await scene.store.put("bucket", "key", b"body")
    assert scene.spans() == []
    assert not scene.store.events
    assert not any(
        name.startswith("trove.pool") and points for name, points in scene.metrics().items()
    )


async def test_instrumenting_during_an_operation_is_harmless(scene: Scene) -> None:
    scene.stop()
    reached = scene.fakes[0].hang("put")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(scene.store.put("bucket", "key", b"body"))
        await reached.wait()
        stop = instrument(scene.store, tracer_provider=scene.tracing)
        task.cancel()
    stop()
    assert scene.spans() == []


async def test_events_of_one_operation_share_its_id(scene: Scene) -> None:
    told: list[Event] = []
    scene.store.events.subscribe(told.append)
    await scene.store.put("bucket", "key", content(3 * MiB))
    async with scene.store.get("bucket", "key") as reader:
        pass
    del reader
    numbers = {
        event.operation_id
        for event in told
        if event.operation in {"put", "send", "upload", "commit"}
    }
    assert len(numbers) == 1
    gets = [event for event in told if event.operation == "get"]
    assert [event.kind for event in gets] == ["start", "attempt", "operation", "body"]
    assert len({event.operation_id for event in gets}) == 1
    assert not numbers & {gets[0].operation_id}

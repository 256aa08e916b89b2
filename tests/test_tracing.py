"""Traces from commit to publish, as the OpenTelemetry SDK exports them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from grip_edge_middleware import GripEdge
from grip_edge_middleware.http import Response
from grip_edge_middleware.journal import Journal
from grip_edge_middleware.tracing import Tracing
from tests.recording import RecordingServer, Simulation


class Exported:
    """What a provider has exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == f"grip_edge.{name}"]


@pytest.fixture
def exported() -> Iterator[Exported]:
    exported = Exported()
    yield exported
    exported.provider.shutdown()


def traced(sim: Simulation, exported: Exported) -> Simulation:
    tracing = Tracing(exported.provider)
    sim.journal.read = tracing.read  # type: ignore[method-assign]
    return sim


@pytest.fixture
def sim(exported: Exported) -> Simulation:
    topic = {"routes": ["/counters/<name>"], "hold": "stream"}
    settings = {"cdn": "varnish://varnish:6081", "topics": {"counter-{name}": topic}}
    return traced(Simulation(settings), exported)


def test_a_delivery_is_one_trace_from_the_commit_to_the_last_acknowledgement(
    sim: Simulation, exported: Exported
) -> None:
    committed_at = sim.clock.wall()
    sim.add("counter-{name}", name="a")
    sim.clock.now += 0.5
    sim.renderer.takes_s = 0.25
    sim.turn()

    [root] = exported.named("deliver")
    assert (root.start_time, root.end_time) == (ns(committed_at), ns(committed_at + 0.75))
    assert root.parent is None
    children = [span for span in exported.spans if span is not root]
    assert [span.name for span in children] == [
        "grip_edge.purge",
        "grip_edge.render",
        "grip_edge.publish",
    ]
    assert {span.parent and span.parent.span_id for span in children} == {root.context.span_id}
    assert root.attributes == {"grip_edge.topics": 1, "grip_edge.delivered": 1}
    assert children[0].attributes == {
        "grip_edge.target": "varnish http://varnish:6081",
        "grip_edge.keys": 2,
        "grip_edge.names": ("counter-a", "counter-%any"),
        "grip_edge.behind_s": 0.5,
    }


def test_a_refusal_is_an_error_of_its_span(sim: Simulation, exported: Exported) -> None:
    sim.transport.script("varnish", Response(503))
    sim.add("counter-{name}", "1", name="a")
    sim.run_until_idle()

    refused, taken = exported.named("purge")
    assert not refused.status.is_ok
    assert "503" in (refused.status.description or "")
    assert taken.status.description is None


def test_a_repeated_purge_is_a_trace_of_its_own(exported: Exported) -> None:
    settings = {
        "cdn": "varnish://varnish:6081",
        "confirm_after": 1,
        "topics": {"t": {"routes": ["/t"]}},
    }
    sim = traced(Simulation(settings), exported)
    sim.add("t")
    sim.run_until_idle()

    [deliver], [repeat] = exported.named("deliver"), exported.named("repeat")
    assert deliver.context.trace_id != repeat.context.trace_id


def test_an_answer_that_comes_late_is_put_with_its_delivery(
    sim: Simulation, exported: Exported
) -> None:
    sim.lanes.hold("pushpin")
    sim.add("counter-{name}", "1", name="a")
    sim.turn()
    sim.lanes.let_go()
    sim.run_until_idle()

    [root] = exported.named("deliver")
    [publish] = exported.named("publish")
    assert publish.parent is not None
    assert publish.parent.span_id == root.context.span_id
    assert root.end_time == publish.end_time


def test_an_edge_makes_spans_with_the_provider_that_it_is_given(exported: Exported) -> None:
    topic = {"routes": ["/counters/<name>"], "hold": "stream"}
    with RecordingServer() as server:
        settings = {
            "grip_url": server.url,
            "tracing": exported.provider,
            "topics": {"counter-{name}": topic},
        }
        with closing(GripEdge(settings=settings, environ={})) as edge:
            edge.publish("counter-{name}", "1", name="a")
            assert edge.flush(10)

    assert len(exported.named("publish")) >= 1


def test_what_no_delivery_wrote_makes_no_span(exported: Exported) -> None:
    Journal(Tracing(exported.provider)).write("health", detail={"pending": 0})

    assert exported.spans == ()


def ns(seconds: float) -> int:
    return int(seconds * 1e9)

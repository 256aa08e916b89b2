"""What every implementation of Metrics does, and what Prometheus is told of an app."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from grip_edge_middleware import GripEdge, SettingsError
from grip_edge_middleware.journal import Entry, Kind
from grip_edge_middleware.metrics import BY_TARGET, EVENTS, GAUGES, Counts, Event, Metrics, Several
from grip_edge_middleware.metrics.prometheus import PrometheusMetrics
from tests.recording import Answer, RecordingServer, Simulation

NAMES = {"pending_age_s": "pending_age_seconds"}


class Counted:
    """An implementation, and how what it was told is read back."""

    def __init__(self, kind: str) -> None:
        self.registry = CollectorRegistry()
        self.counts = Counts()
        prometheus = PrometheusMetrics(registry=self.registry)
        made: dict[str, Metrics] = {
            "counts": self.counts,
            "prometheus": prometheus,
            "several": Several([self.counts, prometheus]),
        }
        self.metrics = made[kind]
        self._is_prometheus = kind == "prometheus"

    def total(self, event: Event, target: str = "") -> float:
        if not self._is_prometheus:
            return self.counts.snapshot().get(f"{event} {target}".strip(), 0)
        labels = {"target": target} if event in BY_TARGET else {}
        return self.registry.get_sample_value(f"grip_edge_{event}_total", labels) or 0

    def level(self, name: str) -> float | None:
        if not self._is_prometheus:
            return self.counts.gauges().get(name)
        return self.registry.get_sample_value(f"grip_edge_{NAMES.get(name, name)}")


@pytest.fixture(params=["counts", "prometheus", "several"])
def counted(request: pytest.FixtureRequest) -> Counted:
    return Counted(request.param)


# --- the contract -------------------------------------------------------------------------------


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_is_counted(counted: Counted, event: Event) -> None:
    target = "varnish" if event in BY_TARGET else ""
    counted.metrics.count(event, target=target)
    counted.metrics.count(event, 2, target=target)

    assert counted.total(event, target) == 3


def test_targets_are_counted_apart(counted: Counted) -> None:
    counted.metrics.count("failures", target="varnish")
    counted.metrics.count("failures", 2, target="grip")

    assert (counted.total("failures", "varnish"), counted.total("failures", "grip")) == (1, 2)


@pytest.mark.parametrize("name", GAUGES)
def test_a_gauge_is_what_was_said_last(counted: Counted, name: Any) -> None:
    counted.metrics.gauge(name, 7)
    counted.metrics.gauge(name, 3)

    assert counted.level(name) == 3


@pytest.mark.parametrize(
    ("kind", "counts"),
    [
        ("purge", {"purges": 1, "purged_keys": 3}),
        ("publish", {"publishes": 1, "published": 3}),
        ("recover", {"recoveries": 1}),
        ("failure", {"failures": 1}),
        ("given_up", {"given_up": 3}),
        ("render", {"renders": 1}),
        ("change", {}),
        ("delivered", {}),
        ("health", {}),
    ],
)
def test_an_entry_is_counted_as_what_it_says(
    counted: Counted, kind: Kind, counts: dict[Event, int]
) -> None:
    counted.metrics.read(Entry(kind, 7.0, names=("a",), count=3, target="varnish", behind_s=0.5))

    told = {e: counted.total(e, "varnish" if e in BY_TARGET else "") for e in EVENTS}
    assert {event: n for event, n in told.items() if n} == counts


def test_no_count_of_several_threads_is_lost(counted: Counted) -> None:
    def count() -> None:
        for _ in range(2_000):
            counted.metrics.count("changes")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counted.total("changes") == 8_000


def test_a_fork_goes_on_while_a_thread_counts(counted: Counted) -> None:
    is_over = threading.Event()

    def count() -> None:
        while not is_over.is_set():
            counted.metrics.count("changes")

    thread = threading.Thread(target=count)
    thread.start()
    statuses = []
    for _ in range(20):
        if (child := os.fork()) == 0:
            try:
                counted.metrics.after_fork()
                counted.metrics.count("gate_hits")
                os._exit(0 if counted.total("gate_hits") == 1 else 1)
            finally:
                os._exit(2)
        statuses.append(os.waitpid(child, 0)[1])
    is_over.set()
    thread.join()

    assert statuses == [0] * 20


# --- what fails ---------------------------------------------------------------------------------


class Broken:
    def count(self, event: Event, amount: int = 1, *, target: str = "") -> None:
        raise RuntimeError("count")

    def gauge(self, name: str, value: float) -> None:
        raise RuntimeError("gauge")

    def read(self, entry: Entry) -> None:
        raise RuntimeError("read")

    def after_fork(self) -> None:
        raise RuntimeError("after_fork")


def test_metrics_that_raise_are_logged_once_and_keep_nobody_from_counting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counts = Counts()
    several = Several([Broken(), counts])

    several.count("changes")
    several.read(Entry("render", 7.0))
    several.gauge("pending", 1)
    several.after_fork()

    assert counts.snapshot() == {"changes": 1, "renders": 1}
    assert len(caplog.records) == 1


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("prometheus_client", "opentelemetry"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "grip_edge_middleware.metrics.prometheus")
    monkeypatch.delitem(sys.modules, "grip_edge_middleware.tracing", raising=False)
    topics = {"t": {"routes": ["/t"]}}

    with pytest.raises(SettingsError, match=r"pip install 'grip-edge-middleware\[prometheus\]'"):
        GripEdge(settings={"metrics": "prometheus", "topics": topics}, environ={})
    with pytest.raises(SettingsError, match=r"pip install 'grip-edge-middleware\[opentelemetry\]'"):
        GripEdge(settings={"tracing": True, "topics": topics}, environ={})


# --- what is counted ----------------------------------------------------------------------------


def test_changes_that_leave_together_are_coalesced() -> None:
    sim = Simulation({"topics": {"t": {"routes": ["/t"], "hold": "stream"}}})
    for _ in range(3):
        sim.add("t", "x")
    sim.turn()

    counts = sim.metrics.snapshot()
    assert (counts["changes"], counts["coalesced"]) == (3, 2)


def test_deltas_are_not_coalesced() -> None:
    topic = {"routes": ["/t"], "hold": "stream", "coalesce": False}
    sim = Simulation({"topics": {"t": topic}})
    for text in "abc":
        sim.add("t", text)
    sim.turn()

    assert sim.metrics.snapshot()["changes"] == 3
    assert "coalesced" not in sim.metrics.snapshot()


# --- an app behind Prometheus -------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


def settings_of(server: RecordingServer, **settings: Any) -> dict[str, Any]:
    return {
        "grip_url": server.url,
        "cdn": server.url.replace("http", "varnish"),
        "key_budget": 60,
        "topics": {"counter-{name}": {"routes": ["/counters/<name>"], "hold": "stream"}},
        **settings,
    }


def ask(app: Any, path: str) -> dict[str, str]:
    """Return the headers of an answer."""
    answered: list[tuple[str, str]] = []

    def start_response(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
        answered.extend(headers)

    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path}
    b"".join(app(environ, start_response))
    return dict(answered)


def answering(before: Callable[[], object] = lambda: None) -> Any:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        before()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "1")])
        return [b"1"]

    return app


def test_prometheus_is_told_what_an_app_does(server: RecordingServer) -> None:
    registry = CollectorRegistry()
    metrics = PrometheusMetrics(registry=registry, namespace="shop")
    with closing(GripEdge(settings=settings_of(server, metrics=metrics), environ={})) as edge:
        told = "counter-{name}"
        ask(edge.wsgi(answering()), "/counters/a")
        ask(edge.wsgi(answering(lambda: edge.publish(told, "2", name="a"))), "/counters/a")
        ask(edge.wsgi(answering(lambda: edge.tag("x" * 60))), "/counters/a")
        assert edge.flush(10)

    lines = generate_latest(registry).decode().splitlines()
    cdn, proxy = f'{{target="varnish {server.url}"}}', f'{{target="grip {server.url}"}}'
    assert "shop_changes_total 1.0" in lines
    assert "shop_gate_hits_total 1.0" in lines
    assert "shop_over_budget_total 1.0" in lines
    assert f"shop_key_bytes {len('%all counter-%all counter-a')}.0" in lines
    assert "shop_key_budget_bytes 60.0" in lines
    assert "shop_pending 0.0" in lines
    assert "shop_pending_age_seconds 0.0" in lines
    assert f"shop_commit_to_publish_seconds_count{proxy} 1.0" in lines
    assert f"shop_commit_to_purge_seconds_count{cdn} 1.0" in lines
    purges = next(line for line in lines if line.startswith(f"shop_purges_total{cdn}"))
    assert float(purges.split()[-1]) >= 1  # it is repeated


def test_prometheus_is_told_what_waits_and_for_how_long(server: RecordingServer) -> None:
    registry = CollectorRegistry()
    server.respond = lambda request: Answer(503)
    found = settings_of(server, metrics=PrometheusMetrics(registry=registry), flush_timeout=0)
    with closing(GripEdge(settings=found, environ={})) as edge:
        edge.publish("counter-{name}", "1", name="a")
        server.wait_for(lambda seen: len(seen) >= 2)

        assert registry.get_sample_value("grip_edge_pending") == 1
        assert (registry.get_sample_value("grip_edge_pending_age_seconds") or 0) > 0
        assert edge.health()["pending_age_s"] > 0


def test_edges_with_the_default_registry_count_together(server: RecordingServer) -> None:
    found = settings_of(server, metrics="prometheus")
    with (
        closing(GripEdge(settings=found, environ={})) as one,
        closing(GripEdge(settings=found, environ={})) as other,
    ):
        from prometheus_client import REGISTRY

        before = REGISTRY.get_sample_value("grip_edge_changes_total") or 0
        for edge in (one, other):
            edge.publish("counter-{name}", "1", name="a")
            assert edge.flush(10)
        after = REGISTRY.get_sample_value("grip_edge_changes_total") or 0

    assert after - before == 2


WORKERS = """
import os, sys
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from grip_edge_middleware.metrics.prometheus import PrometheusMetrics

metrics = PrometheusMetrics(registry=CollectorRegistry())
children = []
for _ in range(2):
    if (child := os.fork()) == 0:
        metrics.after_fork()
        metrics.count("changes", 3)
        metrics.gauge("pending", 4)
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
sys.stdout.write(generate_latest(registry).decode())
"""


def test_forked_workers_count_together(tmp_path: Path) -> None:
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", WORKERS], env=environ, capture_output=True, text=True, check=True
    )

    assert "grip_edge_changes_total 6.0" in done.stdout
    assert "grip_edge_pending 8.0" in done.stdout

"""The numbers as Prometheus wants them, with prometheus-client."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from threading import Lock
from typing import Literal

import prometheus_client
from prometheus_client import REGISTRY, CollectorRegistry, Histogram

from grip_edge_middleware import metrics
from grip_edge_middleware.journal import Entry
from grip_edge_middleware.metrics import BY_TARGET, EVENTS, GAUGES, Event, counted

NAMESPACE = "grip_edge"
# From a CDN in the same rack to one that is down.
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

# How the processes of `PROMETHEUS_MULTIPROC_DIR` make one number.
_OF_ALL: dict[metrics.Gauge, Literal["livesum", "livemax"]] = {"pending": "livesum"}


class PrometheusMetrics:
    """Counts, gauges and latencies for Prometheus.

        {"metrics": "prometheus"}    # the default registry
        {"metrics": PrometheusMetrics(registry=registry, namespace="shop_edge")}

    Options: `registry`, where they are registered; `namespace`, how their names begin;
    `buckets_s`, the bounds of the latencies. With `PROMETHEUS_MULTIPROC_DIR` all processes count
    together.
    """

    def __init__(
        self,
        *,
        registry: CollectorRegistry = REGISTRY,
        namespace: str = NAMESPACE,
        buckets_s: Sequence[float] = BUCKETS_S,
    ) -> None:
        self._counters = {
            event: prometheus_client.Counter(
                event,
                text,
                ["target"] if event in BY_TARGET else [],
                namespace=namespace,
                registry=registry,
            )
            for event, text in EVENTS.items()
        }
        self._gauges = {
            name: prometheus_client.Gauge(
                _with_unit(name),
                text,
                namespace=namespace,
                registry=registry,
                multiprocess_mode=_OF_ALL.get(name, "livemax"),
            )
            for name, text in GAUGES.items()
        }
        self._latencies = {
            kind: Histogram(
                f"commit_to_{kind}_seconds",
                f"From when the oldest change of a {kind} was submitted, after its commit, to when "
                "the target acknowledged it",
                ["target"],
                namespace=namespace,
                registry=registry,
                buckets=buckets_s,
            )
            for kind in ("purge", "publish")
        }
        self._lock = _fork_safe_lock()

    def after_fork(self) -> None:
        """Do nothing: no thread of the parent held a lock when it forked."""

    def count(self, event: Event, amount: int = 1, *, target: str = "") -> None:
        """Add to an event's count."""
        counter = self._counters[event]
        with self._lock:
            (counter.labels(target) if event in BY_TARGET else counter).inc(amount)

    def gauge(self, name: metrics.Gauge, value: float) -> None:
        """Say how much there is of something now."""
        with self._lock:
            self._gauges[name].set(value)

    def read(self, entry: Entry) -> None:
        """Count what was done, and how long after the commit."""
        for event, amount in counted(entry):
            self.count(event, amount, target=entry.target)
        if entry.behind_s is not None and (latency := self._latencies.get(entry.kind)):
            with self._lock:
                latency.labels(entry.target).observe(entry.behind_s)


@lru_cache(maxsize=1)
def of_default_registry() -> PrometheusMetrics:
    """Return those of the default registry, in which each name can be only once."""
    return PrometheusMetrics()


def _with_unit(name: str) -> str:
    return name.removesuffix("_s") + "_seconds" if name.endswith("_s") else name


def _fork_safe_lock() -> Lock:
    """Return a lock that nobody else holds when the process forks.

    So whatever prometheus-client locks within it is free in the child.
    """
    lock = Lock()
    os.register_at_fork(
        before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
    )
    return lock

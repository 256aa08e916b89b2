"""What is counted and measured, and where the numbers go.

What the journal has entries of is counted from these; the rest says so itself, by `count`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Literal, Protocol

from grip_edge_middleware.journal import Entry, Reader

logger = logging.getLogger(__name__)

Event = Literal[
    "changes",
    "coalesced",
    "escalated",
    "refused",
    "purges",
    "purged_keys",
    "renders",
    "publishes",
    "published",
    "recoveries",
    "failures",
    "given_up",
    "gate_hits",
    "keys_merged",
    "over_budget",
    "unclear_reads",
    "source_faults",
    "outbox_taken",
    "outbox_faults",
]
EVENTS: Mapping[Event, str] = {
    "changes": "Changes that were submitted",
    "coalesced": "Changes that leave together with an older one of their topic",
    "escalated": "Changes purged with all of their kind, for lack of room",
    "refused": "Messages not published, for lack of room",
    "purges": "Purge requests that were acknowledged",
    "purged_keys": "Keys in these",
    "renders": "Answers of routes that were made to be published",
    "publishes": "Publish requests that were acknowledged",
    "published": "Items in these",
    "recoveries": "Requests that all clients catch up that were acknowledged",
    "failures": "Requests that were refused or not answered, and routes that did not answer",
    "given_up": "Topics not published for a change, since that cannot succeed",
    "gate_hits": "Responses kept out of caches, since what they show changed meanwhile",
    "keys_merged": "Responses whose keys are those of whole kinds, to fit into key_budget",
    "over_budget": "Responses kept out of caches, since their keys exceed key_budget",
    "unclear_reads": "Responses kept out of caches, since nobody knows what they read",
    "source_faults": "Saves that were not understood, so that more counts as changed",
    "outbox_taken": "Rows of the outbox that were taken from another process",
    "outbox_faults": "Times that the outbox did not answer, or could not be read",
}
BY_TARGET: frozenset[Event] = frozenset(
    {
        "purges",
        "purged_keys",
        "publishes",
        "published",
        "recoveries",
        "failures",
        "given_up",
    }
)
"""The events that are counted for each target."""

Gauge = Literal["pending", "pending_age_s", "key_bytes", "key_budget_bytes"]
GAUGES: Mapping[Gauge, str] = {
    "pending": "Topics that this process has yet to bring to some target",
    "pending_age_s": "Seconds since the oldest change of these was submitted",
    "key_bytes": "Bytes of the longest header with keys so far",
    "key_budget_bytes": "The setting key_budget",
}


class Metrics(Reader, Protocol):
    """Where numbers go. Called from any thread; must neither wait nor raise."""

    def count(self, event: Event, amount: int = 1, *, target: str = "") -> None:
        """Add to an event's count, for one target where there are several."""

    def gauge(self, name: Gauge, value: float) -> None:
        """Say how much there is of something now."""

    def after_fork(self) -> None:
        """Renew locks in a child process: a thread of the parent may have held them."""


def counted(entry: Entry) -> Iterator[tuple[Event, int]]:
    """Yield what an entry adds to which counts."""
    match entry.kind:
        case "purge":
            yield "purges", 1
            yield "purged_keys", entry.count
        case "publish":
            yield "publishes", 1
            yield "published", entry.count
        case "render":
            yield "renders", 1
        case "recover":
            yield "recoveries", 1
        case "failure":
            yield "failures", 1
        case "given_up":
            yield "given_up", entry.count


class Counts:
    """Counts in memory, which `edge.health()` shows."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._gauges: dict[str, float] = {}
        self.after_fork()

    def after_fork(self) -> None:
        """Renew the lock in a child process."""
        self._lock = Lock()

    def count(self, event: Event, amount: int = 1, *, target: str = "") -> None:
        """Add to an event's count."""
        with self._lock:
            self._counts[event, target] += amount

    def gauge(self, name: Gauge, value: float) -> None:
        """Keep what was said last."""
        self._gauges[name] = value

    def read(self, entry: Entry) -> None:
        """Count what was done."""
        for event, amount in counted(entry):
            self.count(event, amount, target=entry.target if event in BY_TARGET else "")

    def snapshot(self) -> dict[str, int]:
        """Return all counts, by `event` or `event target`."""
        with self._lock:
            return {f"{event} {target}".strip(): n for (event, target), n in self._counts.items()}

    def gauges(self) -> dict[str, float]:
        """Return all gauges."""
        return dict(self._gauges)


class Several:
    """Several metrics as one. What one of them raises is logged once, and no concern of the app."""

    def __init__(self, metrics: Sequence[Metrics]) -> None:
        self._metrics = tuple(metrics)
        self._has_failed = False

    def after_fork(self) -> None:
        """Renew their locks."""
        self._each(lambda metrics: metrics.after_fork())

    def count(self, event: Event, amount: int = 1, *, target: str = "") -> None:
        """Add to an event's count."""
        self._each(lambda metrics: metrics.count(event, amount, target=target))

    def gauge(self, name: Gauge, value: float) -> None:
        """Say how much there is of something now."""
        self._each(lambda metrics: metrics.gauge(name, value))

    def read(self, entry: Entry) -> None:
        """Have all read an entry."""
        self._each(lambda metrics: metrics.read(entry))

    def _each(self, tell: Callable[[Metrics], None]) -> None:
        for metrics in self._metrics:
            try:
                tell(metrics)
            except Exception:
                if not self._has_failed:
                    self._has_failed = True
                    logger.exception("%s failed; this is said once", type(metrics).__qualname__)

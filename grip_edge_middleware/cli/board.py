"""What `grip-edge watch` shows: all that has come, summed up by topic, target and process.

Pure: reads entries and the time, prints nothing.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from grip_edge_middleware.journal import Entry

# What comes while nobody looks is bounded: topics beyond are forgotten, the quietest first.
MAX_TOPICS = 500
TAIL = 200
# Rates are of the last seconds.
RATE_S = 10.0
# A process says how it fares when it has done something, so an idle one is silent as well.
SILENT_S = 300.0
# Others name keys, or nothing that was done.
ABOUT_TOPICS = frozenset({"change", "render", "publish"})


@dataclass(slots=True)
class TopicRow:
    """One topic: how often what happened to it, and how far behind its last publish was."""

    counts: Counter[str] = field(default_factory=Counter)
    behind_s: float | None = None
    at: float = 0.0


@dataclass(slots=True)
class TargetRow:
    """One CDN or GRIP proxy, or what renders."""

    requests: int = 0
    failures: int = 0
    took_s: float | None = None
    error: str = ""


@dataclass(slots=True)
class Board:
    """What has come so far."""

    topics: dict[str, TopicRow] = field(default_factory=dict)
    targets: dict[str, TargetRow] = field(default_factory=dict)
    processes: dict[int, Entry] = field(default_factory=dict)
    """The last word on the health of each."""
    tail: deque[Entry] = field(default_factory=lambda: deque(maxlen=TAIL))
    count: int = 0
    _times: deque[tuple[float, str]] = field(default_factory=deque)

    def note(self, entry: Entry) -> None:
        """Take one entry."""
        self.count += 1
        if entry.kind == "health":
            self.processes[entry.pid] = entry
            return
        self.tail.append(entry)
        self._times.append((entry.at, entry.kind))
        self._forget_times(entry.at)
        if entry.kind in ABOUT_TOPICS:
            self._note_topics(entry)
        if entry.target:
            self._note_target(entry)

    def rate(self, kind: str, now: float) -> float:
        """Return how many of a kind there were a second, lately."""
        self._forget_times(now)
        return sum(each == kind for _, each in self._times) / RATE_S

    def health(self, now: float) -> Mapping[int, Mapping[str, Any]]:
        """Return what each process that still speaks says of itself."""
        return {
            pid: entry.detail for pid, entry in self.processes.items() if now - entry.at < SILENT_S
        }

    def states(self, now: float) -> dict[str, list[tuple[int, Mapping[str, Any]]]]:
        """Return of each target how it fares, by the processes."""
        found: dict[str, list[tuple[int, Mapping[str, Any]]]] = {name: [] for name in self.targets}
        for pid, detail in self.health(now).items():
            for name, state in dict(detail.get("targets", {})).items():
                found.setdefault(name, []).append((pid, state))
        return found

    def _note_topics(self, entry: Entry) -> None:
        for name in entry.names:
            row = self.topics.pop(name, None) or TopicRow()
            self.topics[name] = row  # the last to have spoken is last
            row.counts[entry.kind] += 1
            row.at = entry.at
            # What is published once more after a quiet time is behind nothing.
            if entry.kind == "publish" and entry.behind_s is not None:
                row.behind_s = entry.behind_s
        while len(self.topics) > MAX_TOPICS:
            del self.topics[next(iter(self.topics))]

    def _note_target(self, entry: Entry) -> None:
        row = self.targets.setdefault(entry.target, TargetRow())
        row.requests += 1
        row.took_s = entry.took_s if entry.took_s is not None else row.took_s
        row.failures += bool(entry.error) or entry.kind == "failure"
        row.error = entry.error

    def _forget_times(self, now: float) -> None:
        while self._times and self._times[0][0] < now - RATE_S:
            self._times.popleft()


def describe(entry: Entry) -> str:
    """Return an entry as a line, without what it says to machines only."""
    parts = [f"{_clock(entry.at)} {entry.kind:<9}"]
    if entry.kind == "health":
        parts.append(f"{entry.detail.get('pending', 0)} pending")
    if entry.names:
        parts.append(_names(entry))
    if entry.target:
        parts.append(f"at {entry.target}")
    if entry.took_s is not None:
        parts.append(f"in {milliseconds(entry.took_s)}")
    if entry.behind_s is not None:
        parts.append(f"{milliseconds(entry.behind_s)} after the change")
    if entry.error:
        parts.append(f"error: {entry.error}")
    return " ".join([*parts, f"(pid {entry.pid})"] if entry.pid else parts)


def milliseconds(seconds: float | None) -> str:
    """Return a time for people."""
    return "-" if seconds is None else f"{seconds * 1000:,.0f} ms"


def _names(entry: Entry) -> str:
    shown = ", ".join(entry.names[:3])
    more = max(entry.count, len(entry.names)) - len(entry.names[:3])
    return f"{shown} and {more} more" if more else shown


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at * 1000) % 1000:03}"

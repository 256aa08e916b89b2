"""The default store: the memory of this process."""

from __future__ import annotations

import heapq
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from threading import Lock

from grip_edge_middleware.changes import Change
from grip_edge_middleware.grip import CONFIRMED
from grip_edge_middleware.http import Response
from grip_edge_middleware.stores import Claim, Publication
from grip_edge_middleware.stores.marks import Marks
from grip_edge_middleware.throttle import due_at

# Deltas of one topic that wait while a target is down ("coalesce": False).
MAX_PUBLICATIONS = 1_000


@dataclass(slots=True)
class _Pending:
    claim: Claim
    due: float
    is_queued: bool = True


class MemoryStore:
    """Pending topics in a dict and their due times in a heap.

    At most `max_pending` topics; more are refused, and counted by the caller. `confirm_after_s` and
    `replica_lag_s` are the settings of these names. `clock` is monotonic. `wall_clock` gives Unix
    seconds: versions begin with it, so that they grow across restarts too, and end with what tells
    this process from others, whose items a proxy would take for repetitions of ours.
    """

    def __init__(
        self,
        *,
        max_pending: int = 100_000,
        confirm_after_s: float = 0.0,
        replica_lag_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._max_pending = max_pending
        self._confirm_after_s = confirm_after_s
        self._marks = Marks(lag_s=replica_lag_s)
        self._clock = clock
        self._wall_clock = wall_clock
        self._last_version = 0
        self.after_fork()

    def after_fork(self) -> None:
        """Forget what is pending, which the parent sends."""
        self._lock = Lock()
        self._process = secrets.randbelow(10**9)
        self._pending: dict[str, _Pending] = {}
        self._confirmations: dict[str, _Pending] = {}
        # How many publications of each claimed topic are on their way.
        self._claimed: dict[str, int] = {}
        # Names by due time, but for the claimed. An entry is void when its topic's time is another.
        self._heap: list[tuple[float, str]] = []
        self._window_ends: dict[str, float] = {}
        # What is read from now on shows this version, and what was published last had that one.
        self._versions: OrderedDict[str, str] = OrderedDict()
        self._published: OrderedDict[str, str] = OrderedDict()
        self._first_version = self._next_version()
        self._sweep_windows_at = 1_024

    def add(self, changes: Sequence[Change], now: float) -> int:
        """Mark the changed keys and merge the changes into what is pending."""
        with self._lock:
            for change in changes:
                self._marks.mark(change.settings.template.keys(change.topic), now)
            return sum(not self._add(change, now) for change in changes)

    def claim(self, now: float, *, limit: int, everything: bool = False) -> list[Claim]:
        """Take what is due, the longest due first."""
        with self._lock:
            names = self._pending_names() if everything else self._due_names(now)
            return [self._take(name, now) for name in islice(names, limit)]

    def release(self, claims: Iterable[Claim], now: float) -> None:
        """Forget what was delivered; what came in meanwhile can be claimed now."""
        with self._lock:
            for claim in claims:
                name = claim.topic.name
                self._claimed.pop(name, None)
                if claim.publications:
                    self._note(self._published, name, claim.publications[-1].version)
                if (newer := self._pending.get(name)) is not None:
                    self._schedule(newer.claim, newer.due)
                elif self._confirm_after_s and not claim.is_confirmation:
                    confirmation = Claim(claim.topic, claim.settings, (), is_confirmation=True)
                    wait_s = max(self._confirm_after_s, self._marks.lag_s)
                    self._confirm(confirmation, now + wait_s)

    def postpone(self, claim: Claim, due: float) -> None:
        """Put a claim back, before what came after it."""
        with self._lock:
            name = claim.topic.name
            self._claimed.pop(name, None)
            newer = self._pending.get(name)
            if newer is not None:
                claim = newer.claim if claim.is_confirmation else _merge(claim, newer.claim)
                due = min(due, newer.due)
            if claim.is_confirmation:
                self._confirm(claim, due)
            else:
                self._schedule(claim, due)

    def next_due(self) -> float | None:
        """Return the earliest due time of what is not claimed."""
        with self._lock:
            return self._first_due()

    def pending(self) -> int:
        """Return how many topics are pending or claimed, without confirmations."""
        with self._lock:
            return len(self._pending.keys() | self._claimed.keys())

    def sequence(self) -> int:
        """Return the number of the last change."""
        return self._marks.sequence

    def has_changed(self, keys: Iterable[str], since: int) -> bool:
        """Whether one of the keys changed after that number, or may not be seen by all reads."""
        with self._lock:
            return self._marks.has_changed(keys, since, self._clock())

    def versions(self, names: Iterable[str]) -> dict[str, str]:
        """Return the version of each topic: of what is read from now on, or of something older."""
        with self._lock:
            now = self._clock()
            return {
                # A replica may show less than the version: who is told so would miss the rest.
                name: self._first_version
                if self._marks.is_lagging(name, now)
                else self._versions.get(name, self._first_version)
                for name in names
            }

    def _add(self, change: Change, now: float) -> bool:
        name = change.topic.name
        due = due_at(now, self._window_ends.get(name))
        claim = Claim(change.topic, change.settings, (Publication(message=change.message),))
        known = self._pending.get(name)
        if known is not None:
            waiting = len(known.claim.publications) + self._claimed.get(name, 0)
            if not change.settings.coalesce and waiting >= MAX_PUBLICATIONS:
                return False
            claim, due = _merge(known.claim, claim), min(known.due, due)
        elif len(self._pending) >= self._max_pending:
            return False
        self._confirmations.pop(name, None)  # this change will have its own
        self._schedule(claim, due)
        return True

    def _next_version(self) -> str:
        self._last_version = max(self._last_version + 1, int(self._wall_clock() * 1000))
        return str(self._last_version * 10**9 + self._process)

    def _schedule(self, claim: Claim, due: float) -> None:
        name = claim.topic.name
        known = self._pending.get(name)
        is_listed = known is not None and known.is_queued and known.due == due
        # One in flight per topic: what is claimed comes back to the heap when it is released.
        is_queued = name not in self._claimed
        self._pending[name] = _Pending(claim, due, is_queued)
        if is_queued and not is_listed:
            heapq.heappush(self._heap, (due, name))

    def _confirm(self, confirmation: Claim, due: float) -> None:
        name = confirmation.topic.name
        self._confirmations[name] = _Pending(confirmation, due)
        heapq.heappush(self._heap, (due, name))

    def _pending_names(self) -> list[str]:
        return [name for name, pending in self._pending.items() if pending.is_queued]

    def _due_names(self, now: float) -> Iterator[str]:
        while (due := self._first_due()) is not None and due <= now:
            yield heapq.heappop(self._heap)[1]

    def _take(self, name: str, now: float) -> Claim:
        if name not in self._pending:
            self._claimed[name] = 0
            return self._confirmed(self._confirmations.pop(name).claim)
        claim = self._versioned(self._pending.pop(name).claim, now)
        self._claimed[name] = len(claim.publications)
        self._window_ends[name] = now + claim.settings.throttle
        if len(self._window_ends) > self._sweep_windows_at:
            self._sweep_windows(now)
        return claim

    def _versioned(self, claim: Claim, now: float) -> Claim:
        name = claim.topic.name
        if not claim.publications[-1].version:
            # What was begun before says an older version, and calls who has that up to date.
            self._marks.mark(claim.keys, now)
        publications = tuple(
            replace(publication, version=publication.version or self._next_version())
            for publication in claim.publications
        )
        previous = self._published.get(name, self._first_version)
        self._note(self._versions, name, publications[-1].version)
        return replace(claim, publications=publications, previous=previous)

    def _confirmed(self, claim: Claim) -> Claim:
        """Give a confirmation its marker: an empty item that only says which version is the last.

        Who has that version moves on without a word, who does not asks the next link.
        """
        name = claim.topic.name
        if not claim.settings.recovers or claim.publications:
            return claim
        version = self._versions.get(name, self._first_version)
        marker = Publication(version + CONFIRMED, {"stream": Response(200)})
        self._note(self._versions, name, marker.version)
        previous = self._published.get(name, self._first_version)
        return replace(claim, publications=(marker,), previous=previous)

    def _note(self, versions: OrderedDict[str, str], name: str, version: str) -> None:
        versions[name] = version
        versions.move_to_end(name)
        if len(versions) > self._max_pending:
            # Whoever has it asks the next link once more than needed.
            versions.popitem(last=False)

    def _sweep_windows(self, now: float) -> None:
        """Drop windows that have ended; amortised, since the next sweep waits for twice as many."""
        self._window_ends = {name: end for name, end in self._window_ends.items() if end > now}
        self._sweep_windows_at = max(1_024, 2 * len(self._window_ends))

    def _first_due(self) -> float | None:
        while self._heap:
            due, name = self._heap[0]
            pending = self._pending.get(name) or self._confirmations.get(name)
            if pending is not None and pending.is_queued and pending.due == due:
                return due
            heapq.heappop(self._heap)
        return None


def _merge(older: Claim, newer: Claim) -> Claim:
    """Return one claim for both: the newer change is yet to reach every target."""
    publications = newer.publications
    if not newer.settings.coalesce:
        publications = older.publications + publications
    return replace(newer, publications=publications, missing=None)

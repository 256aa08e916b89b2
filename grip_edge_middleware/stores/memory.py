"""The default store: the memory of this process."""

from __future__ import annotations

import heapq
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from threading import Lock
from typing import Literal

from grip_edge_middleware.changes import Change
from grip_edge_middleware.grip import CONFIRMED
from grip_edge_middleware.settings import TopicSettings
from grip_edge_middleware.stores import Claim, Overflow, Publication
from grip_edge_middleware.stores.marks import Marks
from grip_edge_middleware.throttle import due_at
from grip_edge_middleware.topics import SITE_KEY, Topic

# Deltas of one topic that wait while a target is down ("coalesce": False).
MAX_PUBLICATIONS = 1_000
# Templates whose topics are purged together when there is no room for each: beyond, the whole site.
MAX_TYPES = 16

_RENDERED = (Publication(),)

_Heap = list[tuple[float, str]]


@dataclass(slots=True)
class _Pending:
    claim: Claim
    due: float
    is_queued: bool = True


class MemoryStore:
    """Pending topics in a dict and their due times in two heaps: of messages, and of mere purges.

    At most `max_pending` topics; more are purged by their types. Of the `max_versions` topics that
    changed last it knows the version. `confirm_after_s` and `replica_lag_s` are the settings of
    these names. `clock` is monotonic. `wall_clock` gives Unix seconds: versions begin with it, so
    that they grow across restarts too, and end with what tells this process from others, whose
    items a proxy would take for repetitions of ours.
    """

    def __init__(
        self,
        *,
        max_pending: int = 100_000,
        max_versions: int = 100_000,
        confirm_after_s: Sequence[float] = (),
        replica_lag_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._max_pending = max_pending
        self._max_versions = max_versions
        # What lags behind is not confirmed before it shows the change.
        self._confirm_after_s = sorted({max(wait_s, replica_lag_s) for wait_s in confirm_after_s})
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
        self._escalated: set[str] = set()
        self._claimed: dict[str, Claim] = {}
        self._confirming: set[str] = set()
        # Names by due time, but for the claimed. An entry is void when its topic's time is another.
        self._heap: _Heap = []
        self._purge_heap: _Heap = []
        self._window_ends: dict[str, float] = {}
        # What is read from now on shows this version, and what was published last had that one.
        self._versions: OrderedDict[str, str] = OrderedDict()
        self._published: OrderedDict[str, str] = OrderedDict()
        self._first_version = self._next_version()
        self._sweep_windows_at = 1_024

    def add(self, changes: Sequence[Change], now: float) -> Overflow:
        """Mark the changed keys and merge the changes into what is pending."""
        with self._lock:
            for change in changes:
                self._marks.mark(change.settings.template.keys(change.topic), now)
            added = [self._add(change, now) for change in changes]
        return Overflow(escalated=added.count("escalated"), refused=added.count("refused"))

    def claim(
        self, now: float, *, limit: int, everything: bool = False, purges: bool = True
    ) -> list[Claim]:
        """Take what is due, the longest due first."""
        with self._lock:
            names = self._pending_names(purges) if everything else self._due_names(now, purges)
            return [self._take(name, now) for name in islice(names, limit)]

    def release(self, claims: Iterable[Claim], now: float) -> None:
        """Forget what was delivered; what came in meanwhile can be claimed now."""
        with self._lock:
            for claim in claims:
                name = claim.topic.name
                self._unclaim(name)
                self._note_published(claim)
                if (newer := self._pending.get(name)) is not None:
                    self._schedule(newer.claim, newer.due)
                    continue
                self._escalated.discard(name)
                if claim.is_escalated and claim.settings.held_routes:
                    self._follow_new_versions()
                if claim.confirmations < len(self._confirm_after_s):
                    self._confirm_later(claim, now)

    def postpone(self, claim: Claim, due: float) -> None:
        """Put a claim back, before what came after it."""
        with self._lock:
            name = claim.topic.name
            self._unclaim(name)
            if claim.published_at is not None:
                self._note_published(claim)
                if not claim.settings.refetch:  # whose last message is sent once more
                    claim = replace(claim, publications=())
            newer = self._pending.get(name)
            if newer is not None and claim.is_only_purged:
                # It is purged with the newer change, when that may be published.
                claim, due = replace(newer.claim, since=claim.since), newer.due
            elif newer is not None:
                due = newer.due if claim.is_partial else min(due, newer.due)
                claim = _merge(claim, newer.claim)
            if claim.is_confirmation:
                self._confirm(claim, due)
            else:
                self._schedule(claim, due)

    def next_due(self, *, purges: bool = True) -> float | None:
        """Return the earliest due time of what is not claimed."""
        with self._lock:
            heap = self._first_heap(purges)
            return None if heap is None else heap[0][0]

    def pending(self) -> int:
        """Return how many topics are pending or claimed, without confirmations."""
        with self._lock:
            return len(self._pending.keys() | self._claimed.keys())

    def delivered(self) -> int:
        """Return the number of the last change up to which every target has all changes."""
        with self._lock:
            waiting = (pending.claim for pending in self._pending.values())
            oldest = min(
                (claim.since for claim in chain(waiting, self._claimed.values())), default=None
            )
            return self._marks.sequence if oldest is None else oldest - 1

    def escalated(self) -> list[str]:
        """Return the keys that wait in place of topics."""
        with self._lock:
            return sorted(self._escalated)

    def sequence(self) -> int:
        """Return the number of the last change."""
        return self._marks.sequence

    def has_changed(self, keys: Iterable[str], since: int, *, lag: bool = True) -> bool:
        """Whether one of the keys changed after that number, or may not be seen by all reads."""
        with self._lock:
            return self._marks.has_changed(keys, since, self._clock() if lag else math.inf)

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

    def _add(self, change: Change, now: float) -> Literal["added", "escalated", "refused"]:
        if change.is_of_all:
            self._escalate(change, now)
            return "added"
        name = change.topic.name
        due = due_at(now, self._window_ends.get(name))
        publications = _publications(change)
        since = self._marks.sequence
        known = self._pending.get(name)
        if known is not None:
            on_their_way = self._claimed[name].publications if name in self._claimed else ()
            waiting = len(known.claim.publications) + len(on_their_way)
            if not change.settings.coalesce and waiting >= MAX_PUBLICATIONS:
                self._schedule(replace(known.claim, missing=None), known.due)
                return "refused"
            if not known.claim.is_partial:
                due = min(known.due, due)
            publications = _merge_publications(known.claim, change.settings, publications)
            since = known.claim.since
        elif not self._has_room(change.topic):
            self._escalate(change, now)
            return "escalated"
        self._confirmations.pop(name, None)  # this change will have its own
        self._schedule(Claim(change.topic, change.settings, publications, since=since), due)
        return "added"

    def _unclaim(self, name: str) -> None:
        self._claimed.pop(name, None)
        self._confirming.discard(name)

    def _has_room(self, topic: Topic) -> bool:
        """What is on its way keeps its place, and there are few topics without parameters."""
        is_full = len(self._pending) + len(self._claimed) >= self._max_pending
        return not is_full or topic.name in self._claimed or not topic.params

    def _escalate(self, change: Change, now: float) -> None:
        key = self._escalation_key(change)
        topic = Topic(key, change.topic.template)
        since = self._marks.sequence
        claim = Claim(topic, change.settings, (), is_escalated=True, since=since)
        due = due_at(now, self._window_ends.get(key))
        known = self._pending.get(key)
        if known is not None:
            due = min(known.due, due)
            claim = replace(claim, since=known.claim.since)
            if known.claim.settings.held_routes:  # some clients will have missed something
                claim = replace(known.claim, missing=None)
        self._confirmations.pop(key, None)
        self._escalated.add(key)
        self._schedule(claim, due)

    def _escalation_key(self, change: Change) -> str:
        key = change.topic.name if change.is_of_all else change.settings.template.type_key
        is_room = key in self._escalated or len(self._escalated) < MAX_TYPES
        # A page that is tagged with a shortened name does not know its type.
        is_enough = is_room and not change.topic.is_shortened and SITE_KEY not in self._pending
        return key if is_enough else SITE_KEY

    def _next_version(self) -> str:
        self._last_version = max(self._last_version + 1, int(self._wall_clock() * 1000))
        return str(self._last_version * 10**9 + self._process)

    def _schedule(self, claim: Claim, due: float) -> None:
        name = claim.topic.name
        known = self._pending.get(name)
        heap = self._heap_of(claim)
        is_listed = (
            known is not None
            and known.is_queued
            and known.due == due
            and self._heap_of(known.claim) is heap
        )
        # One in flight per topic: what is claimed comes back to the heap when it is released.
        is_queued = name not in self._claimed and name not in self._confirming
        self._pending[name] = _Pending(claim, due, is_queued)
        if is_queued and not is_listed:
            heapq.heappush(heap, (due, name))

    def _heap_of(self, claim: Claim) -> _Heap:
        return self._purge_heap if claim.is_only_purged else self._heap

    def _confirm_later(self, claim: Claim, now: float) -> None:
        # While a purge is late, what was on its way to the cache arrives.
        since = now if claim.published_at is None else claim.published_at
        waits_s = [0.0, *self._confirm_after_s]
        wait_s = waits_s[claim.confirmations + 1] - waits_s[claim.confirmations]
        self._confirm(_confirmation_of(claim), max(now, since + wait_s))

    def _confirm(self, confirmation: Claim, due: float) -> None:
        name = confirmation.topic.name
        self._confirmations[name] = _Pending(confirmation, due)
        heapq.heappush(self._purge_heap, (due, name))

    def _pending_names(self, purges: bool) -> list[str]:
        return [
            name
            for name, pending in self._pending.items()
            if pending.is_queued and (purges or not pending.claim.is_only_purged)
        ]

    def _due_names(self, now: float, purges: bool) -> Iterator[str]:
        while (heap := self._first_heap(purges)) is not None and heap[0][0] <= now:
            yield heapq.heappop(heap)[1]

    def _take(self, name: str, now: float) -> Claim:
        if name not in self._pending:
            self._confirming.add(name)
            return self._confirmed(self._confirmations.pop(name).claim, now)
        claim = self._pending.pop(name).claim
        self._claimed[name] = claim
        if claim.published_at is not None:
            return claim
        begin = self._begun_anew if claim.is_escalated else self._versioned
        claim = begin(claim, now)
        if not claim.is_partial:  # else who has it already would wait for who has not
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
        for key in claim.keys:
            self._note(self._versions, key, publications[-1].version)
        return replace(claim, publications=publications, previous=previous)

    def _begun_anew(self, claim: Claim, now: float) -> Claim:
        """Give all topics a new version: which of them changed is not known.

        So whoever asks the next link, as all clients will be told to, is given the page. Until then
        what is published follows what was published before. What nobody is held for is only
        purged, so its key has a version for all.
        """
        if claim.missing is None:
            self._marks.mark(claim.keys, now)
            if claim.settings.held_routes:
                self._first_version = self._next_version()
                self._versions.clear()
            else:
                self._note(self._versions, claim.topic.name, self._next_version())
        return claim

    def _follow_new_versions(self) -> None:
        """All clients have asked the next link, so they have the version that all topics got."""
        for name in self._published.keys() - self._versions.keys():
            del self._published[name]

    def _confirmed(self, claim: Claim, now: float) -> Claim:
        """Give a confirmation its version: that of what it confirms, and a little more."""
        if claim.is_escalated:
            return self._begun_anew(claim, now)
        if not claim.publications or claim.publications[0].version:
            return claim  # purges only, or has it from an earlier try
        name = claim.topic.name
        version = self._versions.get(name, self._first_version) + CONFIRMED
        self._note(self._versions, name, version)
        previous = self._published.get(name, self._first_version)
        publications = (replace(claim.publications[0], version=version),)
        return replace(claim, publications=publications, previous=previous)

    def _note_published(self, claim: Claim) -> None:
        if claim.settings.recovers and claim.publications:
            self._note(self._published, claim.topic.name, claim.publications[-1].version)

    def _note(self, versions: OrderedDict[str, str], name: str, version: str) -> None:
        versions[name] = version
        versions.move_to_end(name)
        if len(versions) <= self._max_versions:
            return
        _, forgotten = versions.popitem(last=False)
        if versions is self._versions:
            # Else it would have the version of before its changes again. Who has another asks once
            # more than needed.
            self._first_version = forgotten

    def _sweep_windows(self, now: float) -> None:
        """Drop windows that have ended; amortised, since the next sweep waits for twice as many."""
        self._window_ends = {name: end for name, end in self._window_ends.items() if end > now}
        self._sweep_windows_at = max(1_024, 2 * len(self._window_ends))

    def _first_heap(self, purges: bool) -> _Heap | None:
        """Return the heap with what is due first."""
        heaps = (self._heap, self._purge_heap) if purges else (self._heap,)
        for heap in heaps:
            while heap and self._is_void(*heap[0]):
                heapq.heappop(heap)
        return min(filter(None, heaps), key=lambda heap: heap[0], default=None)

    def _is_void(self, due: float, name: str) -> bool:
        pending = self._pending.get(name) or self._confirmations.get(name)
        return pending is None or not pending.is_queued or pending.due != due


def _confirmation_of(claim: Claim) -> Claim:
    """Return what comes after a quiet period.

    A marker, usually: who has the last version moves on without a word, who does not asks for it.
    Where messages only tell clients to fetch a page, the last is sent again: who heeded it may have
    been given what another was still fetching from before.
    """
    confirmation = Claim(
        claim.topic,
        claim.settings,
        (),
        confirmations=claim.confirmations + 1,
        is_escalated=claim.is_escalated,
    )
    if claim.is_escalated:
        return confirmation
    if claim.settings.refetch:
        last = tuple(replace(p, version="") for p in claim.publications[-1:])
        return replace(confirmation, publications=last)
    if claim.settings.recovers:
        return replace(confirmation, publications=(Publication(is_marker=True),))
    return confirmation


def _merge(older: Claim, newer: Claim) -> Claim:
    """Return one claim for both: the newer change is yet to reach every target."""
    publications = _merge_publications(older, newer.settings, newer.publications)
    return replace(newer, publications=publications, missing=None, since=older.since)


def _publications(change: Change) -> tuple[Publication, ...]:
    return _RENDERED if change.message is None else (Publication(message=change.message),)


def _merge_publications(
    older: Claim, settings: TopicSettings, newer: tuple[Publication, ...]
) -> tuple[Publication, ...]:
    is_last_enough = settings.coalesce or older.published_at is not None
    return newer if is_last_enough else older.publications + newer

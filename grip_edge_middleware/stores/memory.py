"""The default store: the memory of this process."""

from __future__ import annotations

import math
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from threading import Lock
from typing import TypeVar

from grip_edge_middleware.changes import Change
from grip_edge_middleware.gate import Gate
from grip_edge_middleware.stores import Claim, Intake
from grip_edge_middleware.stores.queue import DueQueue
from grip_edge_middleware.stores.records import Common, Record, Records
from grip_edge_middleware.stores.rules import PROCESSES, Rules, build_version, version_of

T = TypeVar("T")

# Submissions that wait to be merged: from so many on it is time that somebody does, and at so many
# whoever adds one.
FULL_INBOX = 500
MAX_INBOX = 10_000


class MemoryStore:
    """What is pending in this process.

    `add` runs on the app's threads, so it only puts the changes into an inbox. Whoever asks the
    store for anything merges what is in there first, so nobody can tell.

    At most `max_pending` topics; more are purged by their types. Of the `max_versions` keys that
    changed last it knows the version. `confirm_after_s` and `replica_lag_s` are the settings of
    these names. `clock` is monotonic. `wall_clock` gives Unix seconds: versions begin with it, so
    that they grow across restarts too. `when_served` is called before the first request.
    """

    is_local = True
    is_failing = False

    def __init__(
        self,
        *,
        max_pending: int = 100_000,
        max_versions: int = 100_000,
        confirm_after_s: Sequence[float] = (),
        replica_lag_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        when_served: Callable[[], None] = lambda: None,
    ) -> None:
        self._when_served = when_served
        self._max_pending = max_pending
        self._max_versions = max_versions
        # What lags behind is not confirmed before it shows the change.
        self._confirm_after_s = sorted({max(wait_s, replica_lag_s) for wait_s in confirm_after_s})
        self._lag_s = replica_lag_s
        self._clock = clock
        self._wall_clock = wall_clock
        self._shelf = MemoryShelf(0, Common(""), max_records=0)
        self.after_fork()

    def when_needed(self, wake: Callable[[], object]) -> None:
        """Do nothing: whoever adds something says when it is due."""

    def close(self) -> None:
        """Do nothing."""

    def after_fork(self) -> None:
        """Forget what is pending, which the parent sends."""
        self._is_serving = False
        self._inbox: deque[tuple[Sequence[Change], float]] = deque()
        self._intake = Intake()
        process = secrets.randbelow(PROCESSES - 10**6)
        self._rules = Rules(self._max_pending, self._confirm_after_s, math.inf, process)
        # Larger than any before: what was remembered of a number would be taken for true.
        sequence = max(int(self._wall_clock() * 1e6), self._shelf.sequence + 1)
        first_version = build_version(sequence, process)
        self._shelf = MemoryShelf(sequence, Common(first_version), max_records=self._max_versions)

    # --- a change comes, and goes -----------------------------------------------------------

    def add(self, changes: Sequence[Change], now: float) -> float:
        """Put the changes into the inbox; return when the first of them is due, or it is full."""
        self._inbox.append((changes, now))
        if (waiting := len(self._inbox)) >= FULL_INBOX:
            if waiting >= MAX_INBOX:
                self._merged()
            return now
        return max(now, self._shelf.window_end(changes))

    def _merged(self) -> MemoryShelf:
        """Return the shelf when nothing is in the inbox any more."""
        if self._inbox:
            self._shelf.write((), self._merge)
        return self._shelf

    def _merge(self, records: Records) -> None:
        while self._inbox:
            intake = self._rules.add(records, *self._inbox.popleft())
            self._intake = self._intake.plus(*intake)

    def take_in(self) -> Intake:
        """Empty the inbox; return what was taken in since this was asked last."""
        with self._merged().lock:  # which whoever is merging has
            intake, self._intake = self._intake, Intake()
        return intake

    def claim(
        self, now: float, *, limit: int, everything: bool = False, purges: bool = True
    ) -> list[Claim]:
        """Take what is due, the longest due first."""
        shelf = self._merged()

        def take(records: Records) -> list[Claim]:
            due = shelf.free(purges=purges) if everything else shelf.due(now, purges=purges)
            return self._rules.claim(records, islice(due, limit), now, everything=everything)

        return shelf.write((), take)

    def release(self, claims: Iterable[Claim], now: float) -> None:
        """Forget what was delivered; what came in meanwhile can be claimed now."""
        self._merged().write((), lambda records: self._rules.release(records, claims, now))

    def postpone(self, claim: Claim, due: float) -> None:
        """Put a claim back, before what came after it."""
        self._merged().write((), lambda records: self._rules.postpone(records, claim, due))

    # --- what is pending --------------------------------------------------------------------

    def next_due(self, *, purges: bool = True) -> float | None:
        """Return the earliest due time of what is not claimed."""
        return self._merged().next_due(purges=purges)

    def pending(self) -> int:
        """Return how many topics are pending or claimed, without confirmations."""
        shelf = self._merged()
        with shelf.lock:  # which whoever is merging has
            return shelf.pending()

    def pending_since(self) -> float | None:
        """Return when the oldest change of these was submitted."""
        since = self._merged().pending_since()
        return None if since == math.inf else since

    def pending_names(self) -> list[str]:
        """Return which topics these are."""
        shelf = self._merged()
        with shelf.lock:
            return shelf.pending_names()

    def submitted(self) -> int:
        """Return the number of the last change."""
        return self.sequence()

    def delivered(self) -> int:
        """Return the number of the last change up to which every target has all changes."""
        shelf = self._merged()
        oldest = shelf.oldest()
        return shelf.sequence if oldest is None else oldest - 1

    def escalated(self) -> list[str]:
        """Return the keys that wait in place of topics."""
        shelf = self._merged()
        with shelf.lock:
            return sorted(shelf.common.escalated)

    # --- the gate ---------------------------------------------------------------------------

    def for_request(self, names: Iterable[str]) -> Gate:
        """Return itself: nothing is saved by asking once."""
        if not self._is_serving:
            self._is_serving = True
            self._when_served()
        return self

    def sequence(self) -> int:
        """Return the number of the last change."""
        return self._merged().sequence

    def is_unchanged(self, since: int) -> bool:
        """Whether nothing was written since; what a lag hides becomes visible without that."""
        return not self._lag_s and self._merged().sequence == since

    def has_changed(self, keys: Iterable[str], since: int, *, lag: bool = True) -> bool:
        """Whether one of the keys changed after that number, or may not be seen by all reads."""
        shelf = self._merged()
        fresh_from = self._clock() - self._lag_s if lag and self._lag_s else math.inf
        with shelf.lock:
            return since < shelf.common.forgotten or any(
                (record := shelf.get(key)) is not None
                and (record.mark > since or record.marked_at > fresh_from)
                for key in keys
            )

    def versions(self, names: Iterable[str]) -> dict[str, str]:
        """Return the version of each topic: of what is read from now on, or of something older."""
        shelf = self._merged()
        fresh_from = self._clock() - self._lag_s if self._lag_s else math.inf
        with shelf.lock:
            return {name: _version(shelf, name, fresh_from) for name in names}


def _version(shelf: MemoryShelf, name: str, fresh_from: float) -> str:
    record = shelf.get(name)
    if record is not None and record.marked_at > fresh_from:
        # A replica may show less than the version: who is told so would miss the rest.
        record = None
    return version_of(shelf.common, record)


class MemoryShelf:
    """Records in a dict, and their keys in a queue.

    Of what is idle it keeps `max_records`, the last that were changed.
    """

    def __init__(self, sequence: int, common: Common, *, max_records: int) -> None:
        self.sequence = sequence
        self.common = common
        self._max_records = max_records
        self.lock = Lock()
        self._records: OrderedDict[str, Record] = OrderedDict()
        self._edited: set[str] = set()
        self._pending: dict[str, None] = {}
        self._queue = DueQueue()

    def write(self, _keys: Iterable[str], step: Callable[[Records], T]) -> T:
        """Run a step that changes records."""
        with self.lock:
            self.sequence += 1
            try:
                return step(self)
            finally:
                self._settle()

    # --- within a step ----------------------------------------------------------------------

    def get(self, key: str) -> Record | None:
        """Return a key's record to look at."""
        return self._records.get(key)

    def edit(self, key: str) -> Record:
        """Return a key's record to change."""
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = Record()
            self._forget()
        self._records.move_to_end(key)
        self._edited.add(key)
        return record

    def pending(self) -> int:
        """Return how many records are pending."""
        self._settle()
        return len(self._pending)

    def pending_names(self) -> list[str]:
        """Return their keys, what has waited longest first."""
        self._settle()
        return list(self._pending)

    def free(self, *, purges: bool) -> Iterator[str]:
        """Yield the keys of what is pending and not claimed."""
        for key in list(self._pending):
            record = self._records[key]
            if record.claimed is None and (purges or not record.is_only_purged):
                yield key

    def due(self, now: float, *, purges: bool) -> Iterator[str]:
        """Take out the keys that are due, the longest due first. Who is given one must claim it."""
        return self._queue.due(now, purges=purges)

    # --- what is asked without one ----------------------------------------------------------

    def window_end(self, changes: Iterable[Change]) -> float:
        """Return when the first window of their topics ends or has ended."""
        first, records = math.inf, self._records
        for change in changes:
            record = records.get(change.topic.name)
            if record is None:
                return -math.inf
            if record.window_end < first:
                first = record.window_end
        return first

    def next_due(self, *, purges: bool) -> float | None:
        """Return when the next key is due."""
        with self.lock:
            return self._queue.next_due(purges=purges)

    def oldest(self) -> int | None:
        """Return the number of the oldest change that is yet to be delivered."""
        with self.lock:
            sinces = (self._records[key].since for key in self._pending)
            return min((since for since in sinces if since is not None), default=None)

    def pending_since(self) -> float:
        """Return when that was submitted; infinite if there is none."""
        with self.lock:
            sinces = (self._records[key].pending_since for key in self._pending)
            return min(sinces, default=math.inf)

    # --- keeping ----------------------------------------------------------------------------

    def _settle(self) -> None:
        """Queue what was edited. What is edited after that is settled again."""
        for key in self._edited:
            self._enqueue(key)
        self._edited.clear()

    def _enqueue(self, key: str) -> None:
        record = self._records[key]
        if record.is_pending:
            self._pending[key] = None
        else:
            self._pending.pop(key, None)
        due = record.next_due
        if due == math.inf:
            self._queue.drop(key)
        else:
            self._queue.put(key, due, is_only_purged=record.is_only_purged)

    def _forget(self) -> None:
        """Drop what was not changed for the longest time."""
        for _ in range(2):
            if len(self._records) <= self._max_records:
                return
            key = next(iter(self._records))
            record = self._records[key]
            if record.is_idle and key not in self._edited:
                del self._records[key]
                self.common.forgotten = max(self.common.forgotten, record.mark)
                # Else it would have the version of before its changes again. Who has another asks
                # once more than needed.
                self.common.first_version = version_of(self.common, record)
            else:
                self._records.move_to_end(key)

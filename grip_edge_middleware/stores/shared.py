"""A store that several processes share, and that any of them sends from.

What is submitted goes into an inbox in this process, a memory store, and from there to the shelf
that all share. So the app's threads never wait for the shelf, and what is submitted while that does
not answer is kept, within the same limits. Whoever submitted a change sends it; what nobody has
sent a little after it was due is anybody's.
"""

from __future__ import annotations

import logging
import math
import os
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from threading import Lock
from typing import TypeVar

from grip_edge_middleware.changes import Change
from grip_edge_middleware.errors import StoreError
from grip_edge_middleware.gate import Gate
from grip_edge_middleware.log_fields import log_fields
from grip_edge_middleware.stores import Claim, Intake
from grip_edge_middleware.stores.memory import MemoryStore
from grip_edge_middleware.stores.queue import DueQueue
from grip_edge_middleware.stores.records import Records, Shelf
from grip_edge_middleware.stores.rules import PROCESSES, Rules, version_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

# What the log calls it.
STORE = "store"

# Longer than a batch takes if each of its targets has to be waited for.
LEASE_S = 15.0
# What another process has not sent so long after it was due is anybody's: more than a turn takes.
PATIENCE_S = 0.25
# How often a process looks for what others left.
LOOK_S = 1.0
# So many times that something was brought to the shelf are told apart.
MAX_BROUGHT = 1_000


@dataclass(frozen=True, slots=True)
class _Own:
    """What this process has to send: when it is due, by the shelf's clock, and what it is."""

    due: float
    is_only_purged: bool
    is_pending: bool
    since: float
    """When the oldest change that it is for was submitted; infinite if it is for none."""


class _Agenda:
    """What this process has to send, by key. For several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._own: dict[str, _Own] = {}
        self._queue = DueQueue()
        self._pending = 0

    def put(self, own: Mapping[str, _Own]) -> None:
        """Note what is to be sent, instead of what was noted of these keys before."""
        with self._lock:
            for key, of in own.items():
                known = self._own.get(key)
                self._pending += of.is_pending - (known is not None and known.is_pending)
                self._own[key] = of
                self._queue.put(key, of.due, is_only_purged=of.is_only_purged)

    def take(self, now: float, limit: int, *, purges: bool) -> dict[str, _Own]:
        """Return what is due, the longest due first, once. It is pending until it is dropped."""
        with self._lock:
            due = islice(self._queue.due(now, purges=purges), limit)
            return {key: self._own[key] for key in due}

    def take_all(self, limit: int, *, purges: bool) -> dict[str, _Own]:
        """Return what is pending, whenever it is due."""
        with self._lock:
            free = [
                (of.due, key)
                for key, of in self._own.items()
                if of.is_pending and (purges or not of.is_only_purged)
            ]
            return {key: self._own[key] for _, key in sorted(free)[:limit]}

    def drop(self, keys: Iterable[str]) -> None:
        """Forget these keys."""
        with self._lock:
            for key in keys:
                self._queue.drop(key)
                known = self._own.pop(key, None)
                self._pending -= known is not None and known.is_pending

    def next_due(self, *, purges: bool) -> float:
        """Return when something is due."""
        with self._lock:
            due = self._queue.next_due(purges=purges)
            return math.inf if due is None else due

    def pending(self) -> int:
        """Return how many are not mere confirmations."""
        return self._pending

    def pending_since(self) -> float:
        """Return when the oldest change was submitted; infinite if there is none."""
        with self._lock:
            return min((of.since for of in self._own.values()), default=math.inf)


class SharedStore:
    """What is pending in all processes that share a shelf.

    `sends` is False for a process that only submits, since others send. `lease_s` is for how long
    what is claimed is not claimed by others: if its process is killed, that late it is sent.
    `look_s` is how often a process looks for what others left. `when_lost` is submitted when the
    shelf has lost what this process brought to it: that may have been anything.
    `clock` is monotonic. The other options are those of the memory store.
    """

    is_local = False

    def __init__(
        self,
        shelf: Shelf,
        *,
        max_pending: int = 100_000,
        confirm_after_s: Sequence[float] = (),
        replica_lag_s: float = 0.0,
        lease_s: float = LEASE_S,
        look_s: float = LOOK_S,
        sends: bool = True,
        when_lost: Sequence[Change] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shelf = shelf
        self._max_pending = max_pending
        self._confirm_after_s = sorted({max(wait_s, replica_lag_s) for wait_s in confirm_after_s})
        self._lag_s = replica_lag_s
        self._lease_s = lease_s
        self._look_s = look_s
        self.sends = sends
        self._when_lost = when_lost
        self._clock = clock
        self._inbox = MemoryStore(max_pending=max_pending, clock=clock)
        self._wake: Callable[[], object] = lambda: None
        self._start_anew()

    def when_needed(self, wake: Callable[[], object]) -> None:
        """Have the thread that sends woken when there may be something for it to do."""
        self._wake = wake

    def after_fork(self) -> None:
        """Forget what this process has to send: it is the parent's."""
        self._inbox.after_fork()
        self._shelf.after_fork()
        self._start_anew()

    def _start_anew(self) -> None:
        self._rules = Rules(
            self._max_pending,
            self._confirm_after_s,
            self._lease_s,
            process=secrets.randbelow(PROCESSES - 10**6),
            owner=f"{os.getpid()}-{secrets.token_hex(8)}",
        )
        self._claiming = Lock()
        self._agenda = _Agenda()
        # What is on its way, and when the oldest change of it was submitted, by the shelf's clock.
        self._held: dict[str, float] = {}
        # Steps of which no answer came, and the keys that they ask for.
        self._unheard: deque[tuple[Sequence[str], Callable[[Records], object]]] = deque()
        self._intake = Intake()
        self._submitting = Lock()
        self._submitted = 0
        # What was brought to the shelf: the number it has here, and there.
        self._brought: deque[tuple[int, int]] = deque(maxlen=MAX_BROUGHT)
        self._noting = Lock()
        self._look_at = -math.inf
        self._last_number = 0
        self._delivered = 0
        self._is_failing = False
        self._is_watched = False

    # --- a change comes ---------------------------------------------------------------------

    def add(self, changes: Sequence[Change], now: float) -> float:
        """Put the changes into the inbox; they are due when they are brought to the shelf."""
        self._inbox.add(changes, now)
        with self._submitting:
            self._submitted += 1
        return -math.inf

    def take_in(self) -> Intake:
        """Bring what is in the inbox to the shelf. StoreError if that does not answer."""
        if self._is_failing:
            with self._asking():
                self._shelf.read(())
        self._make_sure()
        while self._inbox.pending():
            number = self._submitted
            self._bring(self._inbox.claim(self._clock(), limit=1_000, everything=True))
            if not self._inbox.pending():
                self._brought.append((number, self._last_number))
        if self._brought and self._clock() >= self._look_at:
            self._look_at = self._clock() + self._look_s
            self.delivered()
        intake, self._intake = self._intake.plus(*self._inbox.take_in()), Intake()
        return intake

    def _bring(self, claims: list[Claim]) -> None:
        brought = [(_changes_of(claim), self._shared(claim.since.at)) for claim in claims]
        changes = [change for of_topic, _ in brought for change in of_topic]

        def add(records: Records) -> tuple[Intake, dict[str, _Own], int]:
            intake = Intake()
            for of_topic, submitted_at in brought:
                now = self._shelf.now()
                added = self._rules.add(records, of_topic, now, submitted_at=submitted_at)
                intake = intake.plus(0, added.coalesced, added.overflow)
            keys = {change.topic.name for change in changes} | records.common.escalated
            return intake, _own(records, keys), records.sequence

        try:
            with self._asking():
                intake, own, self._last_number = self._shelf.write(self._rules.keys(changes), add)
        except StoreError:
            for claim in claims:
                self._inbox.postpone(claim, self._clock())
            raise
        self._keep(own)  # first, for something is pending at any time
        self._inbox.release(claims, self._clock())
        self._intake = self._intake.plus(*intake)

    # --- it goes ----------------------------------------------------------------------------

    def claim(
        self, now: float, *, limit: int, everything: bool = False, purges: bool = True
    ) -> list[Claim]:
        """Take what is due; `everything` is what this process has to send."""
        if not self.sends:
            return []
        with self._claiming, self._asking():
            claims = self._claim(self._shared(now), limit, everything=everything, purges=purges)
        return [self._to_local(claim) for claim in claims]

    def _claim(self, now: float, limit: int, *, everything: bool, purges: bool) -> list[Claim]:
        if everything:
            own = self._agenda.take_all(limit, purges=purges)
        else:
            own = self._agenda.take(now, limit, purges=purges)
        try:
            keys = list(own) if everything else self._due_keys(own, now, limit, purges=purges)
            claims = self._write_claims(keys, now, everything=everything) if keys else []
        except BaseException:
            self._agenda.put(own)
            raise
        self._held |= {c.topic.name: c.since.at for c in claims if not c.is_confirmation}
        self._agenda.drop(keys)  # what could not be claimed, another process has
        return claims

    def _due_keys(self, own: Iterable[str], now: float, limit: int, *, purges: bool) -> list[str]:
        """Return what is due: of others' only what they have not sent in time."""
        others = self._shelf.due(now - PATIENCE_S, limit, purges=purges)
        return list(dict.fromkeys([*own, *others]))[:limit]

    def _write_claims(self, keys: list[str], now: float, *, everything: bool) -> list[Claim]:
        def claim(records: Records) -> list[Claim]:
            return self._rules.claim(records, keys, now, everything=everything)

        def give_back(records: Records) -> None:
            for key in keys:
                if key not in self._held:
                    self._rules.give_back(records, key, self._shelf.now())

        try:
            return self._shelf.write(keys, claim)
        except StoreError:
            self._unheard.append((keys, give_back))
            raise

    def release(self, claims: Iterable[Claim], now: float) -> None:
        """Forget what was delivered; what came in meanwhile can be claimed now."""
        delivered = [self._to_shared(claim) for claim in claims]
        if not delivered:
            return

        def release(records: Records) -> None:
            self._rules.release(records, delivered, self._shared(now))

        def release_ours(records: Records) -> None:
            ours = [claim for claim in delivered if self._rules.is_ours(records, claim)]
            self._rules.release(records, ours, self._shared(now))

        self._end(delivered, release, once_more=release_ours)

    def postpone(self, claim: Claim, due: float) -> None:
        """Put a claim back, before what came after it."""
        late = self._to_shared(claim)

        def postpone(records: Records) -> None:
            self._rules.postpone(records, late, self._shared(due))

        self._end([late], postpone, once_more=postpone)

    def _end(
        self,
        claims: Iterable[Claim],
        step: Callable[[Records], None],
        *,
        once_more: Callable[[Records], None],
    ) -> None:
        """Take a step that gives claims back; `once_more` if nobody knows whether it was taken."""
        keys = [claim.topic.name for claim in claims]
        try:
            self._write_end(keys, step)
        except StoreError:
            self._unheard.append((keys, once_more))
        for key in keys:
            self._held.pop(key, None)

    def _write_end(self, keys: Sequence[str], step: Callable[[Records], object]) -> None:
        def end(records: Records) -> dict[str, _Own]:
            step(records)
            return _own(records, keys)

        with self._asking():
            self._keep(self._shelf.write(keys, end))

    def _make_sure(self) -> None:
        """Take the steps once more that may not have been taken, or without our knowing.

        Else nobody would claim their topics before the lease ends.
        """
        while self._unheard:
            self._write_end(*self._unheard[0])
            self._unheard.popleft()

    # --- what is pending --------------------------------------------------------------------

    def next_due(self, *, purges: bool = True) -> float | None:
        """Return when to look again: for what is due here, or for what others left."""
        if not self.sends:
            return None
        with self._asking():
            others = self._shelf.next_due(purges=purges)
        own = [self._agenda.next_due(purges=purges)]
        if others is not None:
            # Not all processes at once.
            own.append(others + PATIENCE_S * random.uniform(1.0, 2.0))  # noqa: S311
        look_at = self._clock() + self._look_s * random.uniform(0.7, 1.3)  # noqa: S311
        soonest = min([self._local(due) for due in own] + [look_at])
        return None if soonest == math.inf else soonest

    def pending(self) -> int:
        """Return how many topics this process has to send. Asks nobody."""
        return self._inbox.pending() + len(self._held) + self._agenda.pending()

    def pending_since(self) -> float | None:
        """Return when the oldest change of these was submitted. Asks nobody."""
        shared = min([self._agenda.pending_since(), *list(self._held.values())])
        own = self._inbox.pending_since()
        since = min(self._local(shared), math.inf if own is None else own)
        return None if since == math.inf else since

    def submitted(self) -> int:
        """Return the number of the last change in this process."""
        return self._submitted

    def delivered(self) -> int:
        """Return the number up to which every target has this process's changes."""
        if not self._brought:
            return self._delivered
        try:
            with self._asking():
                oldest = self._shelf.oldest()
                # Asked last: what was lost before is known to be forgotten.
                forgotten = self._shelf.read(()).common.forgotten
        except StoreError:
            return self._delivered
        with self._noting:
            if self._brought and self._brought[0][1] <= forgotten:
                self._submit_loss()
            while self._brought and (oldest is None or self._brought[0][1] < oldest):
                self._delivered = self._brought.popleft()[0]
            return self._delivered

    def _submit_loss(self) -> None:
        """Have everything count as changed: the shelf knows nothing of what it was brought."""
        logger.warning("the store has lost what was pending, so everything counts as changed")
        self._brought.clear()
        self.add(self._when_lost, self._clock())
        self._wake()

    def escalated(self) -> list[str]:
        """Return the keys that wait in place of topics, none while the shelf does not answer."""
        try:
            with self._asking():
                return sorted(self._shelf.read(()).common.escalated)
        except StoreError:
            return []

    @property
    def is_failing(self) -> bool:
        """Whether the shelf did not answer when it was asked last."""
        return self._is_failing

    def close(self) -> None:
        """Close the shelf."""
        self._shelf.close()

    # --- the gate ---------------------------------------------------------------------------

    def for_request(self, names: Iterable[str]) -> Gate:
        """Return what one request asks. The shelf is asked when it begins, and when it ends."""
        if not self._is_watched:
            # Others may have left something, and somebody has to see when the shelf is back.
            self._is_watched = True
            self._wake()
        return RequestGate(self, frozenset(names))

    def sequence(self) -> int:
        """Return the number of the last change that is on the shelf."""
        return self.read(()).sequence

    def is_unchanged(self, since: int) -> bool:
        """Return False: to know it, the store would have to be asked."""
        return False

    def has_changed(self, keys: Iterable[str], since: int, *, lag: bool = True) -> bool:
        """Whether one of the keys changed after that number, or may not be seen by all reads."""
        keys = list(keys)
        return has_changed(self.read(keys), keys, since, self.fresh_from() if lag else math.inf)

    def versions(self, names: Iterable[str]) -> dict[str, str]:
        """Return the version of each topic: of what is read from now on, or of something older."""
        names = list(names)
        return versions(self.read(names), names, self.fresh_from())

    def read(self, keys: Iterable[str]) -> Records:
        """Return the records of these keys. StoreError if the shelf does not answer."""
        if self._is_failing:
            raise StoreError("it did not answer when it was asked last")
        with self._asking():
            return self._shelf.read(keys)

    def fresh_from(self) -> float:
        """Return from when on a change may not be seen by all reads yet, by the shelf's clock."""
        return self._shelf.now() - self._lag_s if self._lag_s else math.inf

    # --- between this process and the shelf -------------------------------------------------

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Note whether the shelf answers."""
        try:
            yield
        except StoreError as error:
            if not self._is_failing:
                self._is_failing = True
                self._wake()
                logger.warning(
                    "%s; until it answers, changes are kept in this process's memory, and pages "
                    "are cached for degraded_ttl only",
                    error,
                    extra=log_fields(target=STORE, reason=error.reason),
                )
            raise
        if self._is_failing:
            self._is_failing = False
            logger.info("the store is back", extra=log_fields(target=STORE))

    def _shared(self, local: float) -> float:
        return local + (self._shelf.now() - self._clock())

    def _local(self, shared: float) -> float:
        return shared - (self._shelf.now() - self._clock())

    def _to_local(self, claim: Claim) -> Claim:
        return _at_other_clock(claim, self._local)

    def _to_shared(self, claim: Claim) -> Claim:
        return _at_other_clock(claim, self._shared)

    def _keep(self, own: dict[str, _Own]) -> None:
        if self.sends:
            self._agenda.put(own)


class RequestGate:
    """What one request asks a shared store: once when it begins, and once when it ends.

    While the store does not answer, nothing has changed as far as anybody knows, and no topic has a
    version: the page says nothing that a client could rely on, and is cached for `degraded_ttl`.
    """

    is_local = False

    def __init__(self, store: SharedStore, names: frozenset[str]) -> None:
        self._store = store
        self._names = names
        self._begun = self._read(names)
        self._ended: Records | None = None
        self._asked: frozenset[str] = frozenset()

    def for_request(self, names: Iterable[str]) -> Gate:
        """Return itself."""
        return self

    def sequence(self) -> int:
        """Return the number of the last change when the request began."""
        return 0 if self._begun is None else self._begun.sequence

    def is_unchanged(self, since: int) -> bool:
        """Return False: to know it, the store would have to be asked."""
        return False

    def has_changed(self, keys: Iterable[str], since: int, *, lag: bool = True) -> bool:
        """Whether one of the keys changed after that number, or may not be seen by all reads."""
        if self._begun is None:
            return False
        keys = list(keys)
        records = self._at_end(keys)
        fresh_from = self._store.fresh_from() if lag else math.inf
        # One that began well and cannot be asked any more is not kept: the next begins so.
        return records is None or has_changed(records, keys, since, fresh_from)

    def versions(self, names: Iterable[str]) -> dict[str, str]:
        """Return the version of each topic; at first, as it was when the request began."""
        names = list(names)
        records = self._begun if self._names.issuperset(names) else self._at_end(names)
        return {} if records is None else versions(records, names, self._store.fresh_from())

    def _at_end(self, keys: Iterable[str]) -> Records | None:
        if self._ended is None or not self._asked.issuperset(keys):
            self._asked = self._names | self._asked.union(keys)
            self._ended = self._read(self._asked)
        return self._ended

    def _read(self, keys: Iterable[str]) -> Records | None:
        try:
            return self._store.read(keys)
        except StoreError:
            return None


def has_changed(records: Records, keys: Iterable[str], since: int, fresh_from: float) -> bool:
    """Whether one of the keys changed after that number, or so lately that not all reads see it.

    A number that is yet to come is of a store that has lost what it knew.
    """
    if since < records.common.forgotten or since > records.sequence:
        return True
    return any(
        (record := records.get(key)) is not None
        and (record.mark > since or record.marked_at > fresh_from)
        for key in keys
    )


def versions(records: Records, names: Iterable[str], fresh_from: float) -> dict[str, str]:
    """Return the version of each topic."""
    return {name: _version(records, name, fresh_from) for name in names}


def _version(records: Records, name: str, fresh_from: float) -> str:
    record = records.get(name)
    if record is not None and record.marked_at > fresh_from:
        # A replica may show less than the version: who is told so would miss the rest.
        record = None
    return version_of(records.common, record)


def _at_other_clock(claim: Claim, convert: Callable[[float], float]) -> Claim:
    published_at = claim.published_at
    return replace(
        claim,
        since=claim.since._replace(at=convert(claim.since.at)),
        published_at=None if published_at is None else convert(published_at),
    )


def _own(records: Records, keys: Iterable[str]) -> dict[str, _Own]:
    """Return what is waiting of these keys. Who has claimed one will see to what came after it."""
    found = ((key, records.get(key)) for key in keys)
    return {
        key: _Own(record.due, record.is_only_purged, record.is_pending, record.pending_since)
        for key, record in found
        if record is not None and record.claimed is None and record.waiting is not None
    }


def _changes_of(claim: Claim) -> list[Change]:
    """Return the changes that a claim was made of."""
    said = claim.publications
    if claim.is_escalated or not said:
        return [Change(claim.topic, claim.settings, is_of_all=claim.is_escalated)]
    return [Change(claim.topic, claim.settings, publication.message) for publication in said]

"""When changes go out: at once, then at most once per window, and always the last of them.

One lazily started daemon thread per process sends everything, for WSGI and ASGI alike. `submit`
never waits for it and never raises. What a target refuses is tried again while the process lives.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from grip_edge_middleware.changes import Change
from grip_edge_middleware.delivery import Delivery
from grip_edge_middleware.errors import StoreError
from grip_edge_middleware.log_fields import log_fields
from grip_edge_middleware.metrics import Metrics
from grip_edge_middleware.process import attach_to_process
from grip_edge_middleware.stores import Claim, Store
from grip_edge_middleware.targets import FLUSH_GRACE_S, GRACE_S

logger = logging.getLogger(__name__)

# Enough for any CDN's largest batch, few enough that the first topic does not wait for the last.
CLAIM_LIMIT = 1_000
AFTER_FAULT_S = 1.0
# A store that does not answer is asked again so soon.
STORE_REST_S = 0.5
# Turns begin so far apart, unless somebody waits for one. The first leaves at once, and the thread
# does not compete for the interpreter with every one of many commits in a row.
PACE_S = 0.005
# A CDN of one region may take so long for a purge; longer, and where changes never cease they are
# not published there before it fails. What is waited for is not sent to other regions anew.
CARRIED_S = 1.0


@dataclass(frozen=True, slots=True)
class _Carried:
    """A claim whose purge is yet to be acknowledged: when to see to it, and since when it is."""

    claim: Claim
    due: float
    since: float


class Dispatcher:
    """Brings what was submitted from the store to the delivery.

    `after_turn` is called on its thread after each turn. `clock` is monotonic.
    """

    _carried: list[_Carried]

    def __init__(
        self,
        *,
        store: Store,
        delivery: Delivery,
        metrics: Metrics,
        flush_timeout_s: float = 5.0,
        after_turn: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._delivery = delivery
        self._metrics = metrics
        self._flush_timeout_s = flush_timeout_s
        self._after_turn = after_turn
        self._clock = clock
        self._has_thread = True
        self._is_closing = False
        self._is_closed = False
        self._is_full = False
        self._start_anew()
        store.when_needed(self._wake_up)
        attach_to_process(self)

    def submit(self, changes: Sequence[Change]) -> None:
        """Note the changes, to be sent from the dispatcher's thread."""
        if not changes:
            return
        if self._is_closing:
            logger.error(
                "%d changes came after the edge was closed and are lost",
                len(changes),
                extra=log_fields(changes=len(changes)),
            )
            return
        due = self._store.add(changes, self._clock())
        # Waking the thread costs more than all the rest, so not if it wakes in time by itself.
        if due < self._wakes_at:
            self._wake_up()

    def start(self) -> None:
        """Start the thread before anything is submitted: others may have left something."""
        self._wake_up()

    def end_thread(self) -> None:
        """Send nothing by itself from now on: only who calls `turn` or `flush` does."""
        with self._starting:
            self._has_thread = False
        if self._thread is not None:
            self._hurry()
            self._thread.join()

    def start_anew(self, *, has_thread: bool) -> None:
        """Forget what is pending, and how the targets fare. There must be no thread yet."""
        self.after_fork()
        self._has_thread = has_thread

    def turn(self, now: float, *, everything: bool = False) -> float | None:
        """Deliver what is due once; return when the next turn is, None if nothing is pending.

        `everything` does not wait for windows to end. The thread calls this in a loop.
        """
        self.take_in()
        held_until = self._delivery.held_until(now)
        if held_until is not None:
            is_idle = self._store.next_due() is None and not self._carried
            return None if is_idle else held_until
        carried = [carried for carried in self._carried if carried.due <= now]
        claims = [carried.claim for carried in carried]
        # While nobody can be told of these, nothing else is claimed, so that it can be merged.
        if not any(map(self._delivery.awaits_trunk, claims)):
            limit = max(CLAIM_LIMIT, self._store.pending()) if everything else CLAIM_LIMIT
            purges = self._delivery.resting_until(now) is None
            claims += self._store.claim(now, limit=limit, everything=everything, purges=purges)
            # What came since for a topic that is carried can only be claimed after it.
            self._has_claimed = not self._carried
        if claims:
            self._carried = [carried for carried in self._carried if carried.due > now]
            self._deliver(
                claims,
                now,
                grace_s=FLUSH_GRACE_S if everything else GRACE_S,
                since={c.claim.topic.name: c.since for c in carried},
            )
        # What came since for topics that are not carried any more may be asked for by a flush.
        return now if carried and not self._carried else self._next_due()

    def _next_due(self) -> float | None:
        next_due = self._next_due_in_store()
        carried = min((carried.due for carried in self._carried), default=None)
        if carried is None:
            return next_due
        held_until = self._delivery.held_until(self._clock())
        carried = carried if held_until is None else max(carried, held_until)
        return carried if next_due is None else min(carried, next_due)

    def _next_due_in_store(self) -> float | None:
        next_due = self._store.next_due()
        resting_until = self._delivery.resting_until(self._clock())
        if next_due is None or resting_until is None:
            return next_due
        # What is only purged waits for the CDN, whenever it is due.
        message_due = self._store.next_due(purges=False)
        return resting_until if message_due is None else min(resting_until, message_due)

    def take_in(self) -> None:
        """Take in what was submitted and count it; log the first that there was no room for."""
        changes, coalesced, overflow = self._store.take_in()
        if changes:
            self._metrics.count("changes", changes)
        if coalesced:
            self._metrics.count("coalesced", coalesced)
        if not any(overflow):
            return
        self._metrics.count("escalated", overflow.escalated)
        self._metrics.count("refused", overflow.refused)
        if not self._is_full:
            self._is_full = True
            logger.error(
                "%d changes are purged with all topics of their kind, since max_pending topics "
                "wait already; %d messages are not published, since too many of their topics do. "
                "Until every target answers, this is said no more",
                *overflow,
                extra=log_fields(changes=overflow.escalated),
            )

    def _deliver(
        self,
        claims: list[Claim],
        now: float,
        *,
        grace_s: float,
        since: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        try:
            parcels = self._delivery.deliver(claims, grace_s=grace_s)
        except BaseException:
            # A fault of ours. No claim may be lost with it.
            for claim in claims:
                self._store.postpone(claim, now + AFTER_FAULT_S)
            raise
        delivered = [parcel.claim for parcel in parcels if not parcel.missing]
        self._store.release(delivered, self._clock())
        for claim, due in self._delivery.waiting(parcels):
            carried_since = since.get(claim.topic.name, now)
            # Put back, it would be merged with what came since, and have to be purged anew: where
            # changes come faster than purges are acknowledged, for ever.
            if self._delivery.awaits_trunk(claim):
                self._carried.append(_Carried(claim, now, carried_since))
            elif self._delivery.awaits_cdn(claim) and now - carried_since < CARRIED_S:
                self._carried.append(_Carried(claim, due, carried_since))
            else:
                self._store.postpone(claim, due)

    def flush(self, timeout_s: float | None = None) -> bool:
        """Send all that is pending without waiting for windows; return whether it was delivered.

        Not for an event loop's own thread: an ASGI route is rendered there, so it must be free.
        """
        timeout_s = self._flush_timeout_s if timeout_s is None else timeout_s
        return self._flush(timeout_s, gives_up=lambda: False)

    def _flush(self, timeout_s: float, *, gives_up: Callable[[], bool]) -> bool:
        if threading.current_thread() is self._thread:
            return False
        if not self._store.pending():
            return True
        self._flushes_asked += 1
        asked = self._flushes_asked

        def is_over() -> bool:
            return not self._store.pending() or (self._flushes_tried >= asked and gives_up())

        try:
            if self._hurry():
                with self._progress:
                    self._progress.wait_for(is_over, timeout_s)
            else:
                self._drain(timeout_s, gives_up)
        finally:
            self._is_awaited.clear()
        return not self._store.pending()

    def close(self) -> None:
        """Send what is pending and end the thread, in at most `flush_timeout_s`.

        A target that keeps refusing is asked once more, and not waited for.
        """
        if self._is_closing:
            return
        self._is_closing = True
        deadline = self._clock() + self._flush_timeout_s
        self._flush(self._flush_timeout_s, gives_up=self._delivery.is_hopeless)
        self._is_closed = True
        self._hurry()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(max(0.0, deadline - self._clock()))
        for carried in self._carried:
            self._store.postpone(carried.claim, self._clock())
        self._confirm_now(max(GRACE_S, deadline - self._clock()))
        if pending := self._store.pending():
            logger.error(
                "%d topics were not delivered before the end",
                pending,
                extra=log_fields(topics=pending),
            )
        self._delivery.targets.close()
        self._store.close()

    def _confirm_now(self, grace_s: float) -> None:
        """Send the confirmations early, for nobody will send them later."""
        if not self._store.is_local:
            return  # another process will, or the next one
        if self._delivery.resting_until(self._clock()) is not None:
            return
        try:
            claims = self._store.claim(math.inf, limit=CLAIM_LIMIT)
            self._deliver(claims, self._clock(), grace_s=grace_s)
        except Exception:
            logger.exception("the last purges could not be confirmed")

    def after_fork(self) -> None:
        """Start anew in a child process: what is pending is the parent's to send."""
        self._store.after_fork()
        self._delivery.targets.after_fork()
        self._metrics.after_fork()
        self._start_anew()

    def _start_anew(self) -> None:
        self._starting = threading.Lock()
        self._progress = threading.Condition()
        self._wake = threading.Event()
        self._is_awaited = threading.Event()
        # Until the thread waits for that, it is woken by everything.
        self._wakes_at = math.inf
        self._flushes_asked = 0
        self._flushes_tried = 0
        self._flushes_done = 0
        self._has_claimed = False
        self._carried = []
        self._thread: threading.Thread | None = None

    def _hurry(self) -> bool:
        """Wake the thread, and have it keep no pace."""
        self._is_awaited.set()
        return self._wake_up()

    def _wake_up(self) -> bool:
        """Wake the thread, or start it; return whether there is one."""
        if not self._wake.is_set():
            self._wake.set()
        thread = self._thread
        return (thread is not None and thread.is_alive()) or self._start()

    def _start(self) -> bool:
        with self._starting:
            if self._is_closed or not self._has_thread:
                return False
            if self._thread is not None and self._thread.is_alive():
                return True
            thread = threading.Thread(target=self._run, name="grip-edge", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # The interpreter is shutting down; `close` sends from its own thread.
                return False
            self._thread = thread
            return True

    def _run(self) -> None:
        while True:
            # Cleared before anything is asked, so that what comes meanwhile makes another turn.
            self._wakes_at = math.inf
            self._wake.clear()
            if self._is_closed or not self._has_thread:
                return
            begun = self._clock()
            next_due = self._next_turn()
            self._wakes_at = math.inf if next_due is None else next_due
            with self._progress:
                self._progress.notify_all()
            self._is_awaited.wait(max(0.0, begun + PACE_S - self._clock()))
            self._wake.wait(None if next_due is None else max(0.0, next_due - self._clock()))

    def _next_turn(self) -> float | None:
        now = self._clock()
        asked = self._flushes_asked
        self._has_claimed = False
        try:
            try:
                next_due = self.turn(now, everything=asked > self._flushes_done)
            finally:
                self._after_turn()
        except StoreError:  # which the store has said
            return now + STORE_REST_S
        except Exception:
            # A fault of ours must not end the thread, and with it all delivery.
            logger.exception("a turn of the dispatcher failed; it goes on")
            return now + AFTER_FAULT_S
        finally:
            self._flushes_tried = asked
        # A CDN that held all back when the turn began may have answered by now.
        if self._has_claimed:
            self._flushes_done = asked
        if self._delivery.is_well():
            self._is_full = False
        return next_due

    def _drain(self, timeout_s: float, gives_up: Callable[[], bool]) -> None:
        """Do the thread's work where there is none: at the interpreter's end, or in a test."""
        deadline = self._clock() + timeout_s
        while self._store.pending() and self._clock() < deadline:
            next_due = self._next_turn()
            if gives_up():
                return
            if not self._has_thread and (next_due is None or next_due > self._clock()):
                return  # whoever has the thread's work says how time passes
            if next_due is not None:
                self._wake.wait(min(max(0.0, next_due - self._clock()), timeout_s))
                self._wake.clear()

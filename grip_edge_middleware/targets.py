"""Who is told of changes: asks all at the same time, and remembers how each of them fares.

A target that refuses rests for a while, longer each time; the first refusal and the return are
logged, nothing in between. One that does not answer holds up nobody else. Nothing here raises.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.journal import Journal, Kind
from grip_edge_middleware.lanes import Lanes, Outcome
from grip_edge_middleware.log_fields import log_fields
from grip_edge_middleware.throttle import retry_in
from grip_edge_middleware.transport import retry_after_s

logger = logging.getLogger(__name__)

# About a second of refusals.
DOWN_AFTER = 4
# For how long a target that says nothing holds up what the others are sent next.
GRACE_S = 0.05
# And a flush, which prepares all that is pending at once: what is left of it is prepared anew.
FLUSH_GRACE_S = 1.0
# How soon it is looked whether one has answered that is not waited for: a quarter of the time that
# it has taken so far, so that a far target is hardly slowed down and a hanging one costs nothing.
FIRST_LOOK_S = 0.01
LAST_LOOK_S = 1.0
# Topics whose late acknowledgement is remembered for each target. What is forgotten is sent again.
MAX_LATE = 10_000


class Target(Protocol):
    """A purger or a publisher: something that acknowledges requests."""

    @property
    def name(self) -> str:
        """What logs and `health()` call it."""

    def check(self, response: Response) -> None:
        """Return if the response acknowledges the request, else raise DeliveryError."""


@dataclass(slots=True)
class TargetState:
    """How one target fares. `failures` are those in a row; times are of the delivery's clock."""

    failures: int = 0
    failing_since: float = 0.0
    retry_at: float = 0.0
    error: str = ""
    acknowledged_at: float = -math.inf

    @property
    def state(self) -> Literal["ok", "failing", "down"]:
        """What it does: acknowledge, refuse, or refuse all the time."""
        if not self.failures:
            return "ok"
        return "failing" if self.failures < DOWN_AFTER else "down"

    def is_resting(self, now: float) -> bool:
        """Whether it refused lately and is not asked again yet."""
        return self.failures > 0 and now < self.retry_at

    def report(self, now: float) -> dict[str, str | int | float]:
        """Return all of it, for people and monitors: times as seconds from now."""
        return {
            "state": self.state,
            "failures": self.failures,
            "failing_for_s": round(now - self.failing_since, 1) if self.failures else 0.0,
            "retry_in_s": round(max(0.0, self.retry_at - now), 1),
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class Ask:
    """One request to one target.

    `kind`, `names` and `delivery` are what the journal says of it, and `since` when the oldest
    change was submitted that it is for. `check` judges the response instead of the target's own.
    When it is acknowledged `covers`, by their names, are done.
    """

    target: Target
    request: Request
    kind: Kind
    names: Sequence[str]
    since: float | None = None
    delivery: int = 0
    check: Callable[[Response], None] | None = None
    covers: dict[str, Hashable] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class UnderWay:
    """What a target has not answered yet."""

    ask: Ask
    since: float


Step = Ask | float
"""What a flow waits for: an answer, or a time."""
Flow = Generator[Step, DeliveryError | None, Iterable["Flow"]]
"""Goes on with None if the target acknowledged, else with the reason; returns what comes then."""


class Targets:
    """All targets, by name. `clock` is monotonic; `pause` waits while nothing is under way.

    `lanes` may be replaced before `after_fork`.
    """

    def __init__(
        self,
        targets: Iterable[Target],
        *,
        lanes: Lanes,
        journal: Journal,
        clock: Callable[[], float],
        pause: Callable[[float], None],
    ) -> None:
        self._names = [target.name for target in targets]
        self.lanes = lanes
        self._journal = journal
        self._clock = clock
        self._pause = pause
        self._start_anew()

    def after_fork(self) -> None:
        """Forget what failed: in a child that sends nothing, nothing would say that it is over."""
        self.lanes.after_fork()
        self._start_anew()

    def _start_anew(self) -> None:
        self.states = {name: TargetState() for name in self._names}
        self._is_used = threading.Lock()
        self._under_way: dict[str, UnderWay] = {}
        self._look_at = dict.fromkeys(self._names, -math.inf)
        self._late: dict[str, dict[str, Hashable]] = {name: {} for name in self._names}

    # --- asking -----------------------------------------------------------------------------

    def run(self, flows: Iterable[Flow], *, grace_s: float = GRACE_S) -> None:
        """Let the flows go on at the same time, until each has ended.

        A target that says nothing for `grace_s` after anything else happened is not waited for: its
        flow is told so, and what it says in the end is known to `acknowledged_late`.
        """
        # `close` may have given up waiting for a thread that is at it.
        if not self._is_used.acquire(blocking=False):
            return
        try:
            self._note_late_answers()
            _Flows(self, flows, self._clock, self._pause, grace_s).run()
        finally:
            self._is_used.release()

    def start(self, ask: Ask) -> None:
        """Send a request to a target that is free."""
        since = self._clock()
        self.lanes.start(ask.target.name, ask.request)
        self._under_way[ask.target.name] = UnderWay(ask, since)

    def next_answer(self, timeout_s: float) -> tuple[UnderWay, DeliveryError | None] | None:
        """Return what was answered next, and the reason if it is a refusal; None if too late."""
        answer = self.lanes.wait(timeout_s)
        if answer is None:
            return None
        name, outcome = answer
        under_way = self._under_way.pop(name)
        return under_way, self._judge(under_way, outcome)

    def note_late(self, ask: Ask, error: DeliveryError | None) -> None:
        """Remember what was acknowledged when nobody waited for it any more."""
        if error is not None:
            return
        late = self._late[ask.target.name]
        late.update(ask.covers)
        while len(late) > MAX_LATE:
            del late[next(iter(late))]

    def note_late_answers(self) -> None:
        """Note what has been answered meanwhile."""
        self.run(())

    def _note_late_answers(self) -> None:
        while self._under_way and (answer := self.next_answer(0.0)) is not None:
            under_way, error = answer
            self.note_late(under_way.ask, error)

    def acknowledged_late(self, name: str, what: Hashable) -> set[str]:
        """Return which targets have acknowledged it since they were no longer waited for."""
        return {target for target, late in self._late.items() if late.pop(name, None) == what}

    def forget(self, name: str) -> None:
        """Have no late answer count for this name: it is for something older."""
        for late in self._late.values():
            late.pop(name, None)
        for under_way in self._under_way.values():
            under_way.ask.covers.pop(name, None)

    def _judge(self, under_way: UnderWay, outcome: Outcome) -> DeliveryError | None:
        ask = under_way.ask
        response = outcome if isinstance(outcome, Response) else None
        error = outcome if isinstance(outcome, DeliveryError) else _refusal(ask, outcome)
        if error is None:
            self._note_success(ask.target)
        elif not error.is_final:
            self._note_failure(ask.target, error, response)
        self._write(under_way, error)
        return error

    def _write(self, under_way: UnderWay, error: DeliveryError | None) -> None:
        ask, now = under_way.ask, self._clock()
        self._journal.write(
            ask.kind if error is None else "failure",
            ask.names,
            target=ask.target.name,
            took_s=now - under_way.since,
            behind_s=None if ask.since is None or error is not None else now - ask.since,
            error="" if error is None else error.reason,
            of="" if error is None else ask.kind,
            delivery=ask.delivery,
        )

    # --- how they fare ----------------------------------------------------------------------

    def is_free(self, target: Target) -> bool:
        """Whether it can be asked now: it neither rests nor is yet to answer."""
        return self.free_at(target.name) is None

    def is_under_way(self, name: str) -> bool:
        """Whether a target is yet to answer."""
        return name in self._under_way

    def free_at(self, name: str) -> float | None:
        """Return when to see whether it can be asked again, None if it can be now.

        Whoever waits for its answer waits until the same time, so that all are sent together then,
        and nobody is overtaken for ever.
        """
        now = self._clock()
        if now < self._look_at[name]:
            return self._look_at[name]
        if (under_way := self._under_way.get(name)) is not None:
            waited_s = now - under_way.since
            self._look_at[name] = now + min(max(waited_s / 4, FIRST_LOOK_S), LAST_LOOK_S)
            return self._look_at[name]
        state = self.states[name]
        return state.retry_at if state.is_resting(now) else None

    def report(self) -> dict[str, dict[str, str | int | float]]:
        """Return how each target fares."""
        now = self._clock()
        return {name: state.report(now) for name, state in self.states.items()}

    def close(self) -> None:
        """Close idle connections."""
        self.lanes.close()

    def _note_failure(
        self, target: Target, error: DeliveryError, response: Response | None
    ) -> None:
        state = self.states[target.name]
        if not state.failures:
            state.failing_since = self._clock()
        state.failures += 1
        state.error = error.reason
        wait_s = retry_in(
            state.failures,
            asked_s=None if response is None else retry_after_s(response),
            is_refusal=response is not None and 400 <= response.status < 500,
            jitter=jitter(),
        )
        state.retry_at = self._clock() + wait_s
        if state.failures == 1:
            logger.warning(
                "%s: %s; trying again until it does",
                target.name,
                error.reason,
                extra=log_fields(target=target.name, reason=error.reason),
            )

    def _note_success(self, target: Target) -> None:
        state = self.states[target.name]
        if state.failures:
            logger.info(
                "%s is back after %d failures",
                target.name,
                state.failures,
                extra=log_fields(target=target.name, failures=state.failures),
            )
        self.states[target.name] = TargetState(acknowledged_at=self._clock())


class _Flows:
    """Flows that go on at the same time, each with what it waits for."""

    def __init__(
        self,
        targets: Targets,
        flows: Iterable[Flow],
        clock: Callable[[], float],
        pause: Callable[[float], None],
        grace_s: float,
    ) -> None:
        self._targets = targets
        self._grace_s = grace_s
        self._clock = clock
        self._pause = pause
        self._ready: deque[tuple[Flow, DeliveryError | None]] = deque((f, None) for f in flows)
        self._waiting: dict[str, Flow] = {}
        self._pausing: list[tuple[float, Flow]] = []
        self._patient_until = math.inf

    def run(self) -> None:
        while self._ready or self._waiting or self._pausing:
            while self._ready:
                self._go_on(*self._ready.popleft())
            if self._waiting:
                self._wait()
            elif self._pausing:
                until = min(until for until, _ in self._pausing)
                self._pause(max(0.0, until - self._clock()))
                self._end_pauses(until)

    def _go_on(self, flow: Flow, outcome: DeliveryError | None) -> None:
        try:
            step = flow.send(outcome)
        except StopIteration as end:
            self._ready.extend((following, None) for following in end.value)
            return
        if isinstance(step, Ask):
            self._targets.start(step)
            self._waiting[step.target.name] = flow
        else:
            self._pausing.append((step, flow))
        self._patient_until = self._clock() + self._grace_s

    def _wait(self) -> None:
        """Wait until something happens, or has not happened for too long."""
        until = min([self._patient_until, *(until for until, _ in self._pausing)])
        answer = self._targets.next_answer(max(0.0, until - self._clock()))
        if answer is not None:
            self._take(*answer)
        elif self._pausing and until < self._patient_until:
            self._end_pauses(until)
        else:
            self._give_up()

    def _take(self, under_way: UnderWay, error: DeliveryError | None) -> None:
        flow = self._waiting.pop(under_way.ask.target.name, None)
        if flow is None:
            self._targets.note_late(under_way.ask, error)
        else:
            self._ready.append((flow, error))
            self._patient_until = self._clock() + self._grace_s

    def _end_pauses(self, now: float) -> None:
        self._ready.extend((flow, None) for until, flow in self._pausing if until <= now)
        self._pausing = [(until, flow) for until, flow in self._pausing if until > now]

    def _give_up(self) -> None:
        for name, flow in self._waiting.items():
            self._ready.append((flow, DeliveryError(name, "has not answered yet")))
        self._waiting.clear()


def _refusal(ask: Ask, response: Response) -> DeliveryError | None:
    try:
        (ask.check or ask.target.check)(response)
    except DeliveryError as error:
        return error
    return None


def jitter() -> float:
    """Return a factor that spreads retries."""
    return random.uniform(0.8, 1.2)  # noqa: S311 - guards nothing

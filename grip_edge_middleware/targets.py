"""Who is told of changes: asks one target one thing, and remembers how each of them fares.

A target that refuses rests for a while, longer each time; the first refusal and the return are
logged, nothing in between. Nothing here raises.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.metrics import Metrics
from grip_edge_middleware.throttle import retry_in
from grip_edge_middleware.transport import Transport, retry_after_s

logger = logging.getLogger(__name__)

# About a second of refusals.
DOWN_AFTER = 4


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


class Targets:
    """All targets, by name. `clock` is monotonic."""

    def __init__(
        self,
        targets: Iterable[Target],
        *,
        transport: Transport,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._names = [target.name for target in targets]
        self._transport = transport
        self._metrics = metrics
        self._clock = clock
        self.after_fork()

    def after_fork(self) -> None:
        """Forget what failed: in a child that sends nothing, nothing would say that it is over."""
        self.states = {name: TargetState() for name in self._names}

    def is_resting(self, target: Target) -> bool:
        """Whether there is no use in asking it now."""
        return self.states[target.name].is_resting(self._clock())

    def ask(
        self,
        target: Target,
        request: Request,
        *,
        check: Callable[[Response], None] | None = None,
    ) -> DeliveryError | None:
        """Send the request; return None if the target acknowledged it, else why not.

        `check` judges the response instead of the target's own.
        """
        response: Response | None = None
        try:
            response = self._transport.send(request)
            (check or target.check)(response)
        except DeliveryError as error:
            if not error.is_final:
                self._note_failure(target, error, response)
            return error
        self._note_success(target)
        return None

    def report(self) -> dict[str, dict[str, str | int | float]]:
        """Return how each target fares."""
        now = self._clock()
        return {name: state.report(now) for name, state in self.states.items()}

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()

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
        self._metrics.count("failures", target=target.name)
        if state.failures == 1:
            logger.warning("%s: %s; trying again until it does", target.name, error.reason)

    def _note_success(self, target: Target) -> None:
        state = self.states[target.name]
        if state.failures:
            logger.info("%s is back after %d failures", target.name, state.failures)
        self.states[target.name] = TargetState()


def jitter() -> float:
    """Return a factor that spreads retries."""
    return random.uniform(0.8, 1.2)  # noqa: S311 - guards nothing

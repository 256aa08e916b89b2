"""How one batch of topics goes out: purge, wait until it is everywhere, render, publish.

A topic is published only after every CDN acknowledged the purge of its keys, unless one has been
failing for so long that it is waited for no longer. What a target does not acknowledge stays
missing, for the dispatcher to bring again. Nothing here raises.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.messages import Messages, have_something_to_say
from grip_edge_middleware.metrics import Metrics
from grip_edge_middleware.publisher import Publisher
from grip_edge_middleware.purgers import Purger
from grip_edge_middleware.render import TARGET as RENDER
from grip_edge_middleware.render import Renderer
from grip_edge_middleware.stores import Claim
from grip_edge_middleware.targets import Targets, TargetState, jitter
from grip_edge_middleware.throttle import retry_in
from grip_edge_middleware.transport import Transport

logger = logging.getLogger(__name__)

# A route that fails this often in a row is left alone until its topic changes again: its pages are
# purged, and whoever connects gets what the app answers.
MAX_RENDERS = 8


@dataclass(slots=True)
class Parcel:
    """One claim on its way, and which targets have yet to acknowledge it."""

    claim: Claim
    missing: set[str]
    retry_at: float | None = None


class Delivery:
    """Purges and publishes claims.

    Purgers are asked in the order given, the tier nearest to the app first, so that an outer tier
    cannot refill from an inner one that is not purged yet. `render_budget_s` is how long the routes
    of one batch may take together, `purge_deadline_s` for how long a failing CDN holds back what is
    published. `clock` is monotonic; `pause` waits for a purge to settle.
    """

    def __init__(
        self,
        *,
        transport: Transport,
        purgers: Sequence[Purger],
        publishers: Sequence[Publisher],
        renderer: Renderer,
        metrics: Metrics,
        render_budget_s: float = 5.0,
        purge_deadline_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._purgers = tuple(purgers)
        self._publishers = tuple(publishers)
        self._messages = Messages(renderer, metrics)
        self._metrics = metrics
        self._render_budget_s = render_budget_s
        self._purge_deadline_s = purge_deadline_s
        self._clock = clock
        self._wall_clock = wall_clock
        self._pause = pause
        self._cdns = frozenset(purger.name for purger in purgers)
        self._settle_s = max((purger.settle_s for purger in purgers), default=0.0)
        self.targets = Targets(
            [*self._purgers, *self._publishers], transport=transport, metrics=metrics, clock=clock
        )

    def held_until(self, now: float) -> float | None:
        """Return until when a resting CDN holds back whatever is published, None if none does."""
        held = (
            min(state.retry_at, self._overdue_at(state))
            for state in self._cdn_states()
            if state.is_resting(now)
        )
        return max((at for at in held if at > now), default=None)

    def resting_until(self, now: float) -> float | None:
        """Return when the last resting CDN is asked again, None if none rests.

        Until then there is no use in purging.
        """
        resting = (s.retry_at for s in self._cdn_states() if s.is_resting(now))
        return max(resting, default=None)

    def deliver(self, claims: Iterable[Claim]) -> list[Parcel]:
        """Bring each claim to the targets that miss it; return what came of each."""
        parcels = [Parcel(claim, self._missing(claim)) for claim in claims]
        self._purge(parcels)
        publishable = [parcel for parcel in parcels if self._is_publishable(parcel)]
        if self._settle_s and any(parcel.claim.publications for parcel in publishable):
            self._pause(self._settle_s)
        self._publish(publishable)
        for parcel in parcels:
            if parcel.missing:
                self._put_off(parcel)
        return parcels

    def is_hopeless(self) -> bool:
        """Whether a target has refused so often that waiting a little longer will not help."""
        return any(state.state == "down" for state in self.targets.states.values())

    def is_well(self) -> bool:
        """Whether every target acknowledged what it was asked last."""
        return all(not state.failures for state in self.targets.states.values())

    def can_purge(self) -> bool:
        """Whether every CDN acknowledged what it was asked last."""
        return all(not state.failures for state in self._cdn_states())

    def waiting(self, parcels: Iterable[Parcel]) -> Iterator[tuple[Claim, float]]:
        """Yield the claims that some target still misses, each with the time of its next try."""
        for parcel in parcels:
            if parcel.missing and parcel.retry_at is not None:
                missing = frozenset(parcel.missing)
                is_partial = missing != self.targets.states.keys()
                claim = replace(parcel.claim, missing=missing, is_partial=is_partial)
                yield claim, parcel.retry_at

    def _cdn_states(self) -> Iterator[TargetState]:
        return (self.targets.states[purger.name] for purger in self._purgers)

    def _missing(self, claim: Claim) -> set[str]:
        return set(self.targets.states if claim.missing is None else claim.missing)

    def _is_publishable(self, parcel: Parcel) -> bool:
        """Whether it is purged, or the CDN that holds it up is waited for no longer.

        The CDNs after that one are purged later because of it alone.
        """
        unpurged = next((p.name for p in self._purgers if p.name in parcel.missing), None)
        if unpurged is None:
            return True
        state = self.targets.states[unpurged]
        is_overdue = state.failures > 0 and self._clock() >= self._overdue_at(state)
        return is_overdue and not parcel.claim.is_only_purged

    def _overdue_at(self, state: TargetState) -> float:
        return state.failing_since + self._purge_deadline_s

    def _put_off(self, parcel: Parcel) -> None:
        if parcel.missing <= self._cdns and not parcel.claim.is_only_purged:
            parcel.claim = replace(parcel.claim, published_at=self._clock())
        if parcel.retry_at is None:
            parcel.retry_at = self._next_try(parcel)

    def _next_try(self, parcel: Parcel) -> float:
        """Return when a target that the parcel misses is asked again, or waited for no longer."""
        now = self._clock()
        times = [s.retry_at for n in parcel.missing if (s := self.targets.states[n]).failures]
        if not parcel.claim.is_only_purged:
            overdue = (self._overdue_at(s) for s in self._cdn_states() if s.failures)
            times += [at for at in overdue if at > now]
        return max(now, min(times, default=0.0))

    # --- purge ------------------------------------------------------------------------------

    def _purge(self, parcels: list[Parcel]) -> None:
        for purger in self._purgers:
            wanting = [parcel for parcel in parcels if purger.name in parcel.missing]
            purged = self._purge_keys(
                purger, dict.fromkeys(k for p in wanting for k in p.claim.keys)
            )
            for parcel in wanting:
                if purged.issuperset(parcel.claim.keys):
                    parcel.missing.discard(purger.name)
            if any(purger.name in parcel.missing for parcel in wanting):
                # An outer tier would refill from this one.
                return

    def _purge_keys(self, purger: Purger, keys: Iterable[str]) -> set[str]:
        purged: set[str] = set()
        if self.targets.is_resting(purger):
            return purged
        for batch in purger.batches(keys):
            if self.targets.ask(purger, batch.request) is not None:
                break
            purged.update(batch.keys)
            self._metrics.count("purges", target=purger.name)
            self._metrics.count("purged_keys", len(batch.keys), target=purger.name)
        return purged

    # --- publish ----------------------------------------------------------------------------

    def _publish(self, parcels: list[Parcel]) -> None:
        awake = [p for p in self._publishers if not self.targets.is_resting(p)]
        ready = self._ready(parcels, {publisher.name for publisher in awake})
        for publisher in awake:
            wanting = [(p, items) for p, items in ready if publisher.name in p.missing]
            left = self._publish_items(publisher, [item for _, own in wanting for item in own])
            for parcel, _ in wanting:
                if parcel.claim.topic.name not in left:
                    parcel.missing.discard(publisher.name)
            self._recover(publisher, parcels)

    def _recover(self, publisher: Publisher, parcels: list[Parcel]) -> None:
        """Have the proxy ask for all clients what they missed of topics that nobody can name."""
        wanting = [p for p in parcels if p.claim.is_escalated and publisher.name in p.missing]
        if not wanting:
            return
        request = publisher.recovery(now=self._wall_clock())
        error = self.targets.ask(publisher, request, check=publisher.check_recovery)
        if error is not None and error.is_final:
            logger.warning("%s; its clients stay behind until their topics change again", error)
        if error is None or error.is_final:
            for parcel in wanting:
                parcel.missing.discard(publisher.name)

    def _ready(
        self, parcels: list[Parcel], awake: set[str]
    ) -> list[tuple[Parcel, list[dict[str, Any]]]]:
        """Return what can be published now to one of these targets.

        Rendering ends when its time is up: the purges of the next turn must not wait for a slow
        route. What is left then is first in the next turn.
        """
        ready = []
        deadline = self._clock() + self._render_budget_s
        for parcel in parcels:
            if not have_something_to_say(parcel.claim):
                parcel.missing &= self._cdns
            elif parcel.claim.is_escalated or not parcel.missing & awake:
                continue
            elif self._clock() > deadline:
                parcel.retry_at = self._clock()
            elif (items := self._items(parcel)) is not None:
                ready.append((parcel, items))
        return ready

    def _publish_items(self, publisher: Publisher, items: list[dict[str, Any]]) -> set[str]:
        """Return the channels with items that were not acknowledged, to be published again."""
        now = self._wall_clock()
        batches = deque(publisher.batches(items, now=now))
        while batches:
            error = self.targets.ask(publisher, batches[0].request)
            if error is not None and not error.is_final:
                break
            batch = batches.popleft()
            if error is None:
                self._metrics.count("publishes", target=publisher.name)
                self._metrics.count("published", len(batch.items), target=publisher.name)
            elif len(batch.items) == 1:
                self._give_up(batch.channels[0], error)
            else:
                # One bad item has the whole request refused, so each goes by itself, in order.
                single = [b for item in batch.items for b in publisher.batches([item], now=now)]
                batches.extendleft(reversed(single))
        return {channel for batch in batches for channel in batch.channels}

    def _items(self, parcel: Parcel) -> list[dict[str, Any]] | None:
        """Return what to publish, oldest first; None if that has to wait."""
        try:
            return self._messages.items(parcel.claim)
        except DeliveryError as error:
            self._postpone_render(parcel, error)
        except Exception as error:
            # A fault of ours. It is this topic's alone.
            logger.exception("%s cannot be published", parcel.claim.topic.name)
            self._postpone_render(parcel, DeliveryError(RENDER, repr(error)))
        return None

    def _postpone_render(self, parcel: Parcel, error: DeliveryError) -> None:
        failures = parcel.claim.failures + 1
        if error.is_final or failures >= MAX_RENDERS:
            self._give_up(parcel.claim.topic.name, error)
            parcel.missing &= self._cdns
            return
        parcel.claim = replace(parcel.claim, failures=failures)
        wait_s = retry_in(failures, asked_s=None, is_refusal=True, jitter=jitter())
        parcel.retry_at = self._clock() + wait_s

    def _give_up(self, channel: str, error: DeliveryError) -> None:
        self._metrics.count("given_up", target=error.target)
        logger.error("%s is not published for this change: %s", channel, error)

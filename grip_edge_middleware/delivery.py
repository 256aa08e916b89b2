"""How one batch of topics goes out: purge, wait until it is everywhere, render, publish.

A topic is published to a GRIP proxy only after every CDN that it is behind acknowledged the purge
of its keys, unless one has been failing for so long that it is waited for no longer. What a target
does not acknowledge stays missing, for the dispatcher to bring again. Nothing here raises.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.journal import Journal, Kind
from grip_edge_middleware.lanes import Lanes
from grip_edge_middleware.log_fields import log_fields
from grip_edge_middleware.messages import Messages, have_something_to_say
from grip_edge_middleware.publisher import Publisher
from grip_edge_middleware.purgers import Purger
from grip_edge_middleware.render import TARGET as RENDER
from grip_edge_middleware.render import Renderer
from grip_edge_middleware.stores import Claim
from grip_edge_middleware.targets import (
    GRACE_S,
    MAX_LATE,
    Ask,
    Flow,
    Step,
    Targets,
    TargetState,
    jitter,
)
from grip_edge_middleware.throttle import retry_in

logger = logging.getLogger(__name__)

# A route that fails this often in a row is left alone until its topic changes again: its pages are
# purged, and whoever connects gets what the app answers.
MAX_RENDERS = 8


@dataclass(frozen=True, slots=True)
class Region:
    """CDNs, the nearest to the app first, and the GRIP proxies that are behind all of them."""

    purgers: tuple[Purger, ...] = ()
    publishers: tuple[Publisher, ...] = ()


@dataclass(slots=True)
class Parcel:
    """One claim on its way, and which targets have yet to acknowledge it."""

    claim: Claim
    missing: set[str]
    retry_at: float | None = None
    items: list[dict[str, Any]] | None = None
    """What is published, once it is rendered."""


@dataclass(slots=True)
class _Batch:
    number: int
    """What the journal calls it."""
    parcels: list[Parcel]
    render_until: float | None = None
    """Counted from when the first is rendered."""


class _Deliveries:
    """Of which delivery each topic is a part, until every target has it.

    It is for the journal only, so what is forgotten for lack of room counts as begun anew.
    """

    def __init__(self) -> None:
        self._of: dict[str, int] = {}
        self._left: Counter[int] = Counter()
        self._last = 0

    def begin(self, names: Iterable[str]) -> int:
        """Return the delivery of what goes out together: a new one, unless all are known."""
        names = list(names)
        new = [name for name in names if name not in self._of]
        if new or not names:
            self._last += 1
        for name in new:
            self._of[name] = self._last
            self._left[self._last] += 1
        while len(self._of) > MAX_LATE:
            self.end([next(iter(self._of))])
        return max((self._of.get(name, 0) for name in names), default=self._last)

    def end(self, names: Iterable[str]) -> dict[int, tuple[list[str], int]]:
        """Forget these topics; return which there were of each delivery, and how many are left."""
        ended: dict[int, list[str]] = {}
        for name in names:
            if (number := self._of.pop(name, None)) is not None:
                ended.setdefault(number, []).append(name)
        self._left.subtract({number: len(found) for number, found in ended.items()})
        left = {number: self._left[number] for number in ended}
        self._left = +self._left
        return {number: (found, left[number]) for number, found in ended.items()}


_Steps = Generator[Step, DeliveryError | None, None]


class Delivery:
    """Purges and publishes claims.

    The purgers of the `trunk` are asked in order, the tier nearest to the app first, so that an
    outer tier cannot refill from an inner one that is not purged yet. The `regions` are behind it:
    each purges its own and then publishes to its own, whatever becomes of the others.

    `render_budget_s` is how long the routes of one batch may take together, `purge_deadline_s` for
    how long a failing CDN holds back what is published. `clock` is monotonic; `pause` waits for a
    purge to settle.
    """

    def __init__(
        self,
        *,
        lanes: Lanes,
        trunk: Region,
        regions: Sequence[Region] = (),
        renderer: Renderer,
        journal: Journal,
        render_budget_s: float = 5.0,
        purge_deadline_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._trunk = trunk
        self._regions = tuple(regions)
        self._messages = Messages(renderer, journal, clock=clock)
        self._journal = journal
        self._deliveries = _Deliveries()
        self._render_budget_s = render_budget_s
        self._purge_deadline_s = purge_deadline_s
        self._clock = clock
        self._wall_clock = wall_clock
        everywhere = (trunk, *self._regions)
        purgers = [purger for region in everywhere for purger in region.purgers]
        publishers = [publisher for region in everywhere for publisher in region.publishers]
        self._cdns = frozenset(purger.name for purger in purgers)
        self._before: dict[str, tuple[Purger, ...]] = {}
        for region in everywhere:
            for name, cdns in self._cdns_before(region):
                self._before.setdefault(name, cdns)
        self.targets = Targets(
            [*purgers, *publishers], lanes=lanes, journal=journal, clock=clock, pause=pause
        )

    def _cdns_before(self, region: Region) -> Iterator[tuple[str, tuple[Purger, ...]]]:
        """Yield each of its targets with the CDNs that it is behind."""
        tiers = self._tiers(region)
        for position, purger in enumerate(tiers):
            yield purger.name, tiers[:position]
        for publisher in region.publishers:
            yield publisher.name, tiers

    def _tiers(self, region: Region) -> tuple[Purger, ...]:
        is_trunk = region is self._trunk
        return region.purgers if is_trunk else self._trunk.purgers + region.purgers

    def held_until(self, now: float) -> float | None:
        """Return until when a CDN that cannot be asked holds back whatever is published.

        None if none does. One of a region holds back what is published there only.
        """
        self.targets.note_late_answers()
        held = (
            min(free_at, self._overdue_at(self.targets.states[name]))
            for name, free_at in self._unfree_trunk()
        )
        return max((at for at in held if at > now), default=None)

    def resting_until(self, now: float) -> float | None:
        """Return when the last CDN that cannot be asked is asked again, None if all can be.

        Until then there is no use in purging. A CDN of a region keeps nobody from it.
        """
        return max((at for _, at in self._unfree_trunk() if at > now), default=None)

    def _unfree_trunk(self) -> Iterator[tuple[str, float]]:
        for purger in self._trunk.purgers:
            if (free_at := self.targets.free_at(purger.name)) is not None:
                yield purger.name, free_at

    def deliver(self, claims: Iterable[Claim], *, grace_s: float = GRACE_S) -> list[Parcel]:
        """Bring each claim to the targets that miss it; return what came of each.

        Who has not answered `grace_s` after the others misses it still, and is asked nothing else
        until then.
        """
        self.targets.note_late_answers()
        parcels = [Parcel(claim, self._missing(claim)) for claim in claims]
        batch = _Batch(self._begin(parcels), parcels)
        self.targets.run([self._send(self._trunk, batch)], grace_s=grace_s)
        for parcel in parcels:
            if parcel.missing:
                self._put_off(parcel)
        self._end([parcel for parcel in parcels if not parcel.missing])
        return parcels

    def _begin(self, parcels: Sequence[Parcel]) -> int:
        """Write what has changed; return what the journal calls the delivery."""
        fresh = [parcel for parcel in parcels if parcel.claim.missing is None]
        self._end(fresh)  # what came of it before is part of this by now
        number = self._deliveries.begin([parcel.claim.topic.name for parcel in parcels])
        if changed := _changed(fresh):
            self._write("change", changed, number)
        return number

    def _end(self, parcels: Sequence[Parcel]) -> None:
        """Write what every target has, for each delivery that it is part of."""
        ended = self._deliveries.end([parcel.claim.topic.name for parcel in parcels])
        by_name = {parcel.claim.topic.name: parcel for parcel in parcels}
        for number, (names, left) in ended.items():
            done = [by_name[name] for name in names if not by_name[name].missing]
            self._write("delivered", _changed(done), number, left=left)

    def _write(self, kind: Kind, parcels: Sequence[Parcel], number: int, *, left: int = 0) -> None:
        since = _since(parcels)
        self._journal.write(
            kind,
            [parcel.claim.topic.name for parcel in parcels],
            behind_s=None if since is None else self._clock() - since,
            delivery=number,
            left=left,
        )

    def is_hopeless(self) -> bool:
        """Whether a target has refused so often that waiting a little longer will not help."""
        return any(state.state == "down" for state in self.targets.states.values())

    def is_well(self) -> bool:
        """Whether every target acknowledged what it was asked last."""
        return all(not state.failures for state in self.targets.states.values())

    def can_purge(self) -> bool:
        """Whether every CDN acknowledged what it was asked last."""
        states = self.targets.states
        for name in self._cdns:  # noqa: SIM110 - each request asks, and a generator costs it more
            if states[name].failures:
                return False
        return True

    def waiting(self, parcels: Iterable[Parcel]) -> Iterator[tuple[Claim, float]]:
        """Yield the claims that some target still misses, each with the time of its next try."""
        for parcel in parcels:
            if parcel.missing and parcel.retry_at is not None:
                missing = frozenset(parcel.missing)
                is_partial = missing != self.targets.states.keys()
                claim = replace(parcel.claim, missing=missing, is_partial=is_partial)
                yield claim, parcel.retry_at

    def awaits_trunk(self, claim: Claim) -> bool:
        """Whether nobody can be told yet, since a CDN that all wait for is yet to answer."""
        return self._awaits(claim, {purger.name for purger in self._trunk.purgers})

    def awaits_cdn(self, claim: Claim) -> bool:
        """Whether some cannot be told yet, since a CDN is yet to answer."""
        return self._awaits(claim, self._cdns)

    def _awaits(self, claim: Claim, cdns: Set[str]) -> bool:
        missing = self.targets.states.keys() if claim.missing is None else claim.missing
        return not claim.is_only_purged and any(map(self.targets.is_under_way, cdns & missing))

    def _cdn_states(self) -> Iterator[TargetState]:
        return (self.targets.states[name] for name in self._cdns)

    def _missing(self, claim: Claim) -> set[str]:
        name = claim.topic.name
        if claim.missing is None:
            self.targets.forget(name)
            return set(self.targets.states)
        return set(claim.missing) - self.targets.acknowledged_late(name, _mark(claim))

    def _overdue_at(self, state: TargetState) -> float:
        """Return when a failing CDN is waited for no longer; infinite if it does not fail."""
        return state.failing_since + self._purge_deadline_s if state.failures else math.inf

    def _obstacle(self, parcel: Parcel, target: str) -> str | None:
        """Return the CDN that must be purged before the target is asked, None if all are.

        The CDNs after that one are purged later because of it alone.
        """
        unpurged = (cdn.name for cdn in self._before[target] if cdn.name in parcel.missing)
        return next(unpurged, None)

    def _is_publishable(self, parcel: Parcel, publisher: Publisher) -> bool:
        """Whether it is purged, or the CDN that holds it up is waited for no longer."""
        obstacle = self._obstacle(parcel, publisher.name)
        if obstacle is None:
            return True
        is_overdue = self._clock() >= self._overdue_at(self.targets.states[obstacle])
        return is_overdue and not parcel.claim.is_only_purged

    def _put_off(self, parcel: Parcel) -> None:
        if parcel.missing <= self._cdns and not parcel.claim.is_only_purged:
            parcel.claim = replace(parcel.claim, published_at=self._clock())
        if parcel.retry_at is None:
            parcel.retry_at = self._next_try(parcel)

    def _next_try(self, parcel: Parcel) -> float:
        """Return when a target that the parcel misses is asked again, or waited for no longer."""
        return min(self._next_try_at(target, parcel) for target in parcel.missing)

    def _next_try_at(self, target: str, parcel: Parcel) -> float:
        obstacle = self._obstacle(parcel, target)
        if obstacle is None:
            return self._free_at(target)
        is_purge = target in self._cdns or parcel.claim.is_only_purged
        overdue_at = math.inf if is_purge else self._overdue_at(self.targets.states[obstacle])
        if overdue_at <= self._clock():
            return self._free_at(target)
        return min(self._free_at(obstacle), overdue_at)

    def _free_at(self, target: str) -> float:
        free_at = self.targets.free_at(target)
        return self._clock() if free_at is None else free_at

    # --- a batch ----------------------------------------------------------------------------

    def _send(self, region: Region, batch: _Batch) -> Flow:
        """Purge what a region has, tier by tier, and go on to what is behind it."""
        for purger in region.purgers:
            yield from self._purge(purger, batch)
        # The proxies of a region are all behind the same CDNs.
        publishable = [
            parcel
            for parcel in batch.parcels
            if region.publishers and self._is_publishable(parcel, region.publishers[0])
        ]
        if any(parcel.claim.publications for parcel in publishable):
            yield from self._settle(self._tiers(region))
        for parcel in publishable:
            if not have_something_to_say(parcel.claim):
                parcel.missing &= self._cdns
        following = [self._publish(p, batch, publishable) for p in region.publishers]
        if region is self._trunk:
            following += [self._send(behind, batch) for behind in self._regions]
        return following

    def _settle(self, purgers: Iterable[Purger]) -> _Steps:
        """Wait until what these CDNs have acknowledged is purged everywhere."""
        states = self.targets.states
        until = (states[p.name].acknowledged_at + p.settle_s for p in purgers)
        settled_at = max(until, default=-math.inf)
        if settled_at > self._clock():
            yield settled_at

    # --- purge ------------------------------------------------------------------------------

    def _purge(self, purger: Purger, batch: _Batch) -> _Steps:
        wanting = [
            parcel
            for parcel in batch.parcels
            # An outer tier would refill from an inner one.
            if purger.name in parcel.missing and self._obstacle(parcel, purger.name) is None
        ]
        if not wanting or not self.targets.is_free(purger):
            return
        yield from self._settle(self._before[purger.name])
        purged: set[str] = set()
        for purge in purger.batches(dict.fromkeys(k for p in wanting for k in p.claim.keys)):
            purged.update(purge.keys)
            done = [parcel for parcel in wanting if purged.issuperset(parcel.claim.keys)]
            error = yield Ask(
                purger,
                purge.request,
                "purge",
                purge.keys,
                since=_since(wanting),
                delivery=batch.number,
                covers=_covered(done),
            )
            if error is not None:
                return
            for parcel in done:
                parcel.missing.discard(purger.name)
            wanting = [parcel for parcel in wanting if purger.name in parcel.missing]

    # --- publish ----------------------------------------------------------------------------

    def _publish(self, publisher: Publisher, batch: _Batch, parcels: Sequence[Parcel]) -> Flow:
        wanting = [parcel for parcel in parcels if publisher.name in parcel.missing]
        if self.targets.is_free(publisher):
            yield from self._publish_items(publisher, batch, self._ready(batch, wanting))
        if self.targets.is_free(publisher):
            yield from self._recover(publisher, batch, wanting)
        return ()

    def _recover(self, publisher: Publisher, batch: _Batch, parcels: Iterable[Parcel]) -> _Steps:
        """Have the proxy ask for all clients what they missed of topics that nobody can name."""
        wanting = [parcel for parcel in parcels if parcel.claim.is_escalated]
        if not wanting:
            return
        request = publisher.recovery(now=self._wall_clock())
        error = yield Ask(
            publisher,
            request,
            "recover",
            [parcel.claim.topic.name for parcel in wanting],
            since=_since(wanting),
            delivery=batch.number,
            check=publisher.check_recovery,
            covers=_covered(wanting),
        )
        if error is not None and error.is_final:
            logger.warning(
                "%s; its clients stay behind until their topics change again",
                error,
                extra=log_fields(target=error.target, topics=len(wanting), reason=error.reason),
            )
        if error is None or error.is_final:
            for parcel in wanting:
                parcel.missing.discard(publisher.name)

    def _ready(self, batch: _Batch, parcels: Iterable[Parcel]) -> list[Parcel]:
        """Return those of the parcels that can be published now.

        Rendering ends when its time is up: the purges of the next turn must not wait for a slow
        route. What is left then is first in the next turn.
        """
        if batch.render_until is None:
            batch.render_until = self._clock() + self._render_budget_s
        for parcel in parcels:
            is_to_come = parcel.items is None and parcel.retry_at is None
            if parcel.claim.is_escalated or not is_to_come:
                continue
            if self._clock() > batch.render_until:
                parcel.retry_at = self._clock()
            else:
                parcel.items = self._items(parcel, batch)
        return [parcel for parcel in parcels if parcel.items is not None]

    def _publish_items(
        self, publisher: Publisher, batch: _Batch, parcels: Iterable[Parcel]
    ) -> _Steps:
        """Publish in order; what is not acknowledged stays missing."""
        now = self._wall_clock()
        wanting = {parcel.claim.topic.name: parcel for parcel in parcels}
        items = [item for parcel in wanting.values() for item in parcel.items or ()]
        publishes = deque(publisher.batches(items, now=now))
        while publishes:
            publish = publishes[0]
            later = {channel for p in islice(publishes, 1, None) for channel in p.channels}
            error = yield Ask(
                publisher,
                publish.request,
                "publish",
                publish.channels,
                since=_since(wanting[name] for name in publish.channels),
                delivery=batch.number,
                covers=_covered(wanting[name] for name in {*publish.channels} - later),
            )
            if error is not None and not error.is_final:
                break
            publishes.popleft()
            if error is None:
                continue
            if len(publish.items) == 1:
                self._give_up(publish.channels[0], error, batch)
            else:
                # One bad item has the whole request refused, so each goes by itself, in order.
                single = [p for item in publish.items for p in publisher.batches([item], now=now)]
                publishes.extendleft(reversed(single))
        left = {channel for publish in publishes for channel in publish.channels}
        for name in wanting.keys() - left:
            wanting[name].missing.discard(publisher.name)

    def _items(self, parcel: Parcel, batch: _Batch) -> list[dict[str, Any]] | None:
        """Return what to publish, oldest first; None if that has to wait."""
        try:
            return self._messages.items(parcel.claim, delivery=batch.number)
        except DeliveryError as error:
            self._postpone_render(parcel, error, batch)
        except Exception as error:
            # A fault of ours. It is this topic's alone.
            topic = parcel.claim.topic.name
            logger.exception("%s cannot be published", topic, extra=log_fields(topic=topic))
            self._postpone_render(parcel, DeliveryError(RENDER, repr(error)), batch)
        return None

    def _postpone_render(self, parcel: Parcel, error: DeliveryError, batch: _Batch) -> None:
        failures = parcel.claim.failures + 1
        if error.is_final or failures >= MAX_RENDERS:
            self._give_up(parcel.claim.topic.name, error, batch)
            parcel.missing &= self._cdns
            return
        parcel.claim = replace(parcel.claim, failures=failures)
        wait_s = retry_in(failures, asked_s=None, is_refusal=True, jitter=jitter())
        parcel.retry_at = self._clock() + wait_s

    def _give_up(self, channel: str, error: DeliveryError, batch: _Batch) -> None:
        self._journal.write(
            "given_up",
            (channel,),
            target=error.target,
            error=error.reason,
            delivery=batch.number,
        )
        logger.error(
            "%s is not published for this change: %s",
            channel,
            error,
            extra=log_fields(target=error.target, topic=channel, reason=error.reason),
        )


def _changed(parcels: Iterable[Parcel]) -> list[Parcel]:
    """Return those that are for a change, rather than for saying it once more."""
    return [parcel for parcel in parcels if not parcel.claim.is_confirmation]


def _since(parcels: Iterable[Parcel]) -> float | None:
    """Return when the oldest change of these was submitted, None if they are for none."""
    claims = (parcel.claim for parcel in parcels)
    return min((claim.since.at for claim in claims if not claim.is_confirmation), default=None)


def _covered(parcels: Iterable[Parcel]) -> dict[str, Hashable]:
    return {parcel.claim.topic.name: _mark(parcel.claim) for parcel in parcels}


def _mark(claim: Claim) -> Hashable:
    """Return what tells a claim from others of its topic, of before or after."""
    versions = tuple(publication.version for publication in claim.publications)
    return versions, claim.confirmations, claim.published_at, claim.since.number

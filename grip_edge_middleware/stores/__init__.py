"""What is pending, which windows are open and which versions were given out.

Each method of a store is one atomic step, so that several threads (and with a shared store several
processes) can use it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from grip_edge_middleware.changes import Change
from grip_edge_middleware.gate import Gate
from grip_edge_middleware.http import Response
from grip_edge_middleware.settings import TopicSettings
from grip_edge_middleware.topics import Topic
from grip_edge_middleware.types import Hold


@dataclass(frozen=True, slots=True)
class Publication:
    """One message to come: what it says, unless the topic's routes say it.

    Its version is given to it when it is claimed for the first time, and stays. A marker says
    nothing but which version is the last.
    """

    version: str = ""
    message: Mapping[Hold, Response] | None = None
    is_marker: bool = False


class Since(NamedTuple):
    """The oldest change that a claim is for: its number, and when it was submitted."""

    number: int = 0
    at: float = 0.0


NO_CHANGE = Since()


@dataclass(frozen=True, slots=True)
class Claim:
    """One topic that is the claimer's to send, until it is released or postponed.

    `missing` names the targets that have not acknowledged it yet; None stands for all of them.
    """

    topic: Topic
    settings: TopicSettings
    publications: tuple[Publication, ...]
    missing: frozenset[str] | None = None
    is_partial: bool = False
    """Whether some target has it already, so that what follows must wait for the window to end."""
    failures: int = 0
    confirmations: int = 0
    """Which repetition after a quiet period it is, 0 for the change itself; see `release`."""
    previous: str | None = None
    """The version that was published before these, None if that is not known."""
    published_at: float | None = None
    """When every proxy had it although a CDN still lacks its purge."""
    is_escalated: bool = False
    """Stands for topics that nobody knows, or for which there was no room: its topic is a type key
    or the site key."""
    since: Since = NO_CHANGE
    """The first change that it is for. A confirmation is for none."""

    @property
    def is_confirmation(self) -> bool:
        """Whether it comes after a quiet period, and not for a change."""
        return self.confirmations > 0

    @property
    def is_only_purged(self) -> bool:
        """Whether what is left of it waits for a purge, and has no message that could go ahead."""
        return self.is_confirmation or self.is_escalated or self.published_at is not None

    @property
    def keys(self) -> tuple[str, ...]:
        """What is purged."""
        if self.is_escalated:
            return (self.topic.name,)
        return self.settings.template.keys(self.topic)


class Overflow(NamedTuple):
    """What there was no room for."""

    escalated: int = 0
    """Changes that are purged with all of their kind. Then clients ask what they missed."""
    refused: int = 0
    """Messages that are not published. What they changed is purged."""

    def plus(self, escalated: int, refused: int) -> Overflow:
        """Return this and more."""
        return Overflow(self.escalated + escalated, self.refused + refused)


class Intake(NamedTuple):
    """What was taken in."""

    changes: int = 0
    coalesced: int = 0
    """Changes that leave together with one that waited already."""
    overflow: Overflow = Overflow()

    def plus(self, changes: int, coalesced: int, overflow: Overflow) -> Intake:
        """Return this and more."""
        return Intake(
            self.changes + changes, self.coalesced + coalesced, self.overflow.plus(*overflow)
        )


class Store(Gate, Protocol):
    """Keeps what was submitted until it is released. Times are monotonic seconds.

    One that is not local is shared with other processes, which may send what this one submits.
    Whatever asks it may raise StoreError, but for what is said not to ask anybody.
    """

    @property
    def is_failing(self) -> bool:
        """Whether it did not answer when it was asked last. Asks nobody."""

    def when_needed(self, wake: Callable[[], object]) -> None:
        """Have what claims woken when there may be something to claim, other than by `add`."""

    def add(self, changes: Sequence[Change], now: float) -> float:
        """Note the changes; return the time before which nothing of them is due.

        Called on the app's threads, so it asks nobody and costs next to nothing.
        """

    def take_in(self) -> Intake:
        """Mark the keys of what was added, and merge it into what is pending.

        No change is forgotten for lack of room: its template's type key is purged instead of it,
        and if there are many of these, the site key. Return what was taken in since this was asked
        last.
        """

    def claim(
        self, now: float, *, limit: int, everything: bool = False, purges: bool = True
    ) -> list[Claim]:
        """Take what is due, at most `limit` topics, none of which is claimed.

        From then on its version is the topic's: what is rendered after the purge that follows shows
        it, and says so. What was begun before says an older one, so for it the keys have changed.

        `everything` does not wait for windows to end, but for confirmations. Without `purges`, what
        is only purged is left: a CDN that could not take it rests.
        """

    def release(self, claims: Iterable[Claim], now: float) -> None:
        """Forget what was delivered, but for its confirmation.

        A response that passed the gate may still be on its way to a cache when the purge is. So
        `confirm_after` seconds later, unless the topic changed again, it is claimed once more; and
        again after each further wait that this names.
        """

    def postpone(self, claim: Claim, due: float) -> None:
        """Put a claim back, to be due again; a newer change of its topic prevails.

        What has been published is not kept, but for its purge, and with `refetch` to be sent again.
        What some target has already opened the window: a newer change waits for that to end.
        """

    def next_due(self, *, purges: bool = True) -> float | None:
        """Return when something is due that is not claimed; None if nothing is pending.

        Without `purges`, what is only purged does not count.
        """

    def pending(self) -> int:
        """Return how many topics this process has to send. Asks nobody."""

    def pending_since(self) -> float | None:
        """Return when the oldest of these changes was submitted, None if nothing is pending.

        Asks nobody.
        """

    def submitted(self) -> int:
        """Return the number of the last change of this process. Asks nobody."""

    def delivered(self) -> int:
        """Return the number of this process's last change up to which every target has all."""

    def escalated(self) -> list[str]:
        """Return the type keys that wait, or the site key, in place of topics."""

    def close(self) -> None:
        """Close what is open. It may be asked all the same, and opens that again."""

    def after_fork(self) -> None:
        """Start anew in a child: what is pending in this process is the parent's to send."""

"""What a store knows of each key, and of all of them.

A key is a topic's name, or what stands for several topics: a type key, say. Records are only
changed by `rules.py`, within one transaction of the shelf that keeps them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from grip_edge_middleware.stores import Claim, Since

T = TypeVar("T")


@dataclass(slots=True)
class Record:
    """One key's. Times are seconds of the shelf's clock."""

    mark: int = 0
    """The number of its last change."""
    marked_at: float = -math.inf
    version: str = ""
    """What is read from now on shows this one; empty if it has not changed lately."""
    published: str = ""
    """The version that was published last."""
    window_end: float = -math.inf
    waiting: Claim | None = None
    due: float = math.inf
    """When what is waiting may be claimed."""
    claimed: Claim | None = None
    """What is on its way, by whom, and from when on anybody may claim it again."""
    owner: str = ""
    leased_until: float = math.inf

    @property
    def next_due(self) -> float:
        """From when on there is something to claim. One at a time: order within a topic is kept."""
        if self.claimed is not None:
            return self.leased_until
        return math.inf if self.waiting is None else self.due

    @property
    def is_only_purged(self) -> bool:
        """Whether that has no message that could go ahead of a purge."""
        claim = self.claimed or self.waiting
        return claim is not None and claim.is_only_purged

    @property
    def is_pending(self) -> bool:
        """Whether a change, and not only its confirmation, is yet to be delivered."""
        # Asked five times for each topic, so it is no `any`: that would make a generator each time.
        waiting, claimed = self.waiting, self.claimed
        return (waiting is not None and not waiting.is_confirmation) or (
            claimed is not None and not claimed.is_confirmation
        )

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be done, so that it may be forgotten."""
        return self.waiting is None and self.claimed is None

    @property
    def since(self) -> int | None:
        """The number of the oldest change that is yet to be delivered."""
        return min((since.number for since in self._sinces), default=None)

    @property
    def pending_since(self) -> float:
        """When that was submitted; infinite if there is none."""
        return min((since.at for since in self._sinces), default=math.inf)

    @property
    def _sinces(self) -> Iterator[Since]:
        claims = (self.claimed, self.waiting)
        return (claim.since for claim in claims if claim and not claim.is_confirmation)


@dataclass(slots=True)
class Common:
    """Of all keys."""

    first_version: str = ""
    """That of keys which have none, or an older one."""
    caught_up: str = ""
    """All clients have asked for what came before this version."""
    forgotten: int = 0
    """No change up to this number is known any more."""
    escalated: set[str] = field(default_factory=set)
    """The keys that wait in place of topics."""


class Records(Protocol):
    """The records, within one transaction."""

    @property
    def sequence(self) -> int:
        """The transaction's number: higher than those of all that were begun before."""

    @property
    def common(self) -> Common:
        """What is known of all; may be changed."""

    def get(self, key: str) -> Record | None:
        """Return a key's record to look at."""

    def edit(self, key: str) -> Record:
        """Return a key's record to change."""

    def pending(self) -> int:
        """Return how many records are pending, give or take a few."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Records to look at, as they were at one moment."""

    sequence: int
    """The number of the last write."""
    common: Common
    _records: Mapping[str, Record]

    def get(self, key: str) -> Record | None:
        """Return a key's record to look at."""
        return self._records.get(key)

    def edit(self, key: str) -> Record:
        """Refuse to."""
        raise TypeError(f"{key} was read to be looked at")

    def pending(self) -> int:
        """Refuse to."""
        raise TypeError("how many are pending is known when records are written")


class Shelf(Protocol):
    """Keeps records where all processes reach them. Asked from any thread. StoreError if it cannot.

    Of what is idle it may forget what was not changed for a day. It may lose all, but its numbers
    go on: they begin with the microseconds of Unix time, and are never lower than one it gave out.
    """

    def now(self) -> float:
        """Return the time, the same for all who share the shelf. Asks nobody."""

    def write(self, keys: Iterable[str], step: Callable[[Records], T]) -> T:
        """Run a step that changes records, as if nobody else did meanwhile; return its result.

        `keys` are those that it will ask for, as far as one can tell. The step may run more than
        once: what it read may have been changed by others before its changes were written.
        """

    def read(self, keys: Iterable[str]) -> Records:
        """Return the records of these keys to look at, with the number of the last write."""

    def due(self, now: float, limit: int, *, purges: bool) -> list[str]:
        """Return the keys that are due, the longest due first."""

    def next_due(self, *, purges: bool) -> float | None:
        """Return when the next key is due."""

    def close(self) -> None:
        """Close what is open. It is opened again when it is asked."""

    def after_fork(self) -> None:
        """Leave what is open to the parent."""

    def oldest(self) -> int | None:
        """Return the number of the oldest change that is yet to be delivered."""

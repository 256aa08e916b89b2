"""What becomes of records when a change is added, claimed, released or postponed.

The same for every store. Pure: time and the records are passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from grip_edge_middleware.changes import Change
from grip_edge_middleware.grip import CONFIRMED, shown_by
from grip_edge_middleware.settings import TopicSettings
from grip_edge_middleware.stores import Claim, Intake, Overflow, Publication, Since
from grip_edge_middleware.stores.records import Common, Record, Records
from grip_edge_middleware.throttle import due_at
from grip_edge_middleware.topics import SITE_KEY, Topic

# Deltas of one topic that wait while a target is down ("coalesce": False).
MAX_PUBLICATIONS = 1_000
# Templates whose topics are purged together when there is no room for each: beyond, the whole site.
MAX_TYPES = 16

# What tells processes apart is less by a million, for as many versions in one transaction.
PROCESSES = 10**9

_RENDERED = (Publication(),)


@dataclass(frozen=True, slots=True)
class Rules:
    """At most `max_pending` topics wait; more are purged by their types.

    `confirm_after_s` are the waits after a quiet period, in order. What is claimed is the
    claimer's for `lease_s`. `process` tells versions of this process from those of others, whose
    items a proxy would take for repetitions of ours.
    """

    max_pending: int
    confirm_after_s: Sequence[float]
    lease_s: float
    process: int
    owner: str = ""

    # --- a change comes ---------------------------------------------------------------------

    def add(
        self,
        records: Records,
        changes: Sequence[Change],
        now: float,
        *,
        submitted_at: float | None = None,
    ) -> Intake:
        """Mark the changed keys and merge the changes into what is waiting.

        They were submitted now, unless it is said when.
        """
        since = Since(records.sequence, now if submitted_at is None else submitted_at)
        for change in changes:
            _mark(records, change.settings.template.keys(change.topic), now)
        added = [self._add(records, change, now, since) for change in changes]
        overflow = Overflow(added.count("escalated"), added.count("refused"))
        return Intake(len(changes), added.count("coalesced"), overflow)

    def keys(self, changes: Iterable[Change]) -> Iterator[str]:
        """Yield what `add` asks for, if there is room."""
        for change in changes:
            yield change.topic.name
            yield from change.settings.template.keys(change.topic)

    def _add(
        self, records: Records, change: Change, now: float, since: Since
    ) -> Literal["added", "coalesced", "escalated", "refused"]:
        if change.is_of_all:
            self._escalate(records, change, now, since)
            return "added"
        if not self._has_room(records, change.topic):
            self._escalate(records, change, now, since)
            return "escalated"
        record = records.edit(change.topic.name)
        due, publications = due_at(now, record.window_end), _publications(change)
        is_coalesced = _is_changed(record)
        if is_coalesced:
            known = record.waiting
            assert known is not None  # noqa: S101 - it is changed
            if not change.settings.coalesce and _messages(record) >= MAX_PUBLICATIONS:
                record.waiting = replace(known, missing=None)
                return "refused"
            publications = _merge_publications(known, change.settings, publications)
            since = known.since
            if not known.is_partial:
                due = min(record.due, due)
        record.waiting = Claim(change.topic, change.settings, publications, since=since)
        record.due = due
        return "coalesced" if is_coalesced and len(publications) == 1 else "added"

    def _has_room(self, records: Records, topic: Topic) -> bool:
        """What is pending keeps its place, and there are few topics without parameters."""
        if not topic.params or records.pending() < self.max_pending:
            return True
        record = records.get(topic.name)
        return record is not None and record.is_pending

    def _escalate(self, records: Records, change: Change, now: float, since: Since) -> None:
        key = _escalation_key(records, change)
        records.common.escalated.add(key)
        record = records.edit(key)
        claim = Claim(
            Topic(key, change.topic.template),
            change.settings,
            (),
            is_escalated=True,
            since=since,
        )
        due = due_at(now, record.window_end)
        known = record.waiting
        if known is not None and _is_changed(record):
            due = min(record.due, due)
            claim = replace(claim, since=known.since)
            if known.settings.held_routes:  # some clients will have missed something
                claim = replace(known, missing=None)
        record.waiting, record.due = claim, due

    # --- it is claimed ----------------------------------------------------------------------

    def claim(
        self, records: Records, keys: Iterable[str], now: float, *, everything: bool = False
    ) -> list[Claim]:
        """Take what is due of these keys. `everything` waits for confirmations only."""
        version = _versions(records, self.process)
        return [
            self._take(records, key, now, version)
            for key in keys
            if (record := records.get(key)) is not None
            and (record.next_due <= now or (everything and _is_free(record)))
        ]

    def _take(self, records: Records, key: str, now: float, version: Callable[[], str]) -> Claim:
        record = records.edit(key)
        if (lost := record.claimed) is not None:  # whoever had it is gone
            record.claimed = None
            _put_back(record, lost, now)
        claim = record.waiting
        assert claim is not None  # noqa: S101 - it is due
        record.waiting = None
        if claim.is_confirmation:
            claim = _confirmed(records, record, claim, now, version)
        elif claim.published_at is None:
            begin = _begun_anew if claim.is_escalated else partial(_versioned, record)
            claim = begin(records, claim, now, version)
            if not claim.is_partial:  # else who has it already would wait for who has not
                record.window_end = now + claim.settings.throttle
        record.claimed = claim
        record.owner, record.leased_until = self.owner, now + self.lease_s
        return claim

    # --- it is delivered, or not ------------------------------------------------------------

    def release(self, records: Records, claims: Iterable[Claim], now: float) -> None:
        """Forget what was delivered, but for its confirmation."""
        for claim in claims:
            record = records.edit(claim.topic.name)
            if not self.is_ours(records, claim):
                _send_again(record, claim, now)
                continue
            record.claimed = None
            _note_published(record, claim)
            if record.waiting is not None:
                continue
            records.common.escalated.discard(claim.topic.name)
            if claim.is_escalated and claim.settings.held_routes:
                # All clients have asked the next link, so they have what all topics got.
                records.common.caught_up = records.common.first_version
            if claim.confirmations < len(self.confirm_after_s):
                record.waiting = _confirmation_of(claim)
                record.due = self._confirmation_due(claim, now)

    def postpone(self, records: Records, claim: Claim, due: float) -> None:
        """Put a claim back, before what came after it."""
        record = records.edit(claim.topic.name)
        if not self.is_ours(records, claim):
            return  # it is somebody else's by now
        record.claimed = None
        if claim.published_at is not None:
            _note_published(record, claim)
            if not claim.settings.refetch:  # whose last message is sent once more
                claim = replace(claim, publications=())
        _put_back(record, claim, due)

    def is_ours(self, records: Records, claim: Claim) -> bool:
        """Whether nobody has claimed it since, because this took longer than the lease."""
        record = records.get(claim.topic.name)
        if record is None or record.claimed is None:
            return False
        return record.owner == self.owner and _is_same(record.claimed, claim)

    def give_back(self, records: Records, key: str, now: float) -> None:
        """Have a claim be anybody's, if it is the claimer's: he does not know of it."""
        record = records.get(key)
        if record is not None and record.claimed is not None and record.owner == self.owner:
            records.edit(key).leased_until = now

    def _confirmation_due(self, claim: Claim, now: float) -> float:
        # While a purge is late, what was on its way to the cache arrives.
        # A clock that is set back does not make it wait for longer.
        since = now if claim.published_at is None else min(now, claim.published_at)
        waits_s = [0.0, *self.confirm_after_s]
        return max(now, since + waits_s[claim.confirmations + 1] - waits_s[claim.confirmations])


# --- versions -----------------------------------------------------------------------------------


def version_of(common: Common, record: Record | None) -> str:
    """Return the version of what is read from now on, or of something older."""
    return _since(common.first_version, record.version if record else "", common.first_version)


def _published(common: Common, record: Record) -> str:
    """Return the version that clients have. Until they caught up, it is what they had before."""
    return _since(common.caught_up, record.published, common.first_version)


def _since(first: str, version: str, otherwise: str) -> str:
    return version if version and _number(version) >= _number(first) else otherwise


def _number(version: str) -> int:
    return int(shown_by(version) or 0)


def _versions(records: Records, process: int) -> Callable[[], str]:
    given = 0

    def next_version() -> str:
        nonlocal given
        given += 1
        return build_version(records.sequence, process, given)

    return next_version


def build_version(sequence: int, process: int, number: int = 0) -> str:
    """Return a version: it grows with the sequence, and no other process gives out the same."""
    return str(sequence * PROCESSES + process + number)


def _versioned(
    record: Record, records: Records, claim: Claim, now: float, version: Callable[[], str]
) -> Claim:
    if not claim.publications[-1].version:
        # What was begun before says an older version, and calls who has that up to date.
        _mark(records, claim.keys, now)
    publications = tuple(
        publication if publication.version else replace(publication, version=version())
        for publication in claim.publications
    )
    for key in claim.keys:
        records.edit(key).version = publications[-1].version
    return replace(claim, publications=publications, previous=_published(records.common, record))


def _begun_anew(records: Records, claim: Claim, now: float, version: Callable[[], str]) -> Claim:
    """Give all topics a new version: which of them changed is not known.

    So whoever asks the next link, as all clients will be told to, is given the page. Until then
    what is published follows what was published before. What nobody is held for is only purged, so
    its key has a version for all.
    """
    if claim.missing is None:
        _mark(records, claim.keys, now)
        if claim.settings.held_routes:
            records.common.first_version = version()
        else:
            records.edit(claim.topic.name).version = version()
    return claim


def _confirmed(
    records: Records, record: Record, claim: Claim, now: float, version: Callable[[], str]
) -> Claim:
    """Give a confirmation its version: that of what it confirms, and a little more."""
    if claim.is_escalated:
        return _begun_anew(records, claim, now, version)
    if not claim.publications or claim.publications[0].version:
        return claim  # purges only, or has it from an earlier try
    record.version = version_of(records.common, record) + CONFIRMED
    publications = (replace(claim.publications[0], version=record.version),)
    return replace(claim, publications=publications, previous=_published(records.common, record))


def _note_published(record: Record, claim: Claim) -> None:
    if claim.settings.recovers and claim.publications:
        record.published = claim.publications[-1].version


# --- what is waiting ----------------------------------------------------------------------------


def _mark(records: Records, keys: Iterable[str], now: float) -> None:
    for key in keys:
        record = records.edit(key)
        record.mark, record.marked_at = records.sequence, now


def _put_back(record: Record, claim: Claim, due: float) -> None:
    newer = record.waiting
    if newer is None or newer.is_confirmation:  # the claim will have its own
        record.waiting, record.due = claim, due
    elif claim.is_only_purged:
        # It is purged with the newer change, when that may be published.
        record.waiting = newer if claim.is_confirmation else replace(newer, since=claim.since)
    else:
        if not claim.is_partial:
            record.due = min(due, record.due)
        record.waiting = _merge(claim, newer)


def _send_again(record: Record, claim: Claim, now: float) -> None:
    """Have a topic sent once more: an old message may have come after a newer one.

    Who delivered this did so when it was not his any more; he may have been asleep. What it says
    may be outdated by now, so that is only sent if it is rendered.
    """
    if record.waiting is not None or not claim.publications or claim.is_confirmation:
        return
    record.due = due_at(now, record.window_end)
    if claim.publications[-1].message is None:
        record.waiting = Claim(claim.topic, claim.settings, _RENDERED, since=claim.since)
    else:
        record.waiting = _confirmation_of(claim)


def _is_same(one: Claim, other: Claim) -> bool:
    def versions(claim: Claim) -> list[str]:
        return [publication.version for publication in claim.publications]

    return one.confirmations == other.confirmations and versions(one) == versions(other)


def _escalation_key(records: Records, change: Change) -> str:
    key = change.topic.name if change.is_of_all else change.settings.template.type_key
    escalated = records.common.escalated
    is_room = key in escalated or len(escalated) < MAX_TYPES
    # A page that is tagged with a shortened name does not know its type.
    is_enough = is_room and not change.topic.is_shortened
    site = records.get(SITE_KEY)
    return key if is_enough and not (site and _is_changed(site)) else SITE_KEY


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


def _is_changed(record: Record) -> bool:
    """Whether a change is waiting: not only the confirmation of the last."""
    return record.waiting is not None and not record.waiting.is_confirmation


def _is_free(record: Record) -> bool:
    """Whether a change is waiting that could be claimed."""
    return _is_changed(record) and record.claimed is None


def _messages(record: Record) -> int:
    """Return how many messages of a topic are there."""
    return sum(len(claim.publications) for claim in (record.waiting, record.claimed) if claim)

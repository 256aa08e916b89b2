"""Who is held for what, and what an item means to each of them. Pure: the clock is passed in.

What is said of Pushpin here was measured, or read in its source (1.36).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from grip_edge_middleware.devedge.instruct import Channel, Instruct, Item

# `id_cache_ttl`: how long a repeated id is taken for a retry.
ID_CACHE_S = 60.0
# How long a long-poll counts as subscribed after it was answered: it is about to come again.
LINGER_S = 60.0

Session = TypeVar("Session", bound=Hashable)


class Verdict(Enum):
    """What is done about an item that reaches a client."""

    DELIVER = "deliver"
    SKIP = "skip"
    ASK = "ask"
    """The client has missed something: ask the next link, or a long-poll's page again."""


@dataclass(slots=True)
class Held:
    """What one client has of each channel. `format` is the one of its kind of hold."""

    format: str
    have: dict[str, str | None]
    heard: dict[str, float]
    """When there was last anything on each channel."""
    filters: dict[str, tuple[str, ...]]

    @classmethod
    def begin(cls, format_: str, channels: Iterable[Channel], now: float) -> Held:
        """Return what a client has when it begins to be held."""
        channels = tuple(channels)
        return cls(
            format_,
            {channel.name: channel.prev_id for channel in channels},
            dict.fromkeys((channel.name for channel in channels), now),
            {channel.name: channel.filters for channel in channels},
        )

    def add(self, channel: Channel, now: float) -> None:
        """Hold the client for one more channel."""
        self.have[channel.name] = channel.prev_id
        self.heard[channel.name] = now
        self.filters[channel.name] = channel.filters

    def drop(self, name: str) -> None:
        """Hold the client for one channel less."""
        for known in (self.have, self.heard, self.filters):
            known.pop(name, None)

    def take(self, item: Item, now: float) -> Verdict:
        """Judge an item, and note that the client has it if it gets it."""
        if item.channel not in self.have or self.format not in item.formats:
            return Verdict.SKIP
        self.heard[item.channel] = now
        has = self.have[item.channel]
        if has is not None:
            if item.prev_id != has:
                return Verdict.ASK
            # Without an id the client is lost track of, as in Pushpin.
            self.have[item.channel] = item.id
        if item.formats[self.format].get("action") == "hint":
            return Verdict.ASK
        return Verdict.SKIP if self._is_filtered(item) else Verdict.DELIVER

    def _is_filtered(self, item: Item) -> bool:
        required = item.meta.get("require_sub")
        requires = "require-sub" in self.filters[item.channel]
        return requires and bool(required) and required not in self.have

    @property
    def grip_last(self) -> list[tuple[str, str]]:
        """What a proxy says when it asks for what came since: a line for each channel."""
        known = ((name, version) for name, version in self.have.items() if version is not None)
        return [("grip-last", f"{name}; last-id={version}") for name, version in known]

    def next_link_due(self, instruct: Instruct) -> float:
        """Return when the next link is asked without an item: counted from the quietest channel."""
        if not instruct.next_link or not self.heard:
            return math.inf
        return min(self.heard.values()) + instruct.next_timeout_s


@dataclass(slots=True)
class Channels(Generic[Session]):
    """The sessions of each channel, and what was published on it."""

    _members: dict[str, dict[Session, None]] = field(default_factory=dict)
    _lingering: dict[str, float] = field(default_factory=dict)
    _last_ids: dict[str, str] = field(default_factory=dict)
    _ids: dict[tuple[str, str], float] = field(default_factory=dict)

    def join(self, session: Session, names: Iterable[str], now: float) -> list[str]:
        """Subscribe a session; return the channels whose first subscriber it is."""
        first = []
        for name in names:
            members = self._members.setdefault(name, {})
            if not members and self._lingering.get(name, now) <= now:
                first.append(name)
                self._last_ids.pop(name, None)
            members[session] = None
        return first

    def leave(
        self, session: Session, names: Iterable[str], now: float, *, lingers: bool = False
    ) -> None:
        """End a session's subscriptions."""
        for name in names:
            members = self._members.get(name, {})
            members.pop(session, None)
            if lingers:
                self._lingering[name] = now + LINGER_S
            if not members:
                self._members.pop(name, None)
                self._forget_lingering(now)

    def admit(self, item: Item, now: float) -> list[Session]:
        """Return who is told of an item: nobody, if it is a retry."""
        if item.id is not None and self._is_repeated(item.channel, item.id, now):
            return []
        members = list(self._members.get(item.channel, ()))
        if members and item.id is not None and not item.is_in_order:
            self._last_ids[item.channel] = item.id
        return members

    def is_behind(self, channels: Iterable[Channel]) -> bool:
        """Whether a new hold is older than what was published. Pushpin asks only once for each."""
        behind = [
            channel.name
            for channel in channels
            if channel.prev_id is not None
            and self._last_ids.get(channel.name, channel.prev_id) != channel.prev_id
        ]
        for name in behind:
            del self._last_ids[name]
        return bool(behind)

    def forget(self) -> None:
        """Forget what was published: `/recover/`."""
        self._last_ids.clear()

    def sessions_of(self, name: str) -> list[Session]:
        """Return who is subscribed to a channel."""
        return list(self._members.get(name, ()))

    @property
    def sessions(self) -> list[Session]:
        """Everybody who is held, once."""
        return list(dict.fromkeys(s for members in self._members.values() for s in members))

    def _is_repeated(self, channel: str, id_: str, now: float) -> bool:
        while self._ids and next(iter(self._ids.values())) <= now - ID_CACHE_S:
            del self._ids[next(iter(self._ids))]
        if (channel, id_) in self._ids:
            return True
        self._ids[channel, id_] = now
        return False

    def _forget_lingering(self, now: float) -> None:
        for name in [name for name, until in self._lingering.items() if until <= now]:
            del self._lingering[name]

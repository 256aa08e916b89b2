"""What the cache holds: copies of answers, found by what was asked and purged by their keys.

Pure: the clock is passed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from grip_edge_middleware.devedge.exchange import Answer, Asked
from grip_edge_middleware.devedge.rules import Lifetime, compared, varies_on
from grip_edge_middleware.dialects import unescape_tag
from grip_edge_middleware.surrogate import parse_keys

# Enough for a laptop. Beyond, the oldest go.
MAX_COPIES = 10_000


@dataclass(eq=False, slots=True)
class Copy:
    """One answer that everybody may be shown, who asks for the same in the same way."""

    answer: Answer
    vary: tuple[tuple[str, str], ...]
    keys: frozenset[str]
    expires: float
    stale_if_error_s: float
    is_whole: bool = False
    """Whether its body has arrived. A purge finds it before that."""
    hits: int = 0

    def is_fresh(self, now: float) -> bool:
        """Whether everybody may be shown it."""
        return now < self.expires

    def may_stand_in(self, now: float) -> bool:
        """Whether it is still good for when the app fails."""
        return now < self.expires + self.stale_if_error_s

    def is_for(self, asked: Asked) -> bool:
        """Whether a request says all that it varies on."""
        return all(compared(asked, name) == value for name, value in self.vary)


@dataclass(slots=True)
class Copies:
    """All copies, by what they are kept under and by their surrogate keys."""

    _by_name: dict[str, list[Copy]] = field(default_factory=dict)
    _names_by_key: dict[str, dict[Copy, str]] = field(default_factory=dict)
    _count: int = 0

    def find(self, name: str, asked: Asked, now: float) -> Copy | None:
        """Return the copy for a request, fresh or good for when the app fails."""
        for copy in reversed(self._by_name.get(name, ())):
            if copy.is_whole and copy.may_stand_in(now) and copy.is_for(asked):
                return copy
        return None

    def begin(self, name: str, asked: Asked, answer: Answer, life: Lifetime, now: float) -> Copy:
        """Keep an answer whose body is still on its way: nobody finds it yet, but for a purge."""
        keys = _keys(answer)
        copy = Copy(answer, varies_on(asked, answer), keys, now + life.ttl_s, life.stale_if_error_s)
        self._by_name.setdefault(name, []).append(copy)
        for key in keys:
            self._names_by_key.setdefault(key, {})[copy] = name
        self._count += 1
        self._make_room()
        return copy

    def complete(self, name: str, copy: Copy, body: bytes) -> None:
        """Let a copy be found, in the place of what was there for the same request."""
        copy.answer = replace(copy.answer, body=body)
        copy.is_whole = True
        for other in tuple(self._by_name.get(name, ())):
            if other is not copy and other.is_whole and other.vary == copy.vary:
                self.remove(name, other)

    def purge(self, keys: Iterable[str], now: float, *, hard: bool = False) -> int:
        """Purge by keys; return how many (key, copy) pairs were found.

        What is purged softly is shown to nobody unless the app fails.
        """
        found = [
            (copy, name) for key in keys for copy, name in self._names_by_key.get(key, {}).items()
        ]
        for copy, name in found:
            copy.expires = min(copy.expires, now)
            if hard:
                self.remove(name, copy)
        return len(found)

    def purge_all(self) -> None:
        """Remove everything."""
        self._by_name.clear()
        self._names_by_key.clear()
        self._count = 0

    def remove(self, name: str, copy: Copy) -> None:
        """Remove a copy, if it is still there."""
        kept = self._by_name.get(name, [])
        if copy not in kept:
            return
        kept.remove(copy)
        self._count -= 1
        if not kept:
            del self._by_name[name]
        for key in copy.keys:
            tagged = self._names_by_key[key]
            del tagged[copy]
            if not tagged:
                del self._names_by_key[key]

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[str, Copy]]:
        for name, kept in self._by_name.items():
            for copy in kept:
                yield name, copy

    def _make_room(self) -> None:
        while self._count > MAX_COPIES:
            name, oldest = next(iter(self))
            self.remove(name, oldest)


def _keys(answer: Answer) -> frozenset[str]:
    """Return its keys, from whatever header some edge reads."""
    exact = parse_keys(v for n, v in answer.headers if n in ("surrogate-key", "xkey"))
    tags = parse_keys(v for n, v in answer.headers if n in ("cache-tag", "edge-cache-tag"))
    return frozenset([*exact, *map(unescape_tag, tags)])

"""Keys in the order in which they are due."""

from __future__ import annotations

import heapq
from collections.abc import Iterator


class DueQueue:
    """Two heaps: of messages, and of mere purges, which can be left out. Not for several threads.

    What is put again or dropped leaves a void entry, which goes when it would be next.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, bool]] = {}
        self._messages: list[tuple[float, str]] = []
        self._purges: list[tuple[float, str]] = []

    def put(self, key: str, due: float, *, is_only_purged: bool) -> None:
        """Note when a key is due, instead of what was noted before."""
        if self._known.get(key) != (due, is_only_purged):
            self._known[key] = due, is_only_purged
            heapq.heappush(self._purges if is_only_purged else self._messages, (due, key))

    def drop(self, key: str) -> None:
        """Forget a key."""
        self._known.pop(key, None)

    def due(self, now: float, *, purges: bool) -> Iterator[str]:
        """Take out the keys that are due, the longest due first."""
        while (heap := self._first(purges=purges)) and heap[0][0] <= now:
            _, key = heapq.heappop(heap)
            del self._known[key]
            yield key

    def next_due(self, *, purges: bool) -> float | None:
        """Return when the next key is due."""
        heap = self._first(purges=purges)
        return heap[0][0] if heap else None

    def _first(self, *, purges: bool) -> list[tuple[float, str]]:
        """Return the heap with what is due first, or an empty one."""
        heaps = (
            [(self._messages, False), (self._purges, True)] if purges else [(self._messages, False)]
        )
        for heap, is_purge in heaps:
            while heap and self._known.get(heap[0][1]) != (heap[0][0], is_purge):
                heapq.heappop(heap)
        return min((heap for heap, _ in heaps if heap), key=lambda heap: heap[0], default=[])

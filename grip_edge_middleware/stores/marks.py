"""Which keys changed lately, in an order that needs no clock.

The gate asks it: a response that was begun before one of its keys changed may show what was there
before, so no cache may keep it. Pure: the time, used only to forget, is passed in.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

# Longer than an app takes to answer. A request that takes longer is taken for changed.
KEPT_S = 120.0


class Marks:
    """The last change of each key, as a sequence number.

    `lag_s` is how much later than the commit a read may still see what was there before it, from
    a replica.
    """

    def __init__(self, *, lag_s: float = 0.0) -> None:
        self.lag_s = lag_s
        self._sequence = 0
        self._forgotten = 0
        # In the order of their marking: the oldest first.
        self._marks: OrderedDict[str, tuple[int, float]] = OrderedDict()

    @property
    def sequence(self) -> int:
        """The number of the last change. What is begun now comes after it."""
        return self._sequence

    def mark(self, keys: Iterable[str], now: float) -> None:
        """Note that the keys changed."""
        self._sequence += 1
        for key in keys:
            self._marks[key] = (self._sequence, now)
            self._marks.move_to_end(key)
        self._forget(now)

    def has_changed(self, keys: Iterable[str], since: int, now: float) -> bool:
        """Whether what was begun at `since` may show one of the keys as it was before.

        At an infinite `now`, nothing lags.
        """
        if since < self._forgotten:
            return True
        return any(
            (key in self._marks and self._marks[key][0] > since) or self.is_lagging(key, now)
            for key in keys
        )

    def is_lagging(self, key: str, now: float) -> bool:
        """Whether a replica may still show what was there before the key's last change."""
        mark = self._marks.get(key)
        return mark is not None and now - mark[1] < self.lag_s

    def __len__(self) -> int:
        return len(self._marks)

    def _forget(self, now: float) -> None:
        oldest = now - KEPT_S - self.lag_s
        while self._marks:
            key, (sequence, at) = next(iter(self._marks.items()))
            if at >= oldest:
                return
            del self._marks[key]
            self._forgotten = sequence

"""What is counted."""

from __future__ import annotations

from collections import Counter
from threading import Lock
from typing import Protocol


class Metrics(Protocol):
    """Where counts go. Called from any thread; must not block."""

    def count(self, event: str, amount: int = 1, *, target: str = "") -> None:
        """Add to an event's count, for one target where there are several."""

    def after_fork(self) -> None:
        """Renew locks in a child process: a thread of the parent may have held them."""


class Counts:
    """Counts in memory, which `edge.health()` shows."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self.after_fork()

    def after_fork(self) -> None:
        """Renew the lock in a child process."""
        self._lock = Lock()

    def count(self, event: str, amount: int = 1, *, target: str = "") -> None:
        """Add to an event's count."""
        with self._lock:
            self._counts[event, target] += amount

    def snapshot(self) -> dict[str, int]:
        """Return all counts, by `event` or `event target`."""
        with self._lock:
            return {f"{event} {target}".strip(): n for (event, target), n in self._counts.items()}

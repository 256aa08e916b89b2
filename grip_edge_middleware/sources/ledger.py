"""What one database connection has changed since its transaction began.

Pure. A stack of frames, one for the transaction and one for each open savepoint: rolling back to a
savepoint forgets its frames, releasing it gives them to the one below, and only the commit of the
outermost transaction takes them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Ledger(Generic[T]):
    """The entries of a transaction that is still open."""

    __slots__ = ("_frames", "innermost")

    def __init__(self) -> None:
        self.innermost: list[T] = []
        """The entries of the innermost savepoint, to which one may be appended."""
        self._frames: list[tuple[str | None, list[T]]] = [(None, self.innermost)]

    def _begin(self, frames: list[tuple[str | None, list[T]]]) -> None:
        self._frames = frames
        self.innermost = frames[-1][1]

    def add(self, entries: Iterable[T]) -> None:
        """Note entries in the innermost savepoint."""
        self.innermost.extend(entries)

    def rewrite(self, rewritten: Callable[[list[T]], list[T]]) -> None:
        """Replace the entries of each savepoint."""
        self._begin([(name, rewritten(entries)) for name, entries in self._frames])

    def savepoint(self, name: str) -> None:
        """Open a savepoint."""
        self._begin([*self._frames, (name, [])])

    def rollback_to(self, name: str) -> None:
        """Forget what came since the savepoint, which stays open.

        One that is not known was opened before this ledger began, so everything came since.
        """
        at = self._find(name)
        if at is None:
            self.take()
        else:
            self._begin([*self._frames[:at], (name, [])])

    def release(self, name: str) -> None:
        """Close a savepoint: what came since belongs to what is around it."""
        at = self._find(name)
        if at is not None:
            for _, entries in self._frames[at:]:
                self._frames[at - 1][1].extend(entries)
            self._begin(self._frames[:at])

    def take(self) -> list[T]:
        """Return everything and begin anew: the transaction has ended."""
        taken = self.entries()
        self._begin([(None, [])])
        return taken

    def entries(self) -> list[T]:
        """Return all that a commit would take now, to read."""
        if len(self._frames) == 1:
            return self.innermost
        return [entry for _, entries in self._frames for entry in entries]

    def _find(self, name: str) -> int | None:
        """Return the innermost savepoint of that name, as SQL does."""
        for at in range(len(self._frames) - 1, 0, -1):
            if self._frames[at][0] == name:
                return at
        return None

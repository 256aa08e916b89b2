"""What a response must know of the changes that came while it was made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Gate(Protocol):
    """Knows which keys changed, and the version of each topic."""

    @property
    def is_local(self) -> bool:
        """Whether it answers at once. Else an event loop must not ask it by itself."""

    def for_request(self, names: Iterable[str]) -> Gate:
        """Return what one request asks, whose path shows these topics. It begins with this."""

    def sequence(self) -> int:
        """Return the number of the last change."""

    def is_unchanged(self, since: int) -> bool:
        """Whether all that it answers is what it answered at that number. False if in doubt."""

    def has_changed(self, keys: Iterable[str], since: int, *, lag: bool = True) -> bool:
        """Whether one of the keys changed after that number.

        With `lag`, also whether a read may not see its last change yet.
        """

    def versions(self, names: Iterable[str]) -> dict[str, str]:
        """Return the version of each topic: of what is read from now on, or of something older."""

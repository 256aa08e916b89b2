"""What time it is for an edge: the machine's, unless a test has its own.

Monotonic seconds, as `time.monotonic` gives them.
"""

from __future__ import annotations

import time


class ManualClock:
    """Time that passes only when somebody says so."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def advance_to(self, when: float) -> None:
        """Let time pass until then. It never goes back."""
        self.now = max(self.now, when)


class EdgeClock:
    """The machine's time, or while there is a `manual` clock, what that says."""

    manual: ManualClock | None = None

    def __call__(self) -> float:
        """Return the time."""
        return time.monotonic() if self.manual is None else self.manual.now

    def pause(self, seconds: float) -> None:
        """Wait until a purge is everywhere. On a manual clock nothing has to be waited for."""
        if self.manual is None:
            time.sleep(seconds)

"""The life of a process: what ends with it, and what begins anew in a fork."""

from __future__ import annotations

import atexit
import multiprocessing.util
import os
import weakref
from typing import Protocol


class Lasting(Protocol):
    """Works in the background for as long as the process lives."""

    def close(self) -> None:
        """Finish."""

    def after_fork(self) -> None:
        """Start anew in a child process."""


def attach_to_process(lasting: Lasting) -> None:
    """Have it closed at exit and started anew in a fork, while it is in use."""
    reference = weakref.ref(lasting)

    def close() -> None:
        if (alive := reference()) is not None:
            alive.close()

    def after_fork() -> None:
        if (alive := reference()) is not None:
            alive.after_fork()

    atexit.register(close)
    os.register_at_fork(after_in_child=after_fork)
    # Children of multiprocessing end without atexit, and forget the finalizers of their parent.
    multiprocessing.util.register_after_fork(
        lasting, lambda child: multiprocessing.util.Finalize(None, child.close, exitpriority=0)
    )

"""The life of a process: what ends with it, what begins anew in a fork, and who is like it."""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import logging
import os
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Protocol

logger = logging.getLogger(__name__)

# Closed, and so unlocked, when this process ends.
_locks: dict[Path, int] = {}


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
            _close_with_multiprocessing(alive)

    atexit.register(close)
    if _is_of_multiprocessing():
        # Its children end without atexit; granian's workers are such.
        sys.modules["multiprocessing.util"].Finalize(None, close, exitpriority=0)
    os.register_at_fork(after_in_child=after_fork)


def _is_of_multiprocessing() -> bool:
    # Whoever forks by it has imported it, and nobody else should.
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None


def _close_with_multiprocessing(lasting: Lasting) -> None:
    """Have a child that is yet to forget the finalizers of its parent make its own then."""
    if (util := sys.modules.get("multiprocessing.util")) is not None:
        util.register_after_fork(lasting, lambda it: util.Finalize(None, it.close, exitpriority=0))


def warn_of_siblings(app: str) -> None:
    """Warn if another process of the same parent serves the same app: another worker."""
    try:
        is_alone = _lock_for_parent(app)
    except OSError:  # no folder for temporary files, say: not worth a word
        return
    if not is_alone:
        logger.warning(
            "another worker of this app serves requests, and each has its own throttle and "
            "versions: pages may be purged and published by each of them, and the gate of one does "
            'not see what another writes; set store to "sqlite:///path/of/a/file", or to '
            '"redis://..." for several machines'
        )


def _lock_for_parent(app: str) -> bool:
    """Lock a file that the workers of one server have in common, for as long as this one lives."""
    digest = hashlib.blake2b(f"{os.getppid()} {app}".encode(), digest_size=16).hexdigest()
    path = Path(tempfile.gettempdir(), f"grip-edge-{os.getuid()}-{digest}.lock")
    if path in _locks:
        return True
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    _locks[path] = lock
    return True

"""Places where what passes can be held: an interleaving is a test then, and no matter of luck."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

# Long enough for any machine; nothing is held this long unless a test fails.
DEADLINE_S = 20.0


class Checkpoint:
    """A place on the way. Lets everything pass, but for what it is told to hold.

    with checkpoint.holding("counter-a") as held:
        ask()           # by another thread
        held.wait()     # it is there
        ...             # what is to happen meanwhile
    """

    def __init__(self) -> None:
        self.takes_s: Callable[[str], float] = lambda name: 0.0
        """How many seconds whatever arrives under a name takes to pass, apart from that."""
        self._held: list[Held] = []

    @contextmanager
    def holding(self, name: str, count: int = 1) -> Iterator[Held]:
        """Hold the next `count` that arrive under a name, until the block ends."""
        held = Held(name, count)
        self._held.append(held)
        try:
            yield held
        finally:
            self._held.remove(held)
            held.let_go()

    def arrive(self, *names: str) -> Future[None]:
        """Return a future that is done when what arrives under these names may go on."""
        for held in tuple(self._held):
            if held.takes(names):
                return held.may_go_on
        passed: Future[None] = Future()
        passed.set_result(None)
        return passed

    def wait(self, *names: str) -> None:
        """Arrive on a thread of one's own, and wait there."""
        time.sleep(self.takes_s(names[0]))
        self.arrive(*names).result(DEADLINE_S)


class Held:
    """What waits at a checkpoint."""

    def __init__(self, name: str, count: int) -> None:
        self.may_go_on: Future[None] = Future()
        self._name = name
        self._places = threading.Semaphore(count)
        self._arrived = threading.Semaphore(0)

    def takes(self, names: tuple[str, ...]) -> bool:
        """Whether what arrives under these names is held. It is counted if so."""
        is_taken = self._name in names and self._places.acquire(blocking=False)
        if is_taken:
            self._arrived.release()
        return is_taken

    def wait(self, count: int = 1) -> None:
        """Wait until that many more have arrived."""
        for _ in range(count):
            assert self._arrived.acquire(timeout=DEADLINE_S), f"{self._name} did not arrive"

    def let_go(self) -> None:
        self.may_go_on.set_result(None)

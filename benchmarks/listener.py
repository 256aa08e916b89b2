"""One stream client in a process of its own, that counts the lines it is told.

    python -m benchmarks.listener URL

For each number on stdin it says how many there were, once they are so many, or in ten seconds.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import urlopen

WITHIN_S = 10.0


class Listener:
    """The other end: what the process has heard."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._asking, self._answers = process.stdin, process.stdout
        self._heard = self._ask(1)  # that it is held

    def lost(self, sent: int) -> int:
        """Return how many of what was sent since the last time do not arrive."""
        before, self._heard = self._heard, self._ask(self._heard + sent)
        return before + sent - self._heard

    def _ask(self, count: int) -> int:
        self._asking.write(f"{count}\n")
        self._asking.flush()
        return int(self._answers.readline())


@contextmanager
def listening(url: str) -> Iterator[Listener]:
    """Have a process listen."""
    command = [sys.executable, "-m", "benchmarks.listener", url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Listener(process)
        finally:
            process.terminate()


def main() -> None:
    heard = 0

    def listen() -> None:
        nonlocal heard
        with urlopen(sys.argv[1]) as stream:
            for _ in stream:
                heard += 1

    threading.Thread(target=listen, daemon=True).start()
    for line in sys.stdin:
        deadline = time.monotonic() + WITHIN_S
        while heard < int(line) and time.monotonic() < deadline:
            time.sleep(0.01)
        print(heard, flush=True)


if __name__ == "__main__":
    main()

"""The real edge of `examples/edge`, with the settings that benchmarks change."""

from __future__ import annotations

import re
from pathlib import Path

from launch import Edge, process_tree

# https://pushpin.org/docs/configuration/: what Pushpin has if nothing is said.
DEFAULT_RATE = 2_500
# What the shipped configuration says.
SHIPPED_RATE = 100_000


class RatedEdge(Edge):
    """The edge with another `message_rate`: how many deliveries a second Pushpin makes."""

    def __init__(self, *, message_rate: int | None = None) -> None:
        super().__init__()
        self._message_rate = message_rate

    def __enter__(self) -> RatedEdge:
        self.start()
        return self

    def pushpin_bytes(self) -> int:
        """Return the memory of Pushpin's processes: what is theirs alone."""
        process = self._pushpin._process
        assert process is not None
        return sum(map(_private_bytes, process_tree(process.pid)))

    def _write_configuration(self) -> None:
        super()._write_configuration()
        if self._message_rate is not None:
            file = self._rundir / "pushpin.conf"
            said = f"message_rate={self._message_rate}\n"
            text, found = re.subn(r"(?m)^message_rate=.*\n", said, file.read_text())
            assert found == 1
            file.write_text(text)


def _private_bytes(pid: int) -> int:
    """Linux: what the process alone would free."""
    said = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kb) * 1024 for kb in re.findall(r"(?m)^Private_\w+: +(\d+) kB", said))

"""The real edge of `examples/edge`, with the settings that benchmarks change."""

from __future__ import annotations

import re

from launch import Edge

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

    def _write_configuration(self) -> None:
        super()._write_configuration()
        if self._message_rate is not None:
            file = self._rundir / "pushpin.conf"
            said = f"message_rate={self._message_rate}\n"
            text, found = re.subn(r"(?m)^message_rate=.*\n", said, file.read_text())
            assert found == 1
            file.write_text(text)

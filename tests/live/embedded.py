"""The development edge in the place of Pushpin and Varnish: each half as a process of its own.

    with EmbeddedEdge(app_port=8000) as edge: ...

It has the same ports and is stopped, frozen and started in the same way, so a test cannot tell.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from launch import Edge, Service

PROGRAM = Path(__file__).parent / "half_edge.py"


class EmbeddedEdge(Edge):
    """The development edge on the ports of Pushpin and Varnish."""

    def __init__(
        self,
        *,
        app_port: int | None = None,
        cache_port: int | None = None,
        proxied_port: int | None = None,
        over_http: Sequence[str] = (),  # it knows nothing else
    ) -> None:
        super().__init__(app_port=app_port, cache_port=cache_port, proxied_port=proxied_port)
        self._varnish = self._half("cache", self.cache_port, self.app_port)
        self._pushpin = self._half("proxy", self.client_port, self.control_port, self.proxied_port)

    def start(self) -> None:
        """Start both halves and return when a request gets through."""
        self._rundir.mkdir(mode=0o700)
        try:
            self.start_varnish()
            self.start_pushpin()
        except BaseException:
            self.stop()
            raise

    def _half(self, name: str, *ports: int) -> Service:
        service = Service([sys.executable, str(PROGRAM), name, *map(str, ports)], self._rundir)
        service.log = self._rundir / f"{name}.log"
        return service

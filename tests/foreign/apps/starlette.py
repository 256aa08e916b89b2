"""Starlette: the suite of the framework itself, whatever application its test client is given.

Its tests fail if anything blocks the event loop.
"""

from __future__ import annotations

from typing import Any

NAME = "starlette"
VERSION = "1.10.0"
INSTALL = [
    f"starlette[full]=={VERSION}",
    "pytest==9.1.1",
    "blockbuster",
    "httpx2[zstd]",
    "importlib-metadata",
    "opentelemetry-sdk",
    "trio",
]
TESTS = ["tests"]
EXPECTED: dict[str, str] = {}
AT_LEAST = {"seen": 500, "changed": 300, "tagged": 200, "held": 200}

SETTINGS = {
    "topics": {
        "home": {"routes": ["/"], "hold": "stream"},
        "page:{path}": {"routes": ["/<path:path>"], "hold": "stream"},
    },
}


def wrap(wrapping: Any) -> None:
    from starlette import testclient

    edge, transport = wrapping.edge(SETTINGS), testclient._TestClientTransport
    init = transport.__init__

    def init_wrapped(self: Any, app: Any, *args: Any, **kwargs: Any) -> None:
        init(self, edge.asgi(app), *args, **kwargs)

    transport.__init__ = init_wrapped  # type: ignore[method-assign]

"""httpbin: a small Flask application, whose answers are about HTTP itself."""

from __future__ import annotations

from typing import Any

NAME = "httpbin"
VERSION = "0.10.4"
INSTALL = ["pytest==9.1.1"]
TESTS = ["tests"]
EXPECTED: dict[str, str] = {}
AT_LEAST = {"seen": 100, "changed": 50, "tagged": 30, "held": 100, "kept out": 100}

SETTINGS = {
    "topics": {
        "home": {"routes": ["/"], "hold": "response"},
        "page-{path}": {"routes": ["/<path:path>"], "hold": "stream"},
        "status-{code}": {"routes": ["/status/<code>"]},
        "bytes-{n}": {"routes": ["/bytes/<int:n>", "/range/<int:n>"], "edge_ttl": 60},
    },
}


def wrap(wrapping: Any) -> None:
    import httpbin

    wrapping.edge(SETTINGS).init_app(httpbin.app)

"""devpi-server: a package index on Pyramid, whose tests check each exchange by WSGI's own rules."""

from __future__ import annotations

from typing import Any

NAME = "devpi-server"
VERSION = "6.20.3"
INSTALL = [
    "pytest==9.1.1",
    "beautifulsoup4",
    "execnet",
    "pytest-asyncio",
    "pytest-timeout",
    "webtest",
]
# Those that ask the application; the others are about files, replicas and nginx.
TESTS = [
    "-p",
    "pytest_devpi_server",
    *(f"test_devpi_server/test_{name}.py" for name in ("views", "view_auth", "views_status")),
]
EXPECTED = {
    "test_devpi_server/test_views.py::test_pkgserv_caching": (
        "it asserts that browsers keep a file for ever; no purge reaches those, so ours ask again"
    ),
}
AT_LEAST = {"seen": 1000, "changed": 300, "tagged": 300, "held": 100}

SETTINGS = {
    "topics": {
        "status": {"routes": ["/+status"], "hold": "stream"},
        "user:{user}": {"routes": ["/<user>"]},
        "index:{user}:{index}": {
            "routes": ["/<user>/<index>", "/<user>/<index>/+simple/"],
            "edge_ttl": 60,
        },
        "project:{user}:{index}:{project}": {
            "routes": [
                {"path": "/<user>/<index>/<project>", "hold": "response"},
                "/<user>/<index>/+simple/<project>/",
            ],
        },
        "page:{path}": {"routes": ["/<path:path>"], "hold": "stream"},
    },
}


def wrap(wrapping: Any) -> None:
    from devpi_server.main import XOM

    edge, create_app = wrapping.edge(SETTINGS), XOM.create_app

    def create_wrapped(xom: Any) -> Any:
        return edge.wsgi(create_app(xom))

    XOM.create_app = create_wrapped

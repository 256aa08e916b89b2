"""isso: a comment server on bare WSGI, that keeps its comments in SQLite without an ORM."""

from __future__ import annotations

from typing import Any

NAME = "isso"
VERSION = "0.14.0"
INSTALL = ["pytest==9.1.1"]
TESTS = ["isso/tests"]
EXPECTED: dict[str, str] = {}
AT_LEAST = {"seen": 400, "changed": 40, "tagged": 40, "held": 10}

SETTINGS = {
    "throttle": 0.1,
    "confirm_after": 0.1,
    "topics": {
        "latest": {"routes": ["/latest"], "hold": "stream"},
        "comments": {"routes": ["/", "/<path:path>"]},
        "comment-{id}": {"routes": ["/id/<int:id>"], "hold": "response"},
    },
}


def wrap(wrapping: Any) -> None:
    from isso import Isso
    from isso.ext import Signal

    edge = wrapping.edge(SETTINGS)
    init, tell = Isso.__init__, Signal.__call__

    def init_wrapped(app: Any, conf: Any) -> None:
        init(app, conf)
        app.wsgi_app = edge.wsgi(app.wsgi_app)

    def tell_edge(signal: Any, origin: str, *args: Any) -> None:
        tell(signal, origin, *args)
        edge.submit("latest")
        edge.submit("comments")

    Isso.__init__ = init_wrapped
    Signal.__call__ = tell_edge

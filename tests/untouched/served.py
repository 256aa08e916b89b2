"""Apps for servers to import: each with the edge, and without for whoever says `X-Bare`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from grip_edge_middleware import GripEdge
from tests.untouched import apps
from tests.untouched.cases import SETTINGS, cases

ALL = list(cases())
stage = apps.Stage()
edge = GripEdge(settings=SETTINGS, environ={})
bare_wsgi, bare_asgi = apps.wsgi_app(stage), apps.asgi_app(stage)
edged_wsgi, edged_asgi = edge.wsgi(bare_wsgi), edge.asgi(bare_asgi)


def wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    """Answer one request after the other."""
    stage.case = ALL[int(environ["PATH_INFO"].rpartition("/")[2])]
    app = bare_wsgi if "HTTP_X_BARE" in environ else edged_wsgi
    return app(environ, start_response)


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Do the same."""
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
        return
    stage.case = ALL[int(scope["path"].rpartition("/")[2])]
    is_bare = b"x-bare" in dict(scope["headers"])
    await (bare_asgi if is_bare else edged_asgi)(scope, receive, send)

"""An app of Falcon's for ASGI, which has no sync views."""

from __future__ import annotations

from typing import cast

import falcon
import falcon.asgi
from falcon.asgi import Request, Response

from grip_edge_middleware import GripEdge
from grip_edge_middleware.types import ASGIApp
from tests.compatibility.apps import common

edge = GripEdge(settings=common.GRIP_EDGE)


class Counter:
    async def on_get(self, request: Request, response: Response, name: str) -> None:
        response.content_type = "text/event-stream"
        response.text = common.shown(name)

    async def on_post(self, request: Request, response: Response, name: str) -> None:
        common.counters[name] += 1
        edge.submit("counter-{name}", name=name)
        response.status = falcon.HTTP_204


class View:
    async def on_get(self, request: Request, response: Response, name: str) -> None:
        edge.tag("async")
        response.content_type = falcon.MEDIA_TEXT
        response.text = name


class Body:
    async def on_get(self, request: Request, response: Response, name: str) -> None:
        response.content_type = falcon.MEDIA_TEXT
        response.stream = common.two_chunks_async()

    async def on_post(self, request: Request, response: Response, name: str) -> None:
        common.may_go_on.set()
        response.status = falcon.HTTP_204


class Unchanged:
    async def on_get(self, request: Request, response: Response, name: str) -> None:
        response.status = falcon.HTTP_304


api = falcon.asgi.App()
api.add_route("/counters/{name}", Counter())
api.add_route("/bodies/{name}", Body())
api.add_route("/unchanged/{name}", Unchanged())
for kind in ("views", "polled", "rooms", "plain"):
    api.add_route(f"/{kind}/{{name}}", View())
app = edge.asgi(cast(ASGIApp, api))

"""An app of Falcon's for WSGI, which has no async views."""

from __future__ import annotations

import falcon
from falcon import Request, Response

from grip_edge_middleware import GripEdge
from tests.compatibility.apps import common

edge = GripEdge(settings=common.GRIP_EDGE)


class Counter:
    def on_get(self, request: Request, response: Response, name: str) -> None:
        edge.tag("sync")
        response.content_type = "text/event-stream"
        response.text = common.shown(name)

    def on_post(self, request: Request, response: Response, name: str) -> None:
        common.counters[name] += 1
        edge.submit("counter-{name}", name=name)
        response.status = falcon.HTTP_204


class View:
    def on_get(self, request: Request, response: Response, name: str) -> None:
        response.content_type = falcon.MEDIA_TEXT
        response.text = name


class Body:
    def on_get(self, request: Request, response: Response, name: str) -> None:
        response.content_type = falcon.MEDIA_TEXT
        response.stream = common.two_chunks()

    def on_post(self, request: Request, response: Response, name: str) -> None:
        common.may_go_on.set()
        response.status = falcon.HTTP_204


class Unchanged:
    def on_get(self, request: Request, response: Response, name: str) -> None:
        response.status = falcon.HTTP_304


api = falcon.App()
api.add_route("/counters/{name}", Counter())
api.add_route("/bodies/{name}", Body())
api.add_route("/unchanged/{name}", Unchanged())
for kind in ("views", "polled", "rooms", "plain"):
    api.add_route(f"/{kind}/{{name}}", View())
app = edge.wsgi(api)

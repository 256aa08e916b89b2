"""An app of Bottle's, which has no async views."""

from __future__ import annotations

from collections.abc import Iterator

from bottle import Bottle, HTTPResponse, response

from grip_edge_middleware import GripEdge
from tests.compatibility.apps import common

edge = GripEdge(settings=common.GRIP_EDGE)
bottle = Bottle()


@bottle.get("/counters/<name>")
def counter(name: str) -> str:
    edge.tag("sync")
    response.content_type = "text/event-stream"
    return common.shown(name)


@bottle.post("/counters/<name>")
def increment(name: str) -> HTTPResponse:
    common.counters[name] += 1
    edge.submit("counter-{name}", name=name)
    return HTTPResponse(status=204)


@bottle.get("/bodies/<name>")
def body(name: str) -> Iterator[bytes]:
    response.content_type = "text/plain"
    return common.two_chunks()


@bottle.post("/bodies/<name>")
def go_on(name: str) -> HTTPResponse:
    common.may_go_on.set()
    return HTTPResponse(status=204)


@bottle.get("/unchanged/<name>")
def unchanged(name: str) -> HTTPResponse:
    return HTTPResponse(status=304)


@bottle.get("/views/<name>")
@bottle.get("/polled/<name>")
@bottle.get("/rooms/<name>")
@bottle.get("/plain/<name>")
def plain(name: str) -> str:
    return name


app = edge.wsgi(bottle)

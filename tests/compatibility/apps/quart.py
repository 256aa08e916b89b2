"""An app of Quart's."""

from __future__ import annotations

from quart import Quart, Response
from quart.typing import ResponseReturnValue

from grip_edge_middleware import GripEdge
from tests.compatibility.apps import common

app = Quart(__name__)
edge = GripEdge(settings=common.GRIP_EDGE)
app.asgi_app = edge.asgi(app.asgi_app)  # type: ignore[method-assign, assignment, arg-type]


@app.get("/counters/<name>")
def counter(name: str) -> ResponseReturnValue:
    edge.tag("sync")
    return Response(common.shown(name), mimetype="text/event-stream")


@app.post("/counters/<name>")
async def increment(name: str) -> ResponseReturnValue:
    common.counters[name] += 1
    edge.submit("counter-{name}", name=name)
    return "", 204


@app.get("/views/<name>")
async def view(name: str) -> ResponseReturnValue:
    edge.tag("async")
    return name


@app.get("/bodies/<name>")
async def body(name: str) -> ResponseReturnValue:
    return Response(common.two_chunks_async(), mimetype="text/plain")


@app.post("/bodies/<name>")
async def go_on(name: str) -> ResponseReturnValue:
    common.may_go_on.set()
    return "", 204


@app.get("/unchanged/<name>")
async def unchanged(name: str) -> ResponseReturnValue:
    return "", 304


@app.get("/polled/<name>")
@app.get("/rooms/<name>")
@app.get("/plain/<name>")
async def plain(name: str) -> ResponseReturnValue:
    return name

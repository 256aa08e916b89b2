"""An app of Flask's."""

from __future__ import annotations

from flask import Flask, Response
from flask.typing import ResponseReturnValue

from grip_edge_middleware import GripEdge
from tests.compatibility.apps import common

app = Flask(__name__)
app.config["GRIP_EDGE"] = common.GRIP_EDGE
edge = GripEdge(app)


@app.get("/counters/<name>")
def counter(name: str) -> ResponseReturnValue:
    edge.tag("sync")
    return Response(common.shown(name), mimetype="text/event-stream")


@app.post("/counters/<name>")
def increment(name: str) -> ResponseReturnValue:
    common.counters[name] += 1
    edge.submit("counter-{name}", name=name)
    return "", 204


@app.get("/views/<name>")
async def view(name: str) -> ResponseReturnValue:
    edge.tag("async")
    return name


@app.get("/bodies/<name>")
def body(name: str) -> ResponseReturnValue:
    return Response(common.two_chunks(), mimetype="text/plain")


@app.post("/bodies/<name>")
def go_on(name: str) -> ResponseReturnValue:
    common.may_go_on.set()
    return "", 204


@app.get("/unchanged/<name>")
def unchanged(name: str) -> ResponseReturnValue:
    return "", 304


@app.get("/polled/<name>")
@app.get("/rooms/<name>")
@app.get("/plain/<name>")
def plain(name: str) -> ResponseReturnValue:
    return name

"""An app of FastAPI's."""

from __future__ import annotations

from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from grip_edge_middleware import GripEdge, GripEdgeMiddleware
from tests.compatibility.apps import common

edge = GripEdge(settings=common.GRIP_EDGE)
app = FastAPI()
app.add_middleware(GripEdgeMiddleware, edge=edge)


@app.get("/counters/{name}")
def counter(name: str) -> Response:
    edge.tag("sync")
    return Response(common.shown(name), media_type="text/event-stream")


@app.post("/counters/{name}", status_code=204)
async def increment(name: str) -> None:
    common.counters[name] += 1
    edge.submit("counter-{name}", name=name)


@app.get("/views/{name}", response_class=PlainTextResponse)
async def view(name: str) -> str:
    edge.tag("async")
    return name


@app.get("/bodies/{name}")
async def body(name: str) -> StreamingResponse:
    return StreamingResponse(common.two_chunks_async(), media_type="text/plain")


@app.post("/bodies/{name}", status_code=204)
async def go_on(name: str) -> None:
    common.may_go_on.set()


@app.get("/unchanged/{name}")
async def unchanged(name: str) -> Response:
    return Response(status_code=304)


@app.get("/polled/{name}", response_class=PlainTextResponse)
@app.get("/rooms/{name}", response_class=PlainTextResponse)
@app.get("/plain/{name}", response_class=PlainTextResponse)
async def plain(name: str) -> str:
    return name

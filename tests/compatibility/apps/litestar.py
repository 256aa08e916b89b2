"""An app of Litestar's."""

from __future__ import annotations

from typing import cast

from litestar import Litestar, MediaType, Response, get, post
from litestar.params import FromPath
from litestar.response import Stream

from grip_edge_middleware import GripEdge
from grip_edge_middleware.types import ASGIApp
from tests.compatibility.apps import common

edge = GripEdge(settings=common.GRIP_EDGE)


@get("/counters/{name:str}", sync_to_thread=False)
def counter(name: FromPath[str]) -> Response[str]:
    edge.tag("sync")
    return Response(common.shown(name), media_type="text/event-stream")


@post("/counters/{name:str}", status_code=204)
async def increment(name: FromPath[str]) -> None:
    common.counters[name] += 1
    edge.submit("counter-{name}", name=name)


@get("/views/{name:str}", media_type=MediaType.TEXT)
async def view(name: FromPath[str]) -> str:
    edge.tag("async")
    return name


@get("/bodies/{name:str}")
async def body(name: FromPath[str]) -> Stream:
    return Stream(common.two_chunks_async(), media_type="text/plain")


@post("/bodies/{name:str}", status_code=204)
async def go_on(name: FromPath[str]) -> None:
    common.may_go_on.set()


@get("/unchanged/{name:str}", status_code=304)
async def unchanged(name: FromPath[str]) -> None:
    pass


@get(["/polled/{name:str}", "/rooms/{name:str}", "/plain/{name:str}"], media_type=MediaType.TEXT)
async def plain(name: FromPath[str]) -> str:
    return name


# Around the app: Litestar's own middleware sees no request for which it has no route, and a next
# link is one.
app = edge.asgi(cast(ASGIApp, Litestar([counter, increment, view, body, go_on, unchanged, plain])))

"""An app of Starlette's."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from grip_edge_middleware import GripEdge, GripEdgeMiddleware
from tests.compatibility.apps import common

edge = GripEdge(settings=common.GRIP_EDGE)


def counter(request: Request) -> Response:
    edge.tag("sync")
    return Response(common.shown(request.path_params["name"]), media_type="text/event-stream")


async def increment(request: Request) -> Response:
    name = request.path_params["name"]
    common.counters[name] += 1
    edge.submit("counter-{name}", name=name)
    return Response(status_code=204)


async def view(request: Request) -> Response:
    edge.tag("async")
    return PlainTextResponse(request.path_params["name"])


async def body(request: Request) -> Response:
    return StreamingResponse(common.two_chunks_async(), media_type="text/plain")


async def go_on(request: Request) -> Response:
    common.may_go_on.set()
    return Response(status_code=204)


async def unchanged(request: Request) -> Response:
    return Response(status_code=304)


async def plain(request: Request) -> Response:
    return PlainTextResponse(request.path_params["name"])


app = Starlette(
    routes=[
        Route("/counters/{name}", counter),
        Route("/counters/{name}", increment, methods=["POST"]),
        Route("/views/{name}", view),
        Route("/bodies/{name}", body),
        Route("/bodies/{name}", go_on, methods=["POST"]),
        Route("/unchanged/{name}", unchanged),
        *(Route(f"/{kind}/{{name}}", plain) for kind in ("polled", "rooms", "plain")),
    ],
    middleware=[Middleware(GripEdgeMiddleware, edge=edge)],
)

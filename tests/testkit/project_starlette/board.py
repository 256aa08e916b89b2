"""The board: scores of matches, and a table of them."""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from grip_edge_middleware import GripEdge, GripEdgeMiddleware

edge = GripEdge(
    settings={
        "grip_url": "http://localhost:5561",
        "cdn": "fastly://SERVICE",
        "topics": {
            "score-{id}": {
                "routes": [
                    {"path": "/scores/{id:int}/events", "hold": "stream"},
                    {"path": "/scores/{id:int}", "hold": "response"},
                ],
            },
            "table": {"routes": ["/table"]},
        },
    },
    environ={"FASTLY_API_TOKEN": "none-in-tests"},
)
goals = {7: 0}


async def events(request):
    return Response(f"data: {goals[request.path_params['id']]}\n\n", media_type="text/event-stream")


async def score(request):
    return JSONResponse({"goals": goals[request.path_params["id"]]})


async def table(request):
    edge.tag("score-{id}", id=7)
    return JSONResponse(goals)


async def goal(request):
    goals[request.path_params["id"]] += 1
    edge.submit("score-{id}", id=request.path_params["id"])
    return Response(status_code=204)


app = Starlette(
    routes=[
        Route("/scores/{id:int}/events", events),
        Route("/scores/{id:int}", score),
        Route("/table", table),
        Route("/scores/{id:int}/goal", goal, methods=["POST"]),
    ],
    middleware=[Middleware(GripEdgeMiddleware, edge=edge)],
)

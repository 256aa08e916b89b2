"""An app of Pyramid's, which has no async views."""

from __future__ import annotations

from pyramid.config import Configurator
from pyramid.request import Request
from pyramid.response import Response

from grip_edge_middleware import GripEdge
from tests.compatibility.apps import common

edge = GripEdge(settings=common.GRIP_EDGE)


def counter(request: Request) -> Response:
    edge.tag("sync")
    return Response(common.shown(request.matchdict["name"]), content_type="text/event-stream")


def increment(request: Request) -> Response:
    name = request.matchdict["name"]
    common.counters[name] += 1
    edge.submit("counter-{name}", name=name)
    return Response(status=204)


def body(request: Request) -> Response:
    return Response(app_iter=common.two_chunks(), content_type="text/plain")


def go_on(request: Request) -> Response:
    common.may_go_on.set()
    return Response(status=204)


def unchanged(request: Request) -> Response:
    return Response(status=304)


def plain(request: Request) -> Response:
    return Response(request.matchdict["name"])


with Configurator() as config:
    for kind in ("counters", "views", "bodies", "unchanged", "polled", "rooms", "plain"):
        config.add_route(kind, f"/{kind}/{{name}}")
    config.add_view(counter, route_name="counters", request_method="GET")
    config.add_view(increment, route_name="counters", request_method="POST")
    config.add_view(body, route_name="bodies", request_method="GET")
    config.add_view(go_on, route_name="bodies", request_method="POST")
    config.add_view(unchanged, route_name="unchanged", request_method="GET")
    for kind in ("views", "polled", "rooms", "plain"):
        config.add_view(plain, route_name=kind, request_method="GET")
    app = edge.wsgi(config.make_wsgi_app())

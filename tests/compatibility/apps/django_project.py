"""A Django project: its settings, URLs and views."""

from __future__ import annotations

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.urls import path

from grip_edge_middleware.django import edge
from tests.compatibility.apps import common

SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = __name__
USE_TZ = True
INSTALLED_APPS = ["grip_edge_middleware.django"]
MIDDLEWARE = [
    "grip_edge_middleware.django.GripEdgeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
]
GRIP_EDGE = common.GRIP_EDGE


def counter(request: HttpRequest, name: str) -> HttpResponse:
    if request.method == "POST":
        common.counters[name] += 1
        edge.submit("counter-{name}", name=name)
        return HttpResponse(status=204)
    edge.tag("sync")
    return HttpResponse(common.shown(name), content_type="text/event-stream")


async def view(request: HttpRequest, name: str) -> HttpResponse:
    edge.tag("async")
    return HttpResponse(name)


def body(request: HttpRequest, name: str) -> HttpResponseBase:
    if request.method == "POST":
        common.may_go_on.set()
        return HttpResponse(status=204)
    is_async = isinstance(request, ASGIRequest)
    chunks = common.two_chunks_async() if is_async else common.two_chunks()
    return StreamingHttpResponse(chunks, content_type="text/plain")


def unchanged(request: HttpRequest, name: str) -> HttpResponse:
    return HttpResponse(status=304)


def plain(request: HttpRequest, name: str) -> HttpResponse:
    return HttpResponse(name)


urlpatterns = [
    path("counters/<name>", counter),
    path("views/<name>", view),
    path("bodies/<name>", body),
    path("unchanged/<name>", unchanged),
    *(path(f"{kind}/<name>", plain) for kind in ("polled", "rooms", "plain")),
]

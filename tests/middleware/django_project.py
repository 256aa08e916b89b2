"""A Django project for tests: its URLs and views, and how a test asks it, sync and async."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import include, path

from grip_edge_middleware.django import edge
from tests.sources.django_app.models import Author

__all__ = ["ask", "project", "urlpatterns"]

OURS = "grip_edge_middleware.django.GripEdgeMiddleware"
TOPICS: dict[str, Any] = {
    "counter-{name}": {
        "routes": ["name:counter"],
        "hold": "stream",
        "models": ["tests.sources.django_app.models:Author"],
    },
    "stream-{name}": {"routes": ["name:stream", "name:astream"]},
    "all-{view}": {"routes": ["name:shop:view"]},
    "polled": {"routes": ["name:polled"], "hold": "response"},
}
NOWHERE: dict[str, Any] = {"grip_url": "http://127.0.0.1:9", "cdn": "varnish://127.0.0.1:9"}

values: dict[str, int] = {}
seen: dict[str, Any] = {}
"""What a view notes for the test."""


def counter(request: HttpRequest, name: str) -> HttpResponse:
    edge.tag("seen")
    seen["thread"] = threading.get_ident()
    return HttpResponse(f"data: {values.get(name, 0)}\n\n", content_type="text/event-stream")


async def async_counter(request: HttpRequest, name: str) -> HttpResponse:
    return counter(request, name)


def stream(request: HttpRequest, name: str) -> StreamingHttpResponse:
    def body() -> Iterator[bytes]:
        seen["made"] = True
        yield b"a"
        yield b"b"

    return StreamingHttpResponse(body())


async def async_stream(request: HttpRequest, name: str) -> StreamingHttpResponse:
    async def body() -> AsyncIterator[bytes]:
        seen["made"] = True
        yield b"a"
        yield b"b"

    return StreamingHttpResponse(body())


def view(request: HttpRequest, view: str) -> HttpResponseBase:
    return VIEWS[view](request)


def cookie(request: HttpRequest) -> HttpResponse:
    response = HttpResponse("yours")
    response.set_cookie("a", "1", httponly=True)
    response.set_cookie("b", "2")
    return response


def broken(request: HttpRequest) -> HttpResponse:
    raise ZeroDivisionError


def template(request: HttpRequest) -> TemplateResponse:
    edge.tag("by the view")
    return TemplateResponse(request, engines["django"].from_string("{% if 1 %}shown{% endif %}"))


def authors(request: HttpRequest) -> HttpResponse:
    seen["connection"] = connections["default"]
    if request.method == "POST":
        Author.objects.create(name=request.GET["name"])
        if request.GET.get("fails"):
            raise ZeroDivisionError
    return HttpResponse(", ".join(Author.objects.values_list("name", flat=True)))


VIEWS: dict[str, Callable[[HttpRequest], HttpResponseBase]] = {
    "authors": authors,
    "broken": broken,
    "cookie": cookie,
    "plain": lambda request: HttpResponse("plain"),
    "template": template,
}

urlpatterns = [
    path("counters/<slug:name>/", counter, name="counter"),
    path("async/<slug:name>/", async_counter, name="async"),
    path("streams/<name>/", stream, name="stream"),
    path("async-streams/<name>/", async_stream, name="astream"),
    path("polled/", lambda request: HttpResponse("polled"), name="polled"),
    path("views/", include(([path("<view>/", view, name="view")], "shop"))),
]


@contextmanager
def project(*middleware: str, **changed: Any) -> Iterator[None]:
    """Have the process be the project. `changed` are settings of the edge, or, in capitals, all."""
    own = {name: value for name, value in changed.items() if name.isupper()}
    edge_settings = {n: v for n, v in changed.items() if not n.isupper()}
    options: dict[str, Any] = {
        "GRIP_EDGE": {**NOWHERE, "flush_timeout": 0, "topics": TOPICS, **edge_settings},
        "MIDDLEWARE": [OURS, *middleware],
        "ROOT_URLCONF": __name__,
        "TEMPLATES": [{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
        **own,
    }
    values.clear()
    seen.clear()
    with override_settings(**options):
        yield


def ask(kind: str, path: str, *, method: str = "GET", **headers: str) -> Any:
    """Ask the project through Django's own handlers, as WSGI or as ASGI."""
    if kind == "wsgi":
        client = Client(raise_request_exception=False)
        return client.generic(method, path, headers=headers)
    return asyncio.run(ask_async(path, method=method, **headers))


async def ask_async(path: str, *, method: str = "GET", **headers: str) -> Any:
    client = AsyncClient(raise_request_exception=False)
    response: Any = await client.generic(method, path, headers=headers)
    if response.streaming and response.is_async:  # while its loop runs
        response.body = b"".join([chunk async for chunk in response])
    return response

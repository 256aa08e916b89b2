"""What the middleware adds to a request to Django, beside django-grip's `GripMiddleware`.

With `GripMiddleware` the view says what is held, with ours the settings do. Neither view does
anything else.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import jwt
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path

from benchmarks.faces import BODY, call_wsgi, environ_of
from benchmarks.measure import Effort, Work, in_turns
from benchmarks.results import Result, Target, at_most_times, result
from grip_edge_middleware import GripEdge
from grip_edge_middleware.middleware.django import AsyncGetResponse, GetResponse

KEY = "a-secret-of-at-least-32-random-bytes"
GRIP_PROXY = {"control_uri": "http://127.0.0.1:5561", "verify_key": KEY, "key": KEY}
OURS: dict[str, Any] = {
    "cdn": "varnish://127.0.0.1:6081",
    "grip_url": f"http://127.0.0.1:5561?verify-key={KEY}",
    "secret": KEY,
    "topics": {
        "counter-{name}": {"routes": ["/counters/<name>/"], "hold": "stream"},
        "order-{name}": {"routes": ["/orders/<name>/"], "hold": "stream", "private": True},
    },
}


def django_grip(effort: Effort) -> Iterator[Result]:
    """What is added to Django, with a hold: unsigned, signed, and where the signature is needed."""
    turns = in_turns(works(), effort)
    for name, ours, peers, target in CASES:
        base = turns.added(peers, "bare")
        added = turns.added(ours, "bare signed" if "signed" in ours else "bare")
        yield result(name, added, "µs", base="GripMiddleware adds", base_values=base, target=target)


CASES: tuple[tuple[str, str, str, Target], ...] = (
    ("Django, held: added", "ours", "peer", at_most_times(0.5)),
    ("Django, held, with Grip-Sig: added", "ours signed", "peer signed", at_most_times(0.5)),
    (
        "Django, private, verified: added",
        "ours private",
        "peer signed",
        at_most_times(0.5),
    ),
)


def works() -> dict[str, Work]:
    """Return requests to Django alone, with `GripMiddleware`, and with ours."""
    settings.configure(
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["*"],
        SECRET_KEY=KEY,
        GRIP_PROXIES=[GRIP_PROXY],
    )
    import django

    django.setup()
    bare, peer, ours = (
        handler(name) for name in ("", "django_grip.GripMiddleware", f"{__name__}.edge_middleware")
    )
    counter, held, order = "/counters/blue/", "/held/blue/", "/orders/7/"
    check(peer, held)
    check(ours, counter)
    check(ours, order, HTTP_GRIP_SIG=token())
    sig = {"HTTP_GRIP_SIG": token()}
    return {
        "bare": call_wsgi(bare, counter),
        "bare signed": call_wsgi(bare, counter, **sig),
        "peer": call_wsgi(peer, held),
        "peer signed": call_wsgi(peer, held, **sig),
        "ours": call_wsgi(ours, counter),
        "ours signed": call_wsgi(ours, counter, **sig),
        "ours private": call_wsgi(ours, order, **sig),
    }


def token() -> str:
    """Return what Pushpin would sign a request with."""
    return jwt.encode({"iss": "pushpin", "exp": int(time.time()) + 3_600}, KEY, algorithm="HS256")


def handler(middleware: str) -> Any:
    """Return the project with one middleware, or none."""
    from django.core.handlers.wsgi import WSGIHandler
    from django.test import override_settings

    with override_settings(MIDDLEWARE=[middleware] if middleware else []):
        return WSGIHandler()


def check(app: Any, path: str, **more: str) -> None:
    """Make sure that what is measured is held."""
    said: dict[str, str] = {}
    list(app(environ_of(path, **more), lambda status, headers: said.update(headers)))
    assert said.get("Grip-Hold") == "stream", said


def edge_middleware(
    get_response: GetResponse | AsyncGetResponse,
) -> GetResponse | AsyncGetResponse:
    """Be the middleware of an edge with settings of its own."""
    return GripEdge(settings=OURS).django(get_response)


def show(request: HttpRequest, name: str) -> HttpResponse:
    """Answer one event."""
    return HttpResponse(BODY, content_type="text/event-stream")


def show_held(request: HttpRequest, name: str) -> HttpResponse:
    """Answer one event and have `GripMiddleware` hold it."""
    from django_grip import set_hold_stream

    set_hold_stream(request, f"counter-{name}")
    return HttpResponse(BODY, content_type="text/event-stream")


urlpatterns = [
    path("counters/<name>/", show),
    path("orders/<name>/", show),
    path("held/<name>/", show_held),
]

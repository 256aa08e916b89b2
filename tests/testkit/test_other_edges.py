"""An app whose edge is none of those that the embedded one speaks as: what its tests see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from flask import Flask, Response
from werkzeug.test import Client

from grip_edge_middleware import GripEdge
from grip_edge_middleware.testing import (
    assert_hit,
    assert_miss,
    assert_purged_before_published,
    assert_tagged,
    embedded,
    recording,
)
from grip_edge_middleware.types import WSGIApplication

CDNS: dict[str, Any] = {
    "cloudflare": {"zone_id": "z", "token": "t"},
    "cloudfront": {"distribution_id": "d", "access_key_id": "a", "secret_access_key": "s"},
    "akamai": {"host": "h", "client_token": "c", "client_secret": "s", "access_token": "a"},
    "souin": {"url": "http://127.0.0.1:9"},
}


@pytest.fixture(params=CDNS)
def edge(request: pytest.FixtureRequest) -> Iterator[GripEdge]:
    settings = {
        "grip_url": "http://127.0.0.1:9",
        "cdn": {request.param: CDNS[request.param]},
        "topics": {"Value-{name}": {"routes": ["/values/<name>"], "hold": "stream"}},
    }
    with closing(GripEdge(settings=settings, environ={})) as edge:
        yield edge


@pytest.fixture
def app(edge: GripEdge) -> WSGIApplication:
    app = Flask(__name__)

    @app.get("/values/<name>")
    def value(name: str) -> Response:
        return Response(f"{name}\n", mimetype="text/plain")

    return edge.wsgi(app.wsgi_app)


def test_a_purge_is_read_as_the_app_names_its_keys(edge: GripEdge) -> None:
    with recording(edge) as recorded:
        edge.publish("Value-{name}", "x", name="a b")
        recorded.settle()

        assert_purged_before_published(recorded, "Value-a%20b")


def test_a_response_is_tagged_as_the_app_names_its_keys(
    edge: GripEdge, app: WSGIApplication
) -> None:
    response = Client(app).get("/values/a%20b")

    assert_tagged(response, "%all", "Value-a%20b")


def test_the_embedded_edge_forgets_what_it_is_told_to(edge: GripEdge, app: WSGIApplication) -> None:
    with embedded(edge, app) as live:
        for check in (assert_miss, assert_hit):
            with live.stream("/values/a") as stream:
                check(stream)
        edge.publish("Value-{name}", "x\n", name="a")
        live.settle()

        with live.stream("/values/a") as stream:
            assert_miss(stream)

"""The edge in a Flask app, as its users write it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, Response, stream_with_context

from grip_edge_middleware import GripEdge, SettingsError
from tests.recording import DEADLINE_S, RecordingServer

TOPICS: dict[str, Any] = {"counter-{name}": {"routes": ["/counters/<name>/"], "hold": "stream"}}
NOWHERE = {"grip_url": "http://127.0.0.1:9", "cdn": "varnish://127.0.0.1:9", "topics": TOPICS}


@pytest.fixture
def edge() -> Iterator[GripEdge]:
    edge = GripEdge()
    yield edge
    edge.close()


def create_app(edge: GripEdge, settings: dict[str, Any] | None = None) -> Flask:
    app = Flask(__name__)
    app.config["GRIP_EDGE"] = settings or NOWHERE
    edge.init_app(app)

    @app.get("/counters/<name>/")
    def counter(name: str) -> str:
        edge.tag("seen")
        return f"counter {name}"

    @app.get("/counters/stream/")
    def stream() -> Response:
        def body() -> Iterator[str]:
            edge.tag("late")
            yield "x"

        return Response(stream_with_context(body()))

    return app


def test_a_configured_route_is_held_and_tagged(edge: GripEdge) -> None:
    response = create_app(edge).test_client().get("/counters/blue/")

    assert response.text == "counter blue"
    assert response.headers["Grip-Channel"].partition(";")[0] == "counter-blue"
    assert response.headers["Surrogate-Key"].split()[2] == "counter-blue"
    assert "seen" in response.headers["Surrogate-Key"].split()


def test_a_streaming_view_is_passed_on(edge: GripEdge) -> None:
    response = create_app(edge).test_client().get("/counters/stream/")

    assert response.text == "x"
    assert response.headers["Grip-Hold"] == "stream"


def test_an_unknown_page_is_as_it_was(edge: GripEdge) -> None:
    response = create_app(edge).test_client().get("/nothing/")

    assert response.status_code == 404
    assert "Surrogate-Key" not in response.headers


def test_the_extension_is_found_on_the_app(edge: GripEdge) -> None:
    assert create_app(edge).extensions["grip_edge"] is edge


def test_the_constructor_wraps_at_once() -> None:
    app = Flask(__name__)
    app.config["GRIP_EDGE"] = NOWHERE
    edge = GripEdge(app)

    assert app.extensions["grip_edge"] is edge
    edge.close()


def test_settings_may_be_given_instead_of_the_config() -> None:
    app = Flask(__name__)
    edge = GripEdge(app, settings=NOWHERE)

    response = app.test_client().get("/counters/blue/")

    assert response.status_code == 404
    edge.close()


def test_a_factory_may_be_called_twice(edge: GripEdge) -> None:
    first, second = create_app(edge), create_app(edge)

    for app in (first, second):
        headers = app.test_client().get("/counters/blue/").headers
        [channels] = headers.getlist("Grip-Channel")
        assert [c.partition(";")[0] for c in channels.split(", ")] == ["counter-blue"]


def test_the_edge_delivers_for_the_last_app_of_a_factory(edge: GripEdge) -> None:
    with RecordingServer() as server:
        settings = {**NOWHERE, "grip_url": server.url, "cdn": server.url.replace("http", "varnish")}
        create_app(edge)
        create_app(edge, settings)
        edge.submit("counter-{name}", name="blue")

        server.wait_for_channels("counter-blue")
        assert server.items[0]["formats"]["http-stream"]["content"] == "counter blue"
        edge.close()


def test_wrong_settings_of_a_later_app_leave_the_edge_as_it_was(edge: GripEdge) -> None:
    with RecordingServer() as server:
        settings = {**NOWHERE, "grip_url": server.url, "cdn": None}
        create_app(edge, settings)
        with pytest.raises(SettingsError):
            create_app(edge, {**settings, "edge_tll": 5})

        edge.submit("counter-{name}", name="blue")
        assert edge.flush(DEADLINE_S)
        assert server.channels == ["counter-blue"]
        edge.close()


def test_a_missing_config_says_what_to_do() -> None:
    with pytest.raises(SettingsError, match=r'set app.config\["GRIP_EDGE"\] before GripEdge'):
        GripEdge(Flask(__name__))


def test_an_edge_without_settings_says_what_to_do(edge: GripEdge) -> None:
    with pytest.raises(SettingsError, match="call init_app"):
        edge.submit("counters")

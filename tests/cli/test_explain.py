"""`grip-edge explain`, by what it prints and returns."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from grip_edge_middleware.cli.status import FOUND_WRONG, OK, WRONG_USE
from tests.cli.conftest import TOPICS, Run, Served
from tests.recording import Answer, RecordingServer

TOKEN = "TOKEN-that-nobody-may-see-at-all"

FLASK_APP = f"""
from flask import Flask, Response
from grip_edge_middleware import GripEdge

print("what an app prints is no JSON")
app = Flask(__name__)
app.config["GRIP_EDGE"] = {{"grip_url": None, "cdn": "varnish://localhost", "topics": {{
    name: topic for name, topic in {TOPICS!r}.items() if not topic.get("private")
}}}}
edge = GripEdge(app)

@app.get("/counters/<name>")
def counter(name):
    edge.tag("seller-7")
    if name == "broken":
        raise ValueError("broken")
    return Response("data: 1\\n\\n", content_type="text/event-stream")
"""
STARLETTE_APP = f"""
from contextlib import asynccontextmanager
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from grip_edge_middleware import GripEdgeMiddleware

async def poll(request):
    return PlainTextResponse(request.state.said)

@asynccontextmanager
async def life(app):
    yield {{"said": "started"}}

settings = {{"grip_url": None, "cdn": "varnish://localhost", "topics": {{
    name: topic for name, topic in {TOPICS!r}.items() if not topic.get("private")
}}}}
app = Starlette(
    routes=[Route("/polls/{{id:int}}/", poll)],
    middleware=[Middleware(GripEdgeMiddleware, settings=settings)],
    lifespan=life,
)
"""
WSGI_APP = """
from grip_edge_middleware import GripEdge
edge = GripEdge(settings={"grip_url": None, "topics": {"all": {"routes": ["/"]}}})
def plain(environ, start_response):
    start_response("200 OK", [("Surrogate-Key", "own")])
    return [b""]
app = edge.wsgi(plain)
"""


def test_a_page_through_the_edge_is_explained_from_the_settings(run: Run, served: Served) -> None:
    url = f"{served.url}/counters/explained"

    ended = run("explain", "--app", f"{served.module}:settings", url, "--json")
    people = run("explain", "--app", f"{served.module}:settings", url)

    found = json.loads(ended.out)
    assert ended.status == people.status == OK
    assert (found["status"], found["hold"], found["cache"]["state"]) == (200, "open", "miss")
    assert {key["key"]: key["purged_by"] for key in found["keys"]} == {
        "%all": "a change of more than can be named; grip-edge purge --all",
        "counters": "a change of counters: edge.submit and edge.publish",
        "counter-%all": "more changes of counter-{name} than can be named",
        "counter-explained": "a change of counter-{name}: update of shop.models:Counter; "
        "edge.submit and edge.publish",
    }
    assert found["keys_are_shown"] is False
    assert "--direct" in found["notes"][0]
    assert "cache          hit (x-cache: HIT, x-cache-hits: 1)" in people.out
    assert "no Grip headers and no keys" in people.out


def test_what_the_cache_says_to_the_grip_proxy_is_explained(run: Run, served: Served) -> None:
    url = f"{served.cache_url}/counters/signed"

    ended = run("explain", url, "--header", f"Grip-Sig: {TOKEN}", "--json")
    people = run("explain", url, "--header", f"Grip-Sig: {TOKEN}")

    found = json.loads(ended.out)
    [channel] = found["channels"]
    assert (found["hold"], channel["name"]) == ("stream", "counter-signed")
    assert channel["prev_id"].isdigit()
    assert found["next_link"].startswith("/.grip-edge/next/")
    assert "its Grip headers are there" in people.out
    assert f"channel          counter-signed  at version {channel['prev_id']}" in people.out
    assert TOKEN not in ended.out + ended.err + people.out + people.err


@pytest.mark.parametrize("name", ["app", "edge"])
def test_a_flask_app_is_asked_directly(name: str, run: Run, write: Callable[[str], str]) -> None:
    app = f"{write(FLASK_APP)}:{name}"

    ended = run("explain", "--app", app, "--direct", "/counters/a", "--json")

    found = json.loads(ended.out)
    assert ended.status == OK
    assert found["hold"] == "stream"
    assert [key["key"] for key in found["keys"]][-1] == "seller-7"
    assert found["keys"][-1]["purged_by"] == "only a purge of this key: no topic has this name"
    assert found["surrogate_control"].startswith("max-age=600")


def test_a_starlette_app_is_started_and_asked_directly(
    run: Run, write: Callable[[str], str]
) -> None:
    app = f"{write(STARLETTE_APP)}:app"

    ended = run("explain", "--app", app, "--direct", "http://shop.example/polls/7/", "--json")

    found = json.loads(ended.out)
    assert ended.status == OK
    assert (found["status"], found["hold"]) == (200, "response")
    assert [channel["name"] for channel in found["channels"]] == ["poll-7"]


def test_an_app_around_which_an_edge_was_put_is_asked_directly(
    run: Run, write: Callable[[str], str]
) -> None:
    ended = run("explain", "--app", f"{write(WSGI_APP)}:edge", "--direct", "/", "--json")

    assert [key["key"] for key in json.loads(ended.out)["keys"]] == ["%all", "all", "own"]


def test_an_app_that_raises_is_told(run: Run, write: Callable[[str], str]) -> None:
    app = f"{write(FLASK_APP)}:app"

    ended = run("explain", "--app", app, "--direct", "/counters/broken", "--json")
    elsewhere = run("explain", "--app", app, "--direct", "/nowhere", "--json")

    assert json.loads(ended.out)["status"] == 500
    assert json.loads(elsewhere.out)["notes"] == [
        "no route of the settings matches it; see grip-edge routes"
    ]


def test_a_private_pages_next_link_is_not_shown(run: Run) -> None:
    link = "</.grip-edge/next/private/0123456789>; rel=next; timeout=600"
    with RecordingServer() as server:
        headers = {"Grip-Hold": "stream", "Grip-Channel": "order-7; prev-id=1.c", "Grip-Link": link}
        server.respond = lambda request: Answer(200, headers, b"data: 1\n\n")

        ended = run("explain", f"{server.url}/orders/7")

    assert "next link  /.grip-edge/next/private/..." in ended.out
    assert "0123456789" not in ended.out
    assert "at version 1.c, which confirms 1" in ended.out


def test_an_answer_does_nothing_to_the_terminal(run: Run) -> None:
    with RecordingServer() as server:
        server.respond = lambda request: Answer(200, {"X-Cache": "HIT\x1b[2J", "ETag": "[bold]"})

        ended = run("explain", server.url)

    assert "\x1b" not in ended.out
    assert "[bold]" in ended.out


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(closes=True), "Server disconnected"),
        (Answer(raw=b"\x00garbage\r\n\r\n"), "RemoteProtocolError"),
        (Answer(hangs=True), "no answer within 0.3 s"),
    ],
)
def test_who_does_not_answer_is_told(answer: Answer, said: str, run: Run) -> None:
    with RecordingServer() as server:
        server.respond = lambda request: answer

        ended = run("explain", f"{server.url}/?token={TOKEN}", "--timeout", "0.3")
        server.release.set()

    assert ended.status == FOUND_WRONG
    assert said in ended.err
    assert TOKEN not in ended.err


def test_a_closed_port_is_told(run: Run) -> None:
    ended = run("explain", "http://127.0.0.1:1/", "--json")

    assert ended.status == FOUND_WRONG
    assert "refused" in json.loads(ended.out)["error"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/counters/a"], "expected a URL, as in"),
        (["counters"], "expected a URL, as in"),
        (["--direct", "/counters/a"], "--direct: which app?"),
        (["--app", "no_such:app", "http://localhost/"], "No module named 'no_such'"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: list[str], said: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRIP_EDGE_APP", raising=False)

    ended = run("explain", *arguments)

    assert ended.status == WRONG_USE
    assert said in ended.err


def test_an_edge_around_nothing_cannot_be_asked_directly(run: Run, served: Served) -> None:
    ended = run("explain", "--app", f"{served.module}:settings", "--direct", "/counters/a")

    assert ended.status == WRONG_USE
    assert "no app was wrapped in this process" in ended.err

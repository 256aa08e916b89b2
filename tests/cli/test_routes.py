"""`grip-edge routes`, by what it prints and returns."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from grip_edge_middleware.cli.routes import why_not
from grip_edge_middleware.cli.status import FOUND_WRONG, OK, WRONG_USE
from grip_edge_middleware.routing import Pattern
from tests.cli.conftest import Ended, Run

SETTINGS = """
settings = {
    "grip_url": None,
    "cdn": "varnish://localhost",
    "edge_ttl": 60,
    "topics": {
        "counter-{name}": {"routes": ["/counters/<name>"], "hold": "stream"},
        "counters": {"routes": ["/counters/<name>", "/counters/"]},
        "poll-{id}": {"routes": ["/polls/<int:id>/"], "hold": "response"},
    },
}
"""


@pytest.fixture
def routes(run: Run, write: Callable[[str], str]) -> Callable[..., Ended]:
    app = f"{write(SETTINGS)}:settings"
    return lambda *arguments: run("routes", "--app", app, *arguments)


def lines(ended: Ended) -> list[str]:
    return [line.rstrip() for line in ended.out.splitlines()]


def test_all_routes_are_shown(routes: Callable[..., Ended]) -> None:
    ended = routes()

    assert ended.status == OK
    assert lines(ended)[:3] == [
        "route             channel and key  hold      at the edge  in the browser  besides",
        "/counters/<name>  counter-{name}   stream    60 s         0 s             -",
        "/counters/<name>  counters         -         60 s         0 s             -",
    ]


def test_json_has_all_routes(routes: Callable[..., Ended]) -> None:
    ended = routes("--json")

    found: list[dict[str, Any]] = json.loads(ended.out)["routes"]
    assert [(r["route"], r["topic"], r["hold"]) for r in found] == [
        ("/counters/<name>", "counter-{name}", "stream"),
        ("/counters/<name>", "counters", None),
        ("/counters/", "counters", None),
        ("/polls/<int:id>/", "poll-{id}", "response"),
    ]


def test_a_path_is_matched_with_its_values(routes: Callable[..., Ended]) -> None:
    ended = routes("/counters/a%20b")

    assert ended.status == OK
    assert lines(ended)[:7] == [
        "/counters/a b is matched by",
        "route             topic           values    hold    at the edge",
        "/counters/<name>  counter-{name}  name=a b  stream  60 s",
        "/counters/<name>  counters        -         -       60 s",
        "",
        "channels  counter-a%20b",
        "keys      %all counters counter-%all counter-a%20b  and what its view adds",
    ]


def test_json_says_the_same_of_a_url(routes: Callable[..., Ended]) -> None:
    ended = routes("https://shop.example/counters/a?page=2#x", "--json")

    found = json.loads(ended.out)
    assert found["path"] == "/counters/a"
    assert [match["values"] for match in found["matches"]] == [{"name": "a"}, {}]
    assert found["channels"] == ["counter-a"]
    assert found["keys"] == ["%all", "counters", "counter-%all", "counter-a"]


def test_the_keys_are_those_of_the_response(routes: Callable[..., Ended]) -> None:
    from grip_edge_middleware import GripEdge

    names: dict[str, Any] = {}
    exec(SETTINGS, names)
    edge = GripEdge(settings=names["settings"], environ={})

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return []

    sent: dict[str, str] = {}

    def start(status: str, headers: list[tuple[str, str]], *_: Any) -> Any:
        sent.update(headers)

    edge.wsgi(app)({"REQUEST_METHOD": "GET", "PATH_INFO": "/counters/a"}, start)
    edge.close()

    assert sent["Surrogate-Key"].split() == json.loads(routes("/counters/a", "--json").out)["keys"]


def test_a_path_of_no_route_is_told_the_nearest(routes: Callable[..., Ended]) -> None:
    ended = routes("/polls/seven/")

    assert ended.status == FOUND_WRONG
    assert lines(ended)[0] == "/polls/seven/ is matched by no route"
    assert lines(ended)[4].split("  ") == ["/polls/<int:id>/", '"seven" is not <int:id>']


def test_a_next_link_is_told_apart(routes: Callable[..., Ended]) -> None:
    ended = routes("/.grip-edge/next/3")

    assert ended.status == FOUND_WRONG
    assert "it is a next link" in ended.out


@pytest.mark.parametrize(
    ("pattern", "path", "why"),
    [
        ("/counters/<name>", "/counters/a/", "it has no slash at the end"),
        ("/counters/<name>/", "/counters/a", "it has a slash at the end"),
        ("/counters/<name>", "/Counters/a", "it differs in upper and lower case"),
        (
            "/counters/<name>",
            "/shop/counters/a",
            "the path begins with /shop, where the app is mounted perhaps",
        ),
        ("/counters/<name>", "/counter/a", '"counter" is not "counters"'),
        ("/counters/<int:id>", "/counters/a", '"a" is not <int:id>'),
        ("/counters/<int:id>", "/counters/", "there is nothing for <int:id>"),
        ("/counters/<name>", "/counters/a/b", 'it ends where the path goes on with "/b"'),
        ("/counters/<name>/edit", "/counters/a", 'it goes on with "/edit" where the path ends'),
        ("/counters/", "/counters/a", 'it ends with a slash where the path goes on with "a"'),
        ("/files/<path:name>", "/file/a/b", '"file" is not "files"'),
        ("/files/<path:name>.txt", "/files/a/b", '"a/b" is not <path:name>.txt'),
    ],
)
def test_why_a_route_does_not_match(pattern: str, path: str, why: str) -> None:
    assert why_not(Pattern.parse(pattern), path) == why


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("counters/a", '"counters/a": expected a path or a URL, as in /counters/a'),
        ("ftp://host/counters/a", "expected a URL"),
        ("http://[::1/counters/a", "http://[::1/counters/a: Invalid IPv6 URL"),
    ],
)
def test_what_is_no_path_is_refused(path: str, said: str, routes: Callable[..., Ended]) -> None:
    ended = routes(path)

    assert ended.status == WRONG_USE
    assert said in ended.err
    assert ended.out == ""

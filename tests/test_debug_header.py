"""Who knows the secret is told what was decided and why; nobody else is, and no cache keeps it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from grip_edge_middleware import GripEdge
from grip_edge_middleware.debug_header import build_debug
from grip_edge_middleware.notes import Notes
from grip_edge_middleware.policy import RequestFacts
from grip_edge_middleware.types import Headers
from tests.asking import Ask, Counters, ask_asgi, ask_wsgi
from tests.gates import StubGate
from tests.test_policy import EVENTS, HTML, is_kept_out, noted, plan, values

SECRET = "0123456789abcdef0123456789abcdef"
TOPICS = {"counter-{name}": {"routes": ["/counters/<name>/"], "hold": "stream"}}
SETTINGS: dict[str, Any] = {
    "grip_url": None,
    "cdn": "varnish://cache",
    "confirm_after": 0,
    "debug": SECRET,
    "topics": TOPICS,
}

Told = dict[str, str]


def told(headers: Headers) -> Told:
    """Return the members of the header, as they are written."""
    members = (line.partition("=") for line in values(headers, "Grip-Edge-Debug"))
    return {name: value for name, _, value in members}


def explained(
    headers: Headers = HTML, *, notes: Notes | None = None, **facts: Any
) -> tuple[Headers, Told]:
    settings = facts.pop("settings", {})
    request = RequestFacts(
        facts.pop("method", "GET"), facts.pop("gate", StubGate()), is_debugged=True, **facts
    )
    left = plan(**settings).apply(request, facts.pop("status", 200), headers, notes or Notes())
    return left, told(left)


# --- what is said -------------------------------------------------------------------------------


def test_what_is_cached_and_held_is_said() -> None:
    left, said = explained(versions={"c-blue": "7"})

    assert said == {
        "route": '"/c/<name>/"',
        "topics": '("c-blue")',
        "versions": '("7")',
        "hold": '"stream"',
        "cache": '"max-age=600, stale-if-error=86400"',
        "limit": "?0",
        "keys": '("%all" "c-%all" "c-blue")',
        "key-bytes": "18",
        "key-budget": "3072",
    }
    assert is_kept_out(left)


@pytest.mark.parametrize(
    ("why", "headers", "facts"),
    [
        ("set-cookie", [("Set-Cookie", "a=b")], {}),
        ("cache-control", [("Cache-Control", "private")], {}),
        ("vary", [("Vary", "*")], {}),
        ("authorization", [], {"is_authorized": True}),
        ("lifetime", [("Cache-Control", "s-maxage=0")], {}),
        ("lifetime", [], {"longest_ttl": 0}),
        ("gate", [], {"gate": StubGate(has_changed=lambda keys, lag: True)}),
        ("budget", [], {"settings": {"key_budget": 3}}),
        ("unclear", [], {"notes": noted(is_unclear=True)}),
    ],
)
def test_why_it_is_not_cached_is_said(why: str, headers: Headers, facts: dict[str, Any]) -> None:
    left, said = explained([*HTML, *headers], **facts)

    assert said["cache"] == f'?0;why="{why}"'
    assert is_kept_out(left)


@pytest.mark.parametrize(
    ("why", "facts"),
    [
        ("declined", {"notes": noted(declines_hold=True)}),
        ("accept", {"settings": {"accept": "text/event-stream"}}),
        ("settings", {"settings": {"hold": None}}),
        ("own", {"headers": [*EVENTS, ("Grip-Hold", "stream")]}),
    ],
)
def test_why_it_is_not_held_is_said(why: str, facts: dict[str, Any]) -> None:
    _, said = explained(**facts)

    assert said["hold"].endswith(f';why="{why}"')


def test_merged_keys_are_said_to_be() -> None:
    notes = noted([f"c-{number}" for number in range(30)])
    _, said = explained(settings={"key_budget": 60}, notes=notes)

    assert said["keys"] == '("%all" "c-%all" "c-%any");why="merged"'


def test_the_limit_while_purges_fail_is_said() -> None:
    _, said = explained(longest_ttl=5)

    assert (said["limit"], said["cache"]) == ("5", '"max-age=5, stale-if-error=86400"')


@pytest.mark.parametrize(
    ("text", "written"),
    [('a"b', r'"a\"b"'), ("a\\b", r'"a\\b"'), ("é", r'"\\xe9"'), ("a\r\nB: c", '"a??B: c"')],
)
def test_any_text_is_a_string_of_a_structured_field(text: str, written: str) -> None:
    assert build_debug({"x": text}, {}) == [("Grip-Edge-Debug", f"x={written}")]


# --- to whom ------------------------------------------------------------------------------------


@pytest.fixture(params=[ask_wsgi, ask_asgi], ids=["wsgi", "asgi"])
def ask(request: pytest.FixtureRequest) -> Iterator[Ask]:
    with closing(GripEdge(settings=SETTINGS, environ={})) as edge:
        make: Callable[..., Ask] = request.param
        yield make(edge, Counters())


def test_who_knows_the_secret_is_told_and_no_cache_keeps_it(ask: Ask) -> None:
    _, headers, body = ask("/counters/blue/", headers={"Grip-Edge-Debug": SECRET})

    assert "grip-edge-debug" in headers
    assert headers["cache-control"] == "private, no-store"
    assert headers["surrogate-control"] == "no-store"
    assert "surrogate-key" not in headers
    assert body == b"data: 1\n\n"


@pytest.mark.parametrize("said", ["", "1", SECRET[:-1], SECRET + "0", f"{SECRET}, {SECRET}", "é"])
def test_a_stranger_gets_what_everybody_gets(ask: Ask, said: str) -> None:
    _, usual, _ = ask("/counters/blue/")
    _, headers, _ = ask("/counters/blue/", headers={"Grip-Edge-Debug": said})

    assert headers == usual
    assert "grip-edge-debug" not in headers
    assert headers["surrogate-control"].startswith("max-age=600")


@pytest.mark.parametrize("make", [ask_wsgi, ask_asgi])
def test_without_a_secret_nobody_is_told(make: Callable[..., Ask]) -> None:
    settings = {name: value for name, value in SETTINGS.items() if name != "debug"}
    with closing(GripEdge(settings=settings, environ={})) as edge:
        for said in ("", SECRET):
            _, headers, _ = make(edge, Counters())(
                "/counters/blue/", headers={"Grip-Edge-Debug": said}
            )
            assert "grip-edge-debug" not in headers

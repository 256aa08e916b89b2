"""What is asserted about responses, and what a failure says."""

from __future__ import annotations

from collections.abc import Callable
from email.message import Message
from io import BytesIO
from typing import Any
from urllib.response import addinfourl

import django.http
import httpx2
import pytest
import requests
import starlette.responses
import werkzeug
from werkzeug.test import TestResponse

from grip_edge_middleware.testing import (
    assert_cacheable,
    assert_held,
    assert_hit,
    assert_miss,
    assert_not_cacheable,
    assert_not_held,
    assert_not_tagged,
    assert_tagged,
)
from grip_edge_middleware.testing.responses import Seen

LINES = [
    ("Content-Type", "text/plain"),
    ("Surrogate-Key", "%all counter-a"),
    ("Surrogate-Key", "counters"),
    ("Grip-Hold", "stream"),
    ("Grip-Channel", "counter-a; prev-id=7, counters"),
    ("Surrogate-Control", "max-age=600, stale-if-error=86400"),
]
JOINED = {name: ", ".join(v for n, v in LINES if n == name) for name, _ in LINES}


def of_werkzeug() -> Any:
    return werkzeug.Response("body", 200, LINES)


def of_werkzeugs_client() -> Any:
    return werkzeug.Client(werkzeug.Response("body", 200, LINES), TestResponse).get("/")


def of_starlette() -> Any:
    response = starlette.responses.Response("body")
    for name, value in LINES[1:]:
        response.headers.append(name, value)
    return response


def of_httpx() -> Any:
    return httpx2.Response(200, headers=LINES)


def of_requests() -> Any:
    response = requests.Response()
    response.status_code = 200
    response.headers.update(JOINED)
    return response


def of_django() -> Any:
    return django.http.HttpResponse("body", headers=JOINED, charset="utf-8")


def of_urllib() -> Any:
    headers = Message()
    for name, value in LINES:
        headers[name] = value
    return addinfourl(BytesIO(b"body"), headers, "http://localhost/", 200)


@pytest.mark.parametrize(
    "make",
    [
        of_werkzeug,
        of_werkzeugs_client,
        of_starlette,
        of_httpx,
        of_requests,
        of_django,
        of_urllib,
    ],
    ids=lambda make: make.__name__,
)
def test_a_response_of_any_library_is_read(make: Callable[[], Any]) -> None:
    response = make()

    seen = Seen.of(response)

    assert (seen.status, seen.keys) == (200, ["%all", "counter-a", "counters"])
    assert (seen.channels, seen.edge_ttl) == (["counter-a", "counters"], 600)


PAGE = Seen(200, {name.lower(): value for name, value in JOINED.items()})
OTHER = Seen(404, {"content-type": "text/plain"})
PRIVATE = Seen(200, {"surrogate-control": "no-store", "x-cache": "MISS"})
FOUND = Seen(200, {"x-cache": "HIT"})


def test_what_holds_passes() -> None:
    assert_tagged(PAGE, "counter-a", "counters")
    assert_not_tagged(PAGE, "counter-b")
    assert_held(PAGE, "stream")
    assert_held(PAGE, "stream", channel="counters")
    assert_not_held(OTHER)
    assert_cacheable(PAGE)
    assert_cacheable(PAGE, ttl=600)
    assert_not_cacheable(PRIVATE)
    assert_not_cacheable(OTHER)
    assert_miss(PRIVATE)
    assert_hit(FOUND)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (
            lambda: assert_tagged(PAGE, "counter-a", "counter-b"),
            'the response is not tagged "counter-b" (did you mean "counter-a"?)',
        ),
        (lambda: assert_tagged(OTHER, "x"), 'the response is not tagged "x"'),
        (lambda: assert_not_tagged(PAGE, "counters"), 'the response is tagged "counters"'),
        (
            lambda: assert_held(OTHER, "stream"),
            'expected a hold "stream", but the response is not held',
        ),
        (lambda: assert_held(PAGE, "response"), 'expected a hold "response", got "stream"'),
        (
            lambda: assert_held(PAGE, "stream", channel="counts"),
            'expected a hold on "counts" (did you mean "counters"?), got counter-a, counters',
        ),
        (lambda: assert_not_held(PAGE), "expected a response that is not held"),
        (lambda: assert_cacheable(PRIVATE), "expected a response that a CDN may keep"),
        (
            lambda: assert_cacheable(PAGE, ttl=5),
            "expected that a CDN keeps the response for 5 s, not 600 s",
        ),
        (lambda: assert_not_cacheable(PAGE), "expected a response that no CDN may keep"),
        (lambda: assert_hit(PRIVATE), "expected a cache HIT, got a MISS"),
        (lambda: assert_miss(FOUND), "expected a cache MISS, got a HIT"),
        (
            lambda: assert_hit(OTHER),
            "expected a cache HIT, but the response did not come through a cache",
        ),
    ],
)
def test_what_does_not_hold_is_said(check: Callable[[], None], message: str) -> None:
    with pytest.raises(AssertionError) as error:
        check()

    assert str(error.value).splitlines()[0] == message


def test_a_failure_shows_what_the_edge_reads() -> None:
    with pytest.raises(AssertionError) as of_page:
        assert_not_held(PAGE)
    with pytest.raises(AssertionError) as of_other:
        assert_held(OTHER)

    assert str(of_page.value).splitlines()[1:] == [
        "the response is a 200 with:",
        "  Surrogate-Key: %all counter-a, counters",
        "  Grip-Hold: stream",
        "  Grip-Channel: counter-a; prev-id=7, counters",
        "  Surrogate-Control: max-age=600, stale-if-error=86400",
    ]
    assert str(of_other.value).splitlines()[1:] == [
        "the response is a 404 with:",
        "  no header of the edge's",
    ]


def test_what_is_no_response_is_a_mistake() -> None:
    with pytest.raises(TypeError, match=r"with a status and headers, got a builtins\.str"):
        assert_tagged("a body", "counter-a")

"""Purging Fastly: the requests, and the answers that acknowledge them."""

from __future__ import annotations

import json

import pytest

from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Response
from grip_edge_middleware.purgers.fastly import FastlyPurger

PURGER = FastlyPurger("SidAbc", "hunter2")
HARD = {
    "Fastly-Key": "hunter2",
    "Accept": "application/json",
    "Content-Type": "application/json",
}


@pytest.mark.parametrize(
    ("keys", "body"),
    [
        (["counters"], b'{"surrogate_keys": ["counters"]}'),
        (["counters", "counter-blue"], b'{"surrogate_keys": ["counters", "counter-blue"]}'),
        (["shop/7:a|b@c%20d"], b'{"surrogate_keys": ["shop/7:a|b@c%20d"]}'),
    ],
)
def test_keys_are_one_json_body(keys: list[str], body: bytes) -> None:
    [batch] = PURGER.batches(keys)

    assert batch.request.method == "POST"
    assert batch.request.url == "https://api.fastly.com/service/SidAbc/purge"
    assert batch.request.headers == {**HARD, "Fastly-Soft-Purge": "1"}
    assert batch.request.body == body
    assert tuple(json.loads(body)["surrogate_keys"]) == batch.keys == tuple(keys)


def test_a_hard_purge_lacks_the_header() -> None:
    [batch] = FastlyPurger("s", "hunter2", soft=False).batches(["a"])

    assert batch.request.headers == HARD


def test_another_address_may_be_asked() -> None:
    [batch] = FastlyPurger("a/../b", "t", url="http://localhost:1").batches(["a"])

    assert batch.request.url == "http://localhost:1/service/a%2F..%2Fb/purge"


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (256, [256]), (257, [256, 1]), (512, [256, 256])]
)
def test_a_request_takes_256_keys(count: int, sizes: list[int]) -> None:
    assert [len(batch.keys) for batch in PURGER.batches(map(str, range(count)))] == sizes


def test_a_purge_needs_a_moment_to_be_everywhere() -> None:
    assert PURGER.settle_s >= 0.15


def test_neither_the_name_nor_the_request_shows_the_token() -> None:
    assert PURGER.name == "fastly SidAbc"
    assert "hunter2" not in repr(list(PURGER.batches(["a"])))


@pytest.mark.parametrize("body", [b'{"a": "131-1234-56"}', b"{}", b' {"status":"ok"} '])
def test_a_json_object_acknowledges(body: bytes) -> None:
    PURGER.check(Response(200, {}, body))  # raises nothing


NO_OBJECT = "answered 200 with something else than a JSON object"


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (Response(200, {}, b""), NO_OBJECT),
        (Response(200, {}, b"<html>"), NO_OBJECT),
        (Response(200, {}, b'"ok"'), NO_OBJECT),
        (Response(200, {}, b"[]"), NO_OBJECT),
        (Response(200, {}, b"null"), NO_OBJECT),
        (Response(200, {}, b'{"a": '), NO_OBJECT),
        (Response(200, {}, b"\xff\xfe"), NO_OBJECT),
        (Response(200, {}, b"[" * 60_000), NO_OBJECT),
        (Response(201, {}, b"{}"), "answered 201 to a purge"),
        (Response(400, {}, b'{"status":"fail"}'), "answered 400 to a purge"),
        (Response(401, {}, b"{}"), "401: the token is not valid for this service"),
        (Response(403, {}, b"{}"), "403: the token lacks the scope purge_select"),
        (Response(429, {}, b"{}"), "answered 429 to a purge"),
        (Response(500, {}, b"{}"), "answered 500 to a purge"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_anything_else_is_a_failure(response: Response, message: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        PURGER.check(response)

    assert str(caught.value) == f"fastly SidAbc: {message}"
    assert not caught.value.is_final

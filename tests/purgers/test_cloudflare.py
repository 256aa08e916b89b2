"""Purging Cloudflare: the requests, and the answers that acknowledge them."""

from __future__ import annotations

import pytest

from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Response
from grip_edge_middleware.purgers.cloudflare import CloudflarePurger

PURGER = CloudflarePurger("Zone1", "hunter2")
REFUSED = b'{"success": false, "errors": [{"code": 10000, "message": "hunter2"}], "result": null}'


@pytest.mark.parametrize(
    ("keys", "body"),
    [
        (["counters"], b'{"tags": ["counters"]}'),
        (["%all", "counter-%all"], b'{"tags": ["~25all", "counter-~25all"]}'),
        # Cloudflare takes Shop and shop for one.
        (["Shop/7:a|b@c", "shop"], b'{"tags": ["~53hop~2f7~3aa~7cb~40c", "shop"]}'),
    ],
)
def test_keys_are_tags_of_one_json_body(keys: list[str], body: bytes) -> None:
    [batch] = PURGER.batches(keys)

    assert batch.keys == tuple(keys)
    assert batch.request.method == "POST"
    assert batch.request.url == ("https://api.cloudflare.com/client/v4/zones/Zone1/purge_cache")
    assert batch.request.headers == {
        "Authorization": "Bearer hunter2",
        "Content-Type": "application/json",
    }
    assert batch.request.body == body


def test_another_address_may_be_asked() -> None:
    [batch] = CloudflarePurger("a/../b", "t", url="http://localhost:1").batches(["a"])

    assert batch.request.url == "http://localhost:1/zones/a%2F..%2Fb/purge_cache"


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (100, [100]), (101, [100, 1]), (200, [100, 100])]
)
def test_a_request_takes_100_tags(count: int, sizes: list[int]) -> None:
    assert [len(batch.keys) for batch in PURGER.batches(map(str, range(count)))] == sizes


def test_success_acknowledges() -> None:
    PURGER.check(Response(200, {}, b'{"success": true, "errors": [], "result": {"id": "z"}}'))


NO_SUCCESS = 'answered 200 without "success": true'
NO_TOKEN = "the token is not valid, or lacks the permission Cache Purge for this zone"


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (Response(200, {}, REFUSED), f"{NO_SUCCESS} (error 10000)"),
        (Response(200, {}, b""), NO_SUCCESS),
        (Response(200, {}, b"<html>"), NO_SUCCESS),
        (Response(200, {}, b'{"success": "true"}'), NO_SUCCESS),
        (Response(200, {}, b'{"success": 1}'), NO_SUCCESS),
        (Response(200, {}, b"[true]"), NO_SUCCESS),
        (Response(200, {}, b"\xff\xfe"), NO_SUCCESS),
        (Response(200, {}, b"[" * 60_000), NO_SUCCESS),
        (Response(202, {}, b'{"success": true}'), "answered 202 to a purge"),
        (
            Response(400, {}, b'{"errors": [{"code": 1}, {"code": "x"}, 5, {"code": 2}]}'),
            "answered 400 to a purge (error 1, 2)",
        ),
        (Response(400, {}, b'{"errors": {"code": 1}}'), "answered 400 to a purge"),
        (Response(401, {}, b"{}"), f"401: {NO_TOKEN}"),
        (Response(403, {}, REFUSED), f"403: {NO_TOKEN} (error 10000)"),
        (
            Response(429, {}, b'{"errors": [{"code": 971}]}'),
            "429: the account has made as many purges as its plan allows (error 971)",
        ),
        (Response(500, {}, b"oops"), "answered 500 to a purge"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_anything_else_is_a_failure(response: Response, message: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        PURGER.check(response)

    assert str(caught.value) == f"cloudflare Zone1: {message}"
    assert not caught.value.is_final

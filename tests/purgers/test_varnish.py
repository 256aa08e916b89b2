"""Purging Varnish: the requests, and the answers that acknowledge them."""

from __future__ import annotations

import pytest

from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.purgers.varnish import VarnishPurger

PURGER = VarnishPurger("http://localhost:6081")
PURGED = {"grip-edge-purged": "3"}


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (["counters"], "counters"),
        (["counters", "counter-blue"], "counters counter-blue"),
        (["shop/7:a|b@c%20d"], "shop/7:a|b@c%20d"),
    ],
)
def test_keys_are_one_header_line(keys: list[str], line: str) -> None:
    [batch] = PURGER.batches(keys)

    assert batch.request == Request("PURGEKEYS", "http://localhost:6081/", {"xkey-purge": line})
    assert tuple(line.split(" ")) == batch.keys == tuple(keys)


def test_a_hard_purge_says_so() -> None:
    [batch] = VarnishPurger("http://h", soft=False).batches(["a"])

    assert batch.request.headers == {"xkey-purge": "a", "xkey-hard": "1"}


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        ([7_500], [1]),
        ([3_749, 3_750], [2]),  # with the space between them: 7,500
        ([3_750, 3_750], [1, 1]),
        ([99] * 75, [75]),  # 75 x 99 and 74 spaces: 7,499
        ([99] * 76, [75, 1]),
    ],
)
def test_a_line_takes_7500_bytes(lengths: list[int], sizes: list[int]) -> None:
    split = list(PURGER.batches("k" * length for length in lengths))

    assert [len(batch.keys) for batch in split] == sizes
    assert all(len(b.request.headers["xkey-purge"]) <= 7_500 for b in split)


def test_a_purge_is_everywhere_once_it_is_acknowledged() -> None:
    assert PURGER.settle_s == 0.0


@pytest.mark.parametrize("count", ["0", "1", "13", ""])
def test_what_our_vcl_answers_acknowledges(count: str) -> None:
    # Nothing may have been in the cache, and that is as good.
    PURGER.check(Response(200, {"grip-edge-purged": count}))  # raises nothing


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (
            Response(200, {}, b"<html>"),
            "answered 200 without Grip-Edge-Purged: it does not run examples/edge's VCL",
        ),
        (
            Response(200, {"x-cache": "HIT"}, b"Purged 3"),
            "answered 200 without Grip-Edge-Purged: it does not run examples/edge's VCL",
        ),
        (Response(400, PURGED), "answered 400 to a purge"),
        (Response(401, PURGED), "answered 401 to a purge"),
        (Response(403), "403: this address is not in the VCL's acl purgers"),
        (Response(405), "answered 405 to a purge"),
        (Response(429), "answered 429 to a purge"),
        (Response(500, PURGED), "answered 500 to a purge"),
        (Response(503), "answered 503 to a purge"),
    ],
)
def test_anything_else_is_a_failure(response: Response, message: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        PURGER.check(response)

    assert str(caught.value) == f"varnish http://localhost:6081: {message}"
    assert not caught.value.is_final

"""Purging Souin: the requests, and the answers that acknowledge them."""

from __future__ import annotations

import pytest

from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.purgers.souin import SouinPurger

PURGER = SouinPurger("http://localhost:2019")
API = "http://localhost:2019/souin-api/souin"


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (["counters"], "counters"),
        # It splits at a comma and a space, and at neither of them alone.
        (["%all", "Counter-blue"], "%all, Counter-blue"),
        (["shop/7:a|b@c%20d"], "shop/7:a|b@c%20d"),
    ],
)
def test_keys_are_one_header_line(keys: list[str], line: str) -> None:
    [batch] = PURGER.batches(keys)

    assert batch.request == Request("PURGE", API, {"Surrogate-Key": line})
    assert tuple(line.split(", ")) == batch.keys == tuple(keys)


def test_its_api_may_have_another_path() -> None:
    [batch] = SouinPurger("http://h", path="/api/cache").batches(["a"])

    assert batch.request.url == "http://h/api/cache"


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        ([7_500], [1]),
        ([3_749, 3_749], [2]),  # with what is between them: 7,500
        ([3_749, 3_750], [1, 1]),
    ],
)
def test_a_line_takes_7500_bytes(lengths: list[int], sizes: list[int]) -> None:
    split = list(PURGER.batches("k" * length for length in lengths))

    assert [len(batch.keys) for batch in split] == sizes
    assert all(len(b.request.headers["Surrogate-Key"]) <= 7_500 for b in split)


def test_no_content_acknowledges() -> None:
    PURGER.check(Response(204))  # raises nothing


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (200, "answered 200 to a purge"),
        (403, "answered 403 to a purge"),
        (404, "404: its API is not enabled, or has another path"),
        (405, "answered 405 to a purge"),
        (502, "answered 502 to a purge"),
    ],
)
def test_anything_else_is_a_failure(status: int, message: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        PURGER.check(Response(status))

    assert str(caught.value) == f"souin http://localhost:2019: {message}"
    assert not caught.value.is_final

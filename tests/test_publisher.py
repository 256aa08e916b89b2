"""Publishing: which requests tell a GRIP proxy what, and which answers acknowledge that."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.grip import Proxy
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.publisher import MAX_BODY_BYTES, MAX_ITEMS, PublishBatch, Publisher

NOW = 1_800_000_000.0
JSON = {"Content-Type": "application/json"}
KEY = "k" * 32
PLAIN = Publisher(Proxy("http://localhost:5561"))


def item(channel: str, content: str = "x") -> dict[str, Any]:
    return {"channel": channel, "id": "1", "formats": {"http-stream": {"content": content}}}


def batches(items: list[dict[str, Any]], publisher: Publisher = PLAIN) -> list[PublishBatch]:
    return list(publisher.batches(items, now=NOW))


def sent(batch: PublishBatch) -> list[Mapping[str, Any]]:
    items: list[Mapping[str, Any]] = json.loads(batch.request.body)["items"]
    return items


# --- (items, body) --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "body"),
    [
        (
            [{"channel": "a", "formats": {"http-stream": {"content": "x\n\n"}}}],
            rb'{"items":[{"channel":"a","formats":{"http-stream":{"content":"x\n\n"}}}]}',
        ),
        ([{"channel": "a", "c": "é🏁"}], '{"items":[{"channel":"a","c":"é🏁"}]}'.encode()),
        (
            [{"channel": "a", "id": "1"}, {"channel": "b"}],
            b'{"items":[{"channel":"a","id":"1"},{"channel":"b"}]}',
        ),
    ],
)
def test_items_are_one_json_body(items: list[dict[str, Any]], body: bytes) -> None:
    [batch] = batches(items)

    assert batch.request == Request("POST", "http://localhost:5561/publish/", JSON, body)
    assert batch.channels == tuple(item["channel"] for item in items)
    assert sent(batch) == items


def test_nothing_to_publish_is_no_request() -> None:
    assert batches([]) == []


def test_fastly_is_asked_with_a_bearer_token_and_a_trailing_slash() -> None:
    publisher = Publisher(Proxy("https://api.fastly.com/service/SidAbc", key="hunter2"))
    [batch] = batches([item("a")], publisher)

    assert batch.request.method == "POST"
    assert batch.request.url == "https://api.fastly.com/service/SidAbc/publish/"
    assert batch.request.headers == {**JSON, "Authorization": "Bearer hunter2"}


def test_a_key_in_bytes_is_a_bearer_token_as_well() -> None:
    [batch] = batches([item("a")], Publisher(Proxy("http://h", key=b"hunter2")))

    assert batch.request.headers["Authorization"] == "Bearer hunter2"


@pytest.mark.parametrize("key", [KEY, KEY.encode(), bytes(range(32))])
def test_a_realm_is_asked_with_a_signed_token(key: str | bytes) -> None:
    [batch] = batches([item("a")], Publisher(Proxy("http://h", "realm", key)))

    scheme, _, token = batch.request.headers["Authorization"].partition(" ")
    claims = jwt.decode(token, key, algorithms=["HS256"], options={"verify_exp": False})
    assert scheme == "Bearer"
    assert claims == {"iss": "realm", "exp": 1_800_000_600}


def test_each_request_of_many_is_authorized() -> None:
    publisher = Publisher(Proxy("http://h", key="hunter2"))
    requests = [b.request for b in batches([item(str(i)) for i in range(2_001)], publisher)]

    assert [r.headers["Authorization"] for r in requests] == ["Bearer hunter2"] * 3


def test_neither_the_name_nor_the_request_shows_the_key() -> None:
    publisher = Publisher(Proxy("http://h", key="hunter2", verify_key="hunter2"))

    assert publisher.name == "grip http://h"
    assert "hunter2" not in repr(batches([item("a")], publisher))


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (1_000, [1_000]), (1_001, [1_000, 1]), (2_000, [1_000, 1_000])]
)
def test_a_request_takes_a_thousand_items(count: int, sizes: list[int]) -> None:
    assert [len(batch.channels) for batch in batches([item("c")] * count)] == sizes


def test_a_request_takes_900_000_bytes_of_items() -> None:
    frame = len(json.dumps(item("a", ""), separators=(",", ":")))
    half = (900_000 - 1) // 2 - frame

    assert len(batches([item("a", "x" * half)] * 2)) == 1
    assert len(batches([item("a", "x" * half), item("a", "x" * (half + 2))])) == 2


def test_bytes_are_counted_not_characters() -> None:
    assert len(batches([item("a", "🏁" * 150_000)] * 2)) == 2


def test_an_item_that_is_too_large_goes_alone_and_stops_no_other() -> None:
    split = batches([item("a"), item("b", "x" * 1_000_000), item("c")])

    assert [batch.channels for batch in split] == [("a",), ("b",), ("c",)]


@given(st.lists(st.tuples(st.text(max_size=5), st.sampled_from([0, 1, 300_000, 899_000, 950_000]))))
def test_every_item_is_published_once_and_in_order(shape: list[tuple[str, int]]) -> None:
    items = [item(channel, "x" * size) for channel, size in shape]
    split = batches(items)

    assert [i for batch in split for i in sent(batch)] == items
    assert [c for batch in split for c in batch.channels] == [i["channel"] for i in items]
    assert all(
        len(b.channels) == 1
        or (len(b.channels) <= MAX_ITEMS and len(b.request.body) <= MAX_BODY_BYTES + 20)
        for b in split
    )


# --- (answer, what is made of it) -----------------------------------------------------------------


@pytest.mark.parametrize("body", [b"Published\n", b"", b"\xff garbage", b'{"status": "fail"}'])
def test_200_acknowledges(body: bytes) -> None:
    PLAIN.check(Response(200, {}, body))  # raises nothing


@pytest.mark.parametrize(
    ("status", "message", "is_final"),
    [
        (201, "answered 201 to a publish", False),
        (302, "answered 302 to a publish", False),
        (400, "answered 400 to a publish", True),
        (401, "401: the key in grip_url is not accepted", False),
        (403, "403: the key in grip_url is not accepted", False),
        (404, "answered 404 to a publish", False),
        (413, "answered 413 to a publish", True),
        (429, "answered 429 to a publish", False),
        (500, "answered 500 to a publish", False),
        (503, "answered 503 to a publish", False),
    ],
)
def test_anything_else_is_a_failure(status: int, message: str, is_final: bool) -> None:
    with pytest.raises(DeliveryError) as caught:
        PLAIN.check(Response(status, {}, b"Published\n"))

    assert str(caught.value) == f"grip http://localhost:5561: {message}"
    assert caught.value.is_final is is_final


# --- catching up ----------------------------------------------------------------------------------


def test_catching_up_is_asked_for_as_publishing_is() -> None:
    publisher = Publisher(Proxy("https://api.fastly.com/service/S1", key="t"))
    request = publisher.recovery(now=0)

    assert (request.method, request.body) == ("POST", b"")
    assert request.url == "https://api.fastly.com/service/S1/recover/"
    assert request.headers["Authorization"] == "Bearer t"


@pytest.mark.parametrize(
    ("status", "is_final"), [(404, True), (405, True), (401, False), (503, False)]
)
def test_a_proxy_that_knows_no_catching_up_never_will(status: int, is_final: bool) -> None:
    PLAIN.check_recovery(Response(200, {}, b"Updated\n"))  # raises nothing

    with pytest.raises(DeliveryError) as error:
        PLAIN.check_recovery(Response(status))

    assert error.value.is_final == is_final

"""GRIP's formats as the development edge reads them: what an app says, and what is published."""

from __future__ import annotations

import json
from typing import Any

import pytest

from grip_edge_middleware.devedge.exchange import Answer
from grip_edge_middleware.devedge.instruct import (
    Channel,
    Instruct,
    InstructError,
    Item,
    KeepAlive,
    PublishError,
    parse_instruct,
    parse_items,
)
from grip_edge_middleware.grip import build_item, build_marker, long_poll_headers, stream_headers
from grip_edge_middleware.http import Response


def read(headers: list[tuple[str, str]], uri: str = "/page") -> Instruct:
    return parse_instruct(Answer(200, [(name.lower(), value) for name, value in headers]), uri)


def test_our_stream_headers_are_understood() -> None:
    headers = stream_headers({"a": "1", "b": None}, next_link="/next/1", keep_alive_s=20)

    assert read(headers) == Instruct(
        hold="stream",
        channels=(Channel("a", "1"), Channel("b")),
        keep_alive=KeepAlive(b":\n\n", 20),
        next_link="/next/1",
        next_timeout_s=600,
    )


def test_our_long_poll_headers_are_understood() -> None:
    headers = long_poll_headers({"a": "1"}, timeout_s=30)

    assert read(headers) == Instruct(
        hold="response", channels=(Channel("a", "1", ("require-sub",)),), timeout_s=30
    )


@pytest.mark.parametrize(
    ("value", "keep_alive"),
    [
        ("ping", KeepAlive(b"ping")),
        (r"a\r\n\\\x41; format=cstring; timeout=9", KeepAlive(b"a\r\n\\A", 9)),
        ("Og==; format=base64; mode=interval", KeepAlive(b":", is_interval=True)),
    ],
)
def test_keep_alives(value: str, keep_alive: KeepAlive) -> None:
    assert read([("Grip-Keep-Alive", value)]).keep_alive == keep_alive


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("</a?b=c>; rel=next", "/a?b=c"),
        ("<b>; rel=next", "/folder/b"),
        ("<https://other.example/a>; rel=next", "/a"),
        ("</a>; rel=gone", ""),
    ],
)
def test_next_links_are_resolved(link: str, target: str) -> None:
    assert read([("Grip-Link", link)], "/folder/page").next_link == target


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Grip-Hold", "steam"),
        ("Grip-Timeout", "soon"),
        ("Grip-Keep-Alive", "; timeout=3"),
        ("Grip-Keep-Alive", "a; mode=often"),
        ("Grip-Keep-Alive", "a; format=json"),
        ("Grip-Keep-Alive", r"\q; format=cstring"),
        ("Grip-Keep-Alive", "*; format=base64"),
        ("Grip-Link", "</a>; rel=next; timeout=x"),
        ("Grip-Status", "teapot"),
    ],
)
def test_what_cannot_be_followed_is_an_error(name: str, value: str) -> None:
    with pytest.raises(InstructError, match=name if "base64" not in value else "base64"):
        read([(name, value)])


def test_a_short_timeout_is_five_seconds() -> None:
    assert read([("Grip-Timeout", "1")]).timeout_s == 5


def posted(*items: object) -> list[Item]:
    return parse_items(json.dumps({"items": items}).encode())


def test_our_items_are_understood() -> None:
    item = build_item("c", {"stream": Response(200, {}, b"x")}, id="2", prev_id="1")
    marker = build_marker("c", ["response"], id="2.c", prev_id="2")

    assert posted(item, marker) == [
        Item("c", {"http-stream": {"content": "x"}}, "2", "1", {}, True),
        Item(
            "c",
            {"http-response": marker["formats"]["http-response"]},
            "2.c",
            "2",
            {"require_sub": "%nobody"},
            True,
        ),
    ]


def test_formats_may_stand_beside_the_channel() -> None:
    assert posted({"channel": "c", "http-stream": {"content": "x"}}) == [
        Item("c", {"http-stream": {"content": "x"}})
    ]


@pytest.mark.parametrize(
    "item",
    [
        None,
        {"formats": {}},
        {"channel": 7, "formats": {}},
        {"channel": "c", "formats": []},
        {"channel": "c", "formats": {"http-stream": "x"}},
        {"channel": "c", "formats": {"http-stream": {"content": 7}}},
        {"channel": "c", "formats": {"http-stream": {"content-bin": "*"}}},
        {"channel": "c", "formats": {}, "id": 7},
    ],
    ids=str,
)
def test_one_bad_item_refuses_all(item: Any) -> None:
    with pytest.raises(PublishError):
        posted({"channel": "good", "formats": {}}, item)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"items": 7}', b"x" * 1_000_001])
def test_what_is_no_list_of_items_is_refused(body: bytes) -> None:
    with pytest.raises(PublishError):
        parse_items(body)

"""GRIP's wire formats: where a proxy is, what holds a response, what an item is."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grip_edge_middleware.grip import (
    FASTLY_VERIFY_KEY,
    NEXT_LINK_TIMEOUT_S,
    Proxy,
    build_item,
    build_marker,
    build_stray,
    decode_key,
    etag,
    long_poll_headers,
    parse_grip_url,
    stream_headers,
)
from grip_edge_middleware.http import Response
from grip_edge_middleware.types import Headers, Hold

# Twenty bytes whose base64 has what URLs treat specially: "+", "/" and "=".
RAW = bytes.fromhex("fbef" * 10)
ENCODED = b64encode(RAW).decode()
FASTLY = "https://api.fastly.com/service/SidAbc"


# --- (GRIP_URL, what it names) --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://localhost:5561", Proxy("http://localhost:5561")),
        ("http://localhost:5561/", Proxy("http://localhost:5561")),
        ("http://[::1]:5561/", Proxy("http://[::1]:5561")),
        ("https://host/realm/x/", Proxy("https://host/realm/x")),
        ("http://h?key=abc", Proxy("http://h", key="abc")),
        ("http://h?iss=realm&key=abc", Proxy("http://h", "realm", "abc")),
        ("http://h?key=a%26b", Proxy("http://h", key="a&b")),
        ("http://h?key=a+b", Proxy("http://h", key="a+b")),
        (f"http://h?iss=r&key=base64:{ENCODED}", Proxy("http://h", "r", RAW)),
        ("http://h?verify-iss=i&verify-key=k", Proxy("http://h", verify_iss="i", verify_key="k")),
        (f"http://h?verify-key=base64:{ENCODED}", Proxy("http://h", verify_key=RAW)),
        ("http://h?key=abc#fragment", Proxy("http://h", key="abc")),
        ("http://h?key=", Proxy("http://h")),
        ("http://h?verify-key=a+b", Proxy("http://h", verify_key="a+b")),
        ("http://h?verify-iss=a%20b", Proxy("http://h", verify_iss="a b")),
    ],
)
def test_a_grip_url_names_a_proxy(url: str, proxy: Proxy) -> None:
    assert parse_grip_url(url) == proxy


@pytest.mark.parametrize(
    ("url", "iss", "key"),
    [
        (f"{FASTLY}?key=hunter2", "fastly:SidAbc", FASTLY_VERIFY_KEY),
        (f"{FASTLY}/?key=hunter2", "fastly:SidAbc", FASTLY_VERIFY_KEY),
        (FASTLY.replace("api.fastly", "API.Fastly"), "fastly:SidAbc", FASTLY_VERIFY_KEY),
        (f"{FASTLY}?verify-iss=fastly:SidAbc&key=hunter2", "fastly:SidAbc", FASTLY_VERIFY_KEY),
        (f"{FASTLY}?verify-iss=fastly:Other", "fastly:Other", FASTLY_VERIFY_KEY),
        (f"{FASTLY}?verify-iss=other", "other", None),
        (f"{FASTLY}?verify-key=own", "fastly:SidAbc", "own"),
        ("http://h?verify-iss=fastly:SidAbc", "fastly:SidAbc", FASTLY_VERIFY_KEY),
        ("http://h?verify-iss=fastly:SidAbc&verify-key=own", "fastly:SidAbc", "own"),
        ("http://h?verify-iss=xfastly:SidAbc", "xfastly:SidAbc", None),
        ("http://api.fastly.com/service/SidAbc", None, None),
        ("https://api.fastly.com.evil/service/SidAbc", None, None),
        ("https://apiXfastly.com/service/SidAbc", None, None),
        ("https://api.fastly.com/service/SidAbc/x", None, None),
    ],
)
def test_fastlys_signatures_are_known(url: str, iss: str | None, key: str | None) -> None:
    proxy = parse_grip_url(url)

    assert (proxy.verify_iss, proxy.verify_key) == (iss, key)


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("", ""),
        ("abc", "abc"),
        ("base64", "base64"),
        ("Base64:YWJj", "Base64:YWJj"),
        ("base64:", b""),
        ("base64:YWJj", b"abc"),
        (f"base64:{ENCODED}", RAW),
    ],
)
def test_a_key_may_be_base64(value: str, key: str | bytes) -> None:
    assert decode_key("key", value) == key


@pytest.mark.parametrize("value", ["YWJ", "YWJj\n", "YW Jj", "hunter2", "é", "_-_-", "\ud800"])
def test_what_is_not_base64_is_not_repeated(value: str) -> None:
    with pytest.raises(ValueError, match=r"^the key says base64: and is not valid base64$"):
        decode_key("the key", f"base64:{value}")


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "expected http://host:port"),
        ("localhost:5561", "expected http://host:port"),
        ("ftp://localhost", "expected http://host:port"),
        ("http://", "expected http://host:port"),
        ("http://:5561", "expected http://host:port"),
        ("http://h:port", "port|Port"),
        ("http://h:99999", "expected http://host:port"),
        ("http://h?kee=abc", "a parameter is none of iss, key, verify-iss, verify-key"),
        ("http://h?iss=realm", "iss is given without key"),
        ("http://h?iss=realm&key=", "iss is given without key"),
        ("http://h?key=base64:%%%", "key says base64: and is not valid base64"),
        ("http://h?key=base64:abc", "key says base64: and is not valid base64"),
        ("http://h?verify-key=", "verify-key is empty"),
        ("http://h?verify-key=base64:", "verify-key is empty"),
        ("http://h?verify-key=base64:%C3%A9", "verify-key says base64: and is not valid base64"),
        ("http://h?verify-key=base64:a b", "verify-key says base64: and is not valid base64"),
    ],
)
def test_a_grip_url_that_cannot_be_used_is_explained(url: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_grip_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "hunter2",
        "localhost?key=hunter2",
        "htp://h?key=hunter2",
        "http://h?kee=hunter2",
        "http://h?KEY=hunter2",
        "http://h?iss=&key=hunter2&x=1",
        "http://h?key=base64:hunter2",
        "http://h?key=base64:!hunter2",
        "http://h:port?key=hunter2",
        "http://[h?key=hunter2",
        "http://h?iss=i&key=base64:hunter2=&verify-key=hunter2",
        "http://h?key=first&hunter2",  # an "&" of the key that was not escaped
        "http://h?hunter2",
    ],
)
def test_a_complaint_never_repeats_the_key(url: str) -> None:
    said = ""
    try:
        said = repr(parse_grip_url(url))
    except ValueError as error:
        said = str(error)

    assert said
    assert "hunter2" not in said


@pytest.mark.parametrize("key", ["a%0D%0AX: y", "a%00", "%C3%A9", f"base64:{ENCODED}"])
def test_a_bearer_key_that_fits_in_no_header_is_refused(key: str) -> None:
    # Without iss it is sent as it is; refused at start, not by each publish.
    with pytest.raises(ValueError, match="key"):
        parse_grip_url(f"http://h?key={key}")


@given(st.text())
def test_any_text_is_a_grip_url_or_a_value_error(text: str) -> None:
    for url in (text, f"http://{text}", f"http://h?{text}", f"http://h?key=base64:{text}"):
        try:
            assert parse_grip_url(url).control_uri.startswith("http")
        except ValueError:
            continue


def test_a_proxy_shows_no_key() -> None:
    proxy = Proxy("http://h", "realm", "hunter2", "issuer", b"hunter3")

    assert repr(proxy) == (
        "Proxy(control_uri='http://h', control_iss='realm', verify_iss='issuer')"
    )


# --- (hold, channels, next link, keep-alive, headers) ---------------------------------------------


@pytest.mark.parametrize(
    ("channels", "link", "keep_alive_s", "headers"),
    [
        (
            {"a": None, "b": None},
            "",
            0,
            [("Grip-Hold", "stream"), ("Grip-Channel", "a, b")],
        ),
        (
            {"a": None},
            "",
            20,
            [
                ("Grip-Hold", "stream"),
                ("Grip-Channel", "a"),
                ("Grip-Keep-Alive", r":\n\n; format=cstring; timeout=20"),
            ],
        ),
        (
            {"a": "7", "b": "8.c"},
            "/api/next/1",
            20,
            [
                ("Grip-Hold", "stream"),
                ("Grip-Channel", "a; prev-id=7, b; prev-id=8.c"),
                ("Grip-Link", f"</api/next/1>; rel=next; timeout={NEXT_LINK_TIMEOUT_S}"),
                ("Grip-Keep-Alive", r":\n\n; format=cstring; timeout=20"),
            ],
        ),
    ],
)
def test_a_stream_is_held_by_these_headers(
    channels: dict[str, str | None], link: str, keep_alive_s: int, headers: Headers
) -> None:
    assert stream_headers(channels, next_link=link, keep_alive_s=keep_alive_s) == headers


def test_a_long_poll_is_held_by_these_headers() -> None:
    assert long_poll_headers({"a": "7", "b": None}, timeout_s=30) == [
        ("Grip-Hold", "response"),
        ("Grip-Channel", "a; prev-id=7; filter=require-sub, b"),
        ("Grip-Timeout", "30"),
    ]


def test_a_confirmed_version_shows_what_it_confirms() -> None:
    assert etag(["8.c"]) == etag(["8"]) == '"8"'
    assert etag(["7", "8.c.c"]) == etag(["7.c", "8"]) != etag(["8", "7"])


# --- (messages, formats) --------------------------------------------------------------------------

HTML = {"content-type": "text/html", "etag": '"1"', "last-modified": "x", "set-cookie": "a=b"}


@pytest.mark.parametrize(
    ("messages", "formats"),
    [
        (
            {"stream": Response(200, {}, b"data: 1\n\n")},
            {"http-stream": {"content": "data: 1\n\n"}},
        ),
        ({"stream": Response(200, {}, "é🏁".encode())}, {"http-stream": {"content": "é🏁"}}),
        ({"stream": Response(200, {}, b"\xff\0")}, {"http-stream": {"content-bin": "/wA="}}),
        ({"stream": Response(200, {}, b"")}, {"http-stream": {"content": ""}}),
        ({"stream": Response(404, {}, b"gone")}, {"http-stream": {"action": "close"}}),
        (
            {"response": Response(200, HTML, b"<p>")},
            {
                "http-response": {
                    "code": 200,
                    "headers": {"Content-Type": "text/html", "Etag": '"1"', "Last-Modified": "x"},
                    "body": "<p>",
                }
            },
        ),
        (
            {"response": Response(404, {}, b"gone")},
            {"http-response": {"code": 404, "headers": {"Etag": '"7"'}, "body": "gone"}},
        ),
        (
            {"response": Response(200, {}, b"\xff")},
            {"http-response": {"code": 200, "headers": {"Etag": '"7"'}, "body-bin": "/w=="}},
        ),
        (
            {"stream": Response(200, {}, b"s"), "response": Response(200, {}, b"r")},
            {
                "http-stream": {"content": "s"},
                "http-response": {"code": 200, "headers": {"Etag": '"7"'}, "body": "r"},
            },
        ),
    ],
)
def test_a_message_is_published_in_the_format_of_its_hold(
    messages: dict[Hold, Response], formats: dict[str, Any]
) -> None:
    item = build_item("counter-blue", messages, id="7")

    assert item == {"channel": "counter-blue", "no-seq": True, "id": "7", "formats": formats}
    assert json.loads(json.dumps(item)) == item


def test_an_item_may_name_the_one_before_it() -> None:
    item = build_item("c", {"stream": Response(200, {}, b"x")}, id="8", prev_id="7")

    assert item == {
        "channel": "c",
        "id": "8",
        "no-seq": True,
        "prev-id": "7",
        "formats": {"http-stream": {"content": "x"}},
    }


@pytest.mark.parametrize(
    ("holds", "marker"),
    [
        (["stream"], {"formats": {"http-stream": {"content": ""}}}),
        (
            ["response"],
            {
                "formats": {"http-response": {"code": 304, "body": ""}},
                "meta": {"require_sub": "%nobody"},
            },
        ),
    ],
)
def test_a_marker_is_for_who_lacks_what_it_follows(
    holds: list[Hold], marker: dict[str, Any]
) -> None:
    item = build_marker("c", holds, id="8.c", prev_id="8")

    assert item == {"channel": "c", "no-seq": True, "id": "8.c", "prev-id": "8", **marker}


@given(st.binary())
def test_a_body_of_any_bytes_arrives_as_it_was(body: bytes) -> None:
    item = build_item("c", {"stream": Response(200, {}, body)}, id="1")

    sent = item["formats"]["http-stream"]
    received = b64decode(sent["content-bin"]) if "content-bin" in sent else sent["content"].encode()
    assert received == body


@pytest.mark.parametrize(
    ("body", "formats"),
    [
        (b"hi", {"ws-message": {"content": "hi"}}),
        (b"\xff\x00", {"ws-message": {"content-bin": "/wA="}}),
    ],
)
def test_a_socket_is_sent_text_if_it_is_any(body: bytes, formats: dict[str, Any]) -> None:
    item = build_stray("c", {"ws": Response(200, {}, body)})

    assert item == {"channel": "c", "no-seq": True, "formats": formats}


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_gone_closes_sockets(status: int) -> None:
    item = build_item("c", {"ws": Response(status, {}, b"gone")}, id="1")

    assert item["formats"] == {"ws-message": {"action": "close", "code": 1000}}


def test_a_marker_says_nothing_to_sockets() -> None:
    marker = build_marker("c", ["stream", "ws"], id="8.c", prev_id="8")

    assert marker["formats"] == {"http-stream": {"content": ""}}


def test_what_a_stray_item_shows_has_a_tag_of_its_own() -> None:
    tags = [
        build_stray("c", {"response": Response(200, {}, body)})["formats"]["http-response"][
            "headers"
        ]["Etag"]
        for body in (b"one", b"two", b"one")
    ]

    assert tags[0] == tags[2] != tags[1]

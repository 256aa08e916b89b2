"""Values from strangers: each names its own topic, on every wire, and nothing else.

The wires are read here as their other ends read them: Pushpin's split of `Grip-Channel`, xkey's of
`Surrogate-Key` and `xkey-purge`, JSON for Fastly and for what is published.
"""

from __future__ import annotations

import asyncio
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, unquote_to_bytes
from wsgiref.util import setup_testing_defaults

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from grip_edge_middleware import GripEdge
from grip_edge_middleware.changes import Watches
from grip_edge_middleware.grip import Proxy, build_item
from grip_edge_middleware.http import Response
from grip_edge_middleware.middleware.asgi import ASGIMiddleware
from grip_edge_middleware.middleware.wsgi import WSGIMiddleware
from grip_edge_middleware.policy import Policy
from grip_edge_middleware.publisher import Publisher
from grip_edge_middleware.purgers.fastly import FastlyPurger
from grip_edge_middleware.purgers.varnish import VarnishPurger
from grip_edge_middleware.render import ASGIRenderer, WSGIRenderer
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.stores.memory import MemoryStore
from grip_edge_middleware.topics import MAX_NAME, Topic, TopicTemplate
from grip_edge_middleware.types import Headers, Message, Receive, Scope, Send, StartResponse


@dataclass
class Counter:
    """A model."""

    name: str


@dataclass
class Pair:
    """A model that fills two parameters."""

    a: str
    b: str


GRIP_EDGE: dict[str, Any] = {
    "grip_url": "http://localhost:5561",
    "cdn": "varnish://localhost:6081",
    "hold": "stream",
    "topics": {
        # `path` takes a slash as well, so that any value has a URL.
        "counter-{name}": {"routes": ["/counters/<path:name>"], "models": [Counter]},
        "counters": {"routes": ["/counters"]},
        "pair:{a}-{b}": {"models": [Pair]},
    },
}
SETTINGS = Settings.parse(GRIP_EDGE, {})


POLICY = Policy(SETTINGS)
WATCHES = Watches.of(SETTINGS.topics)

HOSTILE = [
    *(
        ",",
        ";",
        " ",
        "  ",
        "\t",
        "\r",
        "\n",
        "\r\n",
        "\0",
        '"',
        "'",
        "\\",
        "%",
        "%%",
        "*",
        "#",
        "?",
    ),
    *(
        "a,b",
        "a, b",
        "a;b",
        "a; prev-id=1",
        "a b",
        'a"b,c"d',
        "a\r\nSet-Cookie: x=y",
        "a\r\n\r\n<b>",
    ),
    *("%2C", "%2c", "%252C", "%0D%0A", "%", "%a", "%any", "%h", "%zz", "%E9", "a%", "+", "a+b"),
    *(
        ".",
        "..",
        "../..",
        "/",
        "//",
        "a/b",
        "/etc/passwd",
        "\\..",
        "*",
        "**",
        "?x=1",
        "#x",
        "~",
        "-",
    ),
    *(
        "é",
        "e\u0301",
        "ß",
        "İ",
        "ﬁ",
        "日本",
        "🏁",
        "👩\u200d👩\u200d👧",
        "\u202e",
        "\ufeff",
        "\x7f",
        "\x85",
    ),
    *("\xa0", "\u2028", "\ufffd", "\U0010ffff"),
    *(
        "counters",
        "counter-",
        "counter-blue",
        "pair:a-b",
        "counter-%any",
        "x,counters",
        "x counters",
    ),
    *("None", "null", "0", "007", "true", "__proto__", "{name}", "<name>", "{0}", "%s", "$(x)"),
    *("x" * 191, "x" * 192, "x" * 193, "x" * 2_000, "é" * 2_000, "," * 2_000, "%h" + "0" * 32),
]
SURROGATES = ["\ud800", "\udfff", "a\udc80b", "\ud83c", "\ud800\udfff"]

# A URL carries bytes of UTF-8, so never a lone surrogate; a model's attribute may be one.
url_values = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.lists(st.sampled_from(HOSTILE), min_size=2, max_size=4).map("".join),
)
model_values = st.one_of(
    url_values, st.sampled_from(SURROGATES), st.text(st.characters(), min_size=1)
)


# --- the two sides --------------------------------------------------------------------------------


def page(_environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return [b"data: 1\n\n"]


def get_wsgi(app: Any, path: str) -> Headers:
    """Return the headers of the answer to a GET of an encoded path, as a WSGI server asks."""
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1")
    started: list[Headers] = []
    for _ in app(environ, lambda _status, headers, *_: started.append(headers)):
        pass
    [headers] = started
    return headers


async def asgi_page(_scope: Scope, _receive: Receive, send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"data: 1\n\n"})


def get_asgi(app: Any, path: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of the answer to a GET of an encoded path, as an ASGI server asks."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": unquote(path), "headers": []}
    asyncio.run(app(scope, receive, send))
    headers: list[tuple[bytes, bytes]] = sent[0]["headers"]
    return headers


def response_to(value: str) -> dict[str, str]:
    """The headers of the page that shows a value."""
    headers = get_wsgi(
        WSGIMiddleware(page, POLICY, MemoryStore(), WSGIRenderer(page)),
        f"/counters/{quote(value, safe='')}",
    )
    assert len({name for name, _ in headers}) == len(headers)
    return dict(headers)


def saved(instance: object) -> Topic:
    """The topic that a save of the instance changes."""
    [change] = WATCHES.changes("update", instance, {})
    return change.topic


def saved_name(value: str) -> str:
    return saved(Counter(value)).name


# --- the other ends of the wires ------------------------------------------------------------------


def pushpin_channels(header: str) -> list[str]:
    """Pushpin: split at commas outside quotes, end the name at a semicolon, trim."""
    return [entry.partition(";")[0].strip() for entry in split_outside_quotes(header)]


def split_outside_quotes(header: str) -> Iterator[str]:
    entry, is_quoted = "", False
    for character in header:
        if character == '"':
            is_quoted = not is_quoted
        if character == "," and not is_quoted:
            yield entry
            entry = ""
        else:
            entry += character
    yield entry


def xkey_keys(header: str) -> list[str]:
    """xkey: split at spaces and commas."""
    return [key for key in header.replace(",", " ").split(" ") if key]


@pytest.mark.parametrize(
    ("header", "channels"),
    [
        ("a", ["a"]),
        ("a, b", ["a", "b"]),
        ("a; prev-id=1, b", ["a", "b"]),
        ('"a,b", c', ['"a,b"', "c"]),
        ('"a;b"', ['"a']),
    ],
)
def test_our_reading_of_a_channel_header_is_pushpins(header: str, channels: list[str]) -> None:
    assert pushpin_channels(header) == channels


# --- out: a value in a URL ------------------------------------------------------------------------


def topic_keys(headers: Mapping[str, str]) -> list[str]:
    """The keys without those that every page of a counter has."""
    site, of_type, *topics = xkey_keys(headers["Surrogate-Key"])
    assert (site, of_type) == ("%all", "counter-%all")
    return topics


@given(url_values)
def test_a_value_in_a_url_subscribes_to_its_own_channel_only(value: str) -> None:
    headers = response_to(value)

    assert pushpin_channels(headers["Grip-Channel"]) == [saved_name(value)]


@given(url_values)
def test_a_value_in_a_url_tags_with_its_own_key_only(value: str) -> None:
    headers = response_to(value)

    assert topic_keys(headers) == [saved_name(value)]


@given(url_values)
def test_a_value_in_a_url_splits_no_header(value: str) -> None:
    for name, line in response_to(value).items():
        assert name.isascii()
        assert line.isascii()
        assert line.isprintable()
        assert line == line.strip()


@given(url_values)
def test_wsgi_and_asgi_agree_on_every_value(value: str) -> None:
    path = f"/counters/{quote(value, safe='')}"
    store = MemoryStore()  # one for both, so that they say the same version
    renderer = ASGIRenderer(asgi_page, timeout_s=5.0)
    face = ASGIMiddleware(asgi_page, POLICY, store, renderer, flush=lambda: True)

    assert get_asgi(face, path) == [
        (name.lower().encode("ascii"), line.encode("ascii"))
        for name, line in get_wsgi(WSGIMiddleware(page, POLICY, store, WSGIRenderer(page)), path)
    ]


@given(st.binary(min_size=1))
def test_a_path_of_any_bytes_is_answered(path: bytes) -> None:
    headers = dict(
        get_wsgi(
            WSGIMiddleware(page, POLICY, MemoryStore(), WSGIRenderer(page)),
            f"/counters/{quote(path)}",
        )
    )

    assert len(pushpin_channels(headers["Grip-Channel"])) == 1
    assert pushpin_channels(headers["Grip-Channel"]) == topic_keys(headers)


# --- in: a value in a model -----------------------------------------------------------------------


@given(model_values)
def test_a_value_in_a_model_publishes_on_its_own_channel_only(value: str) -> None:
    name = saved_name(value)
    item = build_item(name, {"stream": Response(200, {}, b"")}, id="1")
    [batch] = Publisher(Proxy("http://h")).batches([item], now=0)

    [published] = json.loads(batch.request.body)["items"]
    assert published["channel"] == name
    assert pushpin_channels(name) == [name]


@given(model_values)
def test_a_value_in_a_model_purges_its_own_key_only(value: str) -> None:
    name = saved_name(value)
    [varnish] = VarnishPurger("http://h").batches([name])
    [fastly] = FastlyPurger("s", "t").batches([name])

    assert xkey_keys(varnish.request.headers["xkey-purge"]) == [name]
    assert json.loads(fastly.request.body)["surrogate_keys"] == [name]
    assert xkey_keys(name) == [name]


@given(model_values)
def test_a_name_is_short_and_plain(value: str) -> None:
    name = saved_name(value)

    assert name.isascii()
    assert name.isprintable()
    assert name.startswith("counter-")
    assert len(name) <= MAX_NAME


@given(st.lists(url_values, min_size=1, max_size=20))
def test_many_values_are_purged_as_they_were_tagged(values: list[str]) -> None:
    tagged = [key for v in values for key in topic_keys(response_to(v))]
    batches = VarnishPurger("http://h").batches(saved_name(v) for v in values)

    assert [k for b in batches for k in xkey_keys(b.request.headers["xkey-purge"])] == tagged


# --- apart ----------------------------------------------------------------------------------------


def lookalikes(value: str) -> set[str]:
    """Other values that a careless encoding would take for this one."""
    encoded = quote(value, errors="surrogatepass")
    others = {
        *(encoded, quote(encoded), unquote(value), value.strip(), value.lower(), value.upper()),
        *(unicodedata.normalize(form, value) for form in ("NFC", "NFD", "NFKC", "NFKD")),
        *(value + " ", value + "\0", value + ",", "/" + value, f'"{value}"', f"counter-{value}"),
        saved_name(value).removeprefix("counter-"),
        value.encode("utf-8", "replace").decode(),
    }
    return {other for other in others if other} - {value}


@given(model_values)
def test_a_value_never_shares_a_channel_with_one_that_looks_like_it(value: str) -> None:
    name = saved_name(value)

    assert all(saved_name(other) != name for other in lookalikes(value))


@given(model_values, model_values)
def test_two_values_never_share_a_channel(one: str, other: str) -> None:
    assume(one != other)

    assert saved_name(one) != saved_name(other)


def test_no_two_of_the_hostile_values_share_a_channel() -> None:
    values = {*HOSTILE, *SURROGATES}

    assert len({saved_name(value) for value in values}) == len(values)


@given(model_values, model_values, model_values, model_values)
def test_two_pairs_never_share_a_channel(a: str, b: str, c: str, d: str) -> None:
    assume((a, b) != (c, d))

    assert saved(Pair(a, b)).name != saved(Pair(c, d)).name


@given(model_values)
def test_a_value_never_names_a_topic_of_another_template(value: str) -> None:
    name = saved_name(value)

    assert name != "counters"
    assert not name.startswith("pair:")
    assert name != SETTINGS.topics[0].template.any_key


def test_a_value_of_nothing_names_no_other_topic() -> None:
    # No URL shows it: a route's parameter is at least one character.
    settings = Settings.parse(
        {
            "topics": {
                "counter-{name}": {"routes": ["/counters/<name>"], "models": [Counter]},
                "counter-": {"routes": ["/counters"]},
            }
        },
        {},
    )
    changes = Watches.of(settings.topics).changes("update", Counter(""), {})

    assert [change.topic.name for change in changes if change.topic.name == "counter-"] == []


# --- edge.tag -------------------------------------------------------------------------------------


TYPE_KEYS = [TopicTemplate.parse(name).type_key for name in GRIP_EDGE["topics"]]


def tagged(*keys: str, **params: object) -> list[str]:
    """The keys of a page whose view tags it so, besides its own and those of types."""

    def view(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        edge.tag(*keys, **params)
        return page(environ, start_response)

    with closing(GripEdge(settings=GRIP_EDGE, environ={})) as edge:
        headers = dict(get_wsgi(edge.wsgi(view), "/counters"))
    line = headers["Surrogate-Key"]
    assert line.isascii()
    assert line.isprintable()
    assert line == line.strip()
    site, own, *others = xkey_keys(line)
    assert (site, own) == ("%all", "counters")
    return [key for key in others if key not in TYPE_KEYS]


@given(model_values)
def test_a_hostile_tag_stays_one_key(key: str) -> None:
    assume(key not in ("counters", "%all", *TYPE_KEYS))

    assert len(tagged(key)) == 1


@given(model_values)
def test_a_hostile_value_tags_its_own_topic(value: str) -> None:
    assert tagged("counter-{name}", name=value) == [saved_name(value)]


def test_a_tag_of_nothing_leaves_the_header_as_it_was() -> None:
    # h11 refuses a header value that ends in a space, and the response with it.
    assert tagged("") == []

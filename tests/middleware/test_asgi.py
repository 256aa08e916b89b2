"""The ASGI face between a validating server and a validating app."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from grip_edge_middleware import GripEdge, GripEdgeMiddleware, SettingsError
from grip_edge_middleware.types import ASGIApp, Message, Receive, Scope, Send

SETTINGS: dict[str, Any] = {
    "grip_url": "http://127.0.0.1:9",
    "cdn": "varnish://127.0.0.1:9",
    "topics": {"counter-{name}": {"routes": ["/counters/<name>/"], "hold": "stream"}},
}
PATH = "/counters/blue/"
START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain")],
}
BODY: Message = {"type": "http.response.body", "body": b"body"}
EXTENSIONS = ("http.response.pathsend", "http.response.zerocopysend", "http.response.debug")


@pytest.fixture
def edge() -> Iterator[GripEdge]:
    with closing(GripEdge(settings=SETTINGS, environ={})) as edge:
        yield edge


def validate(app: ASGIApp) -> ASGIApp:
    """Check the messages of http, in both directions, against the specification.

    https://asgi.readthedocs.io/en/latest/specs/www.html
    """

    async def validating(scope: Scope, receive: Receive, send: Send) -> None:
        assert isinstance(scope, dict)
        state = "start"

        async def checked_receive() -> Message:
            message = await receive()
            assert message["type"] in ("http.request", "http.disconnect")
            assert isinstance(message.get("body", b""), bytes)
            return message

        async def checked_send(message: Message) -> None:
            nonlocal state
            assert isinstance(message, dict)
            kind = message["type"]
            if kind == "http.response.start":
                assert state == "start", f"started in state {state}"
                check_start(message)
                state = "body"
            elif kind == "http.response.body":
                assert state == "body", f"body in state {state}"
                assert isinstance(message.get("body", b""), bytes)
                if not message.get("more_body", False):
                    state = "trailers"
            elif kind == "http.response.trailers":
                assert state == "trailers"
            elif kind == "http.response.early_hint":
                assert state == "start"
            else:
                assert kind in EXTENSIONS, kind
                assert state in ("start", "body")
            await send(message)

        await app(scope, checked_receive, checked_send)

    return validating


def check_start(message: Message) -> None:
    assert type(message["status"]) is int
    for line in message.get("headers", []):
        name, value = line
        assert type(name) is bytes
        assert type(value) is bytes
        assert name == name.lower()
        assert not set(b"\r\n\0") & set(name + value)


def scope_of(path: str = PATH, **more: Any) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost")],
        "server": ("localhost", 80),
        "client": ("127.0.0.1", 9),
        "extensions": {},
        **more,
    }


async def receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def serve(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


async def call_async(app: ASGIApp, scope: Scope | None = None) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope or scope_of(), receive, send)
    return sent


def call(edge: GripEdge, app: ASGIApp, scope: Scope | None = None) -> list[Message]:
    return asyncio.run(call_async(validate(edge.asgi(validate(app))), scope))


def sending(*messages: Message) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def value(sent: list[Message], name: bytes) -> bytes | None:
    start = next(message for message in sent if message["type"] == "http.response.start")
    return next((v for n, v in start["headers"] if n == name), None)


def channels(sent: list[Message]) -> list[bytes]:
    entries = (value(sent, b"grip-channel") or b"").split(b", ")
    return [entry.partition(b";")[0] for entry in entries]


def keys(sent: list[Message]) -> list[bytes]:
    return (value(sent, b"surrogate-key") or b"").split()


# --- http -------------------------------------------------------------------------------------


def test_both_sides_keep_to_asgi(edge: GripEdge) -> None:
    sent = call(edge, sending(START, BODY))

    assert re.fullmatch(rb"counter-blue; prev-id=\d+", value(sent, b"grip-channel") or b"")
    assert keys(sent) == [b"%all", b"counter-%all", b"counter-blue"]
    assert sent[1] is BODY


def test_headers_may_be_left_out(edge: GripEdge) -> None:
    sent = call(edge, sending({"type": "http.response.start", "status": 200}, BODY))

    assert value(sent, b"grip-hold") == b"stream"


def test_the_apps_own_message_is_not_changed(edge: GripEdge) -> None:
    start = {**START, "headers": [(b"content-type", b"text/plain")], "trailers": True}
    sent = call(edge, sending(start, BODY))

    assert start["headers"] == [(b"content-type", b"text/plain")]
    assert sent[0]["trailers"] is True


def test_each_part_of_a_stream_is_passed_on_at_once(edge: GripEdge) -> None:
    progress: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        for number in range(3):
            progress.append("made")
            await send({"type": "http.response.body", "body": b"x", "more_body": number < 2})

    async def main() -> None:
        async def send(message: Message) -> None:
            progress.append(message["type"])

        await edge.asgi(app)(scope_of(), receive, send)

    asyncio.run(main())

    assert progress == ["http.response.start", *["made", "http.response.body"] * 3]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]},
        {"type": "http.response.pathsend", "path": "/tmp/x"},
        {"type": "http.response.zerocopysend", "file": 3},
        {"type": "http.response.debug", "info": {"template": "x"}},
    ],
)
def test_messages_of_extensions_pass_as_they_are(edge: GripEdge, message: Message) -> None:
    sent = call(edge, sending(message, START, BODY))

    assert sent[0] is message


def test_trailers_pass_as_they_are(edge: GripEdge) -> None:
    trailers: Message = {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]}
    sent = call(edge, sending({**START, "trailers": True}, BODY, trailers))

    assert sent[2] is trailers


def test_cookies_are_neither_merged_nor_lost(edge: GripEdge) -> None:
    cookies = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2, c"), (b"set-cookie", b"\xe4=1")]
    sent = call(edge, sending({**START, "headers": cookies}, BODY))

    assert [line for line in sent[0]["headers"] if line[0] == b"set-cookie"] == cookies


@pytest.mark.parametrize("path", [PATH, "/other/"])
def test_an_exception_reaches_the_server(edge: GripEdge, path: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call(edge, app, scope_of(path))


def test_an_unmatched_route_gets_the_servers_own_callables(edge: GripEdge) -> None:
    seen: list[Any] = []

    async def app(*args: Any) -> None:
        seen.extend(args)

    async def send(message: Message) -> None: ...

    scope = scope_of("/other/")
    asyncio.run(serve(edge.asgi(app), scope, receive, send))

    assert seen == [scope, receive, send]
    assert seen[0] is scope


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_other_methods_pass_as_they_are(edge: GripEdge, method: str) -> None:
    sent = call(edge, sending(START, BODY), scope_of(method=method))

    assert sent[0]["headers"] == START["headers"]


@pytest.mark.parametrize(
    ("root_path", "path"),
    [
        ("/api", "/api/counters/blue/"),
        ("/api", "/counters/blue/"),  # a proxy has removed it
        ("/api/", "/api//counters/blue/"),
        ("", "/counters/blue/"),
    ],
)
def test_a_mounted_app_finds_its_routes(edge: GripEdge, root_path: str, path: str) -> None:
    sent = call(edge, sending(START, BODY), scope_of(path, root_path=root_path))

    assert channels(sent) == [b"counter-blue"]


def test_a_root_path_is_no_mere_prefix(edge: GripEdge) -> None:
    sent = call(edge, sending(START, BODY), scope_of("/apix/counters/blue/", root_path="/api"))

    assert value(sent, b"grip-channel") is None


# --- other scopes -----------------------------------------------------------------------------


def test_a_websocket_passes_untouched(edge: GripEdge) -> None:
    seen: list[Any] = []

    async def app(*args: Any) -> None:
        seen.extend(args)

    async def send(message: Message) -> None: ...

    scope = scope_of(type="websocket")
    asyncio.run(serve(edge.asgi(app), scope, receive, send))

    assert [a is b for a, b in zip(seen, (scope, receive, send), strict=True)] == [True] * 3


def test_the_messages_of_a_lifespan_pass_unchanged(edge: GripEdge) -> None:
    incoming: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    outgoing: list[Message] = [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.failed", "message": "boom"},
    ]
    received: list[Message] = []
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in outgoing:
            received.append(await receive())
            await send(message)

    async def main() -> None:
        messages = iter(incoming)

        async def receive() -> Message:
            return next(messages)

        async def send(message: Message) -> None:
            sent.append(message)

        await edge.asgi(app)({"type": "lifespan", "asgi": {}, "state": {}}, receive, send)

    asyncio.run(main())

    assert all(a is b for a, b in zip(received, incoming, strict=True))
    assert all(a is b for a, b in zip(sent, outgoing, strict=True))


def test_an_app_without_a_lifespan_still_says_so(edge: GripEdge) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"

    with pytest.raises(AssertionError):
        asyncio.run(call_async(edge.asgi(app), {"type": "lifespan", "asgi": {}}))


# --- in views ---------------------------------------------------------------------------------


def test_two_hundred_requests_at_once_keep_their_own_tags(edge: GripEdge) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path"].split("/")[2]
        for turn in range(3):
            await asyncio.sleep(0)
            edge.tag(f"own-{name}-{turn}")
        if int(name) % 2:
            await asyncio.to_thread(edge.decline_hold)
        await send(START)
        await send(BODY)

    async def main() -> list[list[Message]]:
        face = edge.asgi(app)
        scopes = [scope_of(f"/counters/{number}/") for number in range(200)]
        return await asyncio.gather(*(call_async(face, scope) for scope in scopes))

    for number, sent in enumerate(asyncio.run(main())):
        own = [key for key in keys(sent) if key.startswith(b"own-")]
        assert own == [f"own-{number}-{turn}".encode() for turn in range(3)]
        assert (value(sent, b"grip-hold") is None) == bool(number % 2)


def test_after_the_headers_left_a_view_changes_nothing(edge: GripEdge) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        edge.tag("late")
        edge.decline_hold()
        await send(BODY)

    sent = call(edge, app)

    assert b"late" not in keys(sent)
    assert value(sent, b"grip-hold") == b"stream"


def test_a_request_within_a_request_does_not_take_its_tags(edge: GripEdge) -> None:
    """A view may ask another route of its own app in-process, and tag its own response then."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == PATH:
            await call_async(face, scope_of("/counters/inner/"))
            edge.tag("own")
        await send(START)
        await send(BODY)

    face = edge.asgi(app)
    sent = asyncio.run(call_async(face))

    assert b"own" in keys(sent)


# --- the class for stacks ---------------------------------------------------------------------


@pytest.mark.parametrize("is_both", [False, True])
def test_the_middleware_takes_either_settings_or_an_edge(edge: GripEdge, is_both: bool) -> None:
    options: dict[str, Any] = {"settings": SETTINGS, "edge": edge} if is_both else {}

    with pytest.raises(SettingsError, match="either settings"):
        GripEdgeMiddleware(sending(), **options)

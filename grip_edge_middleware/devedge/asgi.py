"""The face: a `Fetch` as an ASGI app, which any server serves."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress

from starlette.requests import ClientDisconnect, Request
from starlette.websockets import WebSocket, WebSocketDisconnect

from grip_edge_middleware.devedge.exchange import (
    BODILESS,
    HOP_BY_HOP,
    Answer,
    Asked,
    Fetch,
    OriginFailed,
    pieces,
)
from grip_edge_middleware.devedge.proxy import GripProxy
from grip_edge_middleware.devedge.sockets import GripSocket
from grip_edge_middleware.types import ASGIApp, Receive, Scope, Send


def as_app(fetch: Fetch) -> ASGIApp:
    """Return an ASGI app that answers HTTP by `fetch`. Who goes away is no longer answered."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            asked = await read_asked(scope, receive)
        except ClientDisconnect:
            return
        answering = asyncio.create_task(_answer(fetch, asked, send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait((answering, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            answering.cancel()
            await asyncio.wait((answering,))
        if not answering.cancelled():
            answering.result()

    return app


def as_socket_app(proxy: GripProxy) -> ASGIApp:
    """Return an ASGI app that serves WebSockets, by asking over HTTP."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked = asked_of(scope, b"")
        asked = asked.without(name for name, _ in asked.headers if name.startswith("grip-"))
        with suppress(WebSocketDisconnect):
            await GripSocket(proxy, asked, WebSocket(scope, receive, send)).serve()

    return app


async def read_asked(scope: Scope, receive: Receive) -> Asked:
    """Read a request with its body."""
    return asked_of(scope, await Request(scope, receive).body())


def asked_of(scope: Scope, body: bytes) -> Asked:
    """Return the request that an ASGI server tells of."""
    lines = ((n.decode("latin-1"), v.decode("latin-1")) for n, v in scope["headers"])
    headers = [(name, value) for name, value in lines if name not in HOP_BY_HOP]
    target = scope.get("raw_path") or scope["path"].encode()
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    client = scope.get("client") or ("127.0.0.1", 0)
    method = scope.get("method", "GET")
    return Asked(method, target.decode("latin-1"), headers, body, client[0])


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _answer(fetch: Fetch, asked: Asked, send: Send) -> None:
    answer = await fetch(asked)
    await send(_start(answer))
    try:
        async with aclosing(pieces(answer)) as body:
            async for piece in body:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
    except OriginFailed:
        return  # cut off: the server closes the connection, since the body is not whole
    await send({"type": "http.response.body", "body": b""})


def _start(answer: Answer) -> dict[str, object]:
    if isinstance(answer.body, bytes) and answer.status not in BODILESS:
        answer = answer.saying(("content-length", str(len(answer.body))))
    headers = [(n, v) for n, v in answer.headers if n not in HOP_BY_HOP]
    return {
        "type": "http.response.start",
        "status": answer.status,
        "headers": [(n.encode("latin-1"), v.encode("latin-1")) for n, v in headers],
    }

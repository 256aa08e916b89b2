"""The face for any ASGI app (version 3)."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote

from grip_edge_middleware.gate import Gate
from grip_edge_middleware.http import Response
from grip_edge_middleware.log_fields import log_fields
from grip_edge_middleware.next_link import NextLink, Wanted
from grip_edge_middleware.notes import Notes, current_notes
from grip_edge_middleware.policy import Plan, Policy, RequestFacts, Unplanned
from grip_edge_middleware.render import TARGET as RENDER
from grip_edge_middleware.render import ASGIRenderer
from grip_edge_middleware.sockets import (
    FAILURE,
    MAX_EVENTS_BYTES,
    NOTHING,
    Answer,
    Asked,
    Socket,
    SocketRequest,
    Step,
    advance,
    current_socket,
    is_of_socket,
    too_large,
)
from grip_edge_middleware.types import ASGIApp, Headers, Message, RawHeaders, Receive, Scope, Send

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_LOOKED_AT = frozenset(
    (b"accept", b"authorization", b"grip-edge-debug", b"grip-last", b"grip-sig", b"if-none-match")
)


class ASGIMiddleware:
    """Adds the policy's headers to the responses of `app`.

    `renderer` answers what a client has missed by calling the app as a stranger would. `flush` is
    called, in a thread, when the app shuts down. `longest_ttl` limits how long a CDN may keep a
    response, while its purges fail.
    """

    def __init__(
        self,
        app: ASGIApp,
        policy: Policy,
        gate: Gate,
        renderer: ASGIRenderer,
        *,
        flush: Callable[[], bool],
        longest_ttl: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.app = app
        self.policy = policy
        self.gate = gate
        self.renderer = renderer
        self._plans = policy.plans
        self._flush = flush
        self._longest_ttl = longest_ttl

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the app, with a `send` of ours on configured routes only."""
        if scope["type"] != "http":
            return await self._other(scope, receive, send)
        path = _path(scope) if scope.get("root_path") else scope["path"]
        plan = self._plans[path]
        if plan is None:
            return await self.app(scope, receive, send)
        if plan is Unplanned.NEXT_LINK:
            return await self._catch_up(path, scope, receive, send)
        self.renderer.attach(scope)
        if plan.sockets and (socket := SocketRequest.read(plan, *read_socket(scope))):
            return await self._converse(socket, scope, receive, send)
        notes = plan.notes()
        token = current_notes.set(notes)
        try:
            if self.gate.is_local:
                request = self._facts(scope, plan)
            else:
                request = await asyncio.to_thread(self._facts, scope, plan)
            return await self.app(scope, receive, self._with_headers(plan, notes, request, send))
        finally:
            current_notes.reset(token)

    def _with_headers(self, plan: Plan, notes: Notes, request: RequestFacts, send: Send) -> Send:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                notes.is_closed = True
                asked = request, message["status"], list(message.get("headers", ())), notes
                if self.gate.is_local:
                    headers = plan.apply_raw(*asked)
                else:
                    headers = await asyncio.to_thread(plan.apply_raw, *asked)
                message = {**message, "headers": headers}
            elif message["type"] == "http.response.body" and not message.get("more_body"):
                notes.is_over = True
            await send(message)

        return send_with_headers

    def _facts(self, scope: Scope, plan: Plan) -> RequestFacts:
        """Read what decides, before the app reads anything."""
        asked = _asked(scope)
        gate = self.gate.for_request(plan.names)
        since = gate.sequence()
        root_path = scope.get("root_path", "")
        policy = self.policy
        return RequestFacts(
            scope["method"],
            gate,
            since,
            plan.versions(gate, since),
            asked.get(b"accept", ""),
            asked.get(b"if-none-match", ""),
            b"authorization" in asked,
            root_path and quote(root_path, errors="surrogatepass"),
            self._longest_ttl(),
            asked.get(b"grip-sig", ""),
            time.time(),
            policy.debug != "" and policy.may_debug(asked.get(b"grip-edge-debug", "")),
        )

    async def _catch_up(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        link = NextLink.read(self.policy, path, _asked(scope).get(b"grip-last", ""))
        if link is None:
            return await self.app(scope, receive, send)
        return await _send_answer(await self._answer(link, scope), send)

    async def _answer(self, link: NextLink, scope: Scope) -> tuple[int, Headers, bytes]:
        self.renderer.attach(scope)
        request = link.as_page(await off_loop(self.gate, self._facts, scope, link.plan))
        return await catch_up(link, request, self.renderer, self.gate)

    async def _converse(
        self, socket: SocketRequest, scope: Scope, receive: Receive, send: Send
    ) -> None:
        body = await read_events(receive)

        async def ask(asked: Asked) -> Answer:
            inner = inner_scope(scope, asked)
            return Answer(*await self.renderer.call(inner, asked.body, receive))

        facts = await off_loop(self.gate, self._facts, scope, socket.plan)
        answer = (
            too_large() if body is None else await converse(socket, facts, body, ask, self.gate)
        )
        await _send_answer(answer, send)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._lifespan(scope, receive, send)
        return await self.app(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Flush before the app shuts down and after: uvicorn skips `atexit` on SIGTERM."""
        self.renderer.attach(scope)
        is_delivered = True

        async def flush_and_receive() -> Message:
            nonlocal is_delivered
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                is_delivered = await asyncio.to_thread(self._flush)
            return message

        async def flush_and_send(message: Message) -> None:
            # What the app saved while shutting down; not what a dead target did not take before.
            if message["type"].startswith("lifespan.shutdown") and is_delivered:
                await asyncio.to_thread(self._flush)
            await send(message)

        await self.app(scope, flush_and_receive, flush_and_send)


async def off_loop(gate: Gate, ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call what asks the gate, in a thread if that may have to wait for its answer."""
    if gate.is_local:
        return ask(*args, **kwargs)
    return await asyncio.to_thread(ask, *args, **kwargs)


def read_socket(scope: Scope) -> tuple[str, str, Callable[[str], str]]:
    """Return the method, the path, and what tells the headers, by their names in lower case."""
    return scope["method"], scope["path"], lambda name: _value(scope, name.encode())


async def read_events(receive: Receive) -> bytes | None:
    """Return the body of a request, None if it is larger than events are."""
    body = bytearray()
    has_more = True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        has_more = message.get("more_body", False)
        if len(body) > MAX_EVENTS_BYTES:
            return None
    return bytes(body)


def inner_scope(scope: Scope, asked: Asked) -> Scope:
    """Return the request that the app is asked, with what the client said when it connected."""
    kept = [
        (n, v)
        for n, v in scope["headers"]
        if not is_of_socket(n.decode("latin-1")) and n not in (b"content-type", b"content-length")
    ]
    headers = [*kept, (b"accept", asked.accept.encode())]
    if asked.method == "POST":
        headers.append((b"content-type", asked.content_type.encode()))
        headers.append((b"content-length", str(len(asked.body)).encode()))
    inner = {**scope, "method": asked.method, "headers": headers, "extensions": {}}
    if "state" in scope:
        inner["state"] = dict(scope["state"])
    return inner


async def converse(
    socket: SocketRequest,
    facts: RequestFacts,
    body: bytes,
    ask: Callable[[Asked], Awaitable[Answer]],
    gate: Gate,
    in_thread: Callable[[Callable[[Socket], Any], Socket], Awaitable[None]] = asyncio.to_thread,
) -> Answer:
    """Return the answer to a WebSocket's events, for which the app is asked by `ask`.

    `in_thread` calls a function of the app's that is no coroutine function.
    """
    conversation = socket.converse(facts, body)
    step = await off_loop(gate, advance, conversation)
    while not isinstance(step, Answer):
        answer = await _answered(socket, step, ask, in_thread)
        step = await off_loop(gate, advance, conversation, answer)
    return step


async def _answered(
    socket: SocketRequest,
    step: Step,
    ask: Callable[[Asked], Awaitable[Answer]],
    in_thread: Callable[[Callable[[Socket], Any], Socket], Awaitable[None]],
) -> Answer:
    notes_token = current_notes.set(socket.plan.notes())
    token = current_socket.set(step.socket)
    try:
        if isinstance(step, Asked):
            return await ask(step)
        if inspect.iscoroutinefunction(step.function):
            await step.function(step.socket)
        else:
            await in_thread(step.function, step.socket)
    except Exception as error:  # the app's own
        socket.log_failure(error)
        return FAILURE
    finally:
        current_socket.reset(token)
        current_notes.reset(notes_token)
    return NOTHING


async def catch_up(
    link: NextLink, request: RequestFacts, renderer: ASGIRenderer, gate: Gate
) -> tuple[int, Headers, bytes]:
    """Return the answer to a next link: its status, headers and body."""
    if (reason := link.plan.refusal(request)) is not None:
        return link.refuse(reason)
    notes = link.plan.notes()
    token = current_notes.set(notes)
    try:
        snapshots = [await _snapshot(wanted, renderer) for wanted in link.routes]
    finally:
        current_notes.reset(token)
    return await off_loop(gate, link.answer, request, snapshots, notes)


async def _snapshot(wanted: Wanted, renderer: ASGIRenderer) -> Response:
    path, accept, is_private = wanted
    try:
        return await renderer.respond(path, accept, is_private=is_private)
    except Exception:  # the app's own, or of its rendering: the proxy asks again
        logger.exception(
            "GET %s cannot be rendered for a next link", path, extra=log_fields(target=RENDER)
        )
        return Response(503)


async def _send_answer(answer: tuple[int, Headers, bytes], send: Send) -> None:
    status, headers, body = answer
    start = {"type": "http.response.start", "status": status, "headers": _encode(headers)}
    await send(start)
    await send({"type": "http.response.body", "body": body})


def _value(scope: Scope, wanted: bytes) -> str:
    """Return a request header, several lines as one."""
    return ", ".join(value.decode("latin-1") for name, value in scope["headers"] if name == wanted)


def _asked(scope: Scope) -> dict[bytes, str]:
    """Return the request headers that are looked at, several lines as one."""
    asked: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name in _LOOKED_AT:
            text = value.decode("latin-1")
            asked[name] = f"{asked[name]}, {text}" if name in asked else text
    return asked


def _path(scope: Scope) -> str:
    """Return the path below the app's mount point, as the app's own routes name it."""
    path: str = scope["path"]
    root_path: str = scope.get("root_path", "")
    if root_path and path.startswith(root_path):
        below = path[len(root_path) :]
        if below.startswith("/") or not below:
            return below
    return path


def _encode(headers: Headers) -> RawHeaders:
    # ASGI wants header names in lower case.
    return [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in headers]

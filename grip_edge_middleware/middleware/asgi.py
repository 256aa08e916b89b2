"""The face for any ASGI app (version 3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from grip_edge_middleware.middleware import current_notes
from grip_edge_middleware.policy import Notes, Plan, Policy, RequestFacts
from grip_edge_middleware.stores import Gate
from grip_edge_middleware.types import ASGIApp, Headers, Message, Receive, Scope, Send


class ASGIMiddleware:
    """Adds the policy's headers to the responses of `app`.

    `attach` is called with the scope of each configured request and of the lifespan, on the loop
    that serves the app. `flush` is called, in a thread, when the app shuts down.
    """

    def __init__(
        self,
        app: ASGIApp,
        policy: Policy,
        gate: Gate,
        *,
        attach: Callable[[Scope], None],
        flush: Callable[[], bool],
    ) -> None:
        self.app = app
        self.policy = policy
        self.gate = gate
        self._attach = attach
        self._flush = flush

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the app, with a `send` of ours on configured routes only."""
        if scope["type"] == "lifespan":
            return await self._lifespan(scope, receive, send)
        plan = self.policy.match(_path(scope)) if scope["type"] == "http" else None
        if plan is None:
            return await self.app(scope, receive, send)
        self._attach(scope)
        notes = Notes()
        token = current_notes.set(notes)
        try:
            return await self.app(scope, receive, self._with_headers(plan, notes, scope, send))
        finally:
            current_notes.reset(token)

    def _with_headers(self, plan: Plan, notes: Notes, scope: Scope, send: Send) -> Send:
        request = _facts(scope, self.gate)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                notes.is_closed = True
                headers = _decode(message.get("headers", ()))
                applied = plan.apply(request, message["status"], headers, notes)
                message = {**message, "headers": _encode(applied)}
            await send(message)

        return send_with_headers

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Flush before the app shuts down and after: uvicorn skips `atexit` on SIGTERM."""
        self._attach(scope)
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


def _facts(scope: Scope, gate: Gate) -> RequestFacts:
    accept, is_authorized = [], False
    for name, value in scope["headers"]:
        if name == b"accept":
            accept.append(value.decode("latin-1"))
        elif name == b"authorization":
            is_authorized = True
    return RequestFacts(
        scope["method"],
        ", ".join(accept),
        is_authorized=is_authorized,
        # Read before the app reads anything.
        has_changed=partial(gate.has_changed, since=gate.sequence()),
    )


def _path(scope: Scope) -> str:
    """Return the path below the app's mount point, as the app's own routes name it."""
    path: str = scope["path"]
    root_path: str = scope.get("root_path", "")
    if root_path and path.startswith(root_path):
        below = path[len(root_path) :]
        if below.startswith("/") or not below:
            return below
    return path


def _decode(headers: object) -> Headers:
    return [(n.decode("latin-1"), v.decode("latin-1")) for n, v in headers]  # type: ignore[attr-defined]


def _encode(headers: Headers) -> list[tuple[bytes, bytes]]:
    # ASGI wants header names in lower case.
    return [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in headers]

"""The callables of WSGI (PEP 3333) and ASGI (asgiref's specification, version 3), as types."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = [
    "ASGIApp",
    "Headers",
    "Hold",
    "Message",
    "Operation",
    "RawHeaders",
    "Receive",
    "Scope",
    "Send",
    "StartResponse",
    "WSGIApplication",
    "WSGIEnvironment",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

Headers = list[tuple[str, str]]
"""Header lines in order; a name may stand more than once."""

RawHeaders = list[tuple[bytes, bytes]]
"""The same as ASGI has them."""

Hold = Literal["stream", "response", "ws"]
"""How a GRIP proxy keeps a client: a stream that goes on, a long-poll, or a WebSocket."""

Operation = Literal["insert", "update", "delete"]

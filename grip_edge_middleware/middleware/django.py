"""The face for Django: a middleware, sync or async as the rest of the chain is.

It decides by the response as it comes out of the chain, so it must be the first in `MIDDLEWARE`: a
cookie that is set by a middleware before it would go out with a page that it took for anybody's.
What is pushed is rendered by the rest of the chain, called as Django's own handlers call it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast
from urllib.parse import quote

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from grip_edge_middleware.gate import Gate
from grip_edge_middleware.middleware import asgi, wsgi
from grip_edge_middleware.next_link import NextLink
from grip_edge_middleware.notes import Notes, current_notes, leave_behind
from grip_edge_middleware.policy import Plan, Policy, RequestFacts
from grip_edge_middleware.render import ASGIRenderer, WSGIRenderer
from grip_edge_middleware.sockets import (
    MAX_EVENTS_BYTES,
    Answer,
    Asked,
    Socket,
    SocketRequest,
    too_large,
)
from grip_edge_middleware.types import ASGIApp, Headers, WSGIApplication

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

GetResponse = Callable[[HttpRequest], HttpResponseBase]
AsyncGetResponse = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


class RestOfWSGI(WSGIHandler):
    """What comes after our middleware, as a WSGI app: with the signals that close connections."""

    def __init__(self, get_response: GetResponse) -> None:
        self._rest = get_response
        super().__init__()

    def load_middleware(self, is_async: bool = False) -> None:
        """Take the chain as it is loaded already."""
        self._middleware_chain: Any = self._rest


class RestOfASGI(ASGIHandler):
    """What comes after our middleware, as an ASGI app."""

    def __init__(self, get_response: AsyncGetResponse) -> None:
        self._rest = get_response
        super().__init__()

    def load_middleware(self, is_async: bool = False) -> None:
        """Take the chain as it is loaded already."""
        self._middleware_chain: Any = self._rest


class TrustedWSGIRequest(WSGIRequest):
    """A request that we make of one that a page of another site cannot have made.

    Its origin and the proxy's signature have been checked. A message of a WebSocket has no token,
    so it is marked as Django's own test client marks its requests, for `CsrfViewMiddleware`.
    """

    _dont_enforce_csrf_checks = True


class TrustedASGIRequest(ASGIRequest):
    """The same under ASGI."""

    _dont_enforce_csrf_checks = True


class AskedOfWSGI(RestOfWSGI):
    """What comes after our middleware, for what we ask it ourselves."""

    request_class = TrustedWSGIRequest


class AskedOfASGI(RestOfASGI):
    """The same under ASGI."""

    request_class = TrustedASGIRequest


@dataclass(frozen=True, slots=True)
class Deciding:
    """What decides about responses. `longest_ttl` is as for the other faces."""

    policy: Policy
    gate: Gate
    longest_ttl: Callable[[], int | None]

    def link(self, request: HttpRequest) -> NextLink | None:
        """Return what the request asks for, if it is that of a next link."""
        grip_last = request.META.get("HTTP_GRIP_LAST", "")
        return NextLink.read(self.policy, request.path_info, grip_last)

    def facts(self, request: HttpRequest, plan: Plan) -> RequestFacts:
        """Read what decides, before the view reads anything."""
        return wsgi.read_facts(
            request.META,  # which under ASGI is made of the same names
            plan,
            self.policy,
            self.gate,
            self.longest_ttl(),
            quote(_mount(request), errors="surrogatepass"),
        )


class DjangoMiddleware:
    """Adds the policy's headers to the responses of a sync chain.

    `renderer` answers what a client has missed by calling the rest of the chain as a stranger
    would.
    """

    def __init__(
        self, get_response: GetResponse, deciding: Deciding, renderer: WSGIRenderer
    ) -> None:
        self._get_response = get_response
        self._deciding = deciding
        self._renderer = renderer

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Call the rest of the chain, and give its response its headers on configured routes."""
        plan = self._deciding.policy.match(request.path_info)
        if plan is None:
            if (link := self._deciding.link(request)) is not None:
                return self._catch_up(link, request)
            leave_behind()
            return self._get_response(request)
        self._attach(request)
        if plan.sockets and (socket := SocketRequest.read(plan, *wsgi.read_socket(request.META))):
            return self._converse(socket, request)
        notes = plan.notes()
        facts = self._deciding.facts(request, plan)
        token = current_notes.set(notes)
        try:
            response = self._get_response(request)
            _close(notes, response)
        finally:
            # What reads while it is streamed has notes, until the context's next request.
            if not notes.is_closed or notes.is_over or notes.scopes is None:
                current_notes.reset(token)
        _replace(response, plan.apply(facts, response.status_code, _lines(response), notes))
        return response

    def _attach(self, request: HttpRequest) -> None:
        # PEP 3333: as latin-1 text. Django has decoded it.
        self._renderer.attach({"SCRIPT_NAME": _mount(request).encode().decode("latin-1")})

    def _catch_up(self, link: NextLink, request: HttpRequest) -> HttpResponse:
        self._attach(request)
        facts = link.as_page(self._deciding.facts(request, link.plan))
        return _response(*wsgi.catch_up(link, facts, self._renderer))

    def _converse(self, socket: SocketRequest, request: HttpRequest) -> HttpResponse:
        body = read_events(request)
        if body is None:
            return _response(*too_large())
        environ = request.environ  # type: ignore[attr-defined]

        def ask(asked: Asked) -> Answer:
            return Answer(*self._renderer.call(wsgi.inner_environ(environ, asked)))

        facts = self._deciding.facts(request, socket.plan)
        return _response(*wsgi.converse(socket, facts, body, ask))


class AsyncDjangoMiddleware:
    """The same for an async chain. It stays on the event loop."""

    def __init__(
        self, get_response: AsyncGetResponse, deciding: Deciding, renderer: ASGIRenderer
    ) -> None:
        self._get_response = get_response
        self._deciding = deciding
        self._renderer = renderer
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Call the rest of the chain, and give its response its headers on configured routes."""
        plan = self._deciding.policy.match(request.path_info)
        if plan is None:
            if not self._renderer.is_attached:
                self._attach(request)  # what this changes is rendered on this loop
            if (link := self._deciding.link(request)) is not None:
                return await self._catch_up(link, request)
            leave_behind()
            return await self._get_response(request)
        self._attach(request)
        if plan.sockets and (socket := SocketRequest.read(plan, *wsgi.read_socket(request.META))):
            return await self._converse(socket, request)
        notes = plan.notes()
        facts = await asgi.off_loop(self._deciding.gate, self._deciding.facts, request, plan)
        token = current_notes.set(notes)
        try:
            response = await self._get_response(request)
            _close(notes, response)
        finally:
            if not notes.is_closed or notes.is_over or notes.scopes is None:
                current_notes.reset(token)
        lines = _lines(response)
        _replace(
            response,
            await asgi.off_loop(
                self._deciding.gate, plan.apply, facts, response.status_code, lines, notes
            ),
        )
        return response

    def _attach(self, request: HttpRequest) -> None:
        self._renderer.attach({"type": "http", "root_path": _mount(request)})

    async def _catch_up(self, link: NextLink, request: HttpRequest) -> HttpResponse:
        self._attach(request)
        gate = self._deciding.gate
        facts = link.as_page(await asgi.off_loop(gate, self._deciding.facts, request, link.plan))
        return _response(*await asgi.catch_up(link, facts, self._renderer, gate))

    async def _converse(self, socket: SocketRequest, request: HttpRequest) -> HttpResponse:
        body = read_events(request)
        if body is None:
            return _response(*too_large())
        scope = request.scope  # type: ignore[attr-defined]

        async def ask(asked: Asked) -> Answer:
            inner = asgi.inner_scope(scope, asked)
            return Answer(*await self._renderer.call(inner, asked.body))

        gate = self._deciding.gate
        facts = await asgi.off_loop(gate, self._deciding.facts, request, socket.plan)
        return _response(*await asgi.converse(socket, facts, body, ask, gate, in_thread))


def wrap(
    get_response: GetResponse | AsyncGetResponse,
    deciding: Deciding,
    use_wsgi: Callable[[WSGIApplication], WSGIRenderer],
    use_asgi: Callable[[ASGIApp], ASGIRenderer],
) -> DjangoMiddleware | AsyncDjangoMiddleware:
    """Return the face for a chain, sync or async as this is, with what renders in it."""
    if iscoroutinefunction(get_response):
        chain = cast(AsyncGetResponse, get_response)
        return AsyncDjangoMiddleware(chain, deciding, use_asgi(cast(ASGIApp, AskedOfASGI(chain))))
    rest = cast(GetResponse, get_response)
    return DjangoMiddleware(rest, deciding, use_wsgi(AskedOfWSGI(rest)))


def read_events(request: HttpRequest) -> bytes | None:
    """Return the body of a request, None if it is larger than events are."""
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not length.isdecimal() or int(length) > MAX_EVENTS_BYTES:
        return None
    body: bytes = request.read(MAX_EVENTS_BYTES + 1)
    return body if len(body) <= MAX_EVENTS_BYTES else None


async def in_thread(function: Callable[[Socket], Any], socket: Socket) -> None:
    """Call a function of the project's where it finds its database connections."""
    await sync_to_async(function)(socket)


def _mount(request: HttpRequest) -> str:
    """Return where the project is mounted, decoded."""
    mount: str = request.META.get("SCRIPT_NAME", "")
    return mount


def _close(notes: Notes, response: HttpResponseBase) -> None:
    """Note that the view has made its response; a body that is streamed is yet to be made."""
    notes.is_closed = True
    notes.is_over = not response.streaming


def _lines(response: HttpResponseBase) -> Headers:
    """Return the headers as they would leave."""
    cookies = (("Set-Cookie", cookie.OutputString()) for cookie in response.cookies.values())
    return [*response.items(), *cookies]


def _replace(response: HttpResponseBase, lines: Headers) -> None:
    """Give the response these headers. Its cookies are kept elsewhere, and stay as they are."""
    joined: dict[str, str] = {}
    names: dict[str, str] = {}
    for name, value in lines:
        name = names.setdefault(name.lower(), name)
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    for name in [name for name in response.headers if name.lower() not in names]:
        del response.headers[name]
    for name, value in joined.items():
        if name.lower() != "set-cookie" and response.headers.get(name) != value:
            response.headers[name] = value


def _response(status: int, headers: Headers, body: bytes) -> HttpResponse:
    response = HttpResponse(body, status=status)
    _replace(response, headers)
    for name, value in headers:
        if name.lower() == "set-cookie":
            response.cookies.load(value)
    return response

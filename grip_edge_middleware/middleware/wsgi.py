"""The face for any WSGI app (PEP 3333)."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

from grip_edge_middleware.cache_control import has_header
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.gate import Gate
from grip_edge_middleware.http import Response
from grip_edge_middleware.log_fields import log_fields
from grip_edge_middleware.next_link import NextLink, Wanted
from grip_edge_middleware.notes import current_notes, leave_behind
from grip_edge_middleware.policy import Plan, Plans, Policy, RequestFacts, Unplanned
from grip_edge_middleware.render import TARGET as RENDER
from grip_edge_middleware.render import WSGIRenderer
from grip_edge_middleware.sockets import (
    FAILURE,
    MAX_EVENTS_BYTES,
    NOTHING,
    Answer,
    Asked,
    SocketRequest,
    Step,
    advance,
    current_socket,
    is_of_socket,
    phrase_of,
    too_large,
)
from grip_edge_middleware.types import Headers, StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger(__name__)


class WSGIMiddleware:
    """Adds the policy's headers to the responses of `app`.

    `renderer` answers what a client has missed by calling the app as a stranger would.
    `longest_ttl` limits how long a CDN may keep a response, while its purges fail.
    """

    def __init__(
        self,
        app: WSGIApplication,
        policy: Policy,
        gate: Gate,
        renderer: WSGIRenderer,
        *,
        longest_ttl: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.app = app
        self.policy = policy
        self.gate = gate
        self.renderer = renderer
        self._plans = Plans(lambda path: policy.plans[_decoded(path)])
        self._longest_ttl = longest_ttl

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Call the app, with a `start_response` of ours on configured routes only."""
        plan = self._plans[environ.get("PATH_INFO", "")]
        if plan is None:
            if current_notes.get() is not None:
                leave_behind()
            return self.app(environ, start_response)
        if plan is Unplanned.NEXT_LINK:
            return self._catch_up(environ, start_response)
        self.renderer.attach(environ)
        if plan.sockets and (socket := SocketRequest.read(plan, *read_socket(environ))):
            return self._converse(socket, environ, start_response)
        notes = plan.notes()
        request = self._facts(environ, plan)

        def start_with_headers(status: str, headers: Headers, *exc_info: Any) -> Any:
            notes.is_closed = True
            # Who knows the length has made the body already.
            notes.is_over = notes.scopes is not None and has_header(headers, "content-length")
            code = int(status[:3]) if status[:3].isdigit() else 0
            return start_response(status, plan.apply(request, code, headers, notes), *exc_info)

        token = current_notes.set(notes)
        try:
            body = self.app(environ, start_with_headers)
        except BaseException:
            current_notes.reset(token)
            raise
        # An app that starts its response only when its body is read may still tag it, and a body
        # that is made while it is read may read rows. Their notes stay until the context's next
        # request.
        if notes.is_over or (notes.is_closed and notes.scopes is None):
            current_notes.reset(token)
        return body

    def _facts(self, environ: WSGIEnvironment, plan: Plan) -> RequestFacts:
        mount = environ.get("SCRIPT_NAME", "")
        quoted = mount and quote(mount.encode("latin-1"))
        return read_facts(environ, plan, self.policy, self.gate, self._longest_ttl(), quoted)

    def _catch_up(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = _decoded(environ["PATH_INFO"])
        link = NextLink.read(self.policy, path, environ.get("HTTP_GRIP_LAST", ""))
        if link is None:
            return self.app(environ, start_response)
        return start(self._answer(link, environ), start_response)

    def _answer(self, link: NextLink, environ: WSGIEnvironment) -> tuple[int, Headers, bytes]:
        self.renderer.attach(environ)
        return catch_up(link, link.as_page(self._facts(environ, link.plan)), self.renderer)

    def _converse(
        self, socket: SocketRequest, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        body = read_events(environ)
        facts = self._facts(environ, socket.plan)
        answer = too_large() if body is None else converse(socket, facts, body, self._ask(environ))
        return start(answer, start_response)

    def _ask(self, environ: WSGIEnvironment) -> Callable[[Asked], Answer]:
        return lambda asked: Answer(*self.renderer.call(inner_environ(environ, asked)))


def start(answer: tuple[int, Headers, bytes], start_response: StartResponse) -> Iterable[bytes]:
    """Send an answer of ours."""
    status, headers, body = answer
    start_response(f"{status} {phrase_of(status)}", headers)
    return [body]


def read_facts(
    environ: Mapping[str, Any],
    plan: Plan,
    policy: Policy,
    gate: Gate,
    longest_ttl: int | None,
    mount: str,
) -> RequestFacts:
    """Read what decides, before the app reads anything."""
    gate = gate.for_request(plan.names)
    since = gate.sequence()
    return RequestFacts(
        environ["REQUEST_METHOD"],
        gate,
        since,
        plan.versions(gate, since),
        environ.get("HTTP_ACCEPT", ""),
        environ.get("HTTP_IF_NONE_MATCH", ""),
        "HTTP_AUTHORIZATION" in environ,
        mount,
        longest_ttl,
        environ.get("HTTP_GRIP_SIG", ""),
        time.time(),
        policy.debug != "" and policy.may_debug(environ.get("HTTP_GRIP_EDGE_DEBUG", "")),
    )


def read_socket(environ: WSGIEnvironment) -> tuple[str, str, Callable[[str], str]]:
    """Return the method, the path, and what tells the headers, by their names in lower case."""

    def says(name: str) -> str:
        key = name.upper().replace("-", "_")
        value: str = environ.get(key if key == "CONTENT_TYPE" else f"HTTP_{key}", "")
        return value

    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return environ["REQUEST_METHOD"], path, says


def read_events(environ: WSGIEnvironment) -> bytes | None:
    """Return the body of a request, None if it is larger than events are."""
    length = environ.get("CONTENT_LENGTH") or "0"
    if not length.isdecimal() or int(length) > MAX_EVENTS_BYTES:
        return None
    body: bytes = environ["wsgi.input"].read(int(length))
    return body


def inner_environ(environ: WSGIEnvironment, asked: Asked) -> WSGIEnvironment:
    """Return the request that the app is asked, with what the client said when it connected."""
    kept = {n: v for n, v in environ.items() if not is_of_socket(n[5:].replace("_", "-").lower())}
    return {
        **kept,
        "REQUEST_METHOD": asked.method,
        "HTTP_ACCEPT": asked.accept,
        "CONTENT_TYPE": asked.content_type,
        "CONTENT_LENGTH": str(len(asked.body)),
        "wsgi.input": io.BytesIO(asked.body),
    }


def converse(
    socket: SocketRequest, facts: RequestFacts, body: bytes, ask: Callable[[Asked], Answer]
) -> Answer:
    """Return the answer to a WebSocket's events, for which the app is asked by `ask`."""
    conversation = socket.converse(facts, body)
    step = advance(conversation)
    while not isinstance(step, Answer):
        step = advance(conversation, _answered(socket, step, ask))
    return step


def _answered(socket: SocketRequest, step: Step, ask: Callable[[Asked], Answer]) -> Answer:
    notes_token = current_notes.set(socket.plan.notes())
    token = current_socket.set(step.socket)
    try:
        if isinstance(step, Asked):
            return ask(step)
        step.function(step.socket)
    except Exception as error:  # the app's own
        socket.log_failure(error)
        return FAILURE
    finally:
        current_socket.reset(token)
        current_notes.reset(notes_token)
    return NOTHING


def catch_up(
    link: NextLink, request: RequestFacts, renderer: WSGIRenderer
) -> tuple[int, Headers, bytes]:
    """Return the answer to a next link: its status, headers and body."""
    if (reason := link.plan.refusal(request)) is not None:
        return link.refuse(reason)
    notes = link.plan.notes()
    token = current_notes.set(notes)
    try:
        snapshots = [_snapshot(wanted, renderer) for wanted in link.routes]
    finally:
        current_notes.reset(token)
    return link.answer(request, snapshots, notes)


def _snapshot(wanted: Wanted, renderer: WSGIRenderer) -> Response:
    path, accept, is_private = wanted
    try:
        return renderer.render(path, accept, is_private=is_private)
    except DeliveryError:  # the app's own, or of its rendering: the proxy asks again
        logger.exception(
            "GET %s cannot be rendered for a next link", path, extra=log_fields(target=RENDER)
        )
        return Response(503)


def _decoded(path: str) -> str:
    # PEP 3333: the decoded bytes of the path, as latin-1 text.
    return path.encode("latin-1").decode("utf-8", "replace")

"""A WebSocket as a series of ordinary requests of the app: WebSocket-over-HTTP.

The GRIP proxy keeps the socket, and posts what happens to it. Whoever connects is answered what a
GET of the path is answered; what he says is a POST. The response is the message. A face asks the
app what a `Conversation` wants to know, and sends the proxy what it ends with.

What is known of a socket is kept by the proxy, signed together with the socket's id: see `_Meta`.

Pure: no sockets, no clock, no framework. https://pushpin.org/docs/protocols/websocket-over-http/
"""

from __future__ import annotations

import hmac
import json
import logging
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Generator, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from grip_edge_middleware.cache_control import without
from grip_edge_middleware.changes import resolve
from grip_edge_middleware.grip import CATCH_UP_SOON_S, NEXT_LINK_TIMEOUT_S, etag
from grip_edge_middleware.log_fields import log_fields
from grip_edge_middleware.policy import Plan, RequestFacts, Shown
from grip_edge_middleware.types import Headers
from grip_edge_middleware.websocket_events import (
    CONTENT_TYPE,
    Event,
    EventsError,
    build_close,
    build_control,
    build_events,
    build_message,
    parse_close,
    parse_events,
)

logger = logging.getLogger(__name__)

MAX_EVENTS_BYTES = 1_000_000
"""The most that is read of one request of events. Pushpin's have 200,000, and one message."""
# Header lines of more than 8 KB are refused on the way.
MAX_META_BYTES = 4_096

# https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1
NORMAL, REFUSED, FAILED = 1000, 1008, 1011
# How long until a page is asked for again that could not be shown; then twice as long, and so on.
TRY_AGAIN_S = 5

META = "grip-edge"
_GONE = frozenset({404, 410})
# What of a page's headers is for whoever connects.
_OF_THE_HANDSHAKE = frozenset({"set-cookie", "sec-websocket-protocol"})
# What of its request is not. A view may choose among the subprotocols, and may want the origin.
_OF_THE_SOCKET = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "connection-id",
        "range",
        "sec-websocket-extensions",
        "sec-websocket-key",
        "sec-websocket-version",
        "transfer-encoding",
        "upgrade",
    }
)
_OF_THE_PROXY = frozenset({"content-length", "transfer-encoding", "connection", "upgrade"})


class Asked(NamedTuple):
    """What the app is asked: a GET of the path, or a POST of what the client says."""

    socket: Socket
    method: str
    body: bytes = b""
    content_type: str = ""
    accept: str = "*/*"


class Told(NamedTuple):
    """A function of the app that is to be called with the socket that was closed."""

    socket: Socket
    function: Callable[[Socket], Any]


class Answer(NamedTuple):
    """A response of the app's, or of ours to the proxy."""

    status: int
    headers: Headers
    body: bytes


FAILURE = Answer(500, [], b"")
"""What the app answers that raises."""
NOTHING = Answer(204, [], b"")

Step = Asked | Told
Conversation = Generator[Step, Answer, Answer]
"""Wants to know this, is given an answer, and ends with that for the proxy."""


def advance(conversation: Conversation, answer: Answer | None = None) -> Step | Answer:
    """Go on with what was answered; return what is to be done next, or the end."""
    try:
        return next(conversation) if answer is None else conversation.send(answer)
    except StopIteration as end:
        last: Answer = end.value
        return last


@dataclass(slots=True, eq=False)
class Socket:
    """The WebSocket whose request is running.

    What is sent or asked for here reaches the proxy when the view has answered. `meta` is kept with
    the socket, from request to request; it is signed, not secret.
    """

    id: str
    """The proxy's own name for it, the same from beginning to end."""
    is_opening: bool
    meta: dict[str, str]
    close_code: int | None = None
    """What the client gave when it closed; only `on_close` sees one."""
    _name: Callable[[str, dict[str, object]], str] = field(repr=False, default=lambda name, _: name)
    _said: list[Event] = field(repr=False, default_factory=list)

    def send(self, data: str | bytes) -> None:
        """Send the client a message: text, or bytes, which are text if they are UTF-8."""
        self._said.append(build_message(data))

    def subscribe(self, topic: str, /, **params: object) -> None:
        """Have the client told what is published of one more topic. TopicError if there is none."""
        channel = self._name(topic, params)
        self._said.append(build_control(type="subscribe", channel=channel))

    def unsubscribe(self, topic: str, /, **params: object) -> None:
        """Undo `subscribe`; also for a topic of the route itself."""
        channel = self._name(topic, params)
        self._said.append(build_control(type="unsubscribe", channel=channel))

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """Close it, once the view has answered."""
        if code not in (1000, 1001, 1003, *range(1007, 1015)) and not 3000 <= code <= 4999:
            raise ValueError(f"no code to close with: {code}; use 1000, or 4000 to 4999")
        self._said.append(build_close(code, reason))

    def take_said(self) -> list[Event]:
        """Return what is to be sent, up to its end."""
        said, self._said = self._said, []
        end = next((n for n, event in enumerate(said, 1) if event.type == "CLOSE"), len(said))
        return said[:end]


current_socket: ContextVar[Socket | None] = ContextVar("grip_edge_socket", default=None)
"""That of which the running request is."""


@dataclass(frozen=True, slots=True)
class SocketRequest:
    """One request of a GRIP proxy's for a WebSocket. `path` includes where the app is mounted."""

    plan: Plan
    path: str
    says: Callable[[str], str] = field(repr=False)
    """Returns a header of the request by its name in lower case."""

    @classmethod
    def read(cls, plan: Plan, method: str, path: str, says: Callable[[str], str]) -> Self | None:
        """Read a request; None if it is not of a WebSocket, and the app's own to answer."""
        # A proxy lets no client say exactly this where it speaks of WebSockets itself.
        if method != "POST" or not plan.sockets or says("content-type") != CONTENT_TYPE:
            return None
        return cls(plan, path, says)

    def converse(self, facts: RequestFacts, body: bytes) -> Conversation:
        """Answer the events in the body."""
        if (reason := self.plan.refusal(facts) or self._foreign_origin()) is not None:
            return self._refuse(reason)
        try:
            events = parse_events(body)
        except EventsError as error:
            return self._refuse(str(error), 400)
        is_opening = bool(events) and events[0].type == "OPEN"
        meta = _Meta() if is_opening else self._meta()
        if meta is None:
            return self._refuse("its meta is not of this socket, or not ours")
        policy = self.plan.policy
        socket = Socket(self._id, is_opening, dict(meta.of_app), _name=policy.name_topic)
        talk = _Talk(self, facts, socket, meta)
        if is_opening:
            return (yield from talk.open())
        return (yield from talk.go_on(events))

    @property
    def _id(self) -> str:
        return self.says("connection-id")

    def _meta(self) -> _Meta | None:
        return _Meta.parse(self.says(f"meta-{META}"), self.sign)

    def sign(self, payload: str) -> str:
        """Return the signature of what is kept with this socket, on this path, and no other."""
        # No topic's name has a line break, so it is never that of a next link.
        message = f"socket\n{self._id}\n{self.path}\n{payload}".encode(errors="surrogatepass")
        return hmac.digest(self.plan.policy.secret.encode(), message, "sha256").hex()

    def _foreign_origin(self) -> str | None:
        """Return why a page may not open it: browsers send cookies wherever a page is from."""
        origin = self.says("origin").lower()
        if not origin or is_same_origin(origin, self.says("host").lower()):
            return None
        if all({origin, "*"} & {*shown.route.origins} for shown in self.plan.sockets):
            return None
        return f"from a page of {origin[:200]!r}, which is not among origins"

    def log_failure(self, error: Exception) -> None:
        """Log what the app raises; the client is told nothing of it."""
        route = self.plan.sockets[0].route.pattern.text
        logger.error(
            "%s: asked for a WebSocket, the app fails",
            route,
            exc_info=error,
            extra=log_fields(route=route),
        )

    def _refuse(self, reason: str, status: int = 403) -> Answer:
        route = self.plan.sockets[0].route.pattern.text
        _warn_of_refusal(route, reason)
        return _plain(status)


def is_same_origin(origin: str, host: str) -> bool:
    """Whether an `Origin` is the `Host` that was asked, both in lower case."""
    try:
        page, asked = urlsplit(origin), urlsplit(f"//{host}")
        if page.scheme not in ("http", "https") or not page.hostname:
            return False
        default = 443 if page.scheme == "https" else 80
        same_port = (page.port or default) == (asked.port or default)
    except ValueError:
        return False
    return page.hostname == asked.hostname and same_port


def is_of_socket(name: str) -> bool:
    """Whether a request's header, in lower case, is the proxy's or the socket's.

    What is conditional or a part of a page is none either: the page is sent whole.
    """
    return name in _OF_THE_SOCKET or name.startswith(("grip-", "meta-", "if-"))


def phrase_of(status: int) -> str:
    """Return what a status says in words; nothing if it is the app's own."""
    return _PHRASES.get(status, "")


def too_large() -> Answer:
    """Return the answer to events that are more than is read."""
    return _plain(413)


@dataclass(frozen=True, slots=True)
class _Meta:
    """What the proxy keeps with a socket.

    Signed, since where a proxy takes WebSockets for something else, a client may post events of its
    own through it. There `Grip-Expose-Headers` hides this from the client, who so has none to show.
    """

    shown: str = ""
    """The tag of what the client was shown last; empty if that may have been old."""
    tries: int = 0
    """How often in a row the client was behind: workers that share no versions never agree."""
    of_app: dict[str, str] = field(default_factory=dict)

    def build(self, sign: Callable[[str], str]) -> str:
        """Return it as a header's value."""
        said = json.dumps([self.shown, self.tries, self.of_app], separators=(",", ":")).encode()
        payload = urlsafe_b64encode(said).decode()
        return f"{payload}.{sign(payload)}"

    @classmethod
    def parse(cls, value: str, sign: Callable[[str], str]) -> _Meta | None:
        """Read it; None if it was not built for this socket."""
        payload, _, signature = value.rpartition(".")
        if not hmac.compare_digest(sign(payload).encode(), signature.encode(errors="replace")):
            return None
        return cls(*json.loads(urlsafe_b64decode(payload)))


@dataclass(slots=True)
class _Talk:
    """One request's events, answered one after the other."""

    request: SocketRequest
    facts: RequestFacts
    socket: Socket
    meta: _Meta
    out: list[Event] = field(default_factory=list)
    shown: str = field(init=False)
    tries: int = field(init=False)

    def __post_init__(self) -> None:
        self.shown, self.tries = self.meta.shown, self.meta.tries

    # --- the beginning ------------------------------------------------------------------------

    def open(self) -> Conversation:
        """Answer as the page does; if that is there, the socket is open, and subscribed first."""
        page = yield self._page()
        if page.status != 200:
            dropped = {n.lower() for n, _ in page.headers if n.lower().startswith("grip-")}
            headers = without(page.headers, _OF_THE_PROXY | dropped)
            return Answer(page.status, [*headers, _length(page.body)], page.body)
        self.out.append(Event("OPEN"))
        for name in self._names:
            self.out.append(build_control(type="subscribe", channel=name))
        if keep_alive_s := min(shown.route.keep_alive for shown in self._sockets):
            # RFC 6455, section 5.5.3: a heartbeat that nobody answers.
            self.out.append(_delayed("keep-alive", "pong", keep_alive_s))
        self._show(page.body)
        headers = [(n, v) for n, v in page.headers if n.lower() in _OF_THE_HANDSHAKE]
        if self._recovers:
            headers.append(("Keep-Alive-Interval", str(NEXT_LINK_TIMEOUT_S)))
        return self._answer([*headers, ("Sec-WebSocket-Extensions", "grip")])

    def _page(self) -> Asked:
        accept = next((s.route.accept for s in self._sockets if s.route.accept), "*/*")
        return Asked(self.socket, "GET", accept=accept)

    def _show(self, body: bytes) -> None:
        """Send what the page says now, and ask whether it was still so when it arrived.

        The client is subscribed by then. What was published in between it has missed, and what it
        was told meanwhile may be newer than this. Clients answer a ping by themselves, and the
        proxy passes that on.
        """
        self.out += self.socket.take_said()
        if self._is_closed:
            return
        if body:
            self.out.append(build_message(body))
        if not self._recovers:
            return
        versions = self._versions()
        is_late = versions is None or self.facts.has_changed(self._names)
        self.shown = "" if is_late or versions is None else versions
        # At once at first. Then it only checks what was healed already.
        self._ping(CATCH_UP_SOON_S)
        if not is_late and not self.tries:
            self.out.append(build_control(type="flush-delayed"))

    def _ping(self, after_s: int) -> None:
        """Have the proxy ping the client later, the more so the more often it was behind.

        Not by an event: in Pushpin that would overtake the subscriptions, which another of its
        processes makes. That one obeys control messages one after the other.
        """
        wait_s = after_s << min(max(self.tries - 1, 0), 10)  # beyond the limit already
        self.out.append(_delayed("send-delayed", "ping", min(wait_s, NEXT_LINK_TIMEOUT_S)))

    # --- what comes then ------------------------------------------------------------------------

    def go_on(self, events: Iterable[Event]) -> Conversation:
        """Answer what the client says, and look whether it has missed something."""
        kinds = set()
        for event in events:
            kinds.add(event.type)
            if event.type in ("TEXT", "BINARY"):
                yield from self._hear(event)
            elif event.type == "PING":
                self.out.append(Event("PONG", event.content))
            elif event.type in ("CLOSE", "DISCONNECT"):
                yield from self._end(event)
            elif event.type == "OPEN":
                return _plain(400)
            if self._is_closed:
                break
        # Without events, the proxy says that the socket is still there.
        if (not kinds or "PONG" in kinds) and not self._is_closed:
            yield from self._catch_up()
        return self._answer([])

    def _hear(self, event: Event) -> Generator[Step, Answer, None]:
        if not any(shown.route.receive for shown in self._sockets):
            return
        is_text = event.type == "TEXT"
        content_type = "text/plain; charset=utf-8" if is_text else "application/octet-stream"
        said = yield Asked(self.socket, "POST", event.content, content_type)
        self.out += self.socket.take_said()
        if said.status >= 400:
            self._close_for(said.status)
        elif said.status < 300 and said.body and not self._is_closed:
            self.out.append(build_message(said.body))

    def _catch_up(self) -> Generator[Step, Answer, None]:
        """Show the page again if it has changed since it was shown."""
        if not self._recovers or (self.shown and self.shown == self._versions()):
            self.tries = 0
            return
        self.tries += 1
        page = yield self._page()
        if page.status == 200:
            self._show(page.body)
        elif page.status >= 500:
            self.shown = ""
            self._ping(TRY_AGAIN_S)
        elif page.status in _GONE:
            self.out.append(build_close(NORMAL))
        else:
            self._close_for(page.status)

    def _end(self, event: Event) -> Generator[Step, Answer, None]:
        self.socket.close_code, _ = parse_close(event)
        for function in dict.fromkeys(s.route.on_close for s in self._sockets if s.route.on_close):
            yield Told(self.socket, resolve(function))
        self.socket.take_said()  # nobody hears it
        if event.type == "CLOSE":
            self.out.append(Event("CLOSE", event.content[:2]))

    def _close_for(self, status: int) -> None:
        code = FAILED if status >= 500 else REFUSED
        self.out.append(build_close(code, phrase_of(status)))

    # --- the answer -----------------------------------------------------------------------------

    def _answer(self, headers: Headers) -> Answer:
        meta = _Meta(self.shown, self.tries, self.socket.meta)
        if meta != self.meta or self.socket.is_opening:
            value = meta.build(self.request.sign)
            if len(value) > MAX_META_BYTES:
                return self._overfull()
            headers = [*headers, (f"Set-Meta-{META.title()}", value)]
        body = build_events(self.out)
        return Answer(200, [*_FOR_THE_PROXY, *headers, _length(body)], body)

    def _overfull(self) -> Answer:
        logger.error(
            "%s: the meta of a WebSocket exceeds %d bytes, so it is closed; keep a key there",
            self._sockets[0].route.pattern.text,
            MAX_META_BYTES,
            extra=log_fields(route=self._sockets[0].route.pattern.text, limit=MAX_META_BYTES),
        )
        if self.socket.is_opening:
            return _plain(500)
        body = build_events([build_close(FAILED)])
        return Answer(200, [*_FOR_THE_PROXY, _length(body)], body)

    @property
    def _is_closed(self) -> bool:
        return bool(self.out) and self.out[-1].type == "CLOSE"

    @property
    def _sockets(self) -> tuple[Shown, ...]:
        return self.request.plan.sockets

    @property
    def _names(self) -> list[str]:
        return list(dict.fromkeys(shown.topic.name for shown in self._sockets))

    @property
    def _recovers(self) -> bool:
        return all(shown.recovers for shown in self._sockets)

    def _versions(self) -> str | None:
        """Return the tag of all that is shown, as it was when the request began."""
        versions = [self.facts.versions.get(name) for name in self._names]
        return None if None in versions else etag(filter(None, versions))


# Where a client posts events through a proxy, this leaves it nothing but the body of the answer.
_FOR_THE_PROXY = [
    ("Content-Type", CONTENT_TYPE),
    ("Cache-Control", "private, no-store"),
    ("Grip-Expose-Headers", "content-type"),
]
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


def _delayed(type_: str, message_type: str, timeout_s: int) -> Event:
    return build_control(type=type_, message_type=message_type, content=".", timeout=timeout_s)


def _length(body: bytes) -> tuple[str, str]:
    return "Content-Length", str(len(body))


def _plain(status: int) -> Answer:
    body = f"{phrase_of(status)}\n".encode()
    headers = [("Content-Type", "text/plain"), ("Cache-Control", "private, no-store")]
    return Answer(status, [*headers, _length(body)], body)


# The routes of which it was said, and why. An origin is anybody's to say, so they are bounded.
_refused: set[tuple[str, str]] = set()
_MOST_REFUSED = 100


def _warn_of_refusal(route: str, reason: str) -> None:
    if (route, reason) in _refused or len(_refused) >= _MOST_REFUSED:
        return
    _refused.add((route, reason))
    logger.warning(
        "%s: a request for a WebSocket is refused: %s",
        route,
        reason,
        extra=log_fields(route=route, reason=reason),
    )

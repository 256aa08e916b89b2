"""An app behind the embedded edge: a GRIP proxy and a cache in this process, on free ports.

The app's own edge sends there whatever its settings name. Needs the extra `dev`.
"""

from __future__ import annotations

import http.client
import json
import queue
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import httpx2 as httpx

from grip_edge_middleware.edge import GripEdge
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request
from grip_edge_middleware.lanes import Outcome
from grip_edge_middleware.testing.recording import unsettled
from grip_edge_middleware.testing.sent import RecordingLanes, acknowledgement, keys_purged
from grip_edge_middleware.testing.wording import listing, logged_into
from grip_edge_middleware.transport import HttpTransport
from grip_edge_middleware.types import ASGIApp, WSGIApplication

if TYPE_CHECKING:
    from grip_edge_middleware.devedge import DevEdge
    from grip_edge_middleware.devedge.server import Running

# What purges are sent to: the embedded edge is told of them as Fastly is, or as Varnish.
_FASTLYS = "/service/embedded/purge"

# Long enough for any machine; nothing takes this long unless it fails.
TIMEOUT_S = 10.0


@contextmanager
def embedded(
    edge: GripEdge, app: ASGIApp | WSGIApplication, *, verify_key: str | None = None
) -> Iterator[EmbeddedEdge]:
    """Serve an app behind the embedded edge while a block lasts.

    with embedded(edge, app) as live, live.stream("/counters/a") as stream:
        live.post("/counters/a")
        assert stream.next_event().data == '{"value": 1}'

    `edge` is the GripEdge that wraps the app. `verify_key` is the secret that proves the GRIP
    proxy to it; by default the one in its settings.
    """
    dev_edge = _dev_edge(app, verify_key or _secret_of(edge))
    with ExitStack() as stack:
        live = EmbeddedEdge(edge, dev_edge)
        stack.enter_context(logged_into(live.logged))
        stack.enter_context(edge.sending_through(live))
        live.serve(stack.enter_context(dev_edge.running()))
        stack.callback(live.end)
        yield live


class EmbeddedEdge(RecordingLanes):
    """An app behind a GRIP proxy and a cache. What its edge sends is kept, and sent to these."""

    def __init__(self, edge: GripEdge, dev_edge: DevEdge) -> None:
        super().__init__(edge)
        self.dev_edge = dev_edge
        self._transport = HttpTransport(timeout_s=TIMEOUT_S)
        self._running: Running | None = None
        self._passing_on = threading.Lock()

    def serve(self, running: Running) -> None:
        """Know the ports."""
        self._running = running
        self.url = running.url("clients")
        self._client = httpx.Client(base_url=self.url, timeout=TIMEOUT_S, trust_env=False)

    def end(self) -> None:
        """Pass nothing on any more."""
        with self._passing_on:
            self._running = None
            self._transport.close()
        self._client.close()

    # --- as a client ------------------------------------------------------------------------

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Return the answer to a GET; `options` are httpx's."""
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        """Return the answer to a POST; `options` are httpx's."""
        return self.request("POST", path, **options)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Return the answer to a request; `options` are httpx's."""
        __tracebackhide__ = True
        try:
            return self._client.request(method, path, **options)
        except httpx.ReadTimeout:
            timeout = options.get("timeout", TIMEOUT_S)
            what = f"{method} {path} did not end within {timeout:g} s"
            hint = f'is it a stream? open it with stream("{path}")'
            raise AssertionError(f"{what}; {hint}") from None

    def stream(self, path: str, **headers: str) -> Stream:
        """Open a stream; use it in a `with` block. `Last_Event_ID="7"` is a header."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return Stream(self.url, path, named, said=lambda: listing(self))

    # --- what the edge sends ----------------------------------------------------------------

    def settle(self, timeout: float = TIMEOUT_S) -> None:
        """Wait until all that is pending is delivered, without waiting for windows to end.

        AssertionError if it is not within `timeout` seconds.
        """
        __tracebackhide__ = True
        if not self._edge.flush(timeout):
            raise AssertionError(unsettled(self, self._edge, timeout))

    def _answer(self, target: str, request: Request) -> Outcome:
        with self._passing_on:
            if self._running is None:  # what changes while the app shuts down is nobody's any more
                return acknowledgement(request)
            url = _url_for(request, self._running)
            passed_on = Request(request.method, url, request.headers, request.body)
            is_translated = url.endswith(_FASTLYS) and not request.url.endswith("/purge")
            if is_translated:
                keys = json.dumps({"surrogate_keys": keys_purged(request)}).encode()
                passed_on = Request("POST", url, {}, keys)
            try:
                answer = self._transport.send(passed_on)
            except DeliveryError as error:
                return error
            return acknowledgement(request) if is_translated and answer.status == 200 else answer


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event; of any other stream, one line."""

    data: str
    event: str = "message"
    id: str = ""


class Stream:
    """An open response, read as it comes. `status_code` and `headers` are there from the start."""

    def __init__(
        self, url: str, path: str, headers: dict[str, str], *, said: Callable[[], str] = lambda: ""
    ) -> None:
        self._path = path
        self._said = said
        self._seen: list[Event] = []
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        host = urlsplit(url)
        self._connection = http.client.HTTPConnection(
            str(host.hostname), host.port, timeout=TIMEOUT_S
        )
        self._connection.request("GET", path, headers={"Accept": "text/event-stream", **headers})
        self._socket: socket.socket = self._connection.sock
        self._response = self._connection.getresponse()
        self._socket.settimeout(None)
        self.status_code = self._response.status
        self.headers = self._response.headers
        self._reader = threading.Thread(target=self._read, name="grip-edge stream", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Go away."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._response.close()
        self._connection.close()

    def next_event(self, timeout: float = TIMEOUT_S) -> Event:
        """Return the next event; AssertionError if none comes within `timeout` seconds."""
        __tracebackhide__ = True
        try:
            event = self._events.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(self._none(f"no event within {timeout:g} s")) from None
        if event is None:
            self._events.put(None)
            raise AssertionError(self._none("no event: the stream has ended"))
        self._seen.append(event)
        return event

    def _none(self, what: str) -> str:
        before = [f"  {event.data!r}" for event in self._seen]
        came = "\n".join(["events before:", *before]) if before else "no event came before"
        return f"{what} on {self._path}, answered with {self.status_code}; {came}\n{self._said()}"

    def _read(self) -> None:
        is_sse = self.headers.get_content_type() == "text/event-stream"
        with suppress(OSError, http.client.HTTPException, ValueError):
            lines = (line.decode().rstrip("\r\n") for line in iter(self._response.readline, b""))
            for event in _events(lines) if is_sse else map(Event, lines):
                self._events.put(event)
        self._events.put(None)


def _events(lines: Iterable[str]) -> Iterator[Event]:
    """Yield events: https://html.spec.whatwg.org/multipage/server-sent-events.html."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" in fields else value
        else:
            if "data" in fields:
                named = fields.get("event", "message"), fields.get("id", "")
                yield Event(fields["data"], *named)
            fields.clear()


def _dev_edge(app: ASGIApp | WSGIApplication, verify_key: str | None) -> DevEdge:
    try:
        from grip_edge_middleware.devedge import DevEdge
    except ImportError as error:
        hint = "pip install 'grip-edge-middleware[dev]'"
        raise ImportError(f"the embedded edge needs the dev extra: {hint} ({error})") from error
    return DevEdge(app) if verify_key is None else DevEdge(app, verify_key=verify_key)


def _secret_of(edge: GripEdge) -> str | None:
    """Return the secret that the settings verify by, None if there is none, or a public key."""
    parts = edge._parts
    if parts is None:
        return None
    for region in (parts.settings.trunk, *parts.settings.regions):
        for proxy in region.proxies:
            key = proxy.verify_key
            if isinstance(key, str) and not key.startswith(("-----", "{")):
                return key
    return None


def _url_for(request: Request, running: Running) -> str:
    """Return where the embedded edge takes what a CDN or a proxy would be asked."""
    if request.method == "PURGEKEYS":
        return f"{running.url('cache')}/"
    if keys_purged(request):
        return f"{running.url('control')}{_FASTLYS}"
    path = urlsplit(request.url).path.rstrip("/").rpartition("/")[2]
    return f"{running.url('control')}/{path}/"

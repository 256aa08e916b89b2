"""The far side of the wire, recorded: a CDN and a GRIP proxy as a real server, and in memory.

Both acknowledge everything unless they are told otherwise: purges as each CDN does, and publishes
with 200.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from unittest.mock import patch

from grip_edge_middleware.changes import Change, Data, encode
from grip_edge_middleware.delivery import Delivery, Region
from grip_edge_middleware.dispatcher import Dispatcher
from grip_edge_middleware.edge import make_purger
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.journal import Entry, Journal
from grip_edge_middleware.lanes import Answer as LaneAnswer
from grip_edge_middleware.lanes import InlineLanes
from grip_edge_middleware.metrics import Counts
from grip_edge_middleware.publisher import Publisher
from grip_edge_middleware.settings import RegionSettings, Settings
from grip_edge_middleware.stores.memory import MemoryStore
from grip_edge_middleware.testing.sent import acknowledgement, keys_purged
from grip_edge_middleware.transport import MAX_ANSWER_BYTES, Transport

# Long enough for any machine; nothing waits this long unless it fails.
DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request as it arrived. Header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def is_purge(self) -> bool:
        return not (self.is_publish or self.is_recovery) and bool(self.keys)

    @property
    def is_publish(self) -> bool:
        return self.method == "POST" and self.path.endswith("/publish/")

    @property
    def is_recovery(self) -> bool:
        return self.path.endswith("/recover/")

    @property
    def keys(self) -> list[str]:
        """What a purge names."""
        return keys_purged(Request(self.method, self.path, self.headers, self.body))

    @property
    def items(self) -> list[dict[str, Any]]:
        """What a publish carries."""
        return list(json.loads(self.body)["items"])

    @property
    def channels(self) -> list[str]:
        return [item["channel"] for item in self.items]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server does with a request."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    hangs: bool = False
    """Says nothing until the server's `release` is set, then answers."""
    closes: bool = False
    """Closes the connection without an answer."""
    raw: bytes = b""
    """Sent instead of an HTTP answer."""
    drips: bytes = b""
    """Sent again and again after `raw`, until the client goes or `release` is set."""


def acknowledge(request: Recorded) -> Answer:
    if not request.is_purge:
        return Answer(200)
    answer = acknowledgement(Request(request.method, request.path, request.headers, request.body))
    return Answer(answer.status, answer.headers, answer.body)


class RecordingServer:
    """A threaded HTTP server on a free port.

    with RecordingServer() as server:
        server.respond = lambda request: Answer(503)
        ...
        server.wait_for(lambda seen: len(seen) == 2)
    """

    def __init__(self) -> None:
        self.respond: Callable[[Recorded], Answer] = acknowledge
        self.release = threading.Event()
        self._arrived = threading.Condition()
        self._requests: list[Recorded] = []
        self._connections: list[socket.socket] = []
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.port: int = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def requests(self) -> list[Recorded]:
        with self._arrived:
            return list(self._requests)

    @property
    def purges(self) -> list[Recorded]:
        return [request for request in self.requests if request.is_purge]

    @property
    def purged_keys(self) -> set[str]:
        return {key for request in self.purges for key in request.keys}

    @property
    def publishes(self) -> list[Recorded]:
        return [request for request in self.requests if request.is_publish]

    @property
    def items(self) -> list[dict[str, Any]]:
        """All items that were published, in order of arrival."""
        return [item for request in self.publishes for item in request.items]

    @property
    def channels(self) -> list[str]:
        return [item["channel"] for item in self.items]

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    def wait_for(
        self, is_there: Callable[[list[Recorded]], bool], *, within_s: float = DEADLINE_S
    ) -> list[Recorded]:
        """Wait until what has arrived satisfies a condition."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: is_there(self._requests), within_s):
                seen = "\n".join(f"{r.method} {r.path} {r.body[:300]!r}" for r in self._requests)
                raise AssertionError(f"not within {within_s} s; these arrived:\n{seen}")
            return list(self._requests)

    def wait_for_channels(self, *channels: str) -> None:
        """Wait until each of these channels was published to."""
        self.wait_for(
            lambda seen: {c for r in seen if r.is_publish for c in r.channels} >= set(channels)
        )

    def record(self, request: Recorded) -> None:
        with self._arrived:
            self._requests.append(request)
            self._arrived.notify_all()

    def note_connection(self, connection: socket.socket) -> None:
        self._connections.append(connection)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no error of the server."""


def _handler(server: RecordingServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            server.note_connection(self.connection)

        def answer(self) -> None:
            length = int(self.headers.get("content-length", 0))
            body = self.rfile.read(length)
            if len(body) < length:  # whoever sent it was killed
                self.close_connection = True
                return
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Recorded(self.command, self.path, headers, body, time.monotonic())
            # Decided before it is seen, so that a test can change its mind for the next.
            answer = server.respond(request)
            server.record(request)
            if answer.hangs:
                server.release.wait(DEADLINE_S)
            if answer.closes:
                self.close_connection = True
            elif answer.raw or answer.drips:
                self._send_raw(answer)
            else:
                self._send(answer)

        do_GET = do_POST = do_PURGEKEYS = do_PURGE = answer  # noqa: N815 - the names that http.server calls

        def _send_raw(self, answer: Answer) -> None:
            self.close_connection = True
            self.wfile.write(answer.raw)
            while answer.drips and not server.release.wait(0.02):
                self.wfile.write(answer.drips)

        def _send(self, answer: Answer) -> None:
            self.send_response_only(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Silent."""

    return Handler


Outcome = Response | DeliveryError


class RecordingTransport:
    """A Transport in memory. `script` says what a target answers, in order, and then forever.

        transport.script("varnish", Response(503), DeliveryError("varnish", "down"))

    The last outcome is not repeated unless `forever`: then the target is well again. What is well
    answers as `respond` has it.
    """

    def __init__(self) -> None:
        self.respond: Callable[[Recorded], Outcome] = acknowledged
        self.requests: list[Request] = []
        self.outcomes: list[Outcome] = []
        self.is_closed = False
        self._scripts: dict[str, deque[Outcome]] = {}
        self._forever: dict[str, Outcome] = {}

    def script(self, url: str, *outcomes: Outcome) -> None:
        """Say what URLs that contain `url` answer next."""
        self._scripts.setdefault(url, deque()).extend(outcomes)

    def always(self, url: str, outcome: Outcome | None) -> None:
        """Say what URLs that contain `url` answer from now on; None for what is usual."""
        if outcome is None:
            self._forever.pop(url, None)
        else:
            self._forever[url] = outcome

    def send(self, request: Request, *, max_bytes: int = MAX_ANSWER_BYTES) -> Response:
        self.requests.append(request)
        outcome = self._outcome(request)
        self.outcomes.append(outcome)
        if isinstance(outcome, DeliveryError):
            raise _anew(outcome)
        return outcome

    def close(self) -> None:
        self.is_closed = True

    def _outcome(self, request: Request) -> Outcome:
        for url, script in self._scripts.items():
            if url in request.url and script:
                return script.popleft()
        for url, outcome in self._forever.items():
            if url in request.url:
                return outcome
        return self.respond(recorded(request))

    def to(self, url: str) -> list[Request]:
        """Return what went to URLs that contain `url`."""
        return [request for request in self.requests if url in request.url]

    @property
    def log(self) -> list[tuple[str, tuple[str, ...]]]:
        """What happened on the wire: ("purge", "publish" or "recover", keys or channels)."""
        return [_entry(recorded(request)) for request in self.requests]

    @property
    def items(self) -> list[dict[str, Any]]:
        seen = map(recorded, self.requests)
        return [item for request in seen if request.is_publish for item in request.items]


class HeldLanes(InlineLanes):
    """Lanes of which a test can have some hang: what it holds arrives, and is not answered.

    Nobody waits: a target that hangs is given up as soon as nothing else is to come. But `clock`
    waits for one that takes its time.
    """

    def __init__(self, transport: Transport, clock: Clock) -> None:
        super().__init__(transport)
        self._clock = clock
        self._takes_s: dict[str, float] = {}
        self._holds: set[str] = set()
        self._held: list[LaneAnswer] = []

    def hold(self, name: str) -> None:
        """Have targets whose name contains `name` hang."""
        self._holds.add(name)

    def take(self, name: str, seconds: float) -> None:
        """Have targets whose name contains `name` take so long for each answer."""
        self._takes_s[name] = seconds

    def wait(self, timeout_s: float) -> LaneAnswer | None:
        if not self._answers:
            return None
        target = self._answers[0][0]
        takes_s = max((s for name, s in self._takes_s.items() if name in target), default=0.0)
        self._clock.now += min(takes_s, timeout_s)
        return super().wait(timeout_s) if takes_s <= timeout_s else None

    def let_go(self) -> None:
        """Have all answer what they were asked, and whatever comes."""
        self._holds.clear()
        self._answers.extend(self._held)
        self._held.clear()

    def start(self, target: str, request: Request) -> None:
        super().start(target, request)
        if any(name in target for name in self._holds):
            self._held.append(self._answers.pop())


def acknowledged(request: Recorded) -> Response:
    answer = acknowledge(request)
    return Response(answer.status, {n.lower(): v for n, v in answer.headers.items()}, answer.body)


def recorded(request: Request) -> Recorded:
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Recorded(request.method, request.url, headers, request.body, 0.0)


def _entry(request: Recorded) -> tuple[str, tuple[str, ...]]:
    if request.is_purge:
        return "purge", tuple(request.keys)
    if request.is_recovery:
        return "recover", ()
    return "publish", tuple(request.channels)


def bodies(items: Sequence[Mapping[str, Any]], channel: str) -> list[str]:
    """Return the texts published to streams of a channel, in order."""
    streams = (item["formats"]["http-stream"] for item in items if item["channel"] == channel)
    return [stream.get("content", "") for stream in streams]


class Clock:
    """Monotonic time that only the test moves. Versions take their Unix time from it too."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_790_000_000.0 + self.now

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class StubRenderer:
    """Answers each path with what the test put there, else with the path itself.

    Each answer takes `takes_s` of the clock's time.
    """

    def __init__(self, clock: Clock) -> None:
        self.answers: dict[str, Response | Exception] = {}
        self.rendered: list[tuple[str, str | None]] = []
        self.takes_s = 0.0
        self._clock = clock

    def render(self, path: str, accept: str | None, *, is_private: bool = False) -> Response:
        self.rendered.append((path, accept))
        self._clock.now += self.takes_s
        answer = self.answers.get(path, Response(200, {}, path.encode()))
        if isinstance(answer, Exception):
            raise _anew(answer)
        return answer


def _anew(error: Exception) -> Exception:
    """A copy: an error that a test keeps would keep its traceback, and so the whole simulation."""
    copy = type(error).__new__(type(error), *error.args)
    vars(copy).update(vars(error))
    return copy


class Entries:
    """Reads what is written, and keeps it."""

    def __init__(self) -> None:
        self.all: list[Entry] = []

    def read(self, entry: Entry) -> None:
        self.all.append(entry)

    @property
    def kinds(self) -> list[str]:
        return [entry.kind for entry in self.all]

    def of(self, kind: str) -> list[Entry]:
        return [entry for entry in self.all if entry.kind == kind]


class Simulation:
    """Store, delivery and dispatcher of a settings dict, on a simulated clock, without a thread.

    `turn()` delivers what is due now; `run_until_idle()` moves the clock from turn to turn.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        # Most of what is simulated is about the change itself, so it is not confirmed unless asked.
        defaults = {"grip_url": "http://pushpin:5561", "confirm_after": 0}
        self.settings = Settings.parse({**defaults, **settings}, {})
        self.clock = Clock()
        self.transport = RecordingTransport()
        self.lanes = HeldLanes(self.transport, self.clock)
        self.renderer = StubRenderer(self.clock)
        self.metrics = Counts()
        self.journal = Entries()
        self.store = MemoryStore(
            max_pending=self.settings.max_pending,
            confirm_after_s=self.settings.confirm_after,
            replica_lag_s=self.settings.replica_lag,
            clock=self.clock,
            wall_clock=self.clock.wall,
        )
        self.delivery = Delivery(
            lanes=self.lanes,
            trunk=region(self.settings.trunk),
            regions=[region(entry) for entry in self.settings.regions],
            renderer=self.renderer,
            journal=Journal(self.metrics, self.journal, clock=self.clock.wall),
            purge_deadline_s=self.settings.purge_deadline,
            clock=self.clock,
            wall_clock=self.clock.wall,
            pause=self.clock.pause,
        )
        self.dispatcher = Dispatcher(
            store=self.store, delivery=self.delivery, metrics=self.metrics, clock=self.clock
        )

    def change(self, template: str, data: Data | None = None, **params: object) -> Change:
        topic = next(t for t in self.settings.topics if t.template.text == template)
        message = None if data is None else encode(data)
        return Change(topic.template.fill(params), topic, message)

    def add(self, template: str, data: Data | None = None, **params: object) -> None:
        """Submit a change, without waking a thread."""
        self.store.add([self.change(template, data, **params)], self.clock.now)

    def submit(self, changes: Sequence[Change]) -> None:
        """Submit as an app does, where no thread can be started: only `turn()` sends."""
        with patch.object(threading.Thread, "start", side_effect=RuntimeError):
            self.dispatcher.submit(changes)

    def turn(self) -> float | None:
        return self.dispatcher.turn(self.clock.now)

    def run_for(self, seconds: float) -> list[float]:
        """Take the turns that come up in so many seconds; return their times."""
        times, end = [], self.clock.now + seconds
        while self.clock.now < end:
            times.append(self.clock.now)
            assert len(times) < 10_000, f"the last were {times[-5:]}"
            due = self.turn()
            self.clock.now = end if due is None else min(max(self.clock.now, due), end)
        return times

    def run_until_idle(self, *, at_most: int = 10_000) -> list[float]:
        """Take turns at the times that the dispatcher asks for; return these times."""
        times = []
        for _ in range(at_most):
            times.append(self.clock.now)
            due = self.turn()
            if due is None:
                return times
            self.clock.now = max(self.clock.now, due)
        raise AssertionError(f"not idle after {at_most} turns; the last were {times[-5:]}")


def region(settings: RegionSettings) -> Region:
    purgers = tuple(make_purger(cdn, settings.name) for cdn in settings.cdns)
    return Region(purgers, tuple(Publisher(p, region=settings.name) for p in settings.proxies))

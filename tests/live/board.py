"""An app behind the edge whose pages show one value each, and that can be held wherever it matters.

    with board(wired) as served:
        page = served.page("board", "a")
        with served.after_read.holding(page.path) as held: ...

There are several kinds of page, alike but for the settings of their topics.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from checkpoint import DEADLINE_S, Checkpoint
from clients import Reply, request
from launch import Edge
from servers import wait_until_reached, wsgi_server
from tap import Tap
from wire import Wire

from grip_edge_middleware import GripEdge
from grip_edge_middleware.gate import Gate
from grip_edge_middleware.grip import CONFIRMED
from grip_edge_middleware.render import STRANGER

# Once and soon, so that tests are quick; the default is after 1 and 2 seconds.
CONFIRM_AFTER_S = 0.5
DEFAULT_S = [1.0, 2.0]
# As short as Pushpin takes it; the default is 55.
HOLD_TIMEOUT_S = 5
KINDS: dict[str, dict[str, object]] = {
    "board": {"hold": "stream"},
    "refetch": {"hold": "stream", "refetch": True},
    "poll": {"hold": "response", "hold_timeout": HOLD_TIMEOUT_S},
    # The controls: who missed something is told by the next change only.
    "bare": {"hold": "stream", "recovery": None},
    "barepoll": {"hold": "response", "hold_timeout": HOLD_TIMEOUT_S, "recovery": None},
}
SIDES = ("left", "middle", "right")


@dataclass(frozen=True, slots=True)
class Wired:
    """The edge, with a wire between Pushpin and Varnish."""

    edge: Edge
    wire: Wire


class Board:
    """The app, and taps on what is sent to the cache and to the GRIP proxy."""

    def __init__(
        self,
        wired: Wired,
        purges: Tap,
        publishes: list[Tap],
        *,
        confirm_after_s: float | list[float],
        throttle_s: float,
        gate: bool,
        store: str | None,
    ) -> None:
        self.edge = wired.edge
        self.wire = wired.wire
        self.purges = purges
        self.publishes, *self.other_publishes = publishes
        waits = confirm_after_s if isinstance(confirm_after_s, list) else [confirm_after_s]
        self.confirm_after_s = [wait_s for wait_s in waits if wait_s]
        self.values: dict[str, int] = {}
        self.served: list[str] = []
        """The paths that the app was asked for over HTTP."""
        self.before_read = Checkpoint()
        self.after_read = Checkpoint()
        self.in_transit = Checkpoint()
        """Answers between the middleware and the cache: decided, and on their way."""
        self.settings = {
            "cdn": f"varnish://127.0.0.1:{purges.port}",
            "grip_url": [f"http://127.0.0.1:{tap.port}" for tap in publishes],
            "confirm_after": confirm_after_s,
            "throttle": throttle_s,
            "topics": topics_of_pages(confirms=bool(self.confirm_after_s)),
            "store": store,
        }
        self.grip_edge = GripEdge(settings=self.settings)
        self.face = self.grip_edge.wsgi(self.app)
        if not gate:
            self.face.gate = OpenGate(self.face.gate)  # type: ignore[attr-defined]

    def app(self, environ: Any, start_response: Any) -> list[bytes]:
        path = environ["PATH_INFO"]
        is_asked = environ["REMOTE_ADDR"] != STRANGER
        name = path if is_asked else rendering(path)
        self.before_read.wait(name)
        body = showing(self.values.get(path, 0))
        self.after_read.wait(name)
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return [body]

    def on_the_wire(self, environ: Any, start_response: Any) -> list[bytes]:
        path = environ["PATH_INFO"]
        self.served.append(path)
        body = list(self.face(environ, start_response))
        self.in_transit.wait(path)
        return body

    def page(self, kind: str, name: object) -> Page:
        return Page(self, kind, f"{name}-{time.monotonic_ns()}")


def topics_of_pages(*, confirms: bool) -> dict[str, dict[str, object]]:
    """Each page shows one topic, and each page of several shows all of `SIDES`."""
    topics: dict[str, dict[str, object]] = {}
    for kind, own in KINDS.items():
        # What is sent again is sent with a confirmation.
        settings = own if confirms else {**own, "refetch": False}
        topics[f"{kind}-{{n}}"] = {"routes": [f"/{kind}/<n>"], **settings}
        for side in SIDES:
            topics[f"{side}-{kind}-{{n}}"] = {"routes": [f"/several/{kind}/<n>"], **settings}
    return topics


def recovers(kind: str) -> bool:
    """Whether who missed a change to such a page is told of it all the same."""
    return KINDS[kind].get("recovery", "next-link") is not None


def showing(value: int) -> bytes:
    """The body of a page: an event, or what a long-poll is answered."""
    return b"data: %d\n\n" % value


def value_in(body: bytes) -> int:
    """The value that a body shows."""
    return int(body.removeprefix(b"data: "))


def rendering(path: str) -> str:
    """The name under which the app is held while the edge has it render a page."""
    return f"rendering {path}"


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the board, shown to nobody yet."""

    board: Board
    kind: str
    name: str

    @property
    def path(self) -> str:
        return f"/{self.kind}/{self.name}"

    @property
    def topic(self) -> str:
        return f"{self.kind}-{self.name}"

    @property
    def url(self) -> str:
        return self.board.edge.url + self.path

    def fetch(self) -> Reply:
        """Ask the cache, as a client that is not held."""
        return request(self.board.edge.cache_url + self.path)

    def fetch_as_proxied(self) -> Reply:
        """Ask the cache for the copy that the GRIP proxy's clients are given."""
        host = f"127.0.0.1:{self.board.edge.client_port}"
        return request(self.board.edge.cache_url + self.path, {"Host": host})

    def shown(self) -> int:
        """The value that the cache shows."""
        return value_in(self.fetch().body)

    def poll(self, tag: str | None = None) -> Reply:
        """Ask as a client that is held if `tag` is that of what there is, until there is news."""
        headers = {} if tag is None else {"If-None-Match": tag}
        return request(self.url, headers, timeout_s=DEADLINE_S)

    def wait_until_passed_on(self, count: int) -> None:
        """Wait until the GRIP proxy has been answered so often."""
        asked = self.board.wire.asked
        wait_until(lambda: sum(link.path == self.path for link in asked) >= count)

    def change(self, value: int) -> None:
        """Change the value, and return when everybody was told."""
        self.commit(value)
        self.submit()
        self.flush()

    def commit(self, value: int) -> None:
        self.board.values[self.path] = value

    def submit(self) -> None:
        self.board.grip_edge.submit(self.topic)

    def flush(self) -> None:
        assert self.board.grip_edge.flush(DEADLINE_S)

    def wait_until_confirmed(self) -> None:
        """Wait until the last change, told already, is confirmed: purged once more, and marked."""
        if not recovers(self.kind) and self.board.confirm_after_s:
            return wait_until(self._is_purged_again)
        return self.wait_until_marked(len(self.board.confirm_after_s))

    def wait_until_marked(self, times: int) -> None:
        """Wait until the last change was confirmed so often."""
        if times:
            wait_until(lambda: self._markers() >= times)

    def _markers(self) -> int:
        items = json.loads(self.board.publishes.with_name(self.topic)[-1].body)["items"]
        last = [item["id"] for item in items if item["channel"] == self.topic][-1]
        return str(last).count(CONFIRMED)

    def _is_purged_again(self) -> bool:
        purge = self.board.purges.with_name(self.topic)[-1]
        return purge.arrived > self.board.publishes.with_name(self.topic)[-1].answered


class OpenGate:
    """The control: no gate. Versions are told all the same."""

    is_local = True

    def __init__(self, gate: Gate) -> None:
        self.versions = gate.versions

    def for_request(self, names: Iterable[str]) -> Gate:
        return self

    def sequence(self) -> int:
        return 0

    def is_unchanged(self, since: int) -> bool:
        return False

    def has_changed(self, keys: Iterable[str], since: int, *, lag: bool = True) -> bool:
        return False


@contextmanager
def board(
    wired: Wired,
    *others: Edge,
    confirm_after_s: float | list[float] = CONFIRM_AFTER_S,
    throttle_s: float = 0.0,
    gate: bool = True,
    store: str | None = None,
) -> Iterator[Board]:
    """Serve a board behind the edge, and behind others that share its cache."""
    with ExitStack() as stack:
        purges = stack.enter_context(Tap(wired.edge.cache_port))
        ports = [edge.control_port for edge in (wired.edge, *others)]
        publishes = [stack.enter_context(Tap(port)) for port in ports]
        served = Board(
            wired,
            purges,
            publishes,
            confirm_after_s=confirm_after_s,
            throttle_s=throttle_s,
            gate=gate,
            store=store,
        )
        stack.callback(served.grip_edge.close)
        stack.enter_context(wsgi_server(served.on_the_wire, wired.edge.app_port))
        wait_until_reached(f"{wired.edge.cache_url}/board/ready")
        yield served


def wait_until(is_true: Callable[[], bool], timeout_s: float = DEADLINE_S) -> None:
    """Poll until something is true."""
    tick = threading.Event()
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline
        tick.wait(0.02)

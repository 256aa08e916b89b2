"""The races between a refill of the cache and its purge, each made to happen on real Varnish.

The app can be held between reading its data and answering, and what is in transit to the cache can
be held too, so each interleaving is a test and not a matter of luck. Each has its control: the same
without what closes it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from clients import request
from launch import Edge
from servers import wait_until_reached, wsgi_server

from grip_edge_middleware import GripEdge

pytestmark = pytest.mark.live

ROUNDS = 20


class HeldApp:
    """An app whose answers show a value, and that can be held at two places."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.holds_answer = False
        self.holds_body = False
        self._has_read = threading.Semaphore(0)
        self._may_go_on = threading.Event()

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        body = b"%d" % self.values.get(environ["PATH_INFO"], 0)
        if self.holds_answer:
            self._wait()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [body]

    def transit(self, app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
        """Between the middleware and the cache: the answer is decided and on its way."""

        def passing(environ: Any, start_response: Any) -> Iterable[bytes]:
            body = list(app(environ, start_response))
            if self.holds_body:
                self._wait()
            return body

        return passing

    def _wait(self) -> None:
        self._has_read.release()
        assert self._may_go_on.wait(20)

    @contextmanager
    def held(self, ask: Callable[[], Any], *, at: str) -> Iterator[Future[Any]]:
        """Have a request wait at a place until the block ends."""
        setattr(self, at, True)
        self._may_go_on.clear()
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(ask)
            assert self._has_read.acquire(timeout=20), answer
            setattr(self, at, False)
            try:
                yield answer
            finally:
                self._may_go_on.set()


class OpenGate:
    """The control: no gate."""

    def sequence(self) -> int:
        return 0

    def has_changed(self, keys: Iterable[str], since: int) -> bool:
        return False

    def versions(self, names: Iterable[str]) -> dict[str, str]:
        return dict.fromkeys(names, "1")


@contextmanager
def served(
    edge: Edge, *, gate: bool, confirm_after: float = 0.0
) -> Iterator[tuple[HeldApp, GripEdge]]:
    app = HeldApp()
    grip_edge = GripEdge(
        settings={
            "cdn": edge.cdn_url,
            "grip_url": None,
            "confirm_after": confirm_after,
            "topics": {"race-{n}": {"routes": ["/race/<n>"], "throttle": 0}},
        }
    )
    face = grip_edge.wsgi(app)
    if not gate:
        face.gate = OpenGate()  # type: ignore[attr-defined]
    with wsgi_server(app.transit(face), edge.app_port):
        wait_until_reached(f"{edge.cache_url}/race/ready")
        yield app, grip_edge
    grip_edge.close()


def stale_after_a_change_in_flight(
    edge: Edge, *, at: str, gate: bool, confirm_after: float = 0.0, first: int
) -> int:
    """Return how many of the pages are old in the cache after all is quiet."""
    stale = 0
    with served(edge, gate=gate, confirm_after=confirm_after) as (app, grip_edge):
        for number in range(first, first + ROUNDS):
            path = f"/race/{number}"

            def ask(path: str = path) -> Any:
                return request(edge.cache_url + path)

            with app.held(ask, at=at):
                app.values[path] = 1
                grip_edge.submit("race-{n}", n=number)
                assert grip_edge.flush(10)
            if confirm_after:
                wait_until_confirmed(grip_edge, rounds=number - first + 1)
            stale += ask().body != b"1"
    return stale


def wait_until_confirmed(grip_edge: GripEdge, *, rounds: int) -> None:
    tick = threading.Event()
    for _ in range(1000):
        counts = grip_edge.health()["counts"]
        if sum(n for event, n in counts.items() if event.startswith("purges ")) == 2 * rounds:
            return
        tick.wait(0.02)
    raise TimeoutError(counts)


def test_a_change_while_the_app_renders_leaves_nothing_old_in_the_cache(edge: Edge) -> None:
    without = stale_after_a_change_in_flight(edge, at="holds_answer", gate=False, first=0)
    with_gate = stale_after_a_change_in_flight(edge, at="holds_answer", gate=True, first=100)

    print(
        f"\nin flight during the purge: {with_gate} of {ROUNDS} stale, {without} without the gate"
    )
    assert without == ROUNDS
    assert with_gate == 0


def test_a_change_while_the_answer_is_in_transit_is_confirmed_away(edge: Edge) -> None:
    without = stale_after_a_change_in_flight(edge, at="holds_body", gate=True, first=200)
    confirmed = stale_after_a_change_in_flight(
        edge, at="holds_body", gate=True, confirm_after=0.2, first=300
    )

    print(f"\nin transit: {confirmed} of {ROUNDS} stale, {without} without the confirm purge")
    assert without == ROUNDS
    assert confirmed == 0

"""The dispatcher's thread against a real server: when things go out, and that nobody waits."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from grip_edge_middleware import GripEdge, dispatcher
from grip_edge_middleware.targets import GRACE_S
from tests.recording import (
    DEADLINE_S,
    Answer,
    Recorded,
    RecordingServer,
    Simulation,
    acknowledge,
    bodies,
)

COUNTER = "counter-{name}"
TOPICS: dict[str, Any] = {
    # No markers, whose time depends on the machine's.
    COUNTER: {"routes": ["/counters/<name>/"], "hold": "stream", "recovery": None}
}


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


@pytest.fixture
def edges() -> Iterator[list[GripEdge]]:
    edges: list[GripEdge] = []
    yield edges
    for edge in edges:
        edge.close()


def edge_for(server: RecordingServer, edges: list[GripEdge], **settings: Any) -> GripEdge:
    edge = GripEdge(
        settings={
            "grip_url": server.url,
            "cdn": server.url.replace("http", "varnish"),
            "topics": TOPICS,
            "flush_timeout": 2.0,
            **settings,
        },
        environ={},
    )
    edges.append(edge)
    return edge


def contents(server: RecordingServer, channel: str) -> list[str]:
    return [
        item["formats"]["http-stream"]["content"]
        for item in server.items
        if item["channel"] == channel
    ]


def down(_: Recorded) -> Answer:
    return Answer(503)


# --- in a thread ------------------------------------------------------------------------------


def test_a_change_goes_out_by_itself(server: RecordingServer, edges: list[GripEdge]) -> None:
    edge = edge_for(server, edges)

    edge.publish(COUNTER, "1", name="blue")

    server.wait_for_channels("counter-blue")
    assert [request.is_purge for request in server.requests] == [True, False]


def test_nothing_starts_before_the_first_change(
    server: RecordingServer, edges: list[GripEdge]
) -> None:
    before = threading.active_count()
    edge_for(server, edges)

    assert threading.active_count() == before
    assert server.connection_count == 0


def test_the_last_of_many_changes_arrives(server: RecordingServer, edges: list[GripEdge]) -> None:
    edge = edge_for(server, edges, throttle=0.05)

    for number in range(2_000):
        edge.publish(COUNTER, str(number), name="blue")

    server.wait_for(lambda _: contents(server, "counter-blue")[-1:] == ["1999"])
    assert edge.flush(DEADLINE_S)
    assert contents(server, "counter-blue")[-1] == "1999"


def test_changes_from_many_threads_all_arrive(
    server: RecordingServer, edges: list[GripEdge]
) -> None:
    edge = edge_for(server, edges)

    def submit(thread: int) -> None:
        for number in range(50):
            edge.publish(COUNTER, "x", name=f"{thread}-{number}")

    threads = [threading.Thread(target=submit, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert edge.flush(DEADLINE_S)
    assert set(server.channels) == {f"counter-{t}-{n}" for t in range(8) for n in range(50)}


def test_changes_in_quick_succession_leave_together(
    server: RecordingServer, edges: list[GripEdge], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "PACE_S", 3_600.0)
    edge, other = edge_for(server, edges), edge_for(server, edges, topics={"other": {}})
    edge.publish(COUNTER, "x", name="first")
    assert edge.flush(DEADLINE_S)

    for number in range(10):
        edge.publish(COUNTER, "x", name=str(number))
        other.submit("other")  # so long takes what would have left at once
        assert other.flush(DEADLINE_S)

    assert edge.flush(DEADLINE_S)
    published = [r.channels for r in server.requests if r.is_publish]
    assert set(server.channels) == {"counter-first", *(f"counter-{n}" for n in range(10))}
    assert len(published) <= 3


def test_the_end_does_not_wait_for_the_pace(
    server: RecordingServer, edges: list[GripEdge], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "PACE_S", 3_600.0)
    edge = edge_for(server, edges, flush_timeout=DEADLINE_S)
    edge.publish(COUNTER, "x", name="first")
    assert edge.flush(DEADLINE_S)
    edge.publish(COUNTER, "x", name="last")

    edge.close()

    assert set(server.channels) == {"counter-first", "counter-last"}
    assert "grip-edge" not in [thread.name for thread in threading.enumerate()]


def test_submit_returns_while_the_target_hangs(
    server: RecordingServer, edges: list[GripEdge]
) -> None:
    server.respond = lambda request: Answer(200, {"Grip-Edge-Purged": "1"}, hangs=True)
    edge = edge_for(server, edges)
    edge.publish(COUNTER, "first", name="blue")
    server.wait_for(lambda seen: len(seen) == 1)

    for number in range(1_000):
        edge.publish(COUNTER, str(number), name="blue")

    assert len(server.requests) == 1
    server.respond = acknowledge
    server.release.set()
    server.wait_for(lambda _: contents(server, "counter-blue")[-1:] == ["999"])


def test_the_last_value_arrives_when_a_target_returns(
    server: RecordingServer, edges: list[GripEdge]
) -> None:
    server.respond = down
    edge = edge_for(server, edges, throttle=0.05)
    edge.publish(COUNTER, "first", name="blue")
    server.wait_for(lambda seen: len(seen) >= 2)
    edge.publish(COUNTER, "last", name="blue")

    server.respond = acknowledge

    server.wait_for(lambda _: contents(server, "counter-blue")[-1:] == ["last"])


@pytest.mark.parametrize(
    "fault",
    [
        Answer(closes=True),
        Answer(raw=b"\x16\x03\x01 garbage\r\n\r\n"),
        Answer(500),
        Answer(200, {}, b"x" * 100_000),
        Answer(503, {"Retry-After": "0"}),
        Answer(503, {"Retry-After": "99999999999999999999 Jan 2026 00:00:00 GMT"}),
    ],
    ids=["closes", "garbage", "500", "huge", "at once", "unreadable retry-after"],
)
def test_a_change_survives_a_faulty_answer(
    server: RecordingServer, edges: list[GripEdge], fault: Answer
) -> None:
    faults = iter([fault])
    server.respond = lambda request: next(faults, None) or acknowledge(request)
    edge = edge_for(server, edges)

    edge.publish(COUNTER, "1", name="blue")

    server.wait_for_channels("counter-blue")


# --- flush and close --------------------------------------------------------------------------


def test_flush_does_not_wait_for_windows(server: RecordingServer, edges: list[GripEdge]) -> None:
    edge = edge_for(server, edges, throttle=3600.0)
    edge.publish(COUNTER, "first", name="blue")
    server.wait_for_channels("counter-blue")
    edge.publish(COUNTER, "last", name="blue")

    assert edge.flush(DEADLINE_S)
    assert contents(server, "counter-blue") == ["first", "last"]


def test_flush_of_nothing_returns_at_once(server: RecordingServer, edges: list[GripEdge]) -> None:
    edge = edge_for(server, edges)

    assert edge.flush(0)
    assert server.requests == []


def test_flush_says_when_it_was_not_in_time(server: RecordingServer, edges: list[GripEdge]) -> None:
    server.respond = lambda request: Answer(200, {"Grip-Edge-Purged": "1"}, hangs=True)
    edge = edge_for(server, edges)
    edge.publish(COUNTER, "1", name="blue")

    assert not edge.flush(0.05)
    server.respond = acknowledge
    server.release.set()
    assert edge.flush(DEADLINE_S)


def test_flush_goes_on_after_a_short_outage(server: RecordingServer, edges: list[GripEdge]) -> None:
    faults = iter([Answer(503), Answer(503)])
    server.respond = lambda request: next(faults, None) or acknowledge(request)
    edge = edge_for(server, edges, throttle=3600.0)
    edge.publish(COUNTER, "1", name="blue")

    assert edge.flush(DEADLINE_S)
    assert contents(server, "counter-blue") == ["1"]


def test_several_threads_can_flush_at_once(server: RecordingServer, edges: list[GripEdge]) -> None:
    edge = edge_for(server, edges, throttle=3600.0)
    results: list[bool] = []

    def flush(number: int) -> None:
        edge.publish(COUNTER, "1", name="blue")
        edge.publish(COUNTER, "1", name=number)
        results.append(edge.flush(DEADLINE_S))

    threads = [threading.Thread(target=flush, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [True] * 8


def test_a_flush_sends_what_came_while_a_slow_cdn_was_asked(
    server: RecordingServer, edges: list[GripEdge]
) -> None:
    """Its topic is claimed until then, and the window lasts an hour."""
    is_asked, may_answer = threading.Event(), threading.Event()

    def answer_late(request: Recorded) -> Answer:
        if request.is_purge and not may_answer.is_set():
            is_asked.set()
            may_answer.wait(DEADLINE_S)
        return acknowledge(request)

    server.respond = answer_late
    edge = edge_for(server, edges, throttle=3600.0)
    edge.publish(COUNTER, "first", name="blue")
    is_asked.wait(DEADLINE_S)
    edge.publish(COUNTER, "last", name="blue")
    assert not edge.flush(5 * GRACE_S)
    may_answer.set()

    assert edge.flush(DEADLINE_S)
    assert bodies(server.items, "counter-blue")[-1] == "last"


def test_close_delivers_what_is_pending(server: RecordingServer, edges: list[GripEdge]) -> None:
    edge = edge_for(server, edges, throttle=3600.0)
    edge.publish(COUNTER, "first", name="blue")
    server.wait_for_channels("counter-blue")
    edge.publish(COUNTER, "last", name="blue")

    edge.close()

    assert contents(server, "counter-blue") == ["first", "last"]


def test_close_confirms_without_the_quiet_period(
    server: RecordingServer, edges: list[GripEdge]
) -> None:
    topics = {COUNTER: {**TOPICS[COUNTER], "recovery": "next-link"}}
    edge = edge_for(server, edges, topics=topics, confirm_after=3600.0)
    edge.publish(COUNTER, "1", name="blue")

    edge.close()

    assert contents(server, "counter-blue") == ["1", ""]


def test_close_waits_for_the_confirmation_of_a_cdn_that_takes_its_time(
    server: RecordingServer, edges: list[GripEdge]
) -> None:
    topics = {COUNTER: {**TOPICS[COUNTER], "recovery": "next-link"}}
    edge = edge_for(server, edges, topics=topics, confirm_after=3600.0, flush_timeout=DEADLINE_S)
    edge.publish(COUNTER, "1", name="blue")
    assert edge.flush(DEADLINE_S)
    server.respond = lambda request: replace(acknowledge(request), hangs=request.is_purge)
    closing = threading.Thread(target=edge.close)
    closing.start()
    server.wait_for(lambda _: len(server.purges) == 2)
    # Longer than another target would be waited for.
    assert not server.release.wait(4 * GRACE_S)
    server.release.set()
    closing.join()

    assert contents(server, "counter-blue") == ["1", ""]


def test_close_ends_the_thread_and_may_be_called_again(
    server: RecordingServer, edges: list[GripEdge]
) -> None:
    before = set(threading.enumerate())
    edge = edge_for(server, edges)
    edge.publish(COUNTER, "1", name="blue")
    server.wait_for_channels("counter-blue")

    edge.close()
    edge.close()

    ours = [thread for thread in set(threading.enumerate()) - before if thread.name == "grip-edge"]
    assert ours == []


def test_close_does_not_wait_forever_for_a_target_that_is_down(
    server: RecordingServer, edges: list[GripEdge], caplog: pytest.LogCaptureFixture
) -> None:
    server.respond = down
    edge = edge_for(server, edges, flush_timeout=0.1)
    edge.publish(COUNTER, "1", name="blue")

    edge.close()

    assert "1 topics were not delivered" in caplog.text


def test_close_gives_up_soon_on_a_target_that_keeps_refusing(
    server: RecordingServer, edges: list[GripEdge], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        cdn = f"varnish://127.0.0.1:{unused.getsockname()[1]}"
        edge = edge_for(server, edges, cdn=cdn, flush_timeout=30)
        edge.publish(COUNTER, "1", name="blue")
        began = time.monotonic()

        edge.close()

    assert time.monotonic() - began < 10
    assert "1 topics were not delivered" in caplog.text


def test_close_publishes_what_was_just_submitted_although_the_cdn_is_down(
    server: RecordingServer, edges: list[GripEdge]
) -> None:
    server.respond = lambda request: down(request) if request.is_purge else acknowledge(request)
    edge = edge_for(server, edges, purge_deadline=0, throttle=3600.0, flush_timeout=30)
    edge.publish(COUNTER, "first", name="blue")
    server.wait_for(lambda seen: sum(request.is_purge for request in seen) > 4)
    edge.publish(COUNTER, "last", name="blue")

    edge.close()

    assert contents(server, "counter-blue") == ["first", "last"]


def test_close_waits_once_for_a_target_that_hangs(
    server: RecordingServer, edges: list[GripEdge], caplog: pytest.LogCaptureFixture
) -> None:
    """Not again for the thread, which hangs with it."""
    server.respond = lambda request: Answer(hangs=True)
    edge = edge_for(server, edges, flush_timeout=1.5)
    edge.publish(COUNTER, "1", name="blue")
    began = time.monotonic()

    edge.close()

    assert time.monotonic() - began < 2.7
    assert "1 topics were not delivered" in caplog.text


def test_close_waits_once_for_a_proxy_that_hangs(
    server: RecordingServer, edges: list[GripEdge], caplog: pytest.LogCaptureFixture
) -> None:
    server.respond = lambda request: (
        acknowledge(request) if request.is_purge else Answer(hangs=True)
    )
    edge = edge_for(server, edges, flush_timeout=1.0)
    edge.publish(COUNTER, "1", name="blue")
    began = time.monotonic()

    edge.close()

    # `timeout` is 5 seconds.
    assert time.monotonic() - began < 3.0
    assert "1 topics were not delivered" in caplog.text


def test_a_proxy_that_hangs_holds_up_neither_the_others_nor_its_own_last_value(
    server: RecordingServer, edges: list[GripEdge]
) -> None:
    with RecordingServer() as slow:
        slow.respond = lambda request: Answer(hangs=True)
        edge = edge_for(server, edges, grip_url=[slow.url, server.url], throttle=0)
        for number in range(3):
            edge.publish(COUNTER, str(number), name="blue")
            server.wait_for(lambda _: contents(server, "counter-blue")[-1:] == [str(number)])  # noqa: B023

        assert len(slow.publishes) == 1
        slow.respond = acknowledge
        slow.release.set()
        assert edge.flush(DEADLINE_S)
        assert contents(slow, "counter-blue") == ["0", "2"]


def test_submit_after_close_does_not_raise_and_says_that_it_is_lost(
    server: RecordingServer, edges: list[GripEdge], caplog: pytest.LogCaptureFixture
) -> None:
    edge = edge_for(server, edges)
    edge.close()

    edge.publish(COUNTER, "1", name="blue")

    assert "after the edge was closed" in caplog.text


# --- bounded ----------------------------------------------------------------------------------


def test_more_topics_than_max_pending_are_purged_together_and_said_once(
    server: RecordingServer, edges: list[GripEdge], caplog: pytest.LogCaptureFixture
) -> None:
    server.respond = down
    edge = edge_for(server, edges, max_pending=10, flush_timeout=0.1)

    for number in range(100):
        edge.publish(COUNTER, "1", name=number)

    assert edge.health()["pending"] <= 10 + 1
    assert edge.health()["counts"]["escalated"] >= 80
    assert edge.health()["counts"]["refused"] == 0
    assert sum("max_pending" in record.getMessage() for record in caplog.records) == 1
    server.respond = acknowledge
    assert edge.flush(DEADLINE_S)
    assert "counter-%all" in {key for request in server.purges for key in request.keys}
    assert any(request.is_recovery for request in server.requests)


def test_a_thread_that_met_a_fault_goes_on(server: RecordingServer, edges: list[GripEdge]) -> None:
    """An app whose status line is no status: our fault to survive, and only its topic's."""

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("OK", [])
        return [b"body"]

    edge = edge_for(server, edges)
    edge.wsgi(app)
    edge.submit(COUNTER, name="strange")
    edge.publish(COUNTER, "1", name="blue")

    server.wait_for_channels("counter-blue")


def test_a_topic_whose_rendering_met_a_fault_can_be_published_later(
    server: RecordingServer, edges: list[GripEdge]
) -> None:
    statuses = iter(["OK"])
    was_called = threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response(next(statuses, "200 OK"), [])
        was_called.set()
        return [b"body"]

    edge = edge_for(server, edges)
    edge.wsgi(app)
    edge.submit(COUNTER, name="strange")
    assert was_called.wait(DEADLINE_S)
    edge.publish(COUNTER, "later", name="strange")

    server.wait_for(lambda _: contents(server, "counter-strange")[-1:] == ["later"], within_s=5)


class Killed(BaseException):
    """As gevent's Timeout and GreenletExit: no Exception."""


@pytest.mark.parametrize("raised", [SystemExit(3), Killed()], ids=["SystemExit", "Killed"])
def test_a_view_that_wants_to_exit_does_not_end_delivery(
    server: RecordingServer, edges: list[GripEdge], raised: BaseException
) -> None:
    calls = iter([raised])
    was_called = threading.Event()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        was_called.set()
        for call in calls:
            raise call
        start_response("200 OK", [])
        return [b"body"]

    edge = edge_for(server, edges)
    edge.wsgi(app)
    edge.submit(COUNTER, name="strange")
    assert was_called.wait(DEADLINE_S)
    edge.publish(COUNTER, "later", name="strange")

    server.wait_for(lambda _: contents(server, "counter-strange")[-1:] == ["later"], within_s=5)


# --- turn by turn, without a thread -----------------------------------------------------------


def simulation(**settings: Any) -> Simulation:
    return Simulation({"cdn": "varnish://varnish:6081", "topics": TOPICS, **settings})


def test_an_idle_dispatcher_needs_no_turn() -> None:
    assert simulation().turn() is None


def test_a_turn_says_when_the_window_ends() -> None:
    sim = simulation(throttle=2.0)
    sim.add(COUNTER, "1", name="blue")
    assert sim.turn() is None
    sim.clock.now += 0.5
    sim.add(COUNTER, "2", name="blue")

    assert sim.turn() == 1_002.0


def test_a_quiet_topic_is_published_at_once_after_its_window() -> None:
    sim = simulation(throttle=2.0)
    sim.add(COUNTER, "1", name="blue")
    sim.turn()
    sim.clock.now += 2.5
    sim.add(COUNTER, "2", name="blue")

    sim.turn()

    assert len(sim.transport.items) == 2


def test_a_turn_of_everything_ignores_windows() -> None:
    sim = simulation(throttle=3600.0)
    for value in ("1", "2"):
        sim.add(COUNTER, value, name="blue")
        sim.dispatcher.turn(sim.clock.now, everything=True)

    assert len(sim.transport.items) == 2


def test_five_thousand_topics_go_out_in_batches_that_keep_to_the_limits() -> None:
    sim = simulation()
    for number in range(5_000):
        sim.add(COUNTER, "x", name=number)

    sim.run_until_idle()

    publishes = [names for kind, names in sim.transport.log if kind == "publish"]
    purges = [request for request in sim.transport.requests if request.method == "PURGEKEYS"]
    assert sum(map(len, publishes)) == 5_000
    assert max(map(len, publishes)) <= 1_000
    assert max(len(request.headers["xkey-purge"]) for request in purges) <= 7_600

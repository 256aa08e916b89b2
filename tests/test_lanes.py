"""Requests under way: what every kind of lanes promises, and what threads add."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from grip_edge_middleware import GripEdge
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.lanes import InlineLanes, Lanes, ThreadLanes
from grip_edge_middleware.transport import MAX_ANSWER_BYTES, Transport
from tests.recording import DEADLINE_S, Outcome, Recorded, RecordingTransport

REQUEST = Request("POST", "http://slow/publish/", {}, b"{}")
OTHER = Request("POST", "http://sound/publish/", {}, b"{}")


class HeldTransport(RecordingTransport):
    """Answers requests to "slow" when `release` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.release = threading.Event()

    def send(self, request: Request, *, max_bytes: int = MAX_ANSWER_BYTES) -> Response:
        if "slow" in request.url:
            assert self.release.wait(DEADLINE_S)
        return super().send(request, max_bytes=max_bytes)


@pytest.fixture
def held() -> Iterator[HeldTransport]:
    transport = HeldTransport()
    yield transport
    transport.release.set()
    for thread in requests():
        thread.join(DEADLINE_S)


def requests() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "grip-edge request"]


# --- the contract -----------------------------------------------------------------------------

KINDS: list[Callable[[Transport], Lanes]] = [InlineLanes, ThreadLanes]


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_comes_with_whose_it_is(kind: Callable[[Transport], Lanes]) -> None:
    lanes = kind(RecordingTransport())
    lanes.start("a", REQUEST)
    lanes.start("b", OTHER)

    answers = [lanes.wait(DEADLINE_S), lanes.wait(DEADLINE_S)]

    assert sorted(answer[0] for answer in answers if answer) == ["a", "b"]
    assert all(answer and answer[1] == Response(200) for answer in answers)


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_is_an_answer(kind: Callable[[Transport], Lanes]) -> None:
    transport = RecordingTransport()
    transport.script("slow", DeliveryError("slow", "refused"))
    lanes = kind(transport)
    lanes.start("a", REQUEST)

    answer = lanes.wait(DEADLINE_S)

    assert answer is not None
    assert isinstance(answer[1], DeliveryError)
    assert answer[1].reason == "refused"


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_no_answer_without_a_request(kind: Callable[[Transport], Lanes]) -> None:
    assert kind(RecordingTransport()).wait(0.0) is None


@pytest.mark.parametrize("kind", KINDS)
def test_closing_closes_the_connections(kind: Callable[[Transport], Lanes]) -> None:
    transport = RecordingTransport()

    kind(transport).close()

    assert transport.is_closed


# --- threads ----------------------------------------------------------------------------------


def test_a_request_that_hangs_holds_up_no_other(held: HeldTransport) -> None:
    lanes = ThreadLanes(held)
    lanes.start("slow", REQUEST)
    lanes.start("sound", OTHER)

    assert lanes.wait(DEADLINE_S) == ("sound", Response(200))
    assert lanes.wait(0.0) is None
    held.release.set()
    assert lanes.wait(DEADLINE_S) == ("slow", Response(200))


def test_a_thread_ends_with_its_request() -> None:
    lanes = ThreadLanes(RecordingTransport())
    lanes.start("a", OTHER)

    lanes.wait(DEADLINE_S)

    for thread in requests():
        thread.join(DEADLINE_S)
    assert requests() == []


def test_what_the_parent_waits_for_is_not_the_childs(held: HeldTransport) -> None:
    lanes = ThreadLanes(held)
    lanes.start("slow", REQUEST)
    [thread] = requests()

    lanes.after_fork()
    held.release.set()
    thread.join(DEADLINE_S)

    assert lanes.wait(0.0) is None


def test_a_fault_of_ours_is_an_answer_too(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Recorded) -> Outcome:
        raise ZeroDivisionError

    transport = RecordingTransport()
    transport.respond = fail
    lanes = ThreadLanes(transport)
    lanes.start("a", OTHER)

    answer = lanes.wait(DEADLINE_S)

    assert answer is not None
    assert str(answer[1]) == "a: cannot be asked: ZeroDivisionError"
    assert "a fault of ours" in caplog.text


def test_where_no_thread_can_be_started_requests_are_sent_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    lanes = ThreadLanes(RecordingTransport())

    lanes.start("a", OTHER)

    assert lanes.wait(0.0) == ("a", Response(200))


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"grip_url": "http://a:1"}, InlineLanes),
        ({"grip_url": "http://a:1", "cdn": "varnish://b:2"}, ThreadLanes),
        ({"regions": {"eu": {"grip_url": ["http://a:1", "http://b:1"]}}}, ThreadLanes),
    ],
)
def test_one_target_alone_needs_no_threads(settings: dict[str, Any], kind: type) -> None:
    edge = GripEdge(settings={"topics": {"counters": {}}, **settings}, environ={})

    assert isinstance(edge._configured.delivery.targets.lanes, kind)
    edge.close()

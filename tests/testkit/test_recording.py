"""An edge that sends nothing while a test looks on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from flask import Flask

from grip_edge_middleware import GripEdge, SettingsError
from grip_edge_middleware.testing import (
    Published,
    Purged,
    assert_not_published,
    assert_nothing_sent,
    assert_published,
    assert_purged,
    recording,
)
from tests.recording import RecordingServer

TOPICS = {"value-{name}": {"routes": ["/values/<name>"], "hold": "stream"}}
# Of nobody: whatever is sent there takes as long as `timeout`, or fails.
SETTINGS: dict[str, Any] = {
    "grip_url": "http://127.0.0.1:9",
    "cdn": "varnish://127.0.0.1:9",
    "topics": TOPICS,
}
PUSHED = "data: 1\n\n"


@pytest.fixture
def edge() -> Iterator[GripEdge]:
    with closing(GripEdge(settings=SETTINGS, environ={})) as edge:
        yield edge


def change(edge: GripEdge, name: str = "a") -> None:
    edge.publish("value-{name}", PUSHED, name=name)


def names_of_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_nothing_leaves_before_it_is_asked_for(edge: GripEdge) -> None:
    with recording(edge) as recorded:
        change(edge)

        assert (recorded.sent, recorded.pending()) == ([], ["value-a"])
        assert "grip-edge" not in names_of_threads()
        recorded.settle()
        assert [str(sent).partition(":")[0] for sent in recorded.sent] == [
            "purge value-a value-%any",
            "publish value-a",
        ]
        assert recorded.pending() == []


def test_a_flush_of_the_app_sends_too(edge: GripEdge) -> None:
    with recording(edge) as recorded:
        change(edge)
        assert edge.flush(1)
        recorded.refuse("varnish")
        change(edge, "b")
        assert not edge.flush(1)  # and does not wait: time stands still

    assert_published(recorded, "value-a")
    assert_not_published(recorded, "value-b")


def test_a_window_is_not_waited_for(edge: GripEdge) -> None:
    with recording(edge) as recorded:
        began = recorded.clock.now
        for _ in range(3):
            change(edge)
            recorded.settle()

    assert_published(recorded, "value-a", times=3)
    assert recorded.clock.now == began


def test_time_ends_a_window(edge: GripEdge) -> None:
    with recording(edge) as recorded:
        change(edge)
        recorded.advance(0)
        change(edge)
        recorded.advance(0.9)
        assert_published(recorded, "value-a", times=1)
        recorded.advance(0.2)

    assert_published(recorded, "value-a", times=2)


def test_confirmations_come_when_they_are_asked_for(edge: GripEdge) -> None:
    with recording(edge) as recorded:
        change(edge)
        recorded.settle()
        assert_purged(recorded, "value-a", times=1)
        recorded.settle(confirmations=True)

    assert_purged(recorded, "value-a", times=3)
    assert_published(recorded, "value-a", times=1)
    assert str(recorded.sent[-1]) == "marker value-a: who missed something asks for it"


def test_a_recording_begins_and_ends_with_nothing_pending(edge: GripEdge) -> None:
    change(edge, "before")
    with recording(edge) as first:
        first.refuse("varnish")
        change(edge)
        first.advance(1)
        assert edge.health()["targets"]["varnish http://127.0.0.1:9"]["failures"]
        change(edge, "left")
    assert edge.health()["pending"] == 0
    with recording(edge) as second:
        second.settle(confirmations=True)

    assert_nothing_sent(second)
    assert not edge.health()["targets"]["varnish http://127.0.0.1:9"]["failures"]


def test_after_a_recording_the_edge_sends_as_before() -> None:
    with RecordingServer() as server:
        url = f"127.0.0.1:{server.port}"
        there = {"grip_url": f"http://{url}", "cdn": f"varnish://{url}", "confirm_after": 0}
        settings = {**SETTINGS, **there}
        with closing(GripEdge(settings=settings, environ={})) as edge:
            change(edge, "before")
            server.wait_for_channels("value-before")
            with recording(edge) as recorded:
                change(edge)
                recorded.settle()
                recorded.advance(100)
            change(edge)
            server.wait_for_channels("value-a")

        assert_published(recorded, "value-a", times=1)
        assert server.channels == ["value-before", "value-a"]


def test_what_refuses_for_a_while_is_asked_again(edge: GripEdge) -> None:
    with recording(edge) as recorded:
        recorded.refuse("varnish", times=2)
        change(edge)
        recorded.settle()

    assert [type(sent) for sent in recorded.sent] == [Purged, Purged, Purged, Published]
    assert_purged(recorded, "value-a", times=1)


def test_what_does_not_settle_is_said(edge: GripEdge) -> None:
    with recording(edge) as recorded:
        recorded.refuse("varnish", status=None)
        recorded.refuse("grip", status=403)
        change(edge)
        with pytest.raises(AssertionError) as error:
            recorded.settle(timeout=0.15)

    assert str(error.value).splitlines() == [
        "not everything was delivered within 0.15 s",
        "  varnish http://127.0.0.1:9 failed 2 times: no answer",
        "sent so far, in order:",
        "  1. purge value-a value-%any  [varnish http://127.0.0.1:9, refused: no answer]",
        "  2. purge value-a value-%any  [varnish http://127.0.0.1:9, refused: no answer]",
        "still pending: value-a; settle() sends it",
        "the edge logged:",
        "  varnish http://127.0.0.1:9: no answer; trying again until it does",
    ]


def test_a_view_that_fails_is_said(edge: GripEdge) -> None:
    def app(environ: Any, start_response: Any) -> Any:
        raise ZeroDivisionError("in the view")

    edge.wsgi(app)
    with recording(edge) as recorded:
        edge.submit("value-{name}", name="a")
        with pytest.raises(AssertionError, match="the app raised ZeroDivisionError: in the view"):
            recorded.settle()


def test_a_target_that_is_not_there_cannot_refuse(edge: GripEdge) -> None:
    with (
        recording(edge) as recorded,
        pytest.raises(LookupError, match=r'"varnsh" \(did you mean "varnish"\?\)'),
    ):
        recorded.refuse("varnsh")


def test_several_targets_are_asked_in_order() -> None:
    settings = {
        **SETTINGS,
        "cdn": ["varnish://inner:6081", "fastly://outer"],
        "regions": {"eu": {"cdn": "varnish://eu:6081", "grip_url": "http://eu:5561"}},
    }
    with (
        closing(GripEdge(settings=settings, environ={"FASTLY_API_TOKEN": "token"})) as edge,
        recording(edge) as recorded,
    ):
        change(edge)
        recorded.settle()

    assert [sent.target for sent in recorded.sent] == [
        "varnish http://inner:6081",
        "fastly outer",
        "grip http://127.0.0.1:9",
        "eu varnish http://eu:6081",
        "eu grip http://eu:5561",
    ]
    assert_purged(recorded, "value-a", times=1)


def test_an_edge_may_get_its_app_later() -> None:
    edge = GripEdge()
    with closing(edge), recording(edge) as recorded:
        assert recorded.pending() == []
        for name in ("first", "second"):
            app = Flask(name)
            app.config["GRIP_EDGE"] = SETTINGS
            edge.init_app(app)
            change(edge, name)
        recorded.settle()

        assert {sent.channel for sent in recorded.publishes} == {"value-first", "value-second"}
        assert "grip-edge" not in names_of_threads()


def test_two_recordings_of_one_edge_are_a_mistake(edge: GripEdge) -> None:
    with recording(edge) as recorded:
        with pytest.raises(RuntimeError, match="already"), recording(edge):
            pass
        change(edge)
        recorded.settle()

    assert_published(recorded, "value-a")


def test_a_shared_store_is_refused(tmp_path: Any) -> None:
    settings = {**SETTINGS, "store": f"sqlite:///{tmp_path}/edge"}
    with closing(GripEdge(settings=settings, environ={})) as edge:
        with pytest.raises(SettingsError, match="GRIP_EDGE_STORE=memory"), recording(edge):
            pass

        with pytest.raises(SettingsError, match="GRIP_EDGE_STORE=memory"), recording(edge):
            pass


def test_no_origin_is_asked() -> None:
    with (
        RecordingServer() as server,
        closing(GripEdge(settings={**SETTINGS, "origin": server.url}, environ={})) as edge,
        recording(edge) as recorded,
    ):
        edge.submit("value-{name}", name="a")
        with pytest.raises(AssertionError, match="no app was wrapped in this process"):
            recorded.settle()

    assert server.requests == []


def test_what_came_before_can_be_cleared(edge: GripEdge) -> None:
    with recording(edge) as recorded:
        change(edge)
        recorded.settle()
        recorded.clear()

        assert_nothing_sent(recorded)


def test_a_change_of_a_thread_counts_once_it_is_made(edge: GripEdge) -> None:
    with recording(edge) as recorded:
        threads = [threading.Thread(target=change, args=(edge, str(n))) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        recorded.settle()

    assert {sent.channel for sent in recorded.publishes} == {f"value-{n}" for n in range(8)}

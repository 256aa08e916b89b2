"""What becomes of the others, and of what comes later, while a target does not answer."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from grip_edge_middleware.changes import Change
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Response
from grip_edge_middleware.targets import GRACE_S
from tests.recording import Outcome, Recorded, Simulation, acknowledged, bodies, recorded

COUNTER = "counter-{name}"
TOPICS = {COUNTER: {"routes": ["/counters/<name>/"], "hold": "stream"}}
TIMED_OUT = DeliveryError("somebody", "no answer within 5 s")


def simulation(**settings: Any) -> Simulation:
    return Simulation(
        {
            "cdn": "varnish://varnish:6081",
            "grip_url": ["http://slow:5561", "http://sound:5561"],
            "topics": TOPICS,
            "throttle": 0,
            **settings,
        }
    )


def published(sim: Simulation, proxy: str) -> list[str]:
    items = [item for request in sim.transport.to(proxy) for item in recorded(request).items]
    return bodies(items, "counter-blue")


# --- a proxy ----------------------------------------------------------------------------------


def test_a_proxy_that_hangs_does_not_hold_up_the_others() -> None:
    sim = simulation()
    sim.lanes.hold("slow")
    sim.add(COUNTER, "1", name="blue")

    sim.turn()

    assert published(sim, "sound") == ["1"]


def test_it_has_one_request_under_way_and_then_gets_the_last_value() -> None:
    sim = simulation()
    sim.lanes.hold("slow")
    for number in range(5):
        sim.add(COUNTER, str(number), name="blue")
        sim.run_for(0.3)

    assert published(sim, "slow") == ["0"]
    assert published(sim, "sound") == ["0", "1", "2", "3", "4"]
    sim.lanes.let_go()
    sim.run_until_idle()
    assert published(sim, "slow") == ["0", "4"]


def test_who_waits_for_it_is_not_overtaken() -> None:
    sim = simulation()
    sim.lanes.hold("slow")
    sim.add(COUNTER, name="blue")
    sim.turn()
    sim.clock.now += 0.1
    sim.add(COUNTER, name="red")
    looks_at = sim.turn()
    sim.lanes.let_go()
    sim.add(COUNTER, name="green")
    sim.turn()

    assert len(sim.transport.to("slow")) == 1
    assert looks_at is not None
    sim.clock.now = looks_at
    sim.turn()
    assert set(recorded(sim.transport.to("slow")[1]).channels) == {"counter-red", "counter-green"}


def test_messages_that_must_not_be_merged_keep_their_order() -> None:
    chat = {COUNTER: {**TOPICS[COUNTER], "coalesce": False}}
    sim = simulation(topics=chat)
    sim.lanes.hold("slow")
    for number in range(4):
        sim.add(COUNTER, str(number), name="blue")
        sim.run_for(0.3)
    sim.lanes.let_go()

    sim.run_until_idle()

    # A proxy drops an id that it has had.
    assert list(dict.fromkeys(published(sim, "slow"))) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("target", ["varnish", "slow"])
def test_what_is_acknowledged_late_is_not_sent_again(target: str) -> None:
    sim = simulation()
    sim.lanes.hold(target)
    sim.add(COUNTER, "1", name="blue")
    sim.run_for(2.0)
    sim.lanes.let_go()

    sim.run_until_idle()

    assert [len(sim.transport.to(name)) for name in ("varnish", "slow", "sound")] == [1, 1, 1]
    assert sim.store.pending() == 0
    counts = sim.metrics.snapshot()
    assert counts["purges varnish http://varnish:6081"] == 1
    assert counts["published grip http://slow:5561"] == 1


def test_what_is_acknowledged_while_others_are_asked_is_not_sent_again() -> None:
    sim = simulation()
    sim.lanes.hold("slow")
    sim.add(COUNTER, "1", name="blue")
    sim.run_for(2.0)

    def respond(request: Recorded) -> Outcome:
        sim.lanes.let_go()
        return acknowledged(request)

    sim.transport.respond = respond
    sim.add(COUNTER, "2", name="red")
    sim.run_until_idle()

    assert published(sim, "slow") == ["1"]
    assert sim.store.pending() == 0


def test_a_late_acknowledgement_is_not_one_of_what_another_process_put_back_since() -> None:
    sim = simulation()
    sim.lanes.hold("slow")
    sim.add(COUNTER, "1", name="blue")
    [claim] = sim.store.claim(sim.clock.now, limit=1)
    [parcel] = sim.delivery.deliver([claim])
    [(put_back, _)] = sim.delivery.waiting([parcel])
    sim.lanes.let_go()
    sim.clock.now += 1.0
    newer = replace(put_back, publications=(replace(put_back.publications[0], version="9"),))

    sim.delivery.deliver([newer])

    assert [item["id"] for item in sim.transport.items[-1:]] == ["9"]
    assert len(sim.transport.to("slow")) == 2


def test_a_late_acknowledgement_is_not_one_of_what_was_escalated_since() -> None:
    sim = simulation()
    [settings] = sim.settings.topics
    sim.lanes.hold("slow")
    for _ in range(2):
        sim.store.add([Change.of_all(settings)], sim.clock.now)
        sim.run_for(0.3)
    sim.lanes.let_go()

    sim.run_until_idle()

    assert len(sim.transport.to("slow:5561/recover/")) == 2


def test_a_proxy_that_hangs_is_no_failure_until_its_time_is_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="grip_edge_middleware")
    sim = simulation()
    sim.transport.script("slow", TIMED_OUT)
    sim.lanes.hold("slow")
    sim.add(COUNTER, "1", name="blue")
    sim.run_for(2.0)

    assert sim.delivery.is_well()
    assert caplog.records == []
    sim.lanes.let_go()
    sim.turn()
    assert not sim.delivery.is_well()
    sim.run_until_idle()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert published(sim, "slow") == ["1", "1"]


def test_waiting_for_it_takes_few_turns() -> None:
    sim = simulation()
    sim.lanes.hold("slow")
    for number in range(50):
        sim.add(COUNTER, name=number)

    assert len(sim.run_for(5.0)) < 40


def test_a_flush_sends_each_topic_once_to_a_proxy_that_takes_its_time() -> None:
    sim = simulation(grip_url="http://slow:5561")
    sim.lanes.take("slow", 3 * GRACE_S)
    for number in range(5_000):
        sim.add(COUNTER, name=str(number))

    sim.dispatcher.turn(sim.clock.now, everything=True)

    channels = [channel for r in sim.transport.to("slow") for channel in recorded(r).channels]
    assert len(channels) == len(set(channels)) == len(sim.renderer.rendered) == 5_000
    assert not sim.store.pending()


def test_nothing_is_rendered_for_a_proxy_that_hangs() -> None:
    sim = simulation(grip_url="http://slow:5561")
    sim.lanes.hold("slow")
    sim.add(COUNTER, name="blue")
    sim.turn()
    sim.add(COUNTER, name="red")

    sim.run_for(1.0)

    assert [path for path, _ in sim.renderer.rendered] == ["/counters/blue/"]


def test_purges_go_on_while_the_only_proxy_hangs() -> None:
    sim = simulation(grip_url="http://slow:5561")
    sim.lanes.hold("slow")
    for name in ("blue", "red"):
        sim.add(COUNTER, name=name)
        sim.run_for(0.1)

    assert [recorded(request).keys[0] for request in sim.transport.to("varnish")] == [
        "counter-blue",
        "counter-red",
    ]


def test_a_proxy_that_is_down_does_not_delay_the_first_change_after_a_quiet_time() -> None:
    sim = simulation(throttle=10.0)
    sim.transport.always("slow", Response(503))
    sim.add(COUNTER, "1", name="blue")
    sim.run_for(60.0)
    sim.add(COUNTER, "2", name="blue")

    sim.turn()

    assert published(sim, "sound") == ["1", "2"]


def test_a_child_process_asks_although_its_parent_waits_for_an_answer() -> None:
    sim = simulation()
    sim.lanes.hold("slow")
    sim.add(COUNTER, "1", name="blue")
    sim.turn()

    sim.dispatcher.after_fork()
    sim.add(COUNTER, "2", name="blue")
    sim.turn()

    assert published(sim, "slow") == ["1", "2"]


# --- a CDN ------------------------------------------------------------------------------------


def test_a_cdn_that_hangs_holds_back_what_is_published() -> None:
    sim = simulation()
    sim.lanes.hold("varnish")
    sim.add(COUNTER, "1", name="blue")
    sim.run_for(4.0)

    assert sim.transport.items == []
    sim.lanes.let_go()
    sim.run_until_idle()
    assert [kind for kind, _ in sim.transport.log] == ["purge", "publish", "publish"]


def test_a_change_during_a_slow_purge_is_purged_after_it() -> None:
    sim = simulation()
    sim.lanes.hold("varnish")
    sim.add(COUNTER, "1", name="blue")
    sim.turn()
    sim.add(COUNTER, "2", name="blue")
    sim.run_for(1.0)
    sim.lanes.let_go()

    sim.run_until_idle()

    once = ["purge", "publish", "publish"]
    assert [kind for kind, _ in sim.transport.log] == [*once, *once]
    assert published(sim, "sound") == ["1", "2"]


def test_changes_that_come_faster_than_purges_are_acknowledged_are_published() -> None:
    """Merged with what came since, a topic would have to be purged anew, for ever."""
    sim = simulation()
    for number in range(10):
        sim.lanes.hold("varnish")
        sim.add(COUNTER, str(number), name="blue")
        sim.run_for(0.2)
        sim.add(COUNTER, f"after {number}", name="blue")
        sim.lanes.let_go()

    assert len(published(sim, "sound")) >= 5


def test_a_cdn_that_fails_and_then_hangs_is_not_waited_for_after_the_deadline() -> None:
    sim = simulation(purge_deadline=10.0)
    sim.transport.script("varnish", TIMED_OUT)
    sim.add(COUNTER, "1", name="blue")
    sim.turn()
    sim.lanes.hold("varnish")

    sim.run_for(9.9)
    assert sim.transport.items == []
    sim.run_for(0.2)
    assert published(sim, "sound") == ["1"]
    assert len(sim.transport.to("varnish")) == 2

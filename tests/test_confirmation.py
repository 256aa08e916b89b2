"""The purge that is repeated after a quiet period, on a simulated clock."""

from __future__ import annotations

from typing import Any

import pytest

from grip_edge_middleware.errors import DeliveryError
from tests.recording import Simulation

COUNTER = "counter-{name}"
TOPICS = {COUNTER: {"routes": ["/counters/<name>/"], "hold": "stream"}}
DOWN = DeliveryError("somebody", "ConnectError: refused")


def simulation(**settings: Any) -> Simulation:
    return Simulation(
        {"cdn": "varnish://varnish:6081", "topics": TOPICS, "confirm_after": 2.0, **settings}
    )


def kinds(sim: Simulation) -> list[str]:
    return [kind for kind, _ in sim.transport.log]


def test_a_purge_is_repeated_once_after_the_quiet_period() -> None:
    sim = simulation()
    sim.add(COUNTER, name="blue")
    sim.turn()

    assert sim.store.next_due() == sim.clock() + 2.0
    sim.run_until_idle()
    assert kinds(sim) == ["purge", "publish", "purge", "publish"]
    assert sim.transport.log[2][1] == sim.transport.log[0][1]


def test_a_marker_follows_the_purge_that_confirms() -> None:
    """Who has the item before it is not disturbed, and who lacks that asks the next link."""
    sim = simulation()
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    item, marker = sim.transport.items
    assert marker == {
        "channel": "counter-blue",
        "id": f"{item['id']}.c",
        "no-seq": True,
        "prev-id": item["id"],
        "formats": {"http-stream": {"content": ""}},
    }
    assert sim.renderer.rendered == [("/counters/blue/", None)]


def test_a_change_may_be_confirmed_soon_and_once_more_to_be_sure() -> None:
    sim = simulation(confirm_after=[0.5, 2.0])
    sim.add(COUNTER, name="blue")
    began = sim.clock.now

    times = sim.run_until_idle()

    assert kinds(sim) == ["purge", "publish"] * 3
    assert [at - began for at in times] == pytest.approx([0.0, 0.5, 2.0])
    item, soon, last = sim.transport.items
    assert (soon["id"], soon["prev-id"]) == (f"{item['id']}.c", item["id"])
    assert (last["id"], last["prev-id"]) == (f"{item['id']}.c.c", soon["id"])


def test_a_change_between_two_confirmations_has_its_own() -> None:
    sim = simulation(confirm_after=[0.5, 2.0])
    sim.add(COUNTER, name="blue")
    sim.turn()
    sim.clock.now += 0.5
    sim.turn()
    sim.clock.now += 1.0
    sim.add(COUNTER, name="blue")
    began = sim.clock.now

    times = sim.run_until_idle()

    assert [at - began for at in times] == pytest.approx([0.0, 0.5, 2.0])
    assert sim.transport.items[2]["prev-id"].endswith(".c")


def test_what_lags_is_not_confirmed_before_it_shows_the_change() -> None:
    sim = simulation(confirm_after=[0.5, 2.0], replica_lag=5.0)
    sim.add(COUNTER, name="blue")
    began = sim.clock.now

    times = sim.run_until_idle()

    assert [at - began for at in times] == pytest.approx([0.0, 5.0])


def test_the_item_after_a_marker_follows_it() -> None:
    sim = simulation()
    sim.add(COUNTER, name="blue")
    sim.run_until_idle()
    sim.add(COUNTER, name="blue")
    sim.turn()

    _, marker, item = sim.transport.items
    assert item["prev-id"] == marker["id"]


def test_a_message_that_only_says_fetch_is_sent_again() -> None:
    """Who heeded the first may have joined a fetch from before the change."""
    topics = {COUNTER: {**TOPICS[COUNTER], "payload": "module:name", "refetch": True}}
    sim = simulation(topics=topics)
    sim.add(COUNTER, "data: fetch\n\n", name="blue")

    sim.run_until_idle()

    assert kinds(sim) == ["purge", "publish", "purge", "publish"]
    first, again = sim.transport.items
    assert again == {**first, "id": f"{first['id']}.c", "prev-id": first["id"]}


def test_of_several_messages_to_fetch_the_last_is_sent_again() -> None:
    topics = {COUNTER: {**TOPICS[COUNTER], "refetch": True, "coalesce": False, "recovery": None}}
    sim = simulation(topics=topics)
    for number in (1, 2):
        sim.add(COUNTER, f"data: {number}\n\n", name="blue")

    sim.run_until_idle()

    assert sim.transport.items[-1]["id"] == f"{sim.transport.items[-2]['id']}.c"
    contents = [item["formats"]["http-stream"]["content"] for item in sim.transport.items]
    assert contents == ["data: 1\n\n", "data: 2\n\n", "data: 2\n\n"]
    assert not any("prev-id" in item for item in sim.transport.items)


def test_a_message_to_fetch_that_could_not_wait_is_sent_again_after_its_purge() -> None:
    """Who heeded the first has fetched what was not purged yet."""
    topics = {COUNTER: {**TOPICS[COUNTER], "refetch": True}}
    sim = simulation(topics=topics, purge_deadline=0)
    sim.transport.script("varnish", DOWN, DOWN)
    sim.add(COUNTER, "data: fetch\n\n", name="blue")

    sim.run_until_idle()

    assert kinds(sim)[-3:] == ["purge", "purge", "publish"]
    first, again = sim.transport.items
    assert again["formats"] == first["formats"]
    assert (again["id"], again["prev-id"]) == (f"{first['id']}.c", first["id"])


def test_the_marker_of_a_long_poll_is_silent() -> None:
    sim = simulation(topics={COUNTER: {**TOPICS[COUNTER], "hold": "response"}})
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    item, marker = sim.transport.items
    assert marker["prev-id"] == item["id"]
    assert marker["formats"] == {"http-response": {"code": 304, "body": ""}}
    assert marker["meta"] == {"require_sub": "%nobody"}


def test_without_recovery_a_purge_alone_confirms() -> None:
    sim = simulation(topics={COUNTER: {**TOPICS[COUNTER], "recovery": None}})
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    assert kinds(sim) == ["purge", "publish", "purge"]
    assert sim.transport.log[2][1] == sim.transport.log[0][1]
    assert "prev-id" not in sim.transport.items[0]


def test_the_quiet_period_begins_with_the_last_change() -> None:
    sim = simulation(throttle=1.0)
    for _ in range(10):
        sim.add(COUNTER, name="blue")
        sim.turn()
        sim.clock.now += 1.0

    sim.run_until_idle()

    assert kinds(sim) == ["purge", "publish"] * 11
    assert [item["id"].endswith(".c") for item in sim.transport.items] == [False] * 10 + [True]


def test_a_change_takes_the_place_of_a_confirmation_that_waits() -> None:
    sim = simulation()
    sim.add(COUNTER, name="blue")
    sim.turn()
    sim.clock.now += 1.9
    sim.add(COUNTER, name="blue")
    sim.turn()

    assert kinds(sim) == ["purge", "publish"] * 2
    assert sim.store.next_due() == sim.clock() + 2.0


def test_confirmations_are_batched() -> None:
    sim = simulation()
    for number in range(100):
        sim.add(COUNTER, name=number)

    sim.run_until_idle()

    assert kinds(sim) == ["purge", "publish", "purge", "publish"]
    assert sorted(sim.transport.log[3][1]) == sorted(sim.transport.log[1][1])


def test_a_confirmation_opens_no_window() -> None:
    sim = simulation(throttle=60.0)
    sim.add(COUNTER, name="blue")
    sim.turn()
    sim.clock.now += 60.0
    sim.turn()
    sim.add(COUNTER, name="blue")

    assert sim.store.next_due() == sim.clock()


def test_a_confirmation_that_is_refused_is_tried_again() -> None:
    sim = simulation()
    sim.add(COUNTER, name="blue")
    sim.turn()
    sim.transport.script("varnish", DOWN, DOWN)

    sim.run_until_idle()

    assert kinds(sim) == ["purge", "publish", "purge", "purge", "purge", "publish"]
    assert sim.store.next_due() is None


def test_a_marker_that_is_refused_is_tried_again_as_it_was() -> None:
    sim = simulation()
    sim.add(COUNTER, name="blue")
    sim.turn()
    sim.transport.script("pushpin", DOWN, DOWN)

    sim.run_until_idle()

    item, *markers = sim.transport.items
    assert kinds(sim) == ["purge", "publish", "purge", *["publish"] * 3]
    assert markers == [markers[0]] * 3
    assert markers[0]["id"] == f"{item['id']}.c"


def test_a_refused_confirmation_does_not_take_the_message_of_a_newer_change() -> None:
    sim = simulation()
    sim.add(COUNTER, name="blue")
    sim.turn()
    sim.clock.now += 2.0
    [confirmation] = sim.store.claim(sim.clock(), limit=10)
    sim.add(COUNTER, "new", name="blue")
    sim.store.postpone(confirmation, sim.clock() + 1.0)

    [claim] = sim.store.claim(sim.clock() + 1.0, limit=10)
    assert not claim.is_confirmation
    assert [publication.message is not None for publication in claim.publications] == [True]


def test_what_waits_for_its_confirmation_is_not_pending() -> None:
    sim = simulation()
    sim.add(COUNTER, name="blue")
    sim.turn()

    assert sim.store.pending() == 0
    assert sim.store.claim(sim.clock(), limit=10, everything=True) == []


def test_confirmations_leave_room_for_changes() -> None:
    sim = simulation(max_pending=2)
    for number in range(6):
        sim.add(COUNTER, name=number)
        sim.turn()

    assert "refused" not in sim.metrics.snapshot()


def test_no_confirmation_is_sent_if_none_is_wanted() -> None:
    sim = simulation(confirm_after=0)
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    assert kinds(sim) == ["purge", "publish"]


def test_while_replicas_lag_no_page_says_the_new_version() -> None:
    sim = simulation(replica_lag=5.0)
    [first] = sim.store.versions(["counter-blue"]).values()
    sim.add(COUNTER, name="blue")
    sim.turn()

    assert sim.store.versions(["counter-blue"]) == {"counter-blue": first}
    sim.clock.now += 5.0
    assert sim.store.versions(["counter-blue"])["counter-blue"] > first


def test_a_confirmation_waits_until_replicas_have_caught_up() -> None:
    sim = simulation(replica_lag=5.0)
    sim.add(COUNTER, name="blue")
    sim.turn()

    assert sim.store.next_due() == sim.clock() + 5.0

"""What goes over the wire for a batch of topics, in which order, and after which failures."""

from __future__ import annotations

import json
import logging
import random
from itertools import pairwise
from typing import Any

import pytest

from grip_edge_middleware.dispatcher import CLAIM_LIMIT
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.purgers.varnish import ACKNOWLEDGEMENT
from tests.recording import Simulation, bodies, recorded

COUNTER = "counter-{name}"
TOPICS = {
    COUNTER: {"routes": ["/counters/<name>/"], "hold": "stream"},
    "counters": {"routes": ["/counters/"], "hold": None},
}
VARNISH = "varnish://varnish:6081"
DOWN = DeliveryError("somebody", "ConnectError: refused")


def simulation(**settings: Any) -> Simulation:
    return Simulation({"cdn": VARNISH, "topics": TOPICS, **settings})


def purged_and_published(sim: Simulation) -> tuple[int, int]:
    kinds = [kind for kind, _ in sim.transport.log]
    return kinds.count("purge"), kinds.count("publish")


# --- the ordinary case ------------------------------------------------------------------------


def test_a_change_is_purged_then_rendered_then_published() -> None:
    sim = simulation()
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    assert [kind for kind, _ in sim.transport.log] == ["purge", "publish"]
    assert sim.transport.log[0][1][0] == "counter-blue"
    assert bodies(sim.transport.items, "counter-blue") == ["/counters/blue/"]
    assert sim.renderer.rendered == [("/counters/blue/", None)]


def test_a_topic_without_a_hold_is_only_purged() -> None:
    sim = simulation()
    sim.add("counters")

    sim.run_until_idle()

    assert sim.transport.log == [("purge", ("counters", *sim.transport.log[0][1][1:]))]
    assert sim.renderer.rendered == []


def test_a_hundred_topics_at_once_take_one_purge_and_one_publish() -> None:
    sim = simulation()
    for number in range(100):
        sim.add(COUNTER, name=number)

    sim.run_until_idle()

    assert purged_and_published(sim) == (1, 1)
    assert len(sim.transport.items) == 100


def test_a_hundred_changes_within_a_window_are_two_purges_and_two_publishes() -> None:
    sim = simulation(throttle=1.0)
    for number in range(100):
        sim.add(COUNTER, f"value {number}", name="blue")
        sim.turn()
        sim.clock.now += 0.009

    sim.run_until_idle()

    assert [kind for kind, _ in sim.transport.log] == ["purge", "publish", "purge", "publish"]
    assert bodies(sim.transport.items, "counter-blue") == ["value 0", "value 99"]


def test_steady_changes_are_not_starved() -> None:
    sim = simulation(throttle=1.0)
    for number in range(1_000):  # 10 seconds
        sim.add(COUNTER, str(number), name="blue")
        sim.turn()
        sim.clock.now += 0.01

    sim.run_until_idle()

    published = bodies(sim.transport.items, "counter-blue")
    assert 10 <= len(published) <= 12
    assert published[-1] == "999"


def test_two_values_that_need_escaping_reach_their_own_channels() -> None:
    sim = simulation()
    sim.add(COUNTER, name="a,b c\r\nX-Evil: 1")
    sim.add(COUNTER, name="blüe;x")

    sim.run_until_idle()

    channels = {item["channel"] for item in sim.transport.items}
    assert channels == {"counter-a%2Cb%20c%0D%0AX-Evil%3A%201", "counter-bl%C3%BCe%3Bx"}
    assert all("\n" not in v for r in sim.transport.requests for v in r.headers.values())


def test_published_versions_of_a_topic_grow() -> None:
    sim = simulation(throttle=0)
    for _ in range(50):
        sim.add(COUNTER, name="blue")
        sim.turn()

    versions = [int(item["id"]) for item in sim.transport.items]
    assert len(versions) == 50
    assert versions == sorted(set(versions))


def test_bytes_that_are_no_text_are_published() -> None:
    sim = simulation()
    sim.add(COUNTER, b"\xff\x00", name="blue")

    sim.run_until_idle()

    assert sim.transport.items[0]["formats"]["http-stream"] == {"content-bin": "/wA="}


def test_fastly_is_given_time_to_settle() -> None:
    sim = simulation(cdn={"fastly": {"service_id": "S1", "token": "t"}})
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    assert sim.clock.pauses == pytest.approx([0.2])
    assert purged_and_published(sim) == (1, 1)


def test_varnish_needs_no_time_to_settle() -> None:
    sim = simulation()
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    assert sim.clock.pauses == []


# --- purge before publish ---------------------------------------------------------------------


def test_every_publish_follows_the_acknowledged_purge_of_its_topic() -> None:
    """A thousand changes at random times, with every third request failing in some way."""
    chance = random.Random(20261123)
    sim = simulation(throttle=0.5, purge_deadline=None)
    failures: list[Response | DeliveryError] = [
        Response(503),
        Response(500),
        Response(200),  # no acknowledgement
        Response(403),
        Response(429, {"retry-after": "1"}),
        DOWN,
    ]
    changed: dict[str, str] = {}
    submitted_at: dict[str, int] = {}
    for number in range(1_000):
        name = str(chance.randrange(20))
        sim.add(COUNTER, f"{number}", name=name)
        changed[f"counter-{name}"] = f"{number}"
        submitted_at[f"{number}"] = len(sim.transport.requests)
        target = chance.choice(["varnish", "pushpin"])
        if chance.random() < 0.3:
            failing = failures if target == "varnish" else failures[-1:]
            sim.transport.script(target, chance.choice(failing))
        sim.clock.now += chance.random() * 0.1
        sim.turn()
    sim.run_until_idle()

    purged_at: dict[str, int] = {}
    last: dict[str, str] = {}
    for position, (request, outcome) in enumerate(
        zip(sim.transport.requests, sim.transport.outcomes, strict=True)
    ):
        seen = recorded(request)
        if seen.is_purge and isinstance(outcome, Response) and outcome.headers.get(ACKNOWLEDGEMENT):
            purged_at.update(dict.fromkeys(seen.keys, position))
        for item in seen.items if seen.is_publish else []:
            last[item["channel"]] = value = item["formats"]["http-stream"]["content"]
            assert purged_at.get(item["channel"], -1) >= submitted_at[value], item
    assert last == changed
    assert sum(isinstance(o, DeliveryError) or o.status != 200 for o in sim.transport.outcomes) > 50


@pytest.mark.parametrize(
    "refusal",
    [
        Response(503),
        Response(403),
        Response(200),
        Response(404, {"grip-edge-purged": "1"}),
        DOWN,
    ],
    ids=["503", "403", "no acknowledgement", "404", "down"],
)
def test_an_unacknowledged_purge_holds_back_the_publish(refusal: Response | DeliveryError) -> None:
    sim = simulation(purge_deadline=None)
    sim.transport.always("varnish", refusal)
    sim.add(COUNTER, name="blue")
    for _ in range(20):
        sim.clock.now = sim.turn() or sim.clock.now

    assert purged_and_published(sim)[1] == 0

    sim.transport.always("varnish", None)
    sim.run_until_idle()

    assert [kind for kind, _ in sim.transport.log][-2:] == ["purge", "publish"]
    assert purged_and_published(sim)[1] == 1


def test_two_cdns_are_purged_in_order() -> None:
    sim = simulation(cdn=["varnish://inner:1", "varnish://outer:2"])
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    hosts = [request.url.split("/")[2] for request in sim.transport.requests]
    assert hosts == ["inner:1", "outer:2", "pushpin:5561"]


def test_a_failing_inner_cdn_stops_the_outer_one_and_the_publish() -> None:
    sim = simulation(cdn=["varnish://inner:1", "varnish://outer:2"])
    sim.transport.always("inner", Response(503))
    sim.add(COUNTER, name="blue")
    for _ in range(5):
        sim.clock.now = sim.turn() or sim.clock.now

    assert sim.transport.to("outer") == []
    assert sim.transport.to("pushpin") == []

    sim.transport.always("inner", None)
    sim.run_until_idle()

    hosts = [request.url.split("/")[2] for request in sim.transport.requests]
    assert hosts[-3:] == ["inner:1", "outer:2", "pushpin:5561"]


def test_a_failing_outer_cdn_alone_is_asked_again() -> None:
    sim = simulation(cdn=["varnish://inner:1", "varnish://outer:2"])
    sim.transport.script("outer", Response(503), DOWN)
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    hosts = [request.url.split("/")[2] for request in sim.transport.requests]
    assert hosts == ["inner:1", "outer:2", "outer:2", "outer:2", "pushpin:5561"]


def test_a_change_during_a_retry_is_purged_again_at_every_cdn() -> None:
    """What the inner tier kept in the meantime was rendered before the second change."""
    sim = simulation(cdn=["varnish://inner:1", "varnish://outer:2"])
    sim.transport.script("outer", Response(503))
    sim.add(COUNTER, "first", name="blue")
    sim.turn()
    sim.add(COUNTER, "second", name="blue")

    sim.run_until_idle()

    hosts = [request.url.split("/")[2] for request in sim.transport.requests]
    assert hosts == ["inner:1", "outer:2", "inner:1", "outer:2", "pushpin:5561"]
    assert bodies(sim.transport.items, "counter-blue") == ["second"]


def test_what_misses_only_the_outer_cdn_reaches_it_although_the_inner_one_failed_others() -> None:
    """Those others are not in its batch, so nothing in it has to wait for the inner one."""
    sim = simulation(cdn=["varnish://inner:1", "varnish://outer:2"], grip_url=None)
    for number in range(CLAIM_LIMIT):
        sim.add(COUNTER, name=number)
    sim.transport.script("outer", DOWN)
    sim.turn()
    sim.clock.now += 0.01
    sim.add(COUNTER, name="late")  # due before the others' next try, so in a batch with most
    sim.clock.now = sim.turn() or 0.0
    sim.transport.script("inner", DOWN)

    sim.run_until_idle(at_most=20)

    reached = {key for request in sim.transport.to("outer") for key in recorded(request).keys}
    assert {"counter-0", f"counter-{CLAIM_LIMIT - 1}", "counter-late"} <= reached
    assert sum(isinstance(outcome, DeliveryError) for outcome in sim.transport.outcomes) == 2


# --- a CDN that is not waited for any longer -------------------------------------------------


def test_a_publish_waits_for_its_purge_until_the_deadline_and_no_longer() -> None:
    sim = simulation(purge_deadline=10.0)
    sim.transport.always("varnish", DOWN)
    sim.add(COUNTER, name="blue")

    sim.run_for(9.9)
    assert sim.transport.items == []
    sim.run_for(0.2)
    assert bodies(sim.transport.items, "counter-blue") == ["/counters/blue/"]


def test_the_deadline_comes_although_the_cdn_asks_for_more_time() -> None:
    sim = simulation(purge_deadline=10.0)
    sim.transport.always("varnish", Response(429, {"retry-after": "300"}))
    sim.add(COUNTER, name="blue")

    sim.run_for(10.1)

    assert len(sim.transport.items) == 1
    assert len(sim.transport.to("varnish")) == 1


def test_a_purge_that_came_late_is_still_made_and_then_confirmed_at_once() -> None:
    sim = simulation(purge_deadline=10.0, confirm_after=2.0)
    sim.transport.always("varnish", DOWN)
    sim.add(COUNTER, name="blue")
    sim.run_for(30.0)
    assert (len(sim.transport.items), sim.store.pending()) == (1, 1)
    sim.transport.always("varnish", None)
    before = len(sim.transport.log)

    times = sim.run_until_idle()

    kinds = [kind for kind, _ in sim.transport.log[before:]]
    item, marker = sim.transport.items
    assert kinds == ["purge", "purge", "publish"]
    assert marker["id"] == f"{item['id']}.c"
    assert times[-1] - times[0] < 1.5
    assert sim.store.pending() == 0


def test_what_was_on_its_way_is_given_its_time_although_the_deadline_is_short() -> None:
    sim = simulation(purge_deadline=0, confirm_after=2.0)
    sim.transport.script("varnish", DOWN)
    sim.add(COUNTER, name="blue")

    times = sim.run_until_idle()

    assert [kind for kind, _ in sim.transport.log] == [
        *("purge", "publish"),  # the first was refused
        *("purge", "purge", "publish"),
    ]
    assert times[-1] - times[0] == pytest.approx(2.0)


def test_changes_are_published_once_a_window_while_the_cdn_is_down() -> None:
    sim = simulation(purge_deadline=10.0, throttle=4.0)
    sim.transport.always("varnish", DOWN)
    sim.add(COUNTER, "0", name="blue")
    sim.run_for(20.0)
    for number in range(1, 41):
        sim.add(COUNTER, str(number), name="blue")
        sim.run_for(0.5)
    sim.transport.always("varnish", None)
    sim.run_until_idle()

    published = bodies(sim.transport.items, "counter-blue")
    assert 6 <= len(published) <= 7
    assert published[-1] == "40"


def test_each_version_follows_the_one_published_before_it_while_the_cdn_is_down() -> None:
    sim = simulation(purge_deadline=10.0, throttle=0)
    sim.transport.always("varnish", DOWN)
    for number in range(4):
        sim.add(COUNTER, str(number), name="blue")
        sim.run_for(11.0)
    sim.transport.always("varnish", None)
    sim.add(COUNTER, "4", name="blue")
    sim.run_until_idle()

    items = sim.transport.items
    assert [item["prev-id"] for item in items[1:]] == [item["id"] for item in items[:-1]]
    assert bodies(items, "counter-blue") == ["0", "1", "2", "3", "4"]


def test_a_cdn_that_is_down_costs_one_request_and_one_turn_a_second() -> None:
    sim = simulation(purge_deadline=10.0)
    sim.transport.always("varnish", DOWN)
    for number in range(5 * CLAIM_LIMIT):
        sim.add(COUNTER, name=number)
    sim.run_for(20.0)
    asked = len(sim.transport.to("varnish"))

    times = sim.run_for(60.0)

    assert len(sim.transport.to("varnish")) - asked <= 80
    assert len(times) <= 2 * 80
    assert len(sim.transport.items) == 5 * CLAIM_LIMIT


def test_what_is_never_published_is_purged_in_the_end() -> None:
    sim = simulation(purge_deadline=10.0)
    sim.transport.always("varnish", DOWN)
    sim.renderer.answers["/counters/big/"] = DeliveryError("render", "too large", is_final=True)
    sim.add("counters")
    sim.add(COUNTER, name="big")
    sim.run_for(30.0)
    sim.transport.always("varnish", None)

    assert sim.store.pending() == 2
    sim.run_until_idle()
    assert {"counters", "counter-big"} <= set(sim.transport.log[-1][1])
    assert sim.store.pending() == 0


def test_only_the_proxy_that_misses_it_is_published_to_while_a_cdn_is_down() -> None:
    sim = simulation(purge_deadline=0, grip_url=["http://broken:5561", "http://sound:5561"])
    sim.transport.always("varnish", DOWN)
    sim.transport.script("broken", *[DOWN] * 3)
    sim.add(COUNTER, name="blue")
    sim.run_for(30.0)
    sim.transport.always("varnish", None)
    sim.run_until_idle()

    assert (len(sim.transport.to("broken")), len(sim.transport.to("sound"))) == (4, 1)
    assert sim.store.pending() == 0


def test_an_inner_cdn_that_is_down_does_not_hold_back_publishes_nor_purge_the_outer_one() -> None:
    sim = simulation(purge_deadline=10.0, cdn=["varnish://inner:1", "varnish://outer:2"])
    sim.transport.always("inner", DOWN)
    sim.add(COUNTER, name="blue")
    sim.run_for(11.0)

    assert (len(sim.transport.items), len(sim.transport.to("outer"))) == (1, 0)
    sim.transport.always("inner", None)
    sim.run_until_idle()
    assert len(sim.transport.to("outer")) == 1


def test_a_cdn_that_has_just_failed_is_waited_for_although_another_is_not() -> None:
    sim = simulation(purge_deadline=10.0, cdn=["varnish://inner:1", "varnish://outer:2"])
    sim.transport.always("outer", DOWN)
    sim.add(COUNTER, name="blue")
    sim.run_for(20.0)
    sim.transport.always("inner", DOWN)
    sim.add(COUNTER, name="red")

    sim.run_for(5.0)
    assert [item["channel"] for item in sim.transport.items] == ["counter-blue"]
    sim.run_for(10.0)
    assert [item["channel"] for item in sim.transport.items] == ["counter-blue", "counter-red"]


# --- more topics than there is room for ------------------------------------------------------


def overflown(template: str = COUNTER, **settings: Any) -> Simulation:
    """Return a simulation whose CDN is down and whose store is full twice over."""
    topics = {**TOPICS, "page-{name}": {"routes": ["/pages/<name>/"]}}
    sim = simulation(max_pending=10, topics=topics, **settings)
    sim.transport.always("varnish", DOWN)
    for number in range(20):
        sim.add(template, name=number)
    sim.run_for(30.0)
    return sim


def test_topics_without_room_are_purged_by_their_type_and_then_their_clients_catch_up() -> None:
    sim = overflown(confirm_after=2.0)
    assert ("recover", ()) not in sim.transport.log
    assert len(sim.transport.items) == 10  # the others are published before their purge
    before = len(sim.transport.log)
    sim.transport.always("varnish", None)
    sim.run_until_idle()

    log = sim.transport.log[before:]
    purged = {key for kind, keys in log if kind == "purge" for key in keys}
    assert {f"counter-{number}" for number in range(10)} <= purged
    assert "counter-11" not in purged
    assert sim.store.pending() == 0
    # At the return, and for what was on its way to the cache then.
    of_the_type = [position for position, (_, keys) in enumerate(log) if "counter-%all" in keys]
    recoveries = [position for position, (kind, _) in enumerate(log) if kind == "recover"]
    assert len(of_the_type) == len(recoveries) == 2
    assert all(purge < recover for purge, recover in zip(of_the_type, recoveries, strict=True))


def test_clients_are_not_told_to_catch_up_with_what_is_only_cached() -> None:
    sim = overflown("page-{name}")
    sim.transport.always("varnish", None)
    sim.run_until_idle()

    assert any("page-%all" in keys for _, keys in sim.transport.log)
    assert ("recover", ()) not in sim.transport.log


def test_a_proxy_that_is_down_is_told_later_that_its_clients_must_catch_up() -> None:
    sim = overflown(grip_url=["http://broken:5561", "http://sound:5561"])
    sim.transport.always("varnish", None)
    sim.transport.always("broken", DOWN)
    sim.run_for(10.0)
    sim.transport.always("broken", None)
    sim.run_until_idle()

    recovered = [r.url for r in sim.transport.requests if r.url.endswith("/recover/")]
    assert recovered.count("http://sound:5561/recover/") == 1
    assert recovered[-1] == "http://broken:5561/recover/"
    assert sim.store.pending() == 0


@pytest.mark.parametrize("status", [404, 405])
def test_a_proxy_that_cannot_have_clients_catch_up_is_asked_once(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    sim = overflown()
    sim.transport.always("varnish", None)
    sim.transport.always("/recover/", Response(status))
    sim.run_until_idle()

    assert len(sim.transport.to("/recover/")) == 1
    assert sim.store.pending() == 0
    assert sim.delivery.is_well()
    assert f"answered {status} to /recover/" in caplog.text


# --- failing proxies --------------------------------------------------------------------------


def test_a_failing_proxy_does_not_hold_up_the_other() -> None:
    sim = simulation(grip_url=["http://broken:5561", "http://sound:5561"])
    sim.transport.always("broken", Response(503))
    sim.add(COUNTER, name="blue")

    sim.turn()

    assert len(sim.transport.to("broken")) == 1
    assert len(sim.transport.to("sound")) == 1


def test_only_the_failing_proxy_is_asked_again() -> None:
    sim = simulation(grip_url=["http://broken:5561", "http://sound:5561"])
    sim.transport.script("broken", Response(503), DOWN, Response(502))
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    assert len(sim.transport.to("broken")) == 4
    assert len(sim.transport.to("sound")) == 1
    assert len(sim.transport.to("varnish")) == 1


def test_a_proxy_that_is_down_does_not_open_the_window_of_the_sound_one() -> None:
    sim = simulation(grip_url=["http://broken:5561", "http://sound:5561"], throttle=10.0)
    sim.transport.always("broken", DOWN)
    for _ in range(50):
        sim.add(COUNTER, name="blue")
        sim.run_for(0.1)

    assert len(sim.transport.to("sound")) == 1
    sim.run_for(10.0)
    assert len(sim.transport.to("sound")) == 2
    assert len(sim.transport.to("varnish")) == 2


def test_what_nobody_has_does_not_wait_for_the_window() -> None:
    sim = simulation(throttle=60.0)
    sim.transport.script("varnish", DOWN)
    sim.add(COUNTER, name="blue")
    sim.turn()
    sim.add(COUNTER, name="blue")

    sim.run_for(1.0)
    assert len(sim.transport.items) == 1


def test_changes_of_other_topics_reach_the_sound_proxy_while_one_is_down() -> None:
    sim = simulation(grip_url=["http://broken:5561", "http://sound:5561"], throttle=0)
    sim.transport.always("broken", DOWN)
    for number in range(10):
        sim.add(COUNTER, name=number)
        sim.turn()
        sim.clock.now += 0.001

    assert len(sim.transport.to("sound")) == 10


def test_a_retry_carries_the_same_id() -> None:
    sim = simulation()
    sim.transport.script("pushpin", DOWN)
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    first, second = sim.transport.items
    assert first["id"] == second["id"]


def test_a_topic_without_a_hold_does_not_wait_for_a_dead_proxy() -> None:
    sim = simulation()
    sim.transport.always("pushpin", DOWN)
    sim.add(COUNTER, name="blue")
    sim.turn()
    sim.add("counters")

    sim.turn()

    assert sim.transport.log[-1][1][0] == "counters"
    assert sim.store.pending() == 1  # counter-blue


def test_nothing_is_rendered_while_every_proxy_rests() -> None:
    sim = simulation(grip_url=["http://one:5561", "http://two:5561"])
    for proxy in ("one", "two"):
        sim.transport.script(proxy, Response(503, {"retry-after": "60"}))
    sim.add(COUNTER, name="blue")
    sim.turn()
    sim.add(COUNTER, name="red")

    sim.turn()

    assert sim.renderer.rendered == [("/counters/blue/", None)]
    sim.run_until_idle()
    assert len(sim.renderer.rendered) == 3
    assert bodies(sim.transport.items, "counter-red") == ["/counters/red/"] * 2


# --- when a refusal is tried again ------------------------------------------------------------


@pytest.mark.parametrize("target", ["varnish", "pushpin"])
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(target: str, status: int) -> None:
    sim = simulation()
    sim.transport.script(target, Response(status, {"retry-after": "37"}))
    sim.add(COUNTER, name="blue")

    times = sim.run_until_idle()

    # A turn that only notices who rests asks nobody.
    assert len(sim.transport.to(target)) == 2
    assert times[-1] - times[0] == pytest.approx(37)


def test_an_absurd_retry_after_is_cut() -> None:
    sim = simulation()
    sim.transport.script("varnish", Response(503, {"retry-after": "99999999"}))
    sim.add(COUNTER, name="blue")

    times = sim.run_until_idle()

    assert times[-1] - times[0] == pytest.approx(600)


@pytest.mark.parametrize(
    "nonsense", ["soon", "", "-1", "1e9", "Mon, 32 Jan 2026", "99999999999999999999 Jan 2026 0:0:0"]
)
def test_a_retry_after_that_makes_no_sense_is_ignored(nonsense: str) -> None:
    sim = simulation()
    sim.transport.script("varnish", Response(503, {"retry-after": nonsense}))
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    assert purged_and_published(sim) == (2, 1)


def test_the_pauses_between_retries_grow_to_a_limit() -> None:
    sim = simulation(purge_deadline=None)
    sim.transport.script("varnish", *[DOWN] * 12)
    sim.add(COUNTER, name="blue")

    times = sim.run_until_idle()

    # The turn right after a failure only notices who rests.
    waits = [later - sooner for sooner, later in pairwise(times) if later > sooner]
    assert len(waits) == 12
    assert 0.08 <= waits[0] <= 0.12
    assert max(waits) <= 1.2
    assert waits[2] > waits[0]


def test_a_refused_token_is_not_asked_again_every_second() -> None:
    sim = simulation(cdn={"fastly": {"service_id": "S1", "token": "t"}})
    sim.transport.script("api.fastly.com", *[Response(401)] * 12)
    sim.add(COUNTER, name="blue")

    times = sim.run_until_idle()

    assert max(later - sooner for sooner, later in pairwise(times)) > 20


def test_waiting_for_a_target_takes_no_turns_meanwhile() -> None:
    sim = simulation()
    sim.transport.script("pushpin", Response(503, {"retry-after": "100"}))
    for number in range(50):
        sim.add(COUNTER, name=number)

    assert len(sim.run_until_idle()) <= 3


# --- how a target fares ----------------------------------------------------------------------


def test_a_target_is_failing_and_then_down_and_then_well_again() -> None:
    sim = simulation()
    sim.transport.script("varnish", *[DOWN] * 5)
    sim.add(COUNTER, name="blue")
    states = [sim.delivery.targets.states["varnish http://varnish:6081"].state]
    for _ in range(20):
        sim.clock.now = sim.turn() or sim.clock.now
        states.append(sim.delivery.targets.states["varnish http://varnish:6081"].state)

    assert list(dict.fromkeys(states)) == ["ok", "failing", "down"]
    assert states[-1] == "ok"


def test_a_target_fails_since_the_first_failure_in_a_row() -> None:
    sim = simulation()
    sim.transport.script("varnish", *[DOWN] * 5)
    sim.add(COUNTER, name="blue")
    began = sim.clock.now
    for _ in range(4):
        sim.clock.now = sim.turn() or sim.clock.now

    assert sim.clock.now > began
    assert sim.delivery.targets.states["varnish http://varnish:6081"].failing_since == began


def test_only_a_failing_cdn_leaves_pages_unpurged() -> None:
    sim = simulation()
    sim.transport.script("pushpin", DOWN)
    sim.add(COUNTER, name="blue")
    sim.turn()

    assert sim.delivery.can_purge()
    sim.transport.script("varnish", DOWN)
    sim.add(COUNTER, name="red")
    sim.turn()
    assert not sim.delivery.can_purge()
    sim.run_until_idle()
    assert sim.delivery.can_purge()


def test_a_child_process_knows_of_no_failure() -> None:
    sim = simulation()
    sim.transport.script("varnish", DOWN)
    sim.add(COUNTER, name="blue")
    sim.turn()

    sim.dispatcher.after_fork()

    assert sim.delivery.can_purge()


# --- items that are refused -------------------------------------------------------------------


def test_one_bad_item_is_isolated() -> None:
    sim = simulation()
    # All three together, then each by itself: the second is the bad one.
    sim.transport.script("pushpin", Response(400), Response(200), Response(400), Response(200))
    for name in ("a", "b", "c"):
        sim.add(COUNTER, name=name)

    sim.run_until_idle()

    assert [names for kind, names in sim.transport.log if kind == "publish"] == [
        ("counter-a", "counter-b", "counter-c"),
        ("counter-a",),
        ("counter-b",),
        ("counter-c",),
    ]
    assert sim.store.pending() == 0
    assert sim.metrics.snapshot()["given_up grip http://pushpin:5561"] == 1


def test_a_proxy_that_goes_down_during_isolation_is_left_alone() -> None:
    """Else each of a thousand items waits for its own timeout, and all delivery with them."""
    sim = simulation()
    sim.transport.script("pushpin", Response(400), Response(200), *[DOWN] * 98)
    for number in range(100):
        sim.add(COUNTER, name=number)

    sim.turn()

    assert len(sim.transport.to("pushpin")) == 3


def test_a_delta_that_fails_during_isolation_is_sent_again() -> None:
    topics = {**TOPICS, "chat": {"routes": ["/chat/"], "hold": "stream", "coalesce": False}}
    sim = simulation(topics=topics)
    sim.add("chat", "one")
    sim.add("chat", "two")
    sim.add(COUNTER, "bad", name="bad")
    sim.transport.script("pushpin", Response(400), Response(200), Response(503), Response(400))

    sim.run_until_idle()

    accepted = [item for request in [sim.transport.requests[2]] for item in _items(request)]
    later = [item for request in sim.transport.to("pushpin")[3:] for item in _items(request)]
    assert bodies(accepted, "chat") == ["one"]
    assert "two" in bodies(later, "chat")


def test_a_delta_is_not_overtaken_when_an_earlier_one_fails() -> None:
    topics = {**TOPICS, "chat": {"routes": ["/chat/"], "hold": "stream", "coalesce": False}}
    sim = simulation(topics=topics)
    sim.add("chat", "one")
    sim.add("chat", "two")
    sim.add(COUNTER, "bad", name="bad")
    sim.transport.script("pushpin", Response(400), Response(503))

    sim.run_until_idle()

    after_failure = [item for r in sim.transport.to("pushpin")[2:] for item in _items(r)]
    assert bodies(after_failure, "chat")[:2] == ["one", "two"]


def _items(request: Request) -> list[dict[str, Any]]:
    return list(json.loads(request.body)["items"])


# --- what cannot be rendered ------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 401, 403, 500, 503])
def test_a_route_that_fails_is_tried_again_and_then_left_alone(status: int) -> None:
    sim = simulation()
    sim.renderer.answers["/counters/blue/"] = Response(status)
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    assert purged_and_published(sim) == (1, 0)
    assert 2 <= len(sim.renderer.rendered) <= 20
    assert sim.metrics.snapshot()["given_up render"] == 1


def test_a_route_that_recovers_is_published() -> None:
    sim = simulation()
    sim.renderer.answers["/counters/blue/"] = Response(503)
    sim.add(COUNTER, name="blue")
    sim.clock.now = sim.turn() or 0.0
    sim.renderer.answers.clear()

    sim.run_until_idle()

    assert purged_and_published(sim) == (1, 1)


def test_a_route_that_fails_does_not_hold_up_the_others() -> None:
    sim = simulation()
    sim.renderer.answers["/counters/bad/"] = DeliveryError("render", "boom")
    for name in ("bad", "good"):
        sim.add(COUNTER, name=name)

    sim.turn()

    assert [item["channel"] for item in sim.transport.items] == ["counter-good"]


def test_a_route_that_can_never_be_rendered_is_not_tried_again() -> None:
    sim = simulation()
    sim.renderer.answers["/counters/big/"] = DeliveryError("render", "too large", is_final=True)
    sim.add(COUNTER, name="big")

    sim.run_until_idle()

    assert len(sim.renderer.rendered) == 1
    assert sim.store.pending() == 0


@pytest.mark.parametrize("status", [404, 410])
def test_a_page_that_is_gone_closes_its_streams(status: int) -> None:
    sim = simulation()
    sim.renderer.answers["/counters/blue/"] = Response(status, {}, b"Not Found")
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    assert sim.transport.items[0]["formats"] == {"http-stream": {"action": "close"}}


def test_a_page_that_is_gone_answers_its_long_polls() -> None:
    sim = simulation(topics={COUNTER: {"routes": ["/counters/<name>/"], "hold": "response"}})
    sim.renderer.answers["/counters/blue/"] = Response(404, {}, b"Not Found")
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    assert sim.transport.items[0]["formats"]["http-response"]["code"] == 404


def test_each_kind_of_hold_gets_the_answer_of_its_own_route() -> None:
    routes = [
        {"path": "/counters/<name>/", "hold": "response"},
        {"path": "/counters/<name>/", "hold": "stream", "accept": "text/event-stream"},
    ]
    sim = simulation(topics={COUNTER: {"routes": routes}})
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    assert set(sim.transport.items[0]["formats"]) == {"http-stream", "http-response"}
    assert ("/counters/blue/", "text/event-stream") in sim.renderer.rendered


def test_what_is_rendered_is_rendered_after_the_purge() -> None:
    sim = simulation()
    sim.transport.always("varnish", DOWN)
    sim.add(COUNTER, name="blue")
    sim.turn()

    assert sim.renderer.rendered == []


def test_a_fault_of_the_renderer_does_not_lose_the_topic() -> None:
    """Whatever is raised, the topic must be claimable again."""
    sim = simulation()
    sim.renderer.answers["/counters/blue/"] = ZeroDivisionError("a bug")
    sim.add(COUNTER, name="blue")
    try:
        sim.turn()
    except ZeroDivisionError:
        sim.clock.now += 1.0
    sim.renderer.answers.clear()
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    assert bodies(sim.transport.items, "counter-blue")[-1:] == ["/counters/blue/"]
    assert sim.store.pending() == 0


def test_a_fault_of_the_renderer_is_its_own_topics_alone() -> None:
    sim = simulation()
    sim.renderer.answers["/counters/bad/"] = ZeroDivisionError("a bug")
    for name in ("a", "bad", "z"):
        sim.add(COUNTER, name=name)

    sim.turn()

    assert [item["channel"] for item in sim.transport.items] == ["counter-a", "counter-z"]
    sim.run_until_idle()
    assert sim.store.pending() == 0
    assert sim.metrics.snapshot()["given_up render"] == 1


def test_a_topic_whose_payload_failed_and_whose_route_does_not_follow_from_it_is_only_purged() -> (
    None
):
    chat = {"routes": [{"path": "/chat/<page>/", "hold": "stream"}], "payload": str}
    sim = simulation(topics={**TOPICS, "chat": chat})
    sim.add("chat")
    sim.add(COUNTER, name="blue")

    sim.run_until_idle(at_most=5)

    assert {"chat", "counter-blue"} <= set(sim.transport.log[0][1])
    assert [item["channel"] for item in sim.transport.items] == ["counter-blue"]
    assert sim.store.pending() == 0


def test_slow_routes_do_not_hold_up_the_purges_of_the_next_turn() -> None:
    sim = simulation()
    sim.renderer.takes_s = 3.0  # two of them exceed the budget of 5
    for name in "abcde":
        sim.add(COUNTER, name=name)

    next_turn = sim.turn()

    assert next_turn is not None
    assert next_turn <= sim.clock.now
    assert {f"counter-{name}" for name in "abcde"} <= set(sim.transport.log[0][1])
    assert [item["channel"] for item in sim.transport.items] == ["counter-a", "counter-b"]
    sim.add(COUNTER, name="new")
    sim.run_until_idle()
    kinds = [kind for kind, _ in sim.transport.log]
    assert kinds == ["purge", "publish", "purge", "publish", "publish"]
    assert {item["channel"] for item in sim.transport.items} == {
        "counter-new",
        *(f"counter-{name}" for name in "abcde"),
    }


# --- what is logged ---------------------------------------------------------------------------


def test_an_outage_is_logged_once_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="grip_edge_middleware")
    sim = simulation()
    sim.transport.script("varnish", *[DOWN] * 10)
    for number in range(10):
        sim.add(COUNTER, name=number)

    sim.run_until_idle()

    lines = [record for record in caplog.records if record.name.startswith("grip_edge")]
    assert [record.levelname for record in lines] == ["WARNING", "INFO"]
    assert "varnish http://varnish:6081" in lines[0].getMessage()
    fields = [{n: v for n, v in vars(r).items() if n.startswith("grip_edge")} for r in lines]
    target = "varnish http://varnish:6081"
    assert fields == [
        {"grip_edge_target": target, "grip_edge_reason": "ConnectError: refused"},
        {"grip_edge_target": target, "grip_edge_failures": 10},
    ]


def test_success_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="grip_edge_middleware")
    sim = simulation()
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    assert caplog.records == []


def test_no_token_is_ever_logged_or_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sim = simulation(
        cdn={"fastly": {"service_id": "S1", "token": "UNLIKELY-fastly"}},
        grip_url="http://pushpin:5561?iss=realm&key=UNLIKELY-grip-key-of-32-characters-xx",
    )
    for status in (401, 403, 500, 400):
        sim.transport.script("fastly", Response(status, {}, b"UNLIKELY-fastly"))
        sim.transport.script("pushpin", Response(status, {}, b"UNLIKELY-grip"))
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    shown = [caplog.text, repr(sim.settings), repr(sim.delivery.targets.states)]
    shown += [repr(request) for request in sim.transport.requests]
    assert len(sim.transport.requests) > 4
    assert not any("UNLIKELY" in text for text in shown)

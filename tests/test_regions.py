"""Several regions: each purges its own CDNs and then publishes to its own proxies."""

from __future__ import annotations

import random
from typing import Any

import pytest

from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Response
from grip_edge_middleware.purgers.varnish import ACKNOWLEDGEMENT
from tests.recording import Outcome, Recorded, Simulation, acknowledged, bodies, recorded

COUNTER = "counter-{name}"
TOPICS = {
    COUNTER: {"routes": ["/counters/<name>/"], "hold": "stream"},
    "counters": {"routes": ["/counters/"]},
}
NAMES = ("eu", "us")
REGIONS = {
    name: {"cdn": f"varnish://{name}-cdn:6081", "grip_url": f"http://{name}-proxy:5561"}
    for name in NAMES
}
FASTLY = {"fastly": {"service_id": "S1", "token": "t"}}
DOWN = DeliveryError("somebody", "ConnectError: refused")


def simulation(**settings: Any) -> Simulation:
    return Simulation(
        {
            "cdn": "varnish://shield:6081",
            "grip_url": None,
            "regions": REGIONS,
            "topics": TOPICS,
            **settings,
        }
    )


def hosts(sim: Simulation) -> list[str]:
    return [request.url.split("/")[2].partition(":")[0] for request in sim.transport.requests]


def published(sim: Simulation, proxy: str) -> list[str]:
    items = [item for request in sim.transport.to(proxy) for item in recorded(request).items]
    return bodies(items, "counter-blue")


# --- in which order ---------------------------------------------------------------------------


def test_the_cdn_of_no_region_is_purged_first_then_each_region_purges_and_publishes() -> None:
    sim = simulation()
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    asked = hosts(sim)
    assert asked[0] == "shield"
    for name in NAMES:
        assert [host for host in asked if name in host] == [f"{name}-cdn", f"{name}-proxy"]
    assert len(sim.renderer.rendered) == 1


def test_tiers_of_a_region_are_purged_in_order() -> None:
    regions = {"eu": {**REGIONS["eu"], "cdn": ["varnish://inner:1", "varnish://outer:2"]}}
    sim = simulation(regions=regions)
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    assert hosts(sim) == ["shield", "inner", "outer", "eu-proxy"]


def test_proxies_of_no_region_wait_for_no_region() -> None:
    sim = simulation(grip_url="http://pushpin:5561")
    for name in NAMES:
        sim.transport.always(f"{name}-cdn", DOWN)
    sim.add(COUNTER, "1", name="blue")

    sim.turn()

    assert published(sim, "pushpin") == ["1"]


def test_a_region_without_a_cdn_publishes_after_those_of_no_region() -> None:
    sim = simulation(regions={"ap": {"grip_url": "http://ap-proxy:5561"}})
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    assert hosts(sim) == ["shield", "ap-proxy"]


def test_regions_do_without_a_cdn_in_front_of_them() -> None:
    sim = simulation(cdn=None)
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    assert sorted(hosts(sim)) == ["eu-cdn", "eu-proxy", "us-cdn", "us-proxy"]


def test_a_region_without_proxies_is_purged() -> None:
    sim = simulation(regions={"eu": {"cdn": "varnish://eu-cdn:6081"}}, grip_url="http://pushpin")
    sim.add(COUNTER, name="blue")
    sim.add("counters")

    sim.run_until_idle()

    assert sorted(hosts(sim)) == ["eu-cdn", "pushpin", "shield"]
    assert sim.store.pending() == 0


def arrivals(sim: Simulation) -> dict[str, float]:
    """Return when each host was asked, from now on."""
    times: dict[str, float] = {}
    began = sim.clock.now

    def respond(request: Recorded) -> Outcome:
        times[request.path.split("/")[2].partition(":")[0]] = sim.clock.now - began
        return acknowledged(request)

    sim.transport.respond = respond
    return times


def test_a_region_waits_for_its_own_cdn_to_settle_and_for_no_others() -> None:
    sim = simulation(regions={**REGIONS, "eu": {**REGIONS["eu"], "cdn": FASTLY}})
    times = arrivals(sim)
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    assert times["us-proxy"] == 0.0
    assert times["eu-proxy"] == pytest.approx(0.2)


def test_an_outer_tier_is_purged_when_the_inner_one_has_settled() -> None:
    """Else it would refill from what is not purged yet."""
    sim = simulation(cdn=FASTLY)
    times = arrivals(sim)
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    assert times["api.fastly.com"] == 0.0
    assert times["eu-cdn"] == times["us-cdn"] == pytest.approx(0.2)


# --- a region that is cut off -----------------------------------------------------------------


@pytest.mark.parametrize("refusal", [DOWN, Response(503), Response(403)])
def test_a_failing_cdn_of_a_region_holds_back_that_region_only(refusal: Outcome) -> None:
    sim = simulation(purge_deadline=None)
    sim.transport.always("eu-cdn", refusal)
    sim.add(COUNTER, "1", name="blue")
    sim.run_for(60.0)

    assert (published(sim, "eu-proxy"), published(sim, "us-proxy")) == ([], ["1"])
    sim.transport.always("eu-cdn", None)
    sim.run_until_idle()
    assert published(sim, "eu-proxy") == ["1"]
    assert [hosts(sim).count(host) for host in ("shield", "us-cdn", "us-proxy")] == [1, 1, 1]


def test_a_hanging_cdn_of_a_region_holds_back_that_region_only() -> None:
    sim = simulation()
    sim.lanes.hold("eu-cdn")
    for number in range(3):
        sim.add(COUNTER, str(number), name="blue")
        sim.run_for(1.5)

    assert (published(sim, "eu-proxy"), published(sim, "us-proxy")) == ([], ["0", "1", "2"])
    assert hosts(sim).count("eu-cdn") == 1
    sim.lanes.let_go()
    sim.run_until_idle()
    assert published(sim, "eu-proxy") == ["2"]
    # The first purge was for the first change.
    assert [host for host in hosts(sim) if "eu" in host] == ["eu-cdn", "eu-cdn", "eu-proxy"]


def test_a_region_is_published_to_without_its_purge_after_the_deadline() -> None:
    sim = simulation(purge_deadline=10.0)
    sim.transport.always("eu-cdn", DOWN)
    sim.add(COUNTER, "1", name="blue")

    sim.run_for(9.9)
    assert published(sim, "eu-proxy") == []
    sim.run_for(0.2)
    assert published(sim, "eu-proxy") == ["1"]
    sim.transport.always("eu-cdn", None)
    sim.run_until_idle()
    assert hosts(sim)[-1] == "eu-cdn"
    assert sim.store.pending() == 0


def test_other_regions_are_told_at_once_while_one_is_cut_off() -> None:
    sim = simulation(throttle=1.0)
    for host in ("eu-cdn", "eu-proxy"):
        sim.transport.always(host, DOWN)
    for number in range(5):
        sim.add(COUNTER, str(number), name="blue")
        sim.turn()
        assert published(sim, "us-proxy")[-1:] == [str(number)]
        sim.run_for(30.0)

    assert len(published(sim, "us-proxy")) == 5


def test_the_confirmation_waits_until_a_region_that_was_cut_off_has_the_change() -> None:
    sim = simulation(confirm_after=[1.0, 2.0])
    sim.add(COUNTER, name="blue")
    sim.run_until_idle()
    asked = hosts(sim).count("us-cdn")
    sim.transport.always("eu-cdn", DOWN)
    sim.add(COUNTER, name="red")
    sim.run_for(30.0)
    assert hosts(sim).count("us-cdn") - asked == 1

    sim.transport.always("eu-cdn", None)
    sim.run_until_idle()
    assert hosts(sim).count("us-cdn") - asked == 3
    assert sim.store.pending() == 0


def test_items_say_what_every_region_had_before_while_one_is_cut_off() -> None:
    """So whoever had one meanwhile asks the next link, and whoever had none does too."""
    sim = simulation(throttle=0)
    sim.add(COUNTER, "0", name="blue")
    sim.run_until_idle()
    everywhere = sim.transport.items[-1]["id"]
    sim.transport.always("eu-proxy", DOWN)
    for number in range(1, 4):
        sim.add(COUNTER, str(number), name="blue")
        sim.run_for(1.5)

    items = [i for request in sim.transport.to("us-proxy") for i in recorded(request).items]
    assert [item["prev-id"] for item in items[1:]] == [everywhere] * 3


def test_a_failing_cdn_of_no_region_holds_back_all() -> None:
    sim = simulation(purge_deadline=10.0)
    sim.transport.always("shield", DOWN)
    sim.add(COUNTER, "1", name="blue")

    sim.run_for(9.9)
    assert set(hosts(sim)) == {"shield"}
    sim.run_for(0.2)
    assert published(sim, "eu-proxy") == published(sim, "us-proxy") == ["1"]
    assert "eu-cdn" not in hosts(sim)


def test_pages_are_short_lived_everywhere_while_a_region_cannot_be_purged() -> None:
    """The app does not know which region asks."""
    sim = simulation()
    sim.transport.script("eu-cdn", DOWN)
    sim.add(COUNTER, name="blue")
    sim.turn()

    assert not sim.delivery.can_purge()


def test_names_of_targets_begin_with_their_regions(caplog: pytest.LogCaptureFixture) -> None:
    sim = simulation()
    sim.transport.script("eu-proxy", DOWN)
    sim.add(COUNTER, name="blue")

    sim.run_until_idle()

    assert list(sim.delivery.targets.report()) == [
        "varnish http://shield:6081",
        "eu varnish http://eu-cdn:6081",
        "us varnish http://us-cdn:6081",
        "eu grip http://eu-proxy:5561",
        "us grip http://us-proxy:5561",
    ]
    assert "eu grip http://eu-proxy:5561: ConnectError: refused" in caplog.text
    assert sim.metrics.snapshot()["failures eu grip http://eu-proxy:5561"] == 1


# --- whatever happens -------------------------------------------------------------------------


def test_every_publish_follows_the_purges_that_its_region_is_behind() -> None:
    """A thousand changes at random times, while any target fails or hangs."""
    chance = random.Random(20261125)
    sim = simulation(throttle=0.5, purge_deadline=None)
    everybody = ["shield", *(f"{n}-{kind}" for n in NAMES for kind in ("cdn", "proxy"))]
    failures: list[Outcome] = [Response(503), DOWN]
    changed: dict[str, str] = {}
    submitted_at: dict[str, int] = {}
    for number in range(1_000):
        name = str(chance.randrange(20))
        sim.add(COUNTER, f"{number}", name=name)
        changed[f"counter-{name}"] = f"{number}"
        submitted_at[f"{number}"] = len(sim.transport.requests)
        match chance.randrange(10):
            case 0 | 1:
                sim.transport.script(chance.choice(everybody), chance.choice(failures))
            case 2:
                sim.lanes.hold(chance.choice(everybody))
            case 3 | 4:
                sim.lanes.let_go()
        sim.clock.now += chance.random() * 0.1
        sim.turn()
    sim.lanes.let_go()
    sim.run_until_idle()

    purged_at: dict[tuple[str, str], int] = {}
    last: dict[tuple[str, str], str] = {}
    seen_all = zip(hosts(sim), sim.transport.requests, sim.transport.outcomes, strict=True)
    for position, (host, request, outcome) in enumerate(seen_all):
        seen = recorded(request)
        if seen.is_purge and isinstance(outcome, Response) and outcome.headers.get(ACKNOWLEDGEMENT):
            for key in seen.keys:
                purged_at[host, key] = position
        for item in seen.items if seen.is_publish else []:
            channel, value = item["channel"], item["formats"]["http-stream"]["content"]
            last[host, channel] = value
            for cdn in ("shield", host.replace("proxy", "cdn")):
                assert purged_at.get((cdn, channel), -1) >= submitted_at[value], (cdn, item)
    wanted = {(f"{n}-proxy", c): value for n in NAMES for c, value in changed.items()}
    assert last == wanted
    assert sim.store.pending() == 0


def test_a_region_whose_cdn_takes_its_time_is_told_although_changes_go_on() -> None:
    """Merged with what came since, a topic would have to be purged anew there, for ever."""
    sim = Simulation(
        {
            "cdn": "varnish://near:6081",
            "grip_url": "http://here:5561",
            "regions": {"far": {"cdn": "varnish://far:6081", "grip_url": "http://there:5561"}},
            "topics": {"counter-{name}": {"routes": ["/counters/<name>/"], "hold": "stream"}},
            "throttle": 0.2,
        }
    )
    for number in range(100):
        if number % 6 == 0:  # so a purge takes 0.3 seconds
            sim.lanes.let_go()
            sim.turn()
            sim.lanes.hold("far")
        sim.add("counter-{name}", str(number), name="blue")
        sim.run_for(0.05)

    assert len(sim.transport.to("there")) >= 5
    assert len(sim.transport.to("here")) >= 15

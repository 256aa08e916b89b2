"""What a delivery writes, and what another process sees of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Response
from grip_edge_middleware.journal import MAX_NAMES, Entry, Journal
from grip_edge_middleware.watchers import FOLDER_VARIABLE, Watch
from tests.recording import Entries, RecordingServer, Simulation

CDN = "varnish http://varnish:6081"
PROXY = "grip http://pushpin:5561"


@pytest.fixture
def sim() -> Simulation:
    return simulated()


def simulated(**settings: object) -> Simulation:
    topic = {"routes": ["/counters/<name>"], "hold": "stream"}
    defaults = {"cdn": "varnish://varnish:6081", "topics": {"counter-{name}": topic}}
    return Simulation({**defaults, **settings})


def test_a_delivery_is_written_in_the_order_in_which_it_is_done(sim: Simulation) -> None:
    sim.add("counter-{name}", name="a")
    sim.renderer.takes_s = 0.25
    sim.clock.now += 0.5
    sim.turn()

    change, purge, render, publish, delivered = sim.journal.all
    assert sim.journal.kinds == ["change", "purge", "render", "publish", "delivered"]
    assert change.names == publish.names == delivered.names == ("counter-a",)
    assert (purge.target, purge.names[0], purge.behind_s) == (CDN, "counter-a", 0.5)
    assert (render.target, render.took_s) == ("render", 0.25)
    assert (publish.target, publish.behind_s) == (PROXY, 0.75)
    assert {entry.delivery for entry in sim.journal.all} == {1}


def test_a_change_that_waited_counts_from_when_it_was_submitted(sim: Simulation) -> None:
    sim.add("counter-{name}", "1", name="a")
    sim.turn()
    sim.add("counter-{name}", "2", name="a")
    sim.clock.now += 0.4
    sim.add("counter-{name}", "3", name="a")
    sim.run_until_idle()

    assert [publish.behind_s for publish in sim.journal.of("publish")] == [0.0, 1.0]


def test_what_a_target_refuses_is_written_and_counts_on(sim: Simulation) -> None:
    sim.transport.script("pushpin", Response(503))
    sim.add("counter-{name}", "1", name="a")
    sim.run_until_idle()

    [failure], [publish] = sim.journal.of("failure"), sim.journal.of("publish")
    assert (failure.target, failure.of, failure.behind_s) == (PROXY, "publish", None)
    assert "503" in failure.error
    assert publish.behind_s == pytest.approx(0.1, abs=0.05)
    assert len(sim.journal.of("change")) == 1
    assert {entry.delivery for entry in sim.journal.all} == {1}


def test_a_delivery_says_how_many_are_left(sim: Simulation) -> None:
    sim.renderer.answers["/counters/a"] = Response(500)
    sim.add("counter-{name}", name="a")
    sim.add("counter-{name}", "1", name="b")
    sim.turn()
    del sim.renderer.answers["/counters/a"]
    sim.run_until_idle()

    told = [(entry.names, entry.left, entry.delivery) for entry in sim.journal.of("delivered")]
    assert told == [(("counter-b",), 1, 1), (("counter-a",), 0, 1)]


def test_a_newer_change_ends_the_delivery_of_an_older_one(sim: Simulation) -> None:
    sim.transport.always("pushpin", Response(503))
    sim.add("counter-{name}", "1", name="a")
    sim.turn()
    sim.transport.always("pushpin", None)
    sim.add("counter-{name}", "2", name="a")
    sim.run_until_idle()

    told = [(entry.names, entry.left, entry.delivery) for entry in sim.journal.of("delivered")]
    assert told == [((), 0, 1), (("counter-a",), 0, 2)]


def test_a_purge_that_takes_its_time_is_of_the_same_delivery(sim: Simulation) -> None:
    sim.lanes.hold("varnish")
    sim.add("counter-{name}", "1", name="a")
    sim.turn()
    sim.lanes.let_go()
    sim.run_until_idle()

    assert sim.journal.kinds == ["change", "purge", "publish", "delivered"]
    assert {entry.delivery for entry in sim.journal.all} == {1}


def test_a_route_that_fails_is_written(sim: Simulation) -> None:
    sim.renderer.answers["/counters/a"] = Response(500)
    sim.add("counter-{name}", name="a")
    sim.turn()

    [failure] = sim.journal.of("failure")
    assert (failure.names, failure.target, failure.of) == (("counter-a",), "render", "render")


def test_what_is_given_up_is_written(sim: Simulation) -> None:
    sim.renderer.answers["/counters/a"] = DeliveryError("render", "too long", is_final=True)
    sim.add("counter-{name}", name="a")
    sim.turn()

    [given_up] = sim.journal.of("given_up")
    assert (given_up.names, given_up.error) == (("counter-a",), "too long")


def test_a_confirmation_is_behind_nothing() -> None:
    sim = simulated(confirm_after=1)
    sim.add("counter-{name}", "1", name="a")
    sim.run_until_idle()

    first, again = sim.journal.of("purge")
    assert (first.behind_s, again.behind_s) == (0.0, None)
    assert len(sim.journal.of("change")) == 1


def test_an_entry_names_some_and_counts_all() -> None:
    entries = Entries()
    Journal(entries, clock=lambda: 7.0).write("change", [f"t-{n}" for n in range(MAX_NAMES + 7)])

    [entry] = entries.all
    assert (len(entry.names), entry.count, entry.at) == (MAX_NAMES, MAX_NAMES + 7, 7.0)


# --- another process ----------------------------------------------------------------------------

APP = """
import sys
from grip_edge_middleware import GripEdge

url = sys.argv[1]
edge = GripEdge(settings={
    "grip_url": url,
    "cdn": url.replace("http", "varnish"),
    "topics": {"counter-{name}": {"routes": ["/counters/<name>"], "hold": "stream"}},
})
edge.publish("counter-{name}", "1", name="a")
assert edge.flush(10)
print("flushed", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


def test_who_watches_sees_what_another_process_does(
    server: RecordingServer, tmp_path: Path
) -> None:
    folder = tmp_path / "watch"
    with Watch(folder) as watch:
        app = subprocess.Popen(
            [sys.executable, "-c", APP, server.url],
            env={FOLDER_VARIABLE: str(folder), "PYTHONPATH": str(Path(__file__).parents[1])},
            stdin=subprocess.PIPE,
        )
        seen: list[Entry] = []
        for entry in watch.entries(20):
            seen.append(entry)
            if {"health", "delivered"} <= {entry.kind for entry in seen}:
                break
        app.communicate(timeout=20)

    told = [entry for entry in seen if entry.kind != "health"]
    assert [entry.kind for entry in told] == ["change", "purge", "publish", "delivered"]
    assert [entry.names[0] for entry in told] == ["counter-a"] * 4
    assert {entry.pid for entry in seen} == {app.pid}
    health = next(entry for entry in seen if entry.kind == "health")
    assert set(health.detail["targets"]) == {f"varnish {server.url}", f"grip {server.url}"}

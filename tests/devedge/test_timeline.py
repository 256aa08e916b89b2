"""What the timeline tells: of an edge at work, to who reads it."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websocket import create_connection

from grip_edge_middleware.devedge import TIMELINE_PATH, DevEdge
from grip_edge_middleware.devedge.exchange import Answer, Asked, OriginFailed, whole_body
from grip_edge_middleware.devedge.happenings import HIDDEN, Happening, build_happening
from grip_edge_middleware.devedge.server import Running
from grip_edge_middleware.devedge.timeline import Timeline
from grip_edge_middleware.devedge.told import Told
from grip_edge_middleware.journal import Entry
from grip_edge_middleware.watchers import Watchers
from tests.devedge.test_sockets import Chat

DEADLINE_S = 10.0
NEXT = "/.grip-edge/next/1"
HELD = [
    ("Surrogate-Control", "max-age=60"),
    ("Surrogate-Key", "counter-a %all"),
    ("Grip-Hold", "stream"),
    ("Grip-Channel", "counter-a; prev-id=1"),
    ("Grip-Link", f"<{NEXT}>; rel=next; timeout=600"),
]
POLL = [
    ("Surrogate-Control", "max-age=60"),
    ("ETag", '"1"'),
    ("Grip-Hold", "response"),
    ("Grip-Channel", "poll-a; prev-id=1"),
]
PAGES: dict[str, list[tuple[str, str]]] = {
    "/page": [("Surrogate-Control", "max-age=60"), ("Surrogate-Key", "counter-a")],
    "/stream": HELD,
    "/poll": POLL,
    NEXT: [*HELD[2:4], HELD[4]],
}


def app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", PAGES.get(environ["PATH_INFO"], []))
    return [b"one"]


class Edge:
    """An edge that runs, and all that its timeline was told."""

    def __init__(self, dev_edge: DevEdge, running: Running) -> None:
        self.dev_edge = dev_edge
        self.running = running

    @property
    def told(self) -> list[Happening]:
        return [each.happening for each in self.dev_edge.timeline.remembered()]

    def of(self, kind: str) -> list[Happening]:
        return [each for each in self.told if each.kind == kind]

    def wait_for(self, kind: str, count: int = 1) -> list[Happening]:
        """What a reader of the control port is sent of a kind."""
        with reading(self.running) as events:
            found: list[Happening] = []
            while len(found) < count:
                event = next(events)
                if event.get("kind") == kind:
                    found = self.of(kind)
            return found

    @contextmanager
    def asked(self, path: str, **headers: str) -> Iterator[http.client.HTTPConnection]:
        port = self.running.ports["clients"]
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)) as client:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            client.request("GET", path, headers=named)
            yield client

    @contextmanager
    def open(self, path: str) -> Iterator[http.client.HTTPResponse]:
        with self.asked(path) as client, client.getresponse() as response:
            yield response

    def get(self, path: str) -> None:
        with self.open(path) as response:
            response.read()

    def ways(self, trip: int) -> list[str]:
        """Which way a request took, and its answers."""
        return [f"{h.source} {h.target}" for h in self.told if h.trip == trip]


@contextmanager
def reading(running: Running, last: str = "") -> Iterator[Iterator[dict[str, Any]]]:
    port = running.ports["control"]
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)) as client:
        client.request("GET", f"{TIMELINE_PATH}/events", headers={"Last-Event-ID": last})
        with client.getresponse() as response:
            yield data_of(response)


def data_of(lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith(b"data: "):
            yield json.loads(line.removeprefix(b"data: "))


@contextmanager
def running_edge(app: Any, folder: Path) -> Iterator[Edge]:
    dev_edge = DevEdge(app, watch_folder=folder)
    with dev_edge.running() as running:
        yield Edge(dev_edge, running)


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    with running_edge(app, tmp_path / "w") as edge:
        yield edge


def publish(edge: Edge, channel: str, id_: str, **formats: Any) -> None:
    items = [{"channel": channel, "id": id_, "prev-id": "1", "formats": formats}]
    post(edge, "/publish/", json.dumps({"items": items}))


def post(edge: Edge, path: str, body: str = "", **headers: str) -> None:
    port = edge.running.ports["control"]
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)) as client:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        client.request("POST", path, body.encode(), named)
        assert client.getresponse().status == 200


# ------------------------------------------------------------------------------ what is told


def test_a_miss_is_told_to_the_app_and_back(edge: Edge) -> None:
    edge.get("/page")

    [request, *_, answer] = edge.told
    assert (request.kind, request.text, answer.text, answer.seen) == (
        "request",
        "GET /page",
        "200",
        "MISS",
    )
    assert edge.ways(request.trip) == [
        "client proxy",
        "proxy cache",
        "cache app",
        "app cache",
        "cache proxy",
        "proxy client",
    ]
    assert [told.keys for told in edge.of("answer")] == [("counter-a",), (), ()]
    assert answer.took_s is not None


def test_a_hit_turns_back_at_the_cache(edge: Edge) -> None:
    edge.get("/page")
    edge.get("/page")

    answer = edge.told[-1]
    assert answer.seen == "HIT"
    assert edge.ways(answer.trip) == ["client proxy", "proxy cache", "cache proxy", "proxy client"]
    totals = edge.dev_edge.timeline.totals
    assert (totals.requests, totals.hits, totals.misses, totals.app) == (2, 1, 1, 1)


def test_a_stream_is_held_from_its_answer_until_its_client_leaves(edge: Edge) -> None:
    with edge.open("/stream") as response:
        assert response.read(3) == b"one"
        [hold] = edge.wait_for("hold")
        assert edge.dev_edge.timeline.totals.open == 1
    [release] = edge.wait_for("release")

    assert (hold.names, hold.text) == (("counter-a",), "http-stream")
    assert hold.holds == (edge.of("request")[0].trip,)
    assert release.trip == hold.trip
    assert edge.dev_edge.timeline.totals.open == 0


def test_one_publish_is_pushed_to_all_who_are_held(edge: Edge) -> None:
    with edge.open("/stream") as first, edge.open("/stream") as second:
        for response in (first, second):
            assert response.read(3) == b"one"
        publish(edge, "counter-a", "2", **{"http-stream": {"content": "two"}})
        assert [first.read(3), second.read(3)] == [b"two"] * 2
        [push] = edge.wait_for("push")

        [published] = edge.of("publish")
        assert (published.names, published.count, published.text) == (("counter-a",), 2, "message")
        assert dict(published.detail)["prev-id"] == "1"
        assert (push.count, push.names) == (2, ("counter-a",))
        assert set(push.holds) == {hold.trip for hold in edge.of("hold")}
        assert dict(push.detail) == {"id": "2", "content": "two"}


def test_a_marker_is_pushed_to_nobody(edge: Edge) -> None:
    with edge.open("/stream") as response:
        assert response.read(3) == b"one"
        publish(edge, "counter-a", "1.c", **{"http-stream": {"content": ""}})
        [published] = edge.wait_for("publish")

        assert (published.text, published.count) == ("marker", 1)
        assert edge.of("push") == []


def test_a_next_link_is_a_request_of_the_proxys_own(edge: Edge) -> None:
    with edge.open("/stream") as response:
        assert response.read(3) == b"one"
        post(edge, "/recover/")
        assert response.read(3) == b"one"
        [push] = edge.wait_for("push")

        asked, *_ = [told for told in edge.of("request") if NEXT in told.text]
        assert edge.ways(asked.trip) == ["proxy cache", "cache app", "app cache", "cache proxy"]
        assert (push.text, push.count) == ("missed", 1)
        assert [told.count for told in edge.of("recover")] == [1]


def test_a_long_poll_is_held_until_it_is_pushed(edge: Edge) -> None:
    edge.get("/poll")

    with edge.asked("/poll", If_None_Match='"1"') as client:
        [hold] = edge.wait_for("hold")
        publish(edge, "poll-a", "2", **{"http-response": {"body": "two"}})
        assert client.getresponse().read() == b"two"
    [push] = edge.wait_for("push")
    [release] = edge.wait_for("release")

    assert hold.text == "http-response"
    assert push.holds == (hold.trip,) == (release.trip,)
    # Pushed, and so released: though it is told a moment later.
    assert push.at <= release.at


def test_purges_say_what_they_found(edge: Edge) -> None:
    edge.get("/page")
    post(edge, "/service/S/purge", Surrogate_Key="counter-a other", Fastly_Soft_Purge="1")
    edge.get("/page")
    post(edge, "/service/S/purge_all")

    soft, everything = edge.of("purge")
    assert (soft.names, soft.count, soft.text) == (("counter-a", "other"), 1, "soft")
    assert (everything.names, everything.count, everything.text) == ((), 1, "all")


def test_a_websocket_is_held_for_what_it_subscribes_to(tmp_path: Path) -> None:
    with running_edge(Chat(), tmp_path / "w") as edge:
        url = f"ws://127.0.0.1:{edge.running.ports['clients']}/room"
        with closing(create_connection(url, timeout=DEADLINE_S)) as socket:
            opened, subscribed = edge.wait_for("hold", 2)
            publish(edge, "room", "1", **{"ws-message": {"content": "hello"}})
            assert socket.recv() == "hello"
            [push] = edge.wait_for("push")

        assert (opened.text, opened.names, subscribed.names) == ("ws-message", (), ("room",))
        assert push.holds == (subscribed.trip,)
        assert edge.dev_edge.timeline.totals.open <= 1


def test_a_save_in_another_process_is_told(edge: Edge, tmp_path: Path) -> None:
    with closing(Watchers(tmp_path / "w")) as watchers:
        watchers.read(Entry("purge", 6.0, names=("counter-a",)))
        watchers.read(Entry("change", 7.5, names=("counter-a",), count=1, behind_s=0.5, pid=3))
    [save] = edge.wait_for("save")

    assert (save.names, save.at, save.source) == (("counter-a",), 7.0, "app")
    assert dict(save.detail) == {"told": "500.0 ms after its commit", "process": "3", "topics": "1"}


def test_without_a_folder_it_is_said_once_that_saves_are_not_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with running_edge(app, tmp_path / "file") as edge:
        edge.get("/page")
        [note] = edge.of("note")

    assert "Saves are not shown" in note.text
    assert caplog.text.count("goes without saves") == 1


def test_an_app_that_does_not_answer_is_told() -> None:
    async def nobody(asked: Asked, /) -> Answer:
        raise OriginFailed("refused")

    async def scenario() -> None:
        with pytest.raises(OriginFailed):
            await Told(nobody, "cache", "app", timeline.tell)(Asked("GET", "/"))

    timeline = Timeline()
    asyncio.run(scenario())

    assert [each.happening.text for each in timeline.remembered()] == ["GET /", "no answer"]


def test_who_leaves_before_the_answer_is_told() -> None:
    async def never(asked: Asked, /) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    async def scenario() -> None:
        asking = asyncio.create_task(
            _asked(Told(never, "client", "proxy", timeline.tell))  # a coroutine, not a Fetch
        )
        while not timeline.remembered():
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait((asking,))

    timeline = Timeline()
    asyncio.run(scenario())

    assert timeline.remembered()[-1].happening.text == "gone"


async def _asked(told: Told) -> bytes:
    return await whole_body(await told(Asked("GET", "/")))


@pytest.mark.parametrize(("headers", "same"), [([], True), ([("grip-last", "a")], False)])
def test_what_the_proxy_asks_for_itself_is_another_trip(
    headers: list[tuple[str, str]], same: bool
) -> None:
    seen = []

    async def answer(asked: Asked, /) -> Answer:
        seen.append(asked.trip)
        return Answer(200)

    asked = Asked("GET", "/", headers, trip=10**9)
    asyncio.run(_answered(Told(answer, "proxy", "cache", Timeline().tell), asked))

    assert (seen == [10**9]) is same


async def _answered(told: Told, asked: Asked) -> None:
    await told(asked)


def test_secrets_stay_out() -> None:
    async def answer(asked: Asked, /) -> Answer:
        return Answer(200, [("set-cookie", "session=s3cret")])

    async def scenario() -> None:
        headers = [("authorization", "Bearer s3cret"), ("cookie", "s3cret"), ("accept", "*/*")]
        targets = ["/a?page=2&api_key=s3cret&x=1", "/.grip-edge/next/private/s3cret"]
        for target in targets:
            await Told(answer, "client", "proxy", timeline.tell)(Asked("GET", target, headers))

    timeline = Timeline()
    asyncio.run(scenario())

    told = [each.happening for each in timeline.remembered()]
    assert "s3cret" not in " ".join(map(build_happening, told))
    assert told[0].text == f"GET /a?page=2&api_key={HIDDEN}&x=1"
    assert ("accept", "*/*") in told[0].detail


def test_what_is_long_is_shortened() -> None:
    told = build_happening(Happening("purge", "app", "cache", names=("k",) * 25, text="x" * 900))

    found = json.loads(told)
    assert (len(found["names"]), found["more"], len(found["text"])) == (20, 5, 401)


# ------------------------------------------------------------------------------- who reads it


def told(timeline: Timeline, count: int) -> None:
    for number in range(count):
        timeline.tell(Happening("note", "app", "app", str(number)))


def texts(chunk: str) -> list[str]:
    found = [json.loads(line[6:]) for line in chunk.splitlines() if line.startswith("data: {")]
    return [event["text"] for event in found if "text" in event]


def test_the_ring_is_bounded_and_keeps_who_is_held() -> None:
    timeline = Timeline(size=3)
    timeline.tell(Happening("hold", "proxy", "client", "held", 7))
    told(timeline, 10)

    assert [each.happening.text for each in timeline.remembered()] == ["held", "7", "8", "9"]
    timeline.tell(Happening("release", "proxy", "client", "left", 7))
    assert [each.happening.text for each in timeline.remembered()] == ["8", "9", "left"]


def test_a_reader_is_given_what_was_and_what_comes() -> None:
    async def scenario() -> None:
        events = timeline.follow()
        assert (await anext(events)).startswith("event: begin")
        assert texts(await anext(events)) == ["0", "1"]
        told(timeline, 1)
        assert texts(await anext(events)) == ["0"]
        timeline.close()
        assert await anext(events, "") == ""

    timeline = Timeline()
    told(timeline, 2)
    asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))


@pytest.mark.parametrize(
    ("last", "expected"),
    [("{run}-1", ["1", "2"]), ("{run}-3", []), ("{run}-9", None), ("other-1", None), ("x", None)],
)
def test_who_comes_again_is_given_what_came_since(last: str, expected: list[str] | None) -> None:
    async def scenario() -> None:
        events = timeline.follow(last.format(run=timeline.run))
        chunk = await anext(events)
        if expected is None:
            assert chunk.startswith("event: begin")
            assert texts(await anext(events)) == ["0", "1", "2"]
        else:
            assert texts(chunk) == expected
        await events.aclose()

    timeline = Timeline()
    told(timeline, 3)
    asyncio.run(scenario())


def test_who_reads_too_slowly_is_dropped() -> None:
    async def scenario() -> None:
        events = timeline.follow()
        await anext(events)
        await anext(events)
        told(timeline, 4)

        assert await anext(events, "dropped") == "dropped"

    timeline = Timeline(size=3)
    told(timeline, 1)
    asyncio.run(asyncio.wait_for(scenario(), DEADLINE_S))


def test_the_totals_come_with_what_happened(edge: Edge) -> None:
    edge.get("/page")
    with reading(edge.running) as events:
        state = next(event for event in events if "url" in event)

    assert state["url"] == edge.running.url("clients")
    assert (state["requests"], state["app"]) == (1, 1)


# ---------------------------------------------------------------------------- where it is served


def ask(port: int, path: str, host: str) -> http.client.HTTPResponse:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    client.request("GET", path, headers={"Host": host})
    response = client.getresponse()
    response.read()
    client.close()
    return response


@pytest.mark.parametrize("path", ["", "/timeline.css", "/timeline.js"])
def test_the_page_is_served_to_this_machine_only(edge: Edge, path: str) -> None:
    port = edge.running.ports["control"]
    served = ask(port, TIMELINE_PATH + path, f"localhost:{port}")

    assert served.status == 200
    policy = served.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert ask(port, TIMELINE_PATH + path, "elsewhere.example").status == 403


def test_clients_are_not_shown_the_timeline(edge: Edge) -> None:
    response = ask(edge.running.ports["clients"], TIMELINE_PATH, "localhost")

    # It is the app that answers.
    assert response.status == 200
    assert "Content-Security-Policy" not in response.headers


def test_serving_says_where_the_timeline_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Running, "wait", lambda _: None)
    with caplog.at_level(logging.INFO):
        DevEdge(app, watch_folder=tmp_path / "w").serve(client_port=0, control_port=0, cache_port=0)

    assert TIMELINE_PATH in caplog.text

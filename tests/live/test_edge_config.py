"""What the shipped Pushpin and Varnish files promise, against an app that is only headers."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from clients import Headers, Reply, StreamClient, connected, pairs, publish, request
from servers import wsgi_server

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

    from launch import Edge

pytestmark = [pytest.mark.live, pytest.mark.both_edges]

# What Pushpin adds, so that a plain client can look at the cache as Pushpin does.
SIGNED = {"Grip-Sig": "token"}
FOREVER = {"Surrogate-Control": "max-age=3600, stale-if-error=86400"}


def held(channel: str) -> dict[str, str]:
    """The headers of a page that is cached, and open to its clients."""
    return {
        **FOREVER,
        "Surrogate-Key": channel,
        "Content-Type": "text/event-stream",
        "Grip-Hold": "stream",
        "Grip-Channel": channel,
    }


@dataclass
class Page:
    """What the app answers at one path; the body counts the answers."""

    headers: list[tuple[str, str]]
    status: str = "200 OK"
    requests: list[dict[str, str]] = field(default_factory=list)
    is_open: threading.Event = field(default_factory=threading.Event)
    """Until then the app says nothing."""
    is_whole: threading.Event = field(default_factory=threading.Event)
    """Until then it sends headers and the first byte."""

    @property
    def body(self) -> bytes:
        return f"data: {len(self.requests)}\n\n".encode()


class Origin:
    """The app: pages that a test made, on the port that the edge expects."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.pages: dict[str, Page] = {}
        self._server = ExitStack()

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        page = self.pages.get(environ["PATH_INFO"])
        if page is None:
            start("404 Not Found", [])
            return [b""]
        page.requests.append({k: v for k, v in environ.items() if k.startswith("HTTP_")})
        body = page.body
        page.is_open.wait(10)
        start(page.status, [*page.headers, ("Content-Length", str(len(body)))])
        return self._send(page, body)

    def _send(self, page: Page, body: bytes) -> Iterator[bytes]:
        yield body[:1]
        page.is_whole.wait(10)
        yield body[1:]

    def page(self, path: str, headers: Headers, status: str = "200 OK") -> Page:
        page = self.pages[path] = Page(pairs(headers), status)
        page.is_open.set()
        page.is_whole.set()
        return page

    def start(self) -> None:
        self._server.enter_context(wsgi_server(self, self.edge.app_port))
        # Varnish avoids a backend for 250 ms after it refused: backend_remote_error_holddown.
        eventually(lambda: request(f"{self.edge.cache_url}/?ready").status == 404)

    def stop(self) -> None:
        self._server.close()


@pytest.fixture
def origin(edge: Edge) -> Iterator[Origin]:
    origin = Origin(edge)
    origin.start()
    yield origin
    origin.stop()


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    """A path of the test's own: the cache lives longer than the test."""
    return f"/{request.node.name}"


@pytest.fixture
def key(path: str) -> str:
    return path.strip("/")


@pytest.fixture
def get(edge: Edge, path: str) -> Callable[..., Reply]:
    """A client that asks the cache for the test's page."""

    def get(headers: Headers = (), **options: Any) -> Reply:
        return request(edge.cache_url + path, headers, **options)

    return get


def purge(edge: Edge, *lines: str, hard: bool = False, source: str = "") -> Reply:
    headers = [("xkey-purge", line) for line in lines] + [("xkey-hard", "1")] * hard
    return request(edge.cache_url, headers, method="PURGEKEYS", source=source)


def eventually(is_true: Callable[[], bool], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


Get = Callable[..., Reply]


class TestHolding:
    def test_second_client_is_held_from_the_cache(
        self, edge: Edge, origin: Origin, path: str, key: str
    ) -> None:
        page = origin.page(path, held(key))

        async def scenario() -> None:
            async with (
                StreamClient(edge.url + path) as first,
                StreamClient(edge.url + path) as second,
            ):
                clients = [first, second]
                for client in clients:
                    await client.event(lambda data: data == "1")
                publish(edge.control_url, key, **{"http-stream": {"content": "data: new\n\n"}})
                for client in clients:
                    await client.event(lambda data: data == "new")

            assert [[event.data for event in client.events] for client in clients] == [
                ["1", "new"],
                ["1", "new"],
            ]
            assert [client.headers["X-Cache"] for client in clients] == ["MISS", "HIT"]

        asyncio.run(scenario())
        assert len(page.requests) == 1

    def test_conditional_and_range_requests_are_held_whole(
        self, edge: Edge, origin: Origin, path: str, key: str
    ) -> None:
        origin.page(
            path, {**held(key), "ETag": '"a"', "Last-Modified": "Mon, 23 Nov 2026 12:00:00 GMT"}
        )
        headers = {
            "If-None-Match": '"a"',
            "If-Modified-Since": "Mon, 23 Nov 2026 12:00:00 GMT",
            "Range": "bytes=0-3",
        }

        async def scenario() -> None:
            clients = [StreamClient(edge.url + path, {k: v}) for k, v in headers.items()]
            async with connected(clients):
                for client in clients:
                    assert client.status == 200
                    await client.event(lambda data: data == "1")
                    assert not client.is_ended

        asyncio.run(scenario())

    def test_unheld_page_answers_a_condition(self, origin: Origin, path: str, get: Get) -> None:
        origin.page(path, {**FOREVER, "ETag": '"a"'})
        get()

        assert get({**SIGNED, "If-None-Match": '"a"'}).status == 304

    def test_head_is_not_held(
        self, edge: Edge, origin: Origin, path: str, key: str, get: Get
    ) -> None:
        origin.page(path, held(key))
        get()

        assert "Grip-Hold" not in get(SIGNED, method="HEAD").headers
        assert request(edge.url + path, method="HEAD").status == 200

    def test_long_head_reaches_the_client(
        self, edge: Edge, origin: Origin, path: str, key: str
    ) -> None:
        origin.page(path, {**held(key), "X-A": "a" * 7000, "X-B": "b" * 7000})

        async def scenario() -> None:
            async with StreamClient(edge.url + path) as client:
                assert len(client.headers["X-A"] + client.headers["X-B"]) == 14_000
                await client.event(lambda data: data == "1")

        asyncio.run(scenario())

    def test_two_hundred_clients_cost_one_request(
        self, edge: Edge, origin: Origin, path: str, key: str
    ) -> None:
        page = origin.page(path, held(key))

        async def scenario() -> None:
            async with connected(StreamClient(edge.url + path) for _ in range(200)) as clients:
                for client in clients:
                    await client.event(lambda data: data == "1")
                publish(edge.control_url, key, **{"http-stream": {"content": "data: new\n\n"}})
                for client in clients:
                    await client.event(lambda data: data == "new")

        asyncio.run(scenario())
        assert len(page.requests) == 1


class TestTrust:
    def test_grip_headers_are_for_the_grip_proxy(
        self, origin: Origin, path: str, key: str, get: Get
    ) -> None:
        page = origin.page(
            path, {**held(key), "Grip-Link": "</n>; rel=next", "Grip-Keep-Alive": "x"}
        )

        direct = get()
        signed = get(SIGNED)

        assert not [name for name in direct.headers if name.lower().startswith("grip-")]
        assert signed.headers["Grip-Hold"] == "stream"
        assert signed.headers["Grip-Channel"] == key
        assert len(page.requests) == 1

    def test_token_is_no_part_of_the_cache_key(self, origin: Origin, path: str, get: Get) -> None:
        page = origin.page(path, {**FOREVER, "Vary": "Grip-Sig"})

        for token in "abc":
            get({"Grip-Sig": token})
        get()

        # An app that varies on it has one answer for the proxy and one for others.
        assert [seen.get("HTTP_GRIP_SIG") for seen in page.requests] == ["a", None]

    def test_grip_last_of_a_direct_client_is_ignored(
        self, origin: Origin, path: str, get: Get
    ) -> None:
        page = origin.page(path, FOREVER)

        get({"Grip-Last": "secret; last-id=1", "Grip-Feature": "status"})

        assert not [name for name in page.requests[0] if name.startswith("HTTP_GRIP")]

    def test_internal_headers_stay_inside(self, origin: Origin, path: str, get: Get) -> None:
        page = origin.page(path, FOREVER)

        reply = get({**SIGNED, "X-Edge-Last-Resort": "1", "X-Edge-Stale": "1", "X-Edge-Sig": "x"})

        assert reply.headers["X-Cache"] == "MISS"
        assert not [name for name in page.requests[0] if name.startswith("HTTP_X_EDGE")]

    def test_what_links_are_built_from_is_not_a_clients_to_say(
        self, origin: Origin, path: str, get: Get
    ) -> None:
        page = origin.page(path, FOREVER)
        headers = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Prefix": "/evil"}

        get({**SIGNED, **headers, "Forwarded": "host=evil.example"})

        assert not [value for value in page.requests[0].values() if "evil" in value]

    def test_keys_and_edge_lifetimes_are_hidden(
        self, origin: Origin, path: str, key: str, get: Get
    ) -> None:
        headers = {"xkey": "x", "Cache-Control": "s-maxage=60, max-age=5, stale-if-error=9, public"}
        origin.page(path, {**held(key), **headers})

        reply = get(SIGNED)

        assert reply.headers["Cache-Control"] == "max-age=5, public"
        for name in ("Surrogate-Key", "xkey", "Surrogate-Control", "Age"):
            assert name not in reply.headers


class TestPurging:
    def test_purge_by_key_makes_a_miss(
        self, edge: Edge, origin: Origin, path: str, key: str, get: Get
    ) -> None:
        origin.page(path, held(key))
        get()
        assert get().body == b"data: 1\n\n"

        purged = purge(edge, key)

        assert (purged.status, purged.headers["Grip-Edge-Purged"]) == (200, "1")
        assert (get().body, get().headers["X-Cache"]) == (b"data: 2\n\n", "HIT")

    def test_purge_spares_other_keys(
        self, edge: Edge, origin: Origin, path: str, key: str, get: Get
    ) -> None:
        origin.page(path, held(key))
        get()

        assert purge(edge, f"{key}x").headers["Grip-Edge-Purged"] == "0"
        assert get().headers["X-Cache"] == "HIT"

    def test_many_purge_lines_and_key_lines_count(
        self, edge: Edge, origin: Origin, path: str, get: Get
    ) -> None:
        lines = [("Surrogate-Key", "line-1 line-2"), ("Surrogate-Key", "line-3")]
        origin.page(path, [*FOREVER.items(), *lines])
        get()

        purged = purge(edge, *(" ".join(f"{n}-{i}" for i in range(700)) for n in "abc"), "line-3")

        assert purged.headers["Grip-Edge-Purged"] == "1"
        assert get().headers["X-Cache"] == "MISS"

    def test_last_of_many_keys_counts(
        self, edge: Edge, origin: Origin, path: str, get: Get
    ) -> None:
        keys = " ".join(f"k{number:06}" for number in range(937))
        assert len(keys) == 7_495
        origin.page(path, {**FOREVER, "Surrogate-Key": keys})
        get()
        assert get().headers["X-Cache"] == "HIT"

        purge(edge, keys.split()[-1])

        assert get().headers["X-Cache"] == "MISS"

    def test_strangers_may_not_purge(
        self, edge: Edge, origin: Origin, path: str, key: str, get: Get
    ) -> None:
        origin.page(path, held(key))
        get()

        stranger = purge(edge, key, source="127.0.0.2")
        through_pushpin = request(edge.url, {"xkey-purge": key}, method="PURGEKEYS")

        assert (stranger.status, through_pushpin.status) == (403, 403)
        assert "Grip-Edge-Purged" not in stranger.headers
        assert get().headers["X-Cache"] == "HIT"

    def test_purge_without_keys_is_a_mistake(self, edge: Edge) -> None:
        reply = purge(edge)

        assert (reply.status, reply.headers["Grip-Edge-Purged"]) == (400, None)


class TestStaleIfError:
    def test_purged_page_is_shown_only_while_the_app_is_down(
        self, edge: Edge, origin: Origin, path: str, key: str, get: Get
    ) -> None:
        page = origin.page(path, held(key))
        get()
        purge(edge, key)
        origin.stop()
        for _ in range(3):
            stale = get(SIGNED)
            assert (stale.status, stale.headers["X-Cache"]) == (200, "STALE")
            assert (stale.body, stale.headers["Grip-Hold"]) == (b"data: 1\n\n", "stream")

        origin.start()

        assert (get().body, len(page.requests)) == (b"data: 2\n\n", 2)

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    def test_purged_page_stands_in_for_an_error(
        self, edge: Edge, origin: Origin, path: str, key: str, get: Get, status: int
    ) -> None:
        page = origin.page(path, held(key))
        get()
        purge(edge, key)
        page.status = f"{status} Error"

        reply = get()

        assert (reply.body, reply.headers["X-Cache"]) == (b"data: 1\n\n", "STALE")
        assert len(page.requests) == 2

    def test_other_answers_are_no_errors(
        self, edge: Edge, origin: Origin, path: str, key: str, get: Get
    ) -> None:
        page = origin.page(path, held(key))
        get()
        purge(edge, key)
        page.status, page.headers = "404 Not Found", []

        assert get().status == 404

    def test_error_without_a_copy_is_shown_as_it_is(
        self, origin: Origin, path: str, get: Get
    ) -> None:
        page = origin.page(path, {"X-Reason": "disk full"}, status="500 Error")

        reply = get()

        assert (reply.status, reply.headers["X-Reason"]) == (500, "disk full")
        assert "Vary" not in reply.headers
        assert len(page.requests) == 1

    def test_error_is_never_kept(self, origin: Origin, path: str, get: Get) -> None:
        page = origin.page(path, FOREVER, status="503 Error")
        get()
        page.status = "200 OK"

        assert get().status == 200

    @pytest.mark.parametrize("cookie", [{}, {"Cookie": "a=1"}])
    def test_everybody_who_waited_for_a_failure_gets_the_copy(
        self, edge: Edge, origin: Origin, path: str, key: str, get: Get, cookie: dict[str, str]
    ) -> None:
        page = origin.page(path, held(key))
        get()
        purge(edge, key)
        page.status = "503 Error"
        page.is_open.clear()

        with ThreadPoolExecutor(30) as pool:
            replies = [pool.submit(get, cookie) for _ in range(30)]
            eventually(lambda: len(page.requests) == 2)
            page.is_open.set()

            assert {reply.result().headers["X-Cache"] for reply in replies} == {"STALE"}

    @pytest.mark.real_edge  # the embedded one looks at headers when the body is whole
    def test_who_waited_for_a_slow_app_that_did_not_fail_gets_no_copy(
        self, edge: Edge, origin: Origin, path: str, key: str, get: Get
    ) -> None:
        """The answer to the one is not for the other, who has waited for it all the same."""
        page = origin.page(path, held(key))
        get()
        purge(edge, key)
        page.headers.append(("Vary", "Cookie"))
        page.is_open.clear()
        # The old copy goes when the new one is whole; who waits looks again at its headers.
        page.is_whole.clear()
        # The VCL thinks of a failure when somebody has waited for more than 2 s.
        app_answers = threading.Timer(2.2, page.is_open.set)

        with ThreadPoolExecutor(2) as pool:
            replies = [pool.submit(get, {"Cookie": cookie}) for cookie in "ab"]
            app_answers.start()
            eventually(lambda: len(page.requests) == 3)
            page.is_whole.set()

            assert [reply.result().headers["X-Cache"] for reply in replies] == ["MISS", "MISS"]

    def test_copy_is_gone_when_its_time_is_up(
        self, edge: Edge, origin: Origin, path: str, key: str, get: Get
    ) -> None:
        origin.page(path, {**held(key), "Surrogate-Control": "max-age=3600"})
        get()
        purge(edge, key)
        origin.stop()

        assert get().status == 503

    def test_hard_purge_leaves_no_copy(
        self, edge: Edge, origin: Origin, path: str, key: str, get: Get
    ) -> None:
        origin.page(path, held(key))
        get()
        purge(edge, key, hard=True)
        origin.stop()

        assert get().status == 503

    def test_refetch_is_unconditional(
        self, edge: Edge, origin: Origin, path: str, key: str, get: Get
    ) -> None:
        page = origin.page(path, {**held(key), "ETag": '"a"'})
        get()
        purge(edge, key)
        get()

        assert "HTTP_IF_NONE_MATCH" not in page.requests[1]

    def test_failed_write_is_not_repeated(self, origin: Origin, path: str, get: Get) -> None:
        page = origin.page(path, FOREVER, status="503 Error")

        assert get(method="POST", body=b"x").status == 503
        assert len(page.requests) == 1


class TestCaching:
    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Cache-Control": "private, no-store", "Surrogate-Control": "no-store"},
            {"Surrogate-Control": "no-store", "Cache-Control": "max-age=60"},
            {"Surrogate-Control": "max-age=0", "Cache-Control": "max-age=60"},
            {"Surrogate-Control": "max-age=60", "Cache-Control": "private"},
            {"Surrogate-Control": "max-age=60", "Cache-Control": "no-store"},
            {"Surrogate-Control": "max-age=60", "Set-Cookie": "a=1"},
            {"Surrogate-Control": "max-age=60", "Vary": "*"},
            {"Cache-Control": "no-cache, max-age=60"},
        ],
        ids=str,
    )
    def test_is_not_kept(
        self, edge: Edge, origin: Origin, key: str, headers: dict[str, str]
    ) -> None:
        page = origin.page("/not-kept", headers)
        url = f"{edge.cache_url}/not-kept?{quote(key)}"

        assert [request(url).headers["X-Cache"] for _ in range(3)] == ["MISS"] * 3
        assert len(page.requests) == 3

    @pytest.mark.parametrize(
        "headers",
        [
            {"Surrogate-Control": "max-age=60"},
            {"Surrogate-Control": "stale-if-error=9, max-age=60", "Cache-Control": "no-cache"},
            {"Surrogate-Control": "max-age=60", "Cache-Control": "max-age=0"},
            {"Cache-Control": "s-maxage=60, max-age=0"},
            {"Cache-Control": "max-age=60"},
        ],
        ids=str,
    )
    def test_is_kept(self, edge: Edge, origin: Origin, key: str, headers: dict[str, str]) -> None:
        page = origin.page("/kept", headers)
        url = f"{edge.cache_url}/kept?{quote(key)}"

        assert [request(url).headers["X-Cache-Hits"] for _ in range(3)] == ["0", "1", "2"]
        assert len(page.requests) == 1

    def test_uncacheable_requests_do_not_queue(
        self, edge: Edge, origin: Origin, path: str, get: Get
    ) -> None:
        page = origin.page(path, {"Cache-Control": "no-store"})
        get()
        page.is_open.clear()

        with ThreadPoolExecutor(5) as pool:
            replies = [pool.submit(get) for _ in range(5)]
            eventually(lambda: len(page.requests) == 6)
            page.is_open.set()

            assert len({reply.result().body for reply in replies}) == 5

    def test_cookie_alone_is_no_reason_to_miss(self, origin: Origin, path: str, get: Get) -> None:
        origin.page(path, FOREVER)

        assert [get({"Cookie": c}).headers["X-Cache"] for c in "ab"] == ["MISS", "HIT"]

    def test_vary_cookie_is_respected(self, origin: Origin, path: str, get: Get) -> None:
        origin.page(path, {**FOREVER, "Vary": "Cookie"})

        assert [get({"Cookie": c}).headers["X-Cache"] for c in "aba"] == ["MISS", "MISS", "HIT"]

    def test_authorized_request_passes(self, origin: Origin, path: str, get: Get) -> None:
        origin.page(path, FOREVER)

        assert [get({"Authorization": "x"}).headers["X-Cache"] for _ in "ab"] == ["MISS", "MISS"]

    def test_streams_are_asked_for_in_one_way(self, origin: Origin, path: str, get: Get) -> None:
        page = origin.page(path, {**FOREVER, "Vary": "Accept"})

        for accept in ("text/event-stream", "text/event-stream, */*;q=0.1", "text/html;q=1"):
            get({"Accept": accept})

        assert [r["HTTP_ACCEPT"] for r in page.requests] == ["text/event-stream", "text/html;q=1"]


@pytest.mark.real_edge  # the embedded one has no cache between a socket and its proxy
def test_websocket_is_piped(edge: Edge, origin: Origin) -> None:
    origin.stop()
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nGrip-Sig: token\r\n"
    with (
        socket.create_server(("127.0.0.1", edge.app_port)) as listener,
        socket.create_connection(("127.0.0.1", edge.cache_port), timeout=5) as client,
    ):
        listener.settimeout(5)

        def handshake() -> tuple[socket.socket, bytes]:
            client.sendall(b"GET /ws HTTP/1.1\r\nHost: a\r\n" + upgrade + b"\r\n")
            backend, _ = listener.accept()
            return backend, backend.recv(65_536)

        backend, head = handshake()
        with backend:
            backend.sendall(b"HTTP/1.1 101 Switching Protocols\r\n" + upgrade + b"\r\n")
            assert client.recv(65_536).startswith(b"HTTP/1.1 101")
            client.sendall(b"ping")

            assert backend.recv(4) == b"ping"
            for line in upgrade.splitlines():
                assert line.lower() in head.lower()


class TestLongPolls:
    """One copy for all: the cache compares it with what each client has."""

    @pytest.mark.parametrize(
        ("has", "is_held"),
        [
            (None, False),
            ('"old"', False),
            ('"new"', True),
            ('W/"new"', True),
            ('"old", "new"', True),
            ("*", False),
        ],
        ids=["nothing", "old", "same", "weak", "several", "any"],
    )
    @pytest.mark.parametrize("tag", ['"new"', 'W/"new"'], ids=["strong", "weak"])
    def test_only_who_has_the_copy_is_held(
        self, origin: Origin, path: str, get: Get, tag: str, has: str | None, is_held: bool
    ) -> None:
        page = origin.page(path, {**held("polled"), "Grip-Hold": "response", "ETag": tag})
        get(SIGNED)

        reply = get({**SIGNED, **({} if has is None else {"If-None-Match": has})})

        assert len(page.requests) == 1
        assert reply.headers["ETag"] == tag
        assert (reply.status, reply.headers["Grip-Hold"], reply.headers["Grip-Channel"]) == (
            (304, "response", "polled") if is_held else (200, None, None)
        )

    def test_a_poll_that_the_proxy_repeats_gets_the_same_copy(
        self, origin: Origin, path: str, get: Get
    ) -> None:
        page = origin.page(path, {**held("repeated"), "Grip-Hold": "response", "ETag": '"1"'})

        for last in ("c; last-id=1", "c; last-id=2"):
            get({**SIGNED, "Grip-Last": last})

        assert len(page.requests) == 1

    def test_what_is_not_cached_is_compared_too(self, origin: Origin, path: str, get: Get) -> None:
        private = {"Cache-Control": "private, no-store", "Grip-Hold": "response", "ETag": '"1"'}
        origin.page(path, {**held("private"), "Surrogate-Control": "no-store", **private})

        assert get(SIGNED).status == 200
        assert get({**SIGNED, "If-None-Match": '"1"'}).status == 304


class TestNextLinks:
    """What a GRIP proxy is told at a next link: clients that are held must stay so."""

    URL = "/.grip-edge/next/3"

    def ask(self, edge: Edge, last: str, headers: Headers = SIGNED) -> Reply:
        return request(edge.cache_url + self.URL, [*pairs(headers), ("Grip-Last", last)])

    def test_each_client_gets_the_answer_to_what_it_has(self, edge: Edge, origin: Origin) -> None:
        page = origin.page(self.URL, {**held("two-clients"), "Vary": "Grip-Last"})

        replies = [self.ask(edge, f"c; last-id={last}") for last in ("1", "2", "1", "2")]

        assert [reply.headers["X-Cache"] for reply in replies] == ["MISS", "MISS", "HIT", "HIT"]
        assert [r["HTTP_GRIP_LAST"] for r in page.requests] == ["c; last-id=1", "c; last-id=2"]

    def test_without_the_app_and_a_copy_nothing_is_new(self, edge: Edge, origin: Origin) -> None:
        origin.stop()

        reply = self.ask(edge, "gone; last-id=7, other; last-id=8.c")

        origin.start()
        assert (reply.status, reply.body) == (200, b"")
        assert reply.headers["Grip-Hold"] == "stream"
        assert reply.headers["Grip-Channel"] == "gone; prev-id=7, other; prev-id=8.c"
        assert reply.headers["Grip-Link"] == f"<{self.URL}>; rel=next; timeout=10"

    def test_with_a_copy_the_copy_is_shown(self, edge: Edge, origin: Origin) -> None:
        origin.page(self.URL, {**held("copied"), "Vary": "Grip-Last"})
        first = self.ask(edge, "copied; last-id=1")
        purge(edge, "copied")
        origin.stop()

        reply = self.ask(edge, "copied; last-id=1")

        origin.start()
        assert (reply.status, reply.headers["X-Cache"]) == (200, "STALE")
        assert reply.body == first.body

    @pytest.mark.parametrize("status", ["500 Error", "503 Error"])
    def test_an_app_that_fails_closes_no_stream(
        self, edge: Edge, origin: Origin, status: str
    ) -> None:
        origin.page(self.URL, [], status)

        reply = self.ask(edge, f"failing-{status[:3]}; last-id=1")

        assert (reply.status, reply.headers["Grip-Hold"]) == (200, "stream")

    def test_a_stranger_is_not_believed(self, edge: Edge, origin: Origin) -> None:
        page = origin.page(self.URL, held("strangers"))

        self.ask(edge, "strangers; last-id=1", headers=())

        assert "HTTP_GRIP_LAST" not in page.requests[0]

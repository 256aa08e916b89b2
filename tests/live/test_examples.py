"""The examples as users run them: under gunicorn and uvicorn, behind Pushpin and Varnish."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from clients import StreamClient, connected, request
from launch import Edge
from servers import command_server, wait_until_reached

pytestmark = [pytest.mark.live, pytest.mark.both_edges]

GUNICORN = ["-m", "gunicorn", "--threads", "8", "--log-level", "warning"]
UVICORN = ["-m", "uvicorn", "--log-level", "warning"]


def flask_example(
    edge: Edge, folder: Path, app: str = "examples.flask_app.app:app"
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    command = [sys.executable, *GUNICORN, "--bind", f"127.0.0.1:{edge.app_port}"]
    return command_server(
        [*command, app],
        edge.app_port,
        env=environment(edge, f"sqlite:///{folder}/counters.sqlite3"),
    )


def starlette_example(edge: Edge, folder: Path) -> AbstractContextManager[subprocess.Popen[bytes]]:
    command = [sys.executable, *UVICORN, "--port", str(edge.app_port)]
    return command_server(
        [*command, "examples.starlette_app.app:app"],
        edge.app_port,
        env=environment(edge, f"sqlite+aiosqlite:///{folder}/auctions.sqlite3"),
    )


def environment(edge: Edge, database: str) -> dict[str, str]:
    return {"GRIP_URL": edge.control_url, "EDGE_CDN": edge.cdn_url, "DATABASE_URL": database}


@pytest.fixture
def fresh_edge(edge: Edge) -> Edge:
    """The edge with nothing cached from another test's app."""
    edge.stop_varnish()
    edge.start_varnish()
    return edge


def shows(key: str, value: object) -> Any:
    return lambda data: json.loads(data)[key] == value


def post(url: str, **form: object) -> Any:
    body = urlencode(form).encode()
    reply = request(
        url, {"Content-Type": "application/x-www-form-urlencoded"}, method="POST", body=body
    )
    assert reply.status == 200, reply
    return json.loads(reply.body)


@pytest.mark.real_edge  # takes long
def test_a_killed_app_is_not_missed_until_it_returns(fresh_edge: Edge, tmp_path: Path) -> None:
    edge = fresh_edge
    events = f"{edge.url}/counters/coffees/events"
    increment = f"{edge.url}/counters/coffees/increment"

    async def scenario() -> float:
        with flask_example(edge, tmp_path) as app:
            await asyncio.to_thread(post, increment)
            old = await connect_20(events)
            for client in old:
                await client.event(shows("value", 1))
            app.send_signal(signal.SIGKILL)
            await asyncio.to_thread(app.wait)

        # gunicorn's worker notices that its master is gone; only then the port is free.
        await asyncio.to_thread(wait_until_refused, edge.app_port)
        new = await connect_20(events)
        for client in new:
            await client.event(shows("value", 1))
            assert client.headers["X-Cache"] in ("HIT", "STALE")

        with flask_example(edge, tmp_path):
            await asyncio.to_thread(wait_until_reached, f"{edge.url}/counters/nobody/value")
            saved = time.monotonic()
            await asyncio.to_thread(post, increment)
            arrivals = [(await c.event(shows("value", 2))).at for c in old + new]
            assert not any(client.is_ended for client in old + new)
            await asyncio.gather(*(client.close() for client in old + new))
        return max(arrivals) - saved

    delay_s = asyncio.run(scenario())

    print(f"\napp killed and back: 20 old and 20 new clients have the save after {delay_s:.2f} s")


async def connect_20(url: str) -> list[StreamClient]:
    clients = [StreamClient(url) for _ in range(20)]
    await asyncio.gather(*(client.connect() for client in clients))
    return clients


def wait_until_refused(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            request(f"http://127.0.0.1:{port}/", timeout_s=5)
        except ConnectionRefusedError:
            return
        except OSError:
            pass
        assert time.monotonic() < deadline


def test_a_bid_reaches_every_topic_of_an_auctions_page(fresh_edge: Edge, tmp_path: Path) -> None:
    edge = fresh_edge
    paths = ("/auctions/1/events", "/auctions/1/bids/events", "/auctions/events")

    async def scenario() -> None:
        async with connected(StreamClient(edge.url + path) for path in paths) as clients:
            price, bids, summary = clients
            for client in clients:
                await client.event(lambda _: True)
            await asyncio.to_thread(post, f"{edge.url}/auctions/1/bids", bidder="ann", amount=5000)
            await price.event(shows("price", 5000))
            await bids.event(shows("highest", 5000))
            await summary.event(shows("bids", 1))
            page = await asyncio.to_thread(request, f"{edge.url}/auctions/1")
            assert page.headers["X-Cache"] == "MISS"
            assert b"5,000" in page.body
            assert (await asyncio.to_thread(request, f"{edge.url}/auctions/1")).headers[
                "X-Cache"
            ] == "HIT"

    with starlette_example(edge, tmp_path):
        asyncio.run(scenario())


def test_sigterm_right_after_a_save_delivers_it(fresh_edge: Edge, tmp_path: Path) -> None:
    edge = fresh_edge

    async def scenario() -> None:
        with starlette_example(edge, tmp_path) as app:
            async with StreamClient(f"{edge.url}/auctions/2/events") as client:
                await client.event(lambda _: True)
                for amount in range(1000, 1010):  # within the throttle's window
                    await asyncio.to_thread(
                        post, f"{edge.url}/auctions/2/bids", bidder="bob", amount=amount
                    )
                app.send_signal(signal.SIGTERM)
                await client.event(shows("price", 1009))

    asyncio.run(scenario())

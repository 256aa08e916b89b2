"""The app is killed for a minute while everybody is connected, and nobody loses a stream.

The next links fall due every three seconds, so all clients ask for what is new all the time. The
page is purged meanwhile, so the cache has only old copies.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from clients import StreamClient, connected, request
from launch import Edge, process_tree
from servers import wait_until_reached
from test_examples import flask_example, post, shows, wait_until_refused

pytestmark = [pytest.mark.live, pytest.mark.lab, pytest.mark.timeout(300)]

DEAD_S = 60.0
OLD, NEW = 200, 20

in_thread = asyncio.to_thread


def test_the_app_is_dead_for_a_minute(edge: Edge, tmp_path: Path) -> None:
    events = f"{edge.url}/counters/outage/events"
    increment = f"{edge.url}/counters/outage/increment"

    def crowd(count: int) -> list[StreamClient]:
        return [StreamClient(events) for _ in range(count)]

    async def scenario() -> tuple[int, float]:
        with flask_example(edge, tmp_path, "tests.live.short_links:app") as app:
            await in_thread(wait_until_reached, f"{edge.url}/counters/nobody/value")
            await in_thread(post, increment)
            async with connected(crowd(OLD)) as old:
                await all_show(old, 1)
                await in_thread(kill, app, edge)
                died = time.monotonic()
                async with connected(crowd(NEW)) as new:
                    await all_show(new, 1)
                    await in_thread(purge, edge)
                    async with connected(crowd(NEW)) as after_purge:
                        await all_show(after_purge, 1)
                        await asyncio.sleep(died + DEAD_S - time.monotonic())
                        clients = old + new + after_purge
                        ended = sum(client.is_ended for client in clients)
                        return ended, await save_after_return(clients)

    async def save_after_return(clients: list[StreamClient]) -> float:
        with flask_example(edge, tmp_path, "tests.live.short_links:app"):
            await in_thread(wait_until_reached, f"{edge.url}/counters/nobody/value")
            saved = time.monotonic()
            await in_thread(post, increment)
            return await all_show(clients, 2) - saved

    ended, delay_s = asyncio.run(scenario())

    print(
        f"\napp dead for {DEAD_S:g} s: {ended} of {OLD} old and {2 * NEW} new clients disconnected,"
        f" the first save after it reached all after {delay_s:.2f} s"
    )
    assert ended == 0
    assert delay_s < 5


async def all_show(clients: list[StreamClient], value: int) -> float:
    """Wait until all clients have got a value; return when the last did."""
    return max([(await client.event(shows("value", value), 10)).at for client in clients])


def kill(app: subprocess.Popen[bytes], edge: Edge) -> None:
    for pid in process_tree(app.pid):
        os.kill(pid, signal.SIGKILL)
    app.wait()
    wait_until_refused(edge.app_port)


def purge(edge: Edge) -> None:
    keys = {"xkey-purge": "counter-outage"}
    assert request(edge.cache_url, keys, method="PURGEKEYS").status == 200

"""Two tiers of cache: purged from the app outwards, else the outer refills from the inner.

    client -> Pushpin -> Varnish (outer) -> Varnish (inner) -> app

Both run the shipped VCL. The inner hides nothing, since who asks it is a cache.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from clients import StreamClient, connected, request
from launch import Edge, Service, free_ports, refuses_empty_purge, varnish_command, write_copy
from servers import wait_until_reached, wsgi_server
from tap import Tap

from grip_edge_middleware import GripEdge

pytestmark = [pytest.mark.live, pytest.mark.lab]

PAGES = 20


@contextmanager
def inner_tier(port: int, app_port: int) -> Iterator[None]:
    with TemporaryDirectory(prefix="tier-") as folder:
        rundir = Path(folder)
        write_copy(
            "default.vcl",
            rundir,
            {
                '.port = "8000";': f'.port = "{app_port}";',
                "    call hide_the_edge;\n": "    return (deliver);\n    call hide_the_edge;\n",
            },
        )
        varnish = Service(varnish_command(rundir, port), rundir)
        try:
            varnish.start()
            varnish.wait_until(lambda: refuses_empty_purge(port), 30)
            yield
        finally:
            varnish.stop()


class Pages:
    """An app whose pages show one value each. It purges the tiers in the order given."""

    def __init__(self, edge: Edge, tiers: list[Tap]) -> None:
        self.values: dict[str, int] = {}
        self.grip_edge = GripEdge(
            settings={
                "cdn": [f"varnish://127.0.0.1:{tier.port}" for tier in tiers],
                "grip_url": edge.control_url,
                "confirm_after": 0,
                "topics": {"tiers-{n}": {"routes": ["/tiers/<n>"], "hold": "stream"}},
            }
        )
        self.wsgi = self.grip_edge.wsgi(self.app)

    def app(self, environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return [b"data: %d\n\n" % self.values.get(environ["PATH_INFO"], 0)]


@contextmanager
def two_tiers(edge: Edge, *, inner_first: bool) -> Iterator[tuple[Pages, Tap]]:
    """Serve pages through both; yield them, and the tap on the tier that is purged last."""
    app_port, inner_port = next(free_ports()), edge.app_port
    with ExitStack() as stack:
        stack.enter_context(inner_tier(inner_port, app_port))
        inner, outer = (stack.enter_context(Tap(port)) for port in (inner_port, edge.cache_port))
        tiers = [inner, outer] if inner_first else [outer, inner]
        pages = Pages(edge, tiers)
        stack.callback(pages.grip_edge.close)
        stack.enter_context(wsgi_server(pages.wsgi, app_port))
        wait_until_reached(f"{edge.cache_url}/tiers/ready")
        yield pages, tiers[1]


def stale_pages(edge: Edge, *, inner_first: bool) -> int:
    """Count the pages that stay old when each is asked for between the purges of the tiers."""
    stale = 0
    with two_tiers(edge, inner_first=inner_first) as (pages, last):
        for number in range(PAGES):
            path = f"/tiers/{inner_first}-{number}"
            assert request(edge.cache_url + path).body == b"data: 0\n\n"
            with last.arrivals.holding(f"tiers-{inner_first}-{number}") as held:
                pages.values[path] = 1
                pages.grip_edge.submit("tiers-{n}", n=f"{inner_first}-{number}")
                held.wait()
                request(edge.cache_url + path)
            assert pages.grip_edge.flush(10)
            stale += request(edge.cache_url + path).body != b"data: 1\n\n"
    return stale


def test_a_request_between_the_purges_of_two_tiers(edge: Edge) -> None:
    inner_first = stale_pages(edge, inner_first=True)
    control = stale_pages(edge, inner_first=False)

    print(f"\ntwo tiers: {inner_first} of {PAGES} stale; outer first: {control} of {PAGES}")
    assert (inner_first, control) == (0, PAGES)


def test_streams_through_two_tiers(edge: Edge) -> None:
    async def scenario() -> None:
        with two_tiers(edge, inner_first=True) as (pages, _):
            url = f"{edge.url}/tiers/held"
            async with connected(StreamClient(url) for _ in range(PAGES)) as clients:
                for client in clients:
                    await client.event(lambda data: data == "0")
                pages.values["/tiers/held"] = 1
                pages.grip_edge.submit("tiers-{n}", n="held")
                for client in clients:
                    await client.event(lambda data: data == "1")

    asyncio.run(scenario())

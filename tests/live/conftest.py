"""The edge, running, for tests that want the real thing: Pushpin and Varnish.

A test that is marked `both_edges` runs on the development edge as well, from the same code.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

HERE = Path(__file__).resolve().parent
# `clients` and `servers` lie beside this file.
sys.path.insert(0, str(HERE))

from board import Wired  # noqa: E402
from clients import CONNECTS_AT_ONCE, StreamClient, connected  # noqa: E402
from embedded import EmbeddedEdge  # noqa: E402
from launch import Edge, EdgeMissing, free_ports  # noqa: E402
from wire import Wire  # noqa: E402

from tests.missing import skip_outside_ci  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator


# Below this, the real edge has WebSockets over HTTP; the embedded one has no others.
SOCKETS = ("/ws/", "/rooms/")
EDGES = {"real": Edge, "embedded": EmbeddedEdge}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on the edges that it is for."""
    if "make_edge" in metafunc.fixturenames:
        marks = {mark.name for mark in metafunc.definition.iter_markers()}
        both = "both_edges" in marks and not marks & {"real_edge", "lab"}
        kinds = ["embedded", "real"] if both else ["real"]
        metafunc.parametrize(
            "make_edge", [EDGES[kind] for kind in kinds], ids=kinds, scope="session"
        )


@pytest.fixture(scope="session")
def edge(make_edge: type[Edge]) -> Iterator[Edge]:
    """An edge in front of `edge.app_port`, where no app listens yet."""
    with running(make_edge()) as edge:
        yield edge


@pytest.fixture(scope="session")
def wired(make_edge: type[Edge]) -> Iterator[Wired]:
    """Another edge, with a wire between proxy and cache on which answers can be held."""
    cache_port = next(free_ports())
    with (
        Wire(cache_port) as wire,
        running(make_edge(cache_port=cache_port, proxied_port=wire.port)) as edge,
    ):
        yield Wired(edge, wire)


@pytest.fixture(scope="session")
def unwired(edge: Edge) -> Wired:
    """The edge as it is shipped: nothing passes by the wire."""
    return Wired(edge, Wire(edge.cache_port))


@pytest.fixture(scope="session")
def socket_edge(make_edge: type[Edge]) -> Iterator[Edge]:
    """An edge that asks the app over HTTP for the WebSockets below SOCKETS."""
    with running(make_edge(over_http=SOCKETS)) as edge:
        yield edge


@contextmanager
def running(edge: Edge) -> Iterator[Edge]:
    try:
        edge.start()
    except EdgeMissing as missing:
        skip_outside_ci(str(missing))
    asyncio.run(meet_a_crowd(edge))
    yield edge
    edge.stop()


async def meet_a_crowd(edge: Edge) -> None:
    """Hold many streams at once, for nothing.

    Of the first that come together after its start, Pushpin was seen to drop some ("received
    message out of sequence, canceling"). The crowds of the tests are not the first.
    """
    probes = [StreamClient(f"{edge.url}/.grip-edge/probe") for _ in range(CONNECTS_AT_ONCE)]
    async with connected(probes):
        held = (probe.until(b"held") for probe in probes)
        await asyncio.gather(*held, return_exceptions=True)

"""A real Redis server, which starts with the first test that needs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stores import redis_server
from tests.stores.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """The server that tests share, each with names of its own."""
    with redis_server.running() as server:
        yield server


@pytest.fixture(autouse=True)
def shelves_have_their_server(request: pytest.FixtureRequest) -> None:
    """`SHELVES["redis"]` is opened by processes as well, which know no fixtures."""
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and "redis" in callspec.params.values():
        redis_server.shared_url = request.getfixturevalue("redis").url

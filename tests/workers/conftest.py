"""The stores that workers share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stores import redis_server
from tests.stores.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_of_all() -> Iterator[RedisServer]:
    """The server that tests share which do it no harm, each with a name of its own."""
    with redis_server.running() as server:
        yield server


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """A server of one's own."""
    with redis_server.running() as server:
        yield server


@pytest.fixture(params=[pytest.param("sqlite", marks=pytest.mark.lab), "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    """The setting of a store that is empty. `make test` has time for one, unless a test says so."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store'}"
    return {"url": request.getfixturevalue("redis_of_all").url, "name": tmp_path.name}

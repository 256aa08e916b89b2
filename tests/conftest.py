"""What holds for every test."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.recording import DEADLINE_S


@pytest.fixture(scope="module", autouse=True)
def no_edge_is_left_running() -> Iterator[None]:
    """The thread of an edge that nobody closed goes on retrying, with random pauses.

    Hypothesis takes these for randomness of the strategies that another file's test draws from.
    """
    yield
    for thread in threading.enumerate():
        if thread.name == "grip-edge":
            thread.join(DEADLINE_S)
            assert not thread.is_alive(), "close the edge"

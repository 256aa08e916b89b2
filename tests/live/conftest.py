"""The shipped edge, running, for tests that want the real thing."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

HERE = Path(__file__).resolve().parent
# `launch` is what users run; `clients` and `servers` lie beside this file.
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "examples" / "edge")]

from launch import Edge, EdgeMissing  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def edge() -> Iterator[Edge]:
    """Pushpin and Varnish in front of `edge.app_port`, where no app listens yet."""
    edge = Edge()
    try:
        edge.start()
    except EdgeMissing as missing:
        # In CI a skip would be a hole that nobody sees.
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
    yield edge
    edge.stop()

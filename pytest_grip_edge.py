"""The pytest plugin: fixtures for an app's edge. What asserts is in `grip_edge_middleware.testing`.

Beside the package, not in it, so that pytest's start imports nothing of that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from grip_edge_middleware import GripEdge
    from grip_edge_middleware.testing import EmbeddedEdge, Recording

OVERRIDE = """which GripEdge is tested? Override the fixture grip_edge, in conftest.py:

    @pytest.fixture
    def grip_edge():
        from shop import edge
        return edge
"""


class Embeds(Protocol):
    """Serves an app behind the embedded edge until the test ends."""

    def __call__(self, app: Any, *, verify_key: str | None = None) -> EmbeddedEdge:
        """Return what to talk to."""


@pytest.fixture
def grip_edge() -> GripEdge:
    """Return the app's GripEdge. To be overridden in `conftest.py`."""
    raise pytest.UsageError(OVERRIDE)


@pytest.fixture
def recording_edge(grip_edge: GripEdge) -> Iterator[Recording]:
    """Record what the app's edge would send; nothing leaves the process."""
    from grip_edge_middleware.testing import recording

    with recording(grip_edge) as recorded:
        yield recorded


@pytest.fixture
def embedded_edge(grip_edge: GripEdge) -> Iterator[Embeds]:
    """Return a function that serves an app behind the embedded edge until the test ends."""
    from grip_edge_middleware.testing import embedded

    with ExitStack() as stack:

        def serve(app: Any, *, verify_key: str | None = None) -> EmbeddedEdge:
            return stack.enter_context(embedded(grip_edge, app, verify_key=verify_key))

        yield serve

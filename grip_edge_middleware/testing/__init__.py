"""For the tests of an app: what its edge would send, and what its responses say.

Nothing here needs pytest; the fixtures are in `pytest_grip_edge`. No network, no sleeping.

    with recording(edge) as recorded:
        client.post("/counters/a")
        recorded.settle()
        assert_purged_before_published(recorded, "counter-a")
"""

from __future__ import annotations

from grip_edge_middleware.testing.embedded import EmbeddedEdge, Event, Stream, embedded
from grip_edge_middleware.testing.recording import Recording, recording
from grip_edge_middleware.testing.responses import (
    assert_cacheable,
    assert_held,
    assert_hit,
    assert_miss,
    assert_not_cacheable,
    assert_not_held,
    assert_not_tagged,
    assert_tagged,
)
from grip_edge_middleware.testing.sent import Published, Purged, Recovered, Sent
from grip_edge_middleware.testing.told import (
    assert_not_published,
    assert_not_purged,
    assert_nothing_sent,
    assert_order,
    assert_published,
    assert_purged,
    assert_purged_before_published,
    published,
    purged,
)

__all__ = [
    "EmbeddedEdge",
    "Event",
    "Published",
    "Purged",
    "Recording",
    "Recovered",
    "Sent",
    "Stream",
    "assert_cacheable",
    "assert_held",
    "assert_hit",
    "assert_miss",
    "assert_not_cacheable",
    "assert_not_held",
    "assert_not_published",
    "assert_not_purged",
    "assert_not_tagged",
    "assert_nothing_sent",
    "assert_order",
    "assert_published",
    "assert_purged",
    "assert_purged_before_published",
    "assert_tagged",
    "embedded",
    "published",
    "purged",
    "recording",
]

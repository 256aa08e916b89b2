"""What log records of this package say besides their text, for formatters that write JSON.

Never a secret: a target's name has no key, and a reason repeats none.
"""

from __future__ import annotations

from typing import TypedDict, Unpack


class Fields(TypedDict, total=False):
    """The fields, each of which a record has as `grip_edge_` and its name."""

    target: str
    """A CDN, a GRIP proxy, "render", "store", or the outbox's table."""
    topic: str
    topics: int
    """How many there are."""
    changes: int
    """How many there are."""
    route: str
    """A path's pattern."""
    failures: int
    """How many there were in a row."""
    reason: str
    """What went wrong."""
    limit: int
    """What was exceeded."""


def log_fields(**fields: Unpack[Fields]) -> dict[str, object]:
    """Return the `extra` of a log call."""
    return {f"grip_edge_{name}": value for name, value in fields.items()}

"""How a change arrives: listeners on the ORMs that tell which saves were committed.

A source hands changes to a sink once the transaction's outcome is known, and never raises into
the app. An ORM that is not installed is not listened to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from grip_edge_middleware.changes import Change, Watches

Sink = Callable[[Sequence[Change]], None]
"""Takes changes after their commit. Must neither raise nor block."""


def connect(watches: Watches, sink: Sink) -> Callable[[], None]:
    """Listen to the saves of all watched models; return what ends that."""
    if not watches.watches or find_spec("sqlalchemy") is None:
        return lambda: None
    from grip_edge_middleware.sources.sqlalchemy import SQLAlchemySource

    source = SQLAlchemySource(watches, sink)
    return source.disconnect

"""What an edge does, entry by entry, for whoever watches: `grip-edge watch`, the timeline, a trace.

Written on the dispatcher's thread and while responses are made, read elsewhere. It never waits and
never raises: what a reader has no room for is lost to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, get_args

Kind = Literal["change", "purge", "render", "publish", "failure", "health"]
KINDS: tuple[str, ...] = get_args(Kind)

# What an entry names at most: a batch may have a thousand.
MAX_NAMES = 50


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that was done, or that failed."""

    kind: Kind
    at: float
    """When it was over: seconds since the epoch."""
    names: tuple[str, ...] = ()
    """Topics; the keys of a purge."""
    count: int = 0
    """How many there are in all: `names` has the first MAX_NAMES."""
    target: str = ""
    """Which CDN or GRIP proxy, or what renders."""
    took_s: float | None = None
    behind_s: float | None = None
    """Since the oldest change that it is for was submitted, after its commit."""
    error: str = ""
    pid: int = 0
    detail: Mapping[str, Any] = field(default_factory=dict)
    """With `health`: what `edge.health()` says."""


class Reader(Protocol):
    """Reads what is written. Called from any thread; must neither wait nor raise."""

    def read(self, entry: Entry) -> None:
        """Take one entry."""


def build_entry(entry: Entry) -> bytes:
    """Return an entry as JSON, without what says nothing."""
    return json.dumps({name: value for name, value in asdict(entry).items() if value}).encode()


def parse_entry(data: bytes) -> Entry:
    """Read an entry. ValueError if it is none."""
    try:
        found = json.loads(data)
        found["names"] = tuple(map(str, found.get("names", ())))
        entry = Entry(**found)
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no entry of a journal: {error}") from None
    if entry.kind not in KINDS:
        raise ValueError(f"no entry of a journal: kind is {entry.kind!r}")
    return entry

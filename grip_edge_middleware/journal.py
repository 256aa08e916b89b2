"""What an edge does, entry by entry, for whoever watches: `grip-edge watch`, the timeline, a trace.

Written on the dispatcher's thread, never on the app's, and read elsewhere. It never waits and never
raises: what a reader has no room for is lost to it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal, Protocol, get_args

Kind = Literal[
    "change", "purge", "render", "publish", "recover", "failure", "given_up", "delivered", "health"
]
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
    """Topics; the keys of a purge; what every target has by now."""
    count: int = 0
    """How many there are in all: `names` has the first MAX_NAMES."""
    target: str = ""
    """Which CDN or GRIP proxy, or what renders."""
    took_s: float | None = None
    behind_s: float | None = None
    """Since the oldest change that it is for was submitted, after its commit."""
    error: str = ""
    of: Kind | Literal[""] = ""
    """What failed, if it is a `failure`."""
    delivery: int = 0
    """Of which delivery it is a part, from the change to the last acknowledgement. Counted in each
    process; 0 if of none."""
    left: int = 0
    """With `delivered`: how many topics of the delivery some target still misses."""
    pid: int = 0
    detail: Mapping[str, Any] = field(default_factory=dict)
    """With `health`: what `edge.health()` says."""


class Reader(Protocol):
    """Reads what is written. Called from any thread; must neither wait nor raise."""

    def read(self, entry: Entry) -> None:
        """Take one entry."""


class Journal:
    """Hands what is written to all who read. `clock` gives Unix time."""

    def __init__(self, *readers: Reader, clock: Callable[[], float] = time.time) -> None:
        self._readers = readers
        self._clock = clock

    def write(
        self,
        kind: Kind,
        names: Sequence[str] = (),
        *,
        target: str = "",
        took_s: float | None = None,
        behind_s: float | None = None,
        error: str = "",
        of: Kind | Literal[""] = "",
        delivery: int = 0,
        left: int = 0,
        detail: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Write one entry."""
        entry = Entry(
            kind,
            self._clock(),
            tuple(names[:MAX_NAMES]),
            len(names),
            target=target,
            took_s=took_s,
            behind_s=behind_s,
            error=error,
            of=of,
            delivery=delivery,
            left=left,
            pid=os.getpid(),
            detail=detail,
        )
        for reader in self._readers:
            reader.read(entry)


def build_entry(entry: Entry) -> bytes:
    """Return an entry as JSON, without what says nothing."""
    said = {field.name: getattr(entry, field.name) for field in fields(entry)}
    said["detail"] = dict(entry.detail)
    return json.dumps({name: value for name, value in said.items() if value}).encode()


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

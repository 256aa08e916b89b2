"""What happens at the development edge, as values that a reader of its timeline is sent.

Pure. Secrets stay out: what proves who somebody is reads as "(hidden)".
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from grip_edge_middleware.devedge.exchange import Asked
from grip_edge_middleware.grip import PRIVATE_NEXT_LINK

Place = Literal["client", "proxy", "cache", "app"]
Kind = Literal[
    "request", "answer", "hold", "release", "save", "purge", "publish", "push", "recover", "note"
]

# What one happening names at most: a purge may have hundreds of keys.
MAX_NAMES = 20
# Of whom it is said that a push reached them.
MAX_HOLDS = 500
MAX_TEXT = 400
NOTHING: tuple[object, ...] = ("", 0, (), [], None)
HIDDEN = "(hidden)"
_SECRET = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "grip-sig", "fastly-key"}
)
_IN_QUERY = re.compile(
    r"(?<=[?&])([^=&]*(?:token|key|sig|secret|pass|auth|code)[^=&]*)=[^&]*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened: an arrow from one place to another, or something at one place."""

    kind: Kind
    source: Place
    target: Place
    text: str = ""
    trip: int = 0
    """What belongs together: a request, its answers, and the hold that it opens."""
    seen: str = ""
    """What the cache says of an answer: HIT, MISS, STALE."""
    names: tuple[str, ...] = ()
    """Channels; of a purge and a save, keys."""
    keys: tuple[str, ...] = ()
    """With an answer: its surrogate keys."""
    count: int = 0
    """How many copies were purged, or clients are told."""
    holds: tuple[int, ...] = ()
    """Whom a push reaches."""
    took_s: float | None = None
    detail: Sequence[tuple[str, str]] = ()
    """Headers, versions, and what was sent. Secrets are hidden when it is built."""
    at: float = field(default_factory=time.time)


Tell = Callable[[Happening], None]


def nobody(_: Happening) -> None:
    """Tell nobody."""


def build_happening(happening: Happening) -> str:
    """Return a happening as JSON, without what says nothing, and with no more than is shown."""
    found: dict[str, Any] = {each.name: getattr(happening, each.name) for each in fields(happening)}
    for name in ("names", "keys"):
        found[name] = found[name][:MAX_NAMES]
    found["holds"] = happening.holds[:MAX_HOLDS]
    found["more"] = max(len(happening.names) - MAX_NAMES, 0)
    found["text"] = shortened(happening.text)
    found["detail"] = [
        (shortened(name), HIDDEN if name in _SECRET else shortened(value))
        for name, value in happening.detail
    ]
    return json.dumps({name: value for name, value in found.items() if value not in NOTHING})


def shown_target(asked: Asked) -> str:
    """Return path and query for somebody to look at."""
    before, private, _ = asked.target.partition(PRIVATE_NEXT_LINK)
    if private:
        return f"{before}{private}{HIDDEN}"
    return _IN_QUERY.sub(rf"\1={HIDDEN}", asked.target) if "?" in asked.target else asked.target


def said(**values: object) -> tuple[tuple[str, str], ...]:
    """Return as detail what there is to say."""
    return tuple(
        (name.replace("_", "-"), str(value)) for name, value in values.items() if value is not None
    )


def text_of(content: bytes) -> str:
    """Return what was sent, as far as it is text that somebody would read."""
    return content[: 4 * MAX_TEXT].decode(errors="replace")


def shortened(text: str) -> str:
    """Return what fits."""
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """Return each name once, in order."""
    return tuple(dict.fromkeys(names))

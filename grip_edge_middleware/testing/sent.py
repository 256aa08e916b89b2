"""What an edge sends, read from its requests as a CDN and a GRIP proxy read them."""

from __future__ import annotations

import base64
import json
import re
import textwrap
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Protocol
from urllib.parse import urlsplit

from grip_edge_middleware.dialects import unescape_tag
from grip_edge_middleware.edge import GripEdge
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.grip import shown_by
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.lanes import Answer, Outcome
from grip_edge_middleware.stores.memory import MemoryStore
from grip_edge_middleware.surrogate import parse_keys

MAX_SHOWN = 70

# Where the JSON of a purge has its keys: Fastly's, Cloudflare's, Akamai's.
_NAMING = ("surrogate_keys", "tags", "objects")


@dataclass(frozen=True, slots=True)
class Purged:
    """One request that purges keys. `refusal` says why it was not acknowledged, if it was not."""

    target: str
    keys: tuple[str, ...]
    refusal: str = ""

    def __str__(self) -> str:
        return f"purge {' '.join(self.keys)}"


_FORMATS = ("http-stream", "http-response", "ws-message")


@dataclass(frozen=True, slots=True)
class Published:
    """One item of a request that publishes."""

    target: str
    channel: str
    formats: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    id: str = ""
    prev_id: str = ""
    refusal: str = ""

    @property
    def text(self) -> str:
        """What is said to who is held: on a stream if there is one, else the next of `texts`."""
        return next(iter(self.texts), "")

    @property
    def texts(self) -> list[str]:
        """What is said in each format: on streams, to long-polls, to WebSockets."""
        return [_text(self.formats[name]) for name in _FORMATS if name in self.formats]

    @property
    def is_marker(self) -> bool:
        """Whether it comes after a quiet time, and has those ask who missed something."""
        return shown_by(self.id) != self.id and not any(self.texts)

    def __str__(self) -> str:
        if self.is_marker:
            return f"marker {self.channel}: who missed something asks for it"
        return f"publish {self.channel}: {textwrap.shorten(repr(self.text), MAX_SHOWN)}"


@dataclass(frozen=True, slots=True)
class Recovered:
    """A request that has all clients of a GRIP proxy ask what they missed."""

    target: str
    refusal: str = ""

    def __str__(self) -> str:
        return "recover: all clients ask what they missed"


Sent = Purged | Published | Recovered


class Record(Protocol):
    """What was sent, and what is still to be sent."""

    @property
    def sent(self) -> list[Sent]:
        """Everything that was sent, in order, also what was refused."""

    @property
    def logged(self) -> list[str]:
        """What the edge logged as a warning, or worse."""

    def pending(self) -> list[str]:
        """Return the topics that some target still misses."""


class RecordingLanes:
    """An edge's lanes that keep what is sent. `_answer` is what a target answers."""

    def __init__(self, edge: GripEdge) -> None:
        self.logged: list[str] = []
        self._edge = edge
        self._lock = Lock()
        self._sent: list[Sent] = []
        self.after_fork()

    @property
    def sent(self) -> list[Sent]:
        """Everything that was sent, in order, also what was refused."""
        with self._lock:
            return list(self._sent)

    @property
    def purges(self) -> list[Purged]:
        """The purges that were acknowledged, in order."""
        return purges_in(self.sent)

    @property
    def publishes(self) -> list[Published]:
        """The items whose publish was acknowledged, in order, but for markers."""
        return publishes_in(self.sent)

    def clear(self) -> None:
        """Forget what was sent so far, as after a test's own preparations."""
        with self._lock:
            self._sent.clear()

    def pending(self) -> list[str]:
        """Return the topics that some target still misses."""
        parts = self._edge._parts
        if parts is None:  # it is given its app later
            return []
        store = parts.store
        if isinstance(store, MemoryStore):
            return store.pending_names()
        return [f"{count} topics"] if (count := store.pending()) else []

    # --- as the edge's lanes ----------------------------------------------------------------

    def start(self, target: str, request: Request) -> None:
        """Keep what is sent, and its answer."""
        outcome = self._answer(target, request)
        with self._lock:
            self._sent.extend(read_sent(target, request, refusal_of(outcome)))
        self._answers.append((target, outcome))

    def wait(self, timeout_s: float) -> Answer | None:
        """Return the oldest answer that was not taken yet."""
        return self._answers.popleft() if self._answers else None

    def after_fork(self) -> None:
        """Forget the answers."""
        self._answers: deque[Answer] = deque()

    def close(self) -> None:
        """Do nothing: whoever made it closes it."""

    def _answer(self, target: str, request: Request) -> Outcome:
        return acknowledgement(request)


def acknowledgement(request: Request) -> Response:
    """Return what a target answers that does as it is asked: a CDN, or a GRIP proxy."""
    path = urlsplit(request.url).path
    match request.method:
        case "PURGEKEYS":
            return Response(200, {"grip-edge-purged": "1"})
        case "PURGE":
            return Response(204)
    if path.endswith("/purge_cache"):
        return Response(200, {}, b'{"success": true}')
    if path.endswith("/invalidation") or path.startswith("/ccu/"):
        return Response(201)
    if keys := keys_purged(request):
        return Response(200, {}, json.dumps(dict.fromkeys(keys, "1-2-3")).encode())
    return Response(200)


def keys_purged(request: Request) -> list[str]:
    """Return the keys that a request purges, as the app names them; none if it is no purge."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    if line := headers.get("xkey-purge") or headers.get("surrogate-key"):
        return parse_keys([line])
    if urlsplit(request.url).path.endswith("/invalidation"):
        found = re.findall("<Path>#([^<]+)</Path>", request.body.decode())
        return [unescape_tag(tag) for tag in found]
    try:
        said = json.loads(request.body or b"null")
    except ValueError:
        return []
    if type(said) is not dict:
        return []
    named = [(name, key) for name in _NAMING for key in said.get(name, ())]
    return [key if name == "surrogate_keys" else unescape_tag(key) for name, key in named]


def read_sent(target: str, request: Request, refusal: str = "") -> Iterator[Sent]:
    """Yield what a request asks a target to do."""
    if keys := keys_purged(request):
        yield Purged(target, tuple(keys), refusal)
    elif request.url.endswith("/recover/"):
        yield Recovered(target, refusal)
    else:
        for item in json.loads(request.body)["items"]:
            ids = item.get("id", ""), item.get("prev-id", "")
            yield Published(target, item["channel"], item["formats"], *ids, refusal)


def purges_in(sent: Iterable[Sent]) -> list[Purged]:
    """Return the purges that were acknowledged."""
    return [each for each in sent if isinstance(each, Purged) and not each.refusal]


def publishes_in(sent: Iterable[Sent]) -> list[Published]:
    """Return the items whose publish was acknowledged, but for markers."""
    items = (each for each in sent if isinstance(each, Published) and not each.refusal)
    return [each for each in items if not each.is_marker]


def refusal_of(outcome: Outcome) -> str:
    """Return why a request was not acknowledged; empty if it was."""
    if isinstance(outcome, DeliveryError):
        return outcome.reason
    return "" if 200 <= outcome.status < 300 else str(outcome.status)


def _text(parts: Mapping[str, Any]) -> str:
    for name in ("content", "body"):
        if name in parts:
            return str(parts[name])
        if f"{name}-bin" in parts:
            return base64.b64decode(parts[f"{name}-bin"]).decode("utf-8", "replace")
    return ""

"""What the cache believes, what it keeps and what it shows: as `examples/edge/default.vcl` says.

Pure: values in, values out. Where they differ from what Varnish does with it, they are wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from grip_edge_middleware.cache_control import without
from grip_edge_middleware.devedge.exchange import Answer, Asked, plain
from grip_edge_middleware.grip import NEXT_LINK

PROBE = "/.grip-edge/probe"
PROBE_CHANNEL = "grip-edge-probe"

# https://www.rfc-editor.org/rfc/rfc5861#section-4: what an old copy may stand in for.
FAILURES = frozenset({500, 502, 503, 504})
# To which Varnish gives the lifetime of a Cache-Control.
_KEPT_BY_STATUS = frozenset({200, 203, 204, 300, 301, 302, 304, 307, 404, 410, 414})
_STREAM = "text/event-stream"
# What an app may build its links from is not a client's to say: the page is everybody's.
_FORGED = frozenset(
    {
        "forwarded",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-server",
        "x-original-url",
        "x-rewrite-url",
    }
)
_CONDITIONS = frozenset({"if-none-match", "if-modified-since", "range", "if-range"})
_INTERNAL = frozenset({"surrogate-key", "xkey", "surrogate-control", "age"})
_GRIP = frozenset(
    {
        "grip-hold",
        "grip-channel",
        "grip-timeout",
        "grip-keep-alive",
        "grip-link",
        "grip-status",
        "grip-set-meta",
        "grip-expose-headers",
    }
)
_FOR_EDGES = re.compile(r"\s*\b(s-maxage|stale-if-error)=\d+\s*,?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long a response is shown, and how long after that it stands in for a failing app."""

    ttl_s: float
    stale_if_error_s: float


Seen = Literal["HIT", "MISS", "STALE"]


def is_from_the_public(asked: Asked) -> bool:
    """Whether a request came through the GRIP proxy, or says so."""
    return bool(asked.says("grip-sig") or asked.says("grip-feature"))


def trusted(asked: Asked) -> Asked:
    """Return the request without what only the GRIP proxy may say, unless it says it."""
    dropped = set(_FORGED)
    if not asked.says("grip-sig"):
        # Anybody could read any topic with a Grip-Last of their own.
        dropped |= {"grip-last", "grip-feature", "grip-sig"}
    asked = asked.without({*dropped, *(n for n, _ in asked.headers if n.startswith("x-edge-"))})
    if last := asked.says("grip-last"):
        asked = asked.saying(("grip-last", last))
    # Browsers differ in how they ask for a stream; an app that varies on it need not know.
    if re.search(rf"\b{_STREAM}\b", asked.says("accept"), re.IGNORECASE):
        asked = asked.saying(("accept", _STREAM))
    return asked


def is_shareable(asked: Asked) -> bool:
    """Whether the answer may be everybody's. A cookie alone is no reason against it."""
    return asked.method in ("GET", "HEAD") and not asked.says("authorization")


def key_of(asked: Asked) -> str:
    """Return what a copy is kept under. A next link answers each `Grip-Last` differently."""
    last = asked.says("grip-last") if NEXT_LINK in asked.target else ""
    return f"{asked.says('host').lower()} {asked.target} {last}"


def as_fetched(asked: Asked) -> Asked:
    """Return the request that fetches a copy for everybody.

    A 304 would renew the old GRIP headers too, and with them the old prev-id.
    """
    return replace(asked.without(_CONDITIONS), method="GET")


def varies_on(asked: Asked, answer: Answer) -> tuple[tuple[str, str], ...]:
    """Return what a request must say to get the same copy."""
    names = sorted({name.strip().lower() for name in answer.says("vary").split(",")} - {""})
    return tuple((name, compared(asked, name)) for name in names)


def compared(asked: Asked, name: str) -> str:
    """Return what Vary is compared with. The token changes every second: only if there is one."""
    said = asked.says(name)
    return "yes" if name == "grip-sig" and said else said


def lifetime(answer: Answer) -> Lifetime | None:
    """Return how long everybody may be shown a response; None if it is not to be kept."""
    surrogate, cache = answer.says("surrogate-control"), answer.says("cache-control")
    if answer.status in FAILURES or answer.says("set-cookie") or "*" in answer.says("vary"):
        return None
    if _has(surrogate, "no-store") or _has(cache, "private", "no-store"):
        return None
    ttl_s = _seconds(surrogate, "max-age")
    if ttl_s is None and not _has(cache, "no-cache") and answer.status in _KEPT_BY_STATUS:
        ttl_s = _seconds(cache, "s-maxage")
        ttl_s = _seconds(cache, "max-age") if ttl_s is None else ttl_s
    if not ttl_s:
        return None
    stale_s = _seconds(f"{surrogate},{cache}", "stale-if-error")
    return Lifetime(ttl_s, stale_s or 0.0)


def _has(value: str, *directives: str) -> bool:
    said = {part.partition("=")[0].strip().lower() for part in value.split(",")}
    return not said.isdisjoint(directives)


def _seconds(value: str, directive: str) -> float | None:
    found = re.search(rf"(?:^|[\s,]){directive}=\"?(\d{{1,10}})", value, re.IGNORECASE)
    return float(found[1]) if found else None


def shown(asked: Asked, answer: Answer, seen: Seen, hits: int) -> Answer:
    """Return what the asker gets of an answer."""
    if answer.status >= 500 and NEXT_LINK in asked.target and asked.says("grip-last"):
        return unchanged(asked)
    answer = answer.saying(("x-cache", seen), ("x-cache-hits", str(hits)))
    answer = _without_cache_headers(answer)
    if not asked.says("grip-sig") or asked.method == "HEAD":
        # A direct client has no use for them, and a HEAD that is held never gets a body.
        return _conditional(asked, answer.without(_GRIP))
    if answer.says("grip-hold") == "response":
        return _answered_or_held(asked, answer)
    # A stream needs its body: it can be no 304.
    return answer if answer.says("grip-hold") else _conditional(asked, answer)


def unchanged(asked: Asked) -> Answer:
    """Return what tells a GRIP proxy that nothing is new: the app cannot say what is.

    Else it would close the stream after half a minute.
    """
    channels = re.sub("; *last-id=", "; prev-id=", asked.says("grip-last"))
    headers = [
        ("content-type", _STREAM),
        ("grip-hold", "stream"),
        ("grip-channel", channels),
        ("grip-link", f"<{asked.target}>; rel=next; timeout=10"),
    ]
    return Answer(200, headers)


def probe(asked: Asked) -> Answer | None:
    """Return a stream that works without the app, if that is what is asked for."""
    if asked.target != PROBE:
        return None
    answer = plain(200, "held")
    if not asked.says("grip-sig"):
        return answer
    return answer.saying(("grip-hold", "stream"), ("grip-channel", PROBE_CHANNEL))


def _without_cache_headers(answer: Answer) -> Answer:
    # Age counts against the edge's lifetime, which clients do not see: their max-age begins now.
    said = answer.says("cache-control")
    answer = answer.without(_INTERNAL)
    if not _FOR_EDGES.search(said):
        return answer
    left = _FOR_EDGES.sub("", said).strip(" ,")
    return answer.saying(("cache-control", left)) if left else answer.without({"cache-control"})


def _answered_or_held(asked: Asked, answer: Answer) -> Answer:
    """A long-poll: who has this copy is held with a 304; who has another gets this one at once."""
    if _is_had(asked, answer.says("etag")):
        return _not_modified(answer)
    return answer if answer.status == 304 else answer.without(_GRIP)


def _conditional(asked: Asked, answer: Answer) -> Answer:
    if answer.status != 200 or asked.method not in ("GET", "HEAD"):
        return answer
    if wanted := asked.says("if-none-match"):
        is_had = wanted.strip() == "*" or _is_had(asked, answer.says("etag"))
    else:
        since = asked.says("if-modified-since")
        is_had = bool(since) and since == answer.says("last-modified")
    return _not_modified(answer) if is_had else answer


def _is_had(asked: Asked, tag: str) -> bool:
    # Weakly: RFC 9110, section 13.1.2. Without its quotes it might be a part of another.
    opaque = tag.removeprefix("W/")
    return len(opaque) > 2 and opaque.startswith('"') and opaque in asked.says("if-none-match")


def _not_modified(answer: Answer) -> Answer:
    about_the_body = {"content-length", "content-encoding", "transfer-encoding"}
    return Answer(304, without(answer.headers, about_the_body))

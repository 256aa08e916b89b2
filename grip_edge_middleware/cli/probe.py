"""A page through the public edge: is it cached, hidden, held, and purged by its key?

`probe` fetches it, purges it and fetches it again. What that says is decided by `judge`, which is
pure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from grip_edge_middleware.cli.findings import Finding, ok, warning, wrong
from grip_edge_middleware.cli.handshake import handshake, judge_handshake
from grip_edge_middleware.cli.look import Look, look
from grip_edge_middleware.edge import make_purger
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.policy import Plan
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.transport import NO_ANSWER, HttpTransport
from grip_edge_middleware.types import Hold

# Somebody else may fetch the page between our purge and our look.
TRIES = 3
# Where only the head is of interest.
NO_TIME_S = 0.01
# For how long who has the page already must hear nothing to be held.
POLL_S = 2.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of a page."""

    first: Look
    second: Look
    purged: Look | None = None
    """The last look after a purge: the first that was none from a cache, if there was one."""
    poll_is_held: bool | None = None
    """Whether who has the page already waits for news."""
    refusal: str = ""
    """Why a CDN did not purge."""
    opened: int | None = None
    """What a WebSocket's handshake is answered, if one is to be opened there."""


def probe(
    url: str,
    headers: Mapping[str, str],
    plan: Plan,
    settings: Settings,
    transport: HttpTransport,
    *,
    pause: Callable[[float], None] = time.sleep,
) -> Seen:
    """Fetch a page twice, purge it, and fetch it again. DeliveryError if nobody answers."""
    seen = _fetch(url, headers, plan, settings, transport, pause)
    if not plan.sockets or seen.first.response.status != 200:
        return seen
    return replace(seen, opened=handshake(url, headers, timeout_s=POLL_S))


def _fetch(
    url: str,
    headers: Mapping[str, str],
    plan: Plan,
    settings: Settings,
    transport: HttpTransport,
    pause: Callable[[float], None],
) -> Seen:
    first = look(transport, url, headers, linger_s=NO_TIME_S)
    if first.response.status != 200:
        return Seen(first, first)
    second = look(transport, url, headers)
    poll_is_held = _poll(url, headers, second) if _hold_of(plan) == "response" else None
    if plan.is_private or not settings.cdns:
        return Seen(first, second, None, poll_is_held)
    try:
        for _ in range(TRIES):
            purge(plan.names[0], settings, transport, pause)
            again = look(transport, url, headers, linger_s=NO_TIME_S)
            if again.cache != "hit":
                break
    except DeliveryError as error:
        return Seen(first, second, None, poll_is_held, str(error))
    return Seen(first, second, again, poll_is_held)


def purge(
    key: str, settings: Settings, transport: HttpTransport, pause: Callable[[float], None]
) -> None:
    """Purge a key at every CDN, the nearest to the app first. DeliveryError if one refuses."""
    for region in (settings.trunk, *settings.regions):
        for cdn in region.cdns:
            purger = make_purger(cdn, region.name)
            [batch] = purger.batches([key])
            purger.check(transport.send(batch.request))
            pause(purger.settle_s)


def _poll(url: str, headers: Mapping[str, str], seen: Look) -> bool:
    """Ask again as who has the page already. Who is held hears nothing."""
    has = {"If-None-Match": seen.response.headers.get("etag", "")}
    transport = HttpTransport(timeout_s=POLL_S)
    try:
        look(transport, url, {**headers, **has})
    except DeliveryError as error:
        if error.reason.startswith(NO_ANSWER):
            return True
        raise
    finally:
        transport.close()
    return False


def judge(url: str, plan: Plan, settings: Settings, seen: Seen) -> Iterator[Finding]:
    """Yield what is right and wrong with a page that was seen so."""
    if seen.first.response.status != 200:
        yield _status(url, seen.first)
        return
    yield ok(url, f"answered 200, for {', '.join(plan.names)}")
    yield from _hidden(url, settings, seen.second)
    yield from _held(url, plan, settings, seen)
    if seen.opened is not None:
        yield judge_handshake(url, seen.opened)
    if plan.is_private:
        yield _kept_out(url, seen.second)
    elif settings.cdns:
        yield _cached(url, seen.second)
        if seen.second.cache == "hit":
            yield _purged(url, plan, seen)


def _status(url: str, seen: Look) -> Finding:
    status = seen.response.status
    if location := seen.response.headers.get("location"):
        return wrong(url, f"answered {status}, to {location}", "give the URL that it leads to")
    if status in (401, 403):
        return wrong(
            url, f"answered {status}", "say --header 'Authorization: ...', or give a page for all"
        )
    if status >= 500:
        return wrong(url, f"answered {status}", "is the app running, and what does its log say?")
    return wrong(url, f"answered {status}", "only a 200 is held; give a page that is there")


def _hidden(url: str, settings: Settings, seen: Look) -> Iterator[Finding]:
    if seen.has_grip_headers:
        finding = wrong if settings.proxies else warning
        yield finding(
            url,
            "Grip-Hold and the like reach the client, so no GRIP proxy has taken them",
            "give the URL of the GRIP proxy (Pushpin's http_port, 7999), and let no client past it",
        )
    if seen.keys:
        yield warning(
            url,
            "Surrogate-Key reaches the client, who is told what the page is made of",
            "take it off in the cache, as hide_the_edge in examples/edge/default.vcl does",
        )
    if not seen.has_grip_headers and not seen.keys:
        yield ok(url, "neither Surrogate-Key nor Grip headers reach the client")


def _held(url: str, plan: Plan, settings: Settings, seen: Seen) -> Iterator[Finding]:
    hold = _hold_of(plan)
    if hold is None or not settings.proxies or seen.second.has_grip_headers:
        return
    is_held = seen.second.is_held if hold == "stream" else seen.poll_is_held
    if is_held:
        yield ok(url, f'is held: hold "{hold}"')
        return
    yield wrong(
        url,
        "is answered, but not held",
        "is it the GRIP proxy's URL? has pushpin.conf a sig_key? `grip-edge explain --direct` "
        "shows what the app says",
    )


def _kept_out(url: str, seen: Look) -> Finding:
    if seen.cache == "hit":
        return wrong(
            url, "is private, and came from a cache", "have the cache respect Cache-Control"
        )
    return ok(url, "is private, and in no cache")


def _cached(url: str, seen: Look) -> Finding:
    if seen.cache == "hit":
        return ok(url, "is cached: the second answer was a hit")
    if seen.cache == "stale":
        return wrong(
            url, "an old copy stands in for the app", "is the app running, and what is in its log?"
        )
    if seen.cache == "unknown":
        return warning(
            url,
            "nobody says whether it came from a cache",
            "have the CDN send X-Cache or Cache-Status, and look again",
        )
    return wrong(url, "is not cached: the second answer was a miss", _why_not_cached(seen))


def _why_not_cached(seen: Look) -> str:
    headers = seen.response.headers
    if "set-cookie" in headers:
        return "it sets a cookie, which is for one; set it elsewhere"
    said = headers.get("cache-control", "").lower()
    if "private" in said or "no-store" in said:
        return f"it says Cache-Control: {said}; the app does, or it changes all the time"
    if headers.get("vary", "").strip() == "*" or "cookie" in headers.get("vary", "").lower():
        return f"it says Vary: {headers['vary']}; answer without cookies"
    return "is the cache in the way of this URL, and does it take Surrogate-Control?"


def _purged(url: str, plan: Plan, seen: Seen) -> Finding:
    key = plan.names[0]
    if seen.refusal:
        return wrong(url, f"cannot be purged: {seen.refusal}", "see that target's line")
    assert seen.purged is not None  # noqa: S101 - else there was a refusal
    if seen.purged.cache == "hit":
        return wrong(
            url,
            f"is a hit still after a purge of {key}",
            "is cdn the cache in front of this URL, and all of them? does Surrogate-Key reach it?",
        )
    return ok(url, f"is purged by its key {key}")


def _hold_of(plan: Plan) -> Hold | None:
    """Return how its page is held; a WebSocket has no page."""
    return next((s.route.hold for s in plan.shown if s.route.hold not in (None, "ws")), None)

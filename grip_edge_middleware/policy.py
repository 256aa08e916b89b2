"""Which headers a response gets.

Pure: no sockets, no clock, no framework. The faces in `middleware/` carry the answer. Nothing here
touches a body, and a response that is none of ours comes back as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from grip_edge_middleware.grip import (
    CATCH_UP_SOON_S,
    MAX_CHANNELS,
    NEXT_LINK_TIMEOUT_S,
    hold_headers,
    next_link,
)
from grip_edge_middleware.routing import Matcher
from grip_edge_middleware.settings import MAX_SECONDS, Route, Settings, TopicSettings
from grip_edge_middleware.surrogate import build_keys, parse_keys
from grip_edge_middleware.topics import Topic
from grip_edge_middleware.types import Headers, Hold

logger = logging.getLogger(__name__)

# https://www.rfc-editor.org/rfc/rfc9110#section-15.1: a cache may keep these without being told
# to, and Fastly does so for an hour (302 as well), so they must be purgeable.
_KEPT_UNASKED = frozenset({203, 204, 206, 300, 301, 302, 308, 404, 405, 410, 414, 501})

MAX_CACHED_PATH = 512

# No single directive keeps a response out of every cache, so it is always these two.
_DO_NOT_STORE: Headers = [
    ("Cache-Control", "private, no-store"),
    ("Surrogate-Control", "no-store"),
]
_FORBIDDING = frozenset({"private", "no-store", "no-cache"})
_EDGE_LIFETIMES = {
    "cache-control": "s-maxage",
    "surrogate-control": "max-age",
    "cdn-cache-control": "max-age",
}
_FRESHNESS = frozenset({"cache-control", "surrogate-control", "cdn-cache-control", "expires"})


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """What of a request decides about its response."""

    method: str
    accept: str = ""
    is_authorized: bool = False
    has_changed: Callable[[Iterable[str]], bool] = lambda keys: False
    """Whether one of these surrogate keys changed since the request began."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """The version of each topic when the request began, so that it is never too new."""
    mount: str = ""
    """Where the app is mounted, percent-encoded: it may come from the URL."""


@dataclass(slots=True)
class Notes:
    """What a view says about its response, until the headers leave."""

    keys: list[str] = field(default_factory=list)
    declines_hold: bool = False
    is_closed: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """One topic that a path shows, and the route that says so."""

    topic: Topic
    route: Route
    recovers: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What the settings say about one path. Kept from request to request, so nothing of one is."""

    shown: tuple[Shown, ...]
    key_budget: int
    is_purgeable: bool
    """Without a CDN that is told of changes, no response is made cacheable."""
    any_key: Callable[[str], str | None]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the topics."""
        return tuple(dict.fromkeys(shown.topic.name for shown in self.shown))

    def apply(self, request: RequestFacts, status: int, headers: Headers, notes: Notes) -> Headers:
        """Return the headers with which the app's response leaves."""
        if request.method not in ("GET", "HEAD"):
            return headers
        if status != 200:
            return self._tag_other_status(request, status, headers, notes)
        headers = _vary_on_accept(headers) if self._depends_on_accept() else headers
        return self._cache(request, headers, notes) + self._hold(request, headers, notes)

    def _tag_other_status(
        self, request: RequestFacts, status: int, headers: Headers, notes: Notes
    ) -> Headers:
        """A cached 404 must be purged when the object appears."""
        is_kept = status in _KEPT_UNASKED or _has_freshness(headers)
        if not is_kept or _is_private(headers):
            return headers
        if self._is_for_one(request):
            return _keep_out(headers)
        return self._with_keys(request, headers, notes, freshness=[])

    def _cache(self, request: RequestFacts, headers: Headers, notes: Notes) -> Headers:
        if _is_private(headers) or self._is_for_one(request):
            return _keep_out(headers)
        if not self.is_purgeable:
            return self._with_keys(request, headers, notes, freshness=[])
        edge_ttl = min([*_edge_ttls(headers), *(shown.route.edge_ttl for shown in self.shown)])
        if edge_ttl == 0:
            return _keep_out(headers)
        return self._with_keys(request, headers, notes, freshness=self._freshness(edge_ttl))

    def _is_for_one(self, request: RequestFacts) -> bool:
        return request.is_authorized and not all(shown.route.public for shown in self.shown)

    def _freshness(self, edge_ttl: int) -> Headers:
        browser_ttl = min(shown.route.browser_ttl for shown in self.shown)
        stale_if_error = min(shown.route.stale_if_error for shown in self.shown)
        stale = f", stale-if-error={stale_if_error}" if stale_if_error else ""
        return [
            ("Cache-Control", f"max-age={browser_ttl}, s-maxage={edge_ttl}"),
            ("Surrogate-Control", f"max-age={edge_ttl}{stale}"),
        ]

    def _with_keys(
        self, request: RequestFacts, headers: Headers, notes: Notes, *, freshness: Headers
    ) -> Headers:
        keys = self._keys(headers, notes)
        value = build_keys(keys, self.any_key, budget_bytes=self.key_budget)
        if value is None:
            _warn_of_budget(self.shown[0].route.pattern.text, self.key_budget)
            return _keep_out(headers)
        if request.has_changed(value.split(" ")):
            # It may show what was there before, and reach the cache after the purge.
            return _keep_out(headers)
        dropped = _FRESHNESS | {"surrogate-key"} if freshness else {"surrogate-key"}
        return [*_without(headers, dropped), *freshness, ("Surrogate-Key", value)]

    def _keys(self, headers: Headers, notes: Notes) -> Iterable[str]:
        """Yield all keys, the broadest first: Fastly ignores what follows one that is too long."""
        yield from (s.topic.name for s in sorted(self.shown, key=lambda s: len(s.topic.params)))
        yield from notes.keys
        yield from parse_keys(value for name, value in headers if name.lower() == "surrogate-key")

    def _hold(self, request: RequestFacts, headers: Headers, notes: Notes) -> Headers:
        if request.method != "GET" or notes.declines_hold or _has(headers, "grip-hold"):
            return []
        held = [shown for shown in self.shown if _is_held(shown.route, request.accept)]
        if not held:
            return []
        hold = _hold_of(held)
        alike = [shown for shown in held if shown.route.hold == hold]
        names = list(dict.fromkeys(shown.topic.name for shown in alike))[:MAX_CHANNELS]
        # The answer to a next link takes the page's place, so it must know all of its topics.
        if hold == "stream" and all(shown.recovers for shown in alike):
            channels: dict[str, str | None] = {name: request.versions.get(name) for name in names}
        else:
            channels = dict.fromkeys(names)
        link = next_link(names, request.mount) if None not in channels.values() else ""
        # What was made while a topic changed may be held after the last item that would tell.
        timeout_s = CATCH_UP_SOON_S if link and request.has_changed(names) else NEXT_LINK_TIMEOUT_S
        keep_alive_s = min(shown.route.keep_alive for shown in alike)
        is_event_stream = _value(headers, "content-type").lower().startswith("text/event-stream")
        return hold_headers(
            hold,
            channels,
            next_link=link,
            next_link_timeout_s=timeout_s,
            keep_alive_s=keep_alive_s if is_event_stream else 0,
        )

    def _depends_on_accept(self) -> bool:
        return any(shown.route.accept for shown in self.shown)


class Policy:
    """Finds the plan of a path. Built once from the settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._matcher = Matcher(
            (route.pattern, (topic, route)) for topic in settings.topics for route in topic.routes
        )
        # The same few paths are asked for again and again.
        self._match_cached = lru_cache(maxsize=1024)(self._match)

    def match(self, path: str) -> Plan | None:
        """Return the plan of a decoded path, or None if no route is configured for it."""
        # Paths come from strangers: not only their number is bounded.
        return self._match_cached(path) if len(path) <= MAX_CACHED_PATH else self._match(path)

    def _match(self, path: str) -> Plan | None:
        shown = [
            _shown(settings, settings.template.fill(params), route)
            for (settings, route), params in self._matcher.match(path)
        ]
        if not shown:
            return None
        if len(shown) > MAX_CHANNELS:
            logger.warning("%s shows %d topics; a proxy takes %d", path, len(shown), MAX_CHANNELS)
        return self._plan(shown)

    def plan_of(self, names: Iterable[str]) -> Plan | None:
        """Return the plan of a next link for these topics, None if one of them has none."""
        shown = []
        for name in names:
            found = find_topic(self._settings.topics, name)
            if found is None or not found[0].recovers:
                return None
            settings, topic = found
            shown.append(_shown(settings, topic, settings.rendered_routes["stream"]))
        return self._plan(shown) if shown else None

    def _plan(self, shown: Iterable[Shown]) -> Plan:
        return Plan(
            tuple(shown),
            self._settings.key_budget,
            is_purgeable=bool(self._settings.cdns),
            any_key=self.any_key,
        )

    def any_key(self, key: str) -> str | None:
        """Return the key that stands for all topics of this one's template, if it is a topic."""
        topic = find_topic(self._settings.topics, key)
        return topic[0].template.any_key if topic and topic[1].params else None


def _shown(settings: TopicSettings, topic: Topic, route: Route) -> Shown:
    return Shown(topic, route, recovers=settings.recovers and not topic.is_shortened)


def find_topic(topics: Iterable[TopicSettings], name: str) -> tuple[TopicSettings, Topic] | None:
    """Return the declared topic that has this name. The settings see to it that it is only one."""
    for settings in topics:
        if name.startswith(settings.template.literals[0]):
            topic = settings.template.read(name)
            if topic is not None:
                return settings, topic
    return None


def _is_held(route: Route, accept: str) -> bool:
    return route.hold is not None and (route.accept is None or _accepts(accept, route.accept))


def _hold_of(held: list[Shown]) -> Hold:
    """A route that names what it answers comes before one that holds everything."""
    first = next((shown for shown in held if shown.route.accept), held[0])
    assert first.route.hold is not None  # noqa: S101 - only held routes come here
    return first.route.hold


def _accepts(accept: str, media_type: str) -> bool:
    # A wildcard is no wish to be held: only who names the type gets it, as EventSource does.
    wished = (part.lower().replace(" ", "").partition(";") for part in accept.split(","))
    return any(name == media_type and q not in ("q=0", "q=0.0") for name, _, q in wished)


def _is_private(headers: Headers) -> bool:
    for name, value in headers:
        match name.lower():
            case "set-cookie":
                return True
            case "cache-control" | "surrogate-control" | "cdn-cache-control" if (
                _directives(value) & _FORBIDDING
            ):
                return True
            case "vary" if "*" in _directives(value):
                return True
    return False


def _has_freshness(headers: Headers) -> bool:
    return any(
        name.lower() in _FRESHNESS and ("max-age" in value or "s-maxage" in value)
        for name, value in headers
    ) or _has(headers, "expires")


def _edge_ttls(headers: Headers) -> Iterator[int]:
    """Yield the lifetimes that the app itself gives shared caches: a shorter one prevails."""
    for name, value in headers:
        wanted = _EDGE_LIFETIMES.get(name.lower())
        for directive in value.lower().split(",") if wanted else ():
            said, _, seconds = directive.strip().partition("=")
            if said == wanted and seconds.strip('"').isdecimal():
                yield min(int(seconds.strip('"')[:10]), MAX_SECONDS)


def _keep_out(headers: Headers) -> Headers:
    """Keep a response out of every cache; what the app itself says to browsers stays."""
    is_said = any(
        name.lower() == "cache-control" and _directives(value) & _FORBIDDING
        for name, value in headers
    )
    pair = _DO_NOT_STORE[1:] if is_said else _DO_NOT_STORE
    dropped = {"surrogate-control", "cdn-cache-control", "surrogate-key"}
    if not is_said:
        dropped |= {"cache-control", "expires"}
    return [*_without(headers, dropped), *pair]


def _vary_on_accept(headers: Headers) -> Headers:
    values = [value for name, value in headers if name.lower() == "vary"]
    if any(token in ("accept", "*") for value in values for token in _directives(value)):
        return headers
    return [*_without(headers, {"vary"}), ("Vary", ", ".join([*values, "Accept"]))]


def _directives(value: str) -> set[str]:
    return {part.partition("=")[0].strip().lower() for part in value.split(",")}


def _without(headers: Headers, names: Iterable[str]) -> Headers:
    return [(name, value) for name, value in headers if name.lower() not in names]


def _has(headers: Headers, wanted: str) -> bool:
    return any(name.lower() == wanted for name, _ in headers)


def _value(headers: Headers, wanted: str) -> str:
    return next((value for name, value in headers if name.lower() == wanted), "")


@lru_cache(maxsize=1024)
def _warn_of_budget(route: str, budget: int) -> None:
    """Once a route: the cache holds the memory of having said it."""
    logger.warning(
        "%s: the surrogate keys exceed key_budget (%d bytes), so its responses are not cached; "
        "tag less, or raise key_budget and the header limits of everything on the way",
        route,
        budget,
    )

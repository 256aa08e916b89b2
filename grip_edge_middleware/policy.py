"""Which headers a response gets.

Pure: no sockets, no clock, no framework. The faces in `middleware/` carry the answer. Nothing here
touches a body, and a response that is none of ours comes back as it is.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache, partial
from hmac import compare_digest
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from grip_edge_middleware.cache_control import (
    FRESHNESS,
    KEPT_UNASKED,
    edge_ttls,
    first_value,
    forbid,
    has_freshness,
    has_header,
    keep_out,
    lifetime,
    private_by,
    varies,
    vary_on_accept,
    without,
)
from grip_edge_middleware.debug_header import build_debug
from grip_edge_middleware.errors import SignatureError, TopicError
from grip_edge_middleware.gate import Gate
from grip_edge_middleware.grip import (
    CATCH_UP_SOON_S,
    MAX_CHANNELS,
    MIN_HOLD_TIMEOUT_S,
    NEXT_LINK,
    NEXT_LINK_TIMEOUT_S,
    etag,
    long_poll_headers,
    next_link,
    private_next_link,
    stream_headers,
)
from grip_edge_middleware.log_fields import log_fields
from grip_edge_middleware.metrics import Counts, Event, Metrics
from grip_edge_middleware.notes import Notes
from grip_edge_middleware.routing import Matcher
from grip_edge_middleware.rows import Scopes, template_of
from grip_edge_middleware.settings import Route, Settings, TopicSettings
from grip_edge_middleware.signature import Verifier
from grip_edge_middleware.surrogate import Keys, build_keys, key_headers, parse_keys
from grip_edge_middleware.topics import SITE_KEY, Topic
from grip_edge_middleware.types import Headers, Hold, RawHeaders

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_CACHED_PATH = 512
MAX_PLANS = 1024
# Responses of a path that are remembered, for those that ask in different ways; and characters of
# what they ask, which comes from strangers.
MAX_REMEMBERED = 4
MAX_ASKED = 512

# Why a response is kept out of caches although it would be kept otherwise.
_COUNTED: Mapping[str, Event] = {
    "gate": "gate_hits",
    "budget": "over_budget",
    "unclear": "unclear_reads",
}


class RequestFacts(NamedTuple):
    """What of a request decides about its response."""

    method: str
    gate: Gate
    since: int = 0
    """The number of the last change when the request began."""
    versions: Mapping[str, str] = MappingProxyType({})
    """The version of each topic when the request began, so that it is never too new."""
    accept: str = ""
    if_none_match: str = ""
    is_authorized: bool = False
    mount: str = ""
    """Where the app is mounted, percent-encoded: it may come from the URL."""
    longest_ttl: int | None = None
    """Seconds that a CDN may keep it at most, while its purges fail; None if they do not."""
    grip_sig: str = ""
    at: float = 0.0
    """When it came, as Unix time."""
    is_debugged: bool = False
    """Whether it is from somebody who may know what is decided, and why."""

    def has_changed(self, keys: Iterable[str], *, lag: bool = True) -> bool:
        """Whether one of these surrogate keys changed since the request began.

        With `lag`, also whether a read may not see its last change.
        """
        return self.gate.has_changed(keys, self.since, lag=lag)


@dataclass(frozen=True, slots=True)
class Shown:
    """One topic that a path shows, and the route that says so."""

    topic: Topic
    route: Route
    recovers: bool
    """Whether who missed a message can be shown what it said."""
    is_private: bool
    type_key: str
    auto_tags: bool = False
    """Whether the rows that are read for it are keys as well."""


class Remembered(NamedTuple):
    """What was decided of a path's responses since a change, which was the last."""

    since: int
    versions: Mapping[str, str]
    """Of the path's topics."""
    left: dict[Hashable, list[Any]]
    """The headers with which a response left, by all that decided about them."""


NOTHING = Remembered(-1, {}, {})


class Plan:
    """What the settings say about one path. Kept from request to request.

    Of a request it keeps nothing but which headers left, so as not to decide the same again while
    nothing changes.
    """

    def __init__(self, shown: tuple[Shown, ...], policy: Policy) -> None:
        self.shown = shown
        self.policy = policy
        self.names = tuple(dict.fromkeys(shown.topic.name for shown in shown))
        """The names of the topics."""
        self.is_private = any(shown.is_private for shown in shown)
        """Whether not everybody may see it: it is never cached, and held by a GRIP proxy only."""
        self.sockets = tuple(s for s in shown if s.route.hold == "ws")[:MAX_CHANNELS]
        """What of it is told to WebSockets."""
        self.route = shown[0].route.pattern.text
        self._scopes = policy.scopes if any(shown.auto_tags for shown in shown) else None
        self._remembered = NOTHING

    def notes(self) -> Notes:
        """Return what will be noted about a response to a request of this path."""
        return Notes(self.route, self._scopes)

    @property
    def remembered(self) -> int:
        """How many responses it would not decide about again."""
        return len(self._remembered.left)

    def versions(self, gate: Gate, since: int) -> Mapping[str, str]:
        """Return the version of each topic when a request begins, whose gate said that number."""
        remembered = self._remembered
        return remembered.versions if remembered.since == since else gate.versions(self.names)

    def refusal(self, request: RequestFacts) -> str | None:
        """Return why a request is not taken for one of a GRIP proxy's, None if it is."""
        return self.policy.refusal(request.grip_sig, request.at)

    @property
    def keys(self) -> tuple[str, ...]:
        """The surrogate keys of its pages, in order, without those that their views add."""
        return tuple(dict.fromkeys(self._keys([], self.notes())))

    def apply(self, request: RequestFacts, status: int, headers: Headers, notes: Notes) -> Headers:
        """Return the headers with which the app's response leaves."""
        return self._leave(request, status, headers, notes, self._applied, is_raw=False)

    def apply_raw(
        self, request: RequestFacts, status: int, headers: RawHeaders, notes: Notes
    ) -> RawHeaders:
        """Return them as ASGI has headers, names in lower case."""
        return self._leave(request, status, headers, notes, self._applied_raw, is_raw=True)

    def _leave(
        self,
        request: RequestFacts,
        status: int,
        headers: list[T],
        notes: Notes,
        decide: Callable[[RequestFacts, int, list[T], Notes], list[T]],
        *,
        is_raw: bool,
    ) -> list[T]:
        is_remembered = request.method in ("GET", "HEAD") and not request.is_debugged
        if not is_remembered or self.is_private:
            return decide(request, status, headers, notes)
        said = (notes.declines_hold, notes.is_unclear, *notes.keys, None, *notes.rows)
        decisive = (_asked(request), said, status, is_raw, *headers)
        remembered = self._remembered if self._remembered.since == request.since else NOTHING
        try:
            left = remembered.left.get(decisive)
        except TypeError:  # a line that is a list
            return decide(request, status, headers, notes)
        # In this order: what changes after this was asked is purged.
        if left is not None and request.gate.is_unchanged(request.since):
            return left.copy()
        left = decide(request, status, headers, notes)
        if not notes.kept_out_by and not notes.is_merged:  # which are counted
            self._remember(request, decisive, left)
        return left

    def _remember(self, request: RequestFacts, decisive: Hashable, left: list[Any]) -> None:
        if _is_long(request) or not request.gate.is_unchanged(request.since):
            return
        remembered = self._remembered
        if remembered.since != request.since or len(remembered.left) >= MAX_REMEMBERED:
            self._remembered = remembered = Remembered(request.since, request.versions, {})
        # A server may add to those that it is given.
        remembered.left[decisive] = left.copy()

    def _applied_raw(
        self, request: RequestFacts, status: int, headers: RawHeaders, notes: Notes
    ) -> RawHeaders:
        decoded = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        applied = self._applied(request, status, decoded, notes)
        return [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in applied]

    def _applied(
        self, request: RequestFacts, status: int, headers: Headers, notes: Notes
    ) -> Headers:
        applied = self._decided(request, status, headers, notes)
        return self._explained(request, applied, notes) if request.is_debugged else applied

    def _decided(
        self, request: RequestFacts, status: int, headers: Headers, notes: Notes
    ) -> Headers:
        if request.method not in ("GET", "HEAD"):
            return headers
        if status not in (200, 304):
            return self._tag_other_status(request, status, headers, notes)
        held = self._held(request, headers, notes)
        if status == 304:
            headers = self._keep_out("private", headers, notes) if self.is_private else headers
            return headers + self._long_poll(request, held) if _is_polled(held) else headers
        headers = vary_on_accept(headers) if self._depends_on_accept() else headers
        if not _is_polled(held):
            return self._cache(request, headers, notes) + self._stream(request, headers, held)
        headers = self._with_etag(request, headers, notes)
        if self.policy.is_purgeable and not self.policy.answers_polls:
            # One copy would hold everybody, also who has nothing yet.
            kept_out = self._keep_out("poll", headers, notes)
            return kept_out + self._answer_poll(request, headers, held)
        return self._cache(request, headers, notes) + self._answer_poll(request, headers, held)

    def _tag_other_status(
        self, request: RequestFacts, status: int, headers: Headers, notes: Notes
    ) -> Headers:
        """A cached 404 must be purged when the object appears."""
        is_kept = status in KEPT_UNASKED or has_freshness(headers)
        if not is_kept or private_by(headers):
            return headers
        if reason := self._reason(request) or self._is_mixed_up(headers):
            return self._keep_out(reason, headers, notes)
        if request.longest_ttl is None:
            return self._with_keys(request, headers, notes, freshness=[])
        return self._for(request.longest_ttl, request, headers, notes)

    def _cache(self, request: RequestFacts, headers: Headers, notes: Notes) -> Headers:
        if reason := self._reason(request) or private_by(headers) or self._is_mixed_up(headers):
            return self._keep_out(reason, headers, notes)
        if not self.policy.is_purgeable:
            return self._with_keys(request, headers, notes, freshness=[])
        edge_ttl = min(shown.route.edge_ttl for shown in self.shown)
        if request.longest_ttl is not None:
            edge_ttl = min(edge_ttl, request.longest_ttl)
        return self._for(edge_ttl, request, headers, notes)

    def _for(self, edge_ttl: int, request: RequestFacts, headers: Headers, notes: Notes) -> Headers:
        """Have the edge keep the response for so many seconds, or for less if the app says so."""
        edge_ttl = min([edge_ttl, *edge_ttls(headers)])
        if edge_ttl == 0:
            return self._keep_out("lifetime", headers, notes)
        return self._with_keys(request, headers, notes, freshness=self._freshness(edge_ttl))

    def _reason(self, request: RequestFacts) -> str:
        """Return why no response to this request is for caches; empty if one may be."""
        if self.is_private:
            return "private"
        is_for_one = request.is_authorized and not all(s.route.public for s in self.shown)
        return "authorization" if is_for_one else ""

    def _is_mixed_up(self, headers: Headers) -> str:
        """Return "vary" if there are answers that an edge would not tell apart, else nothing."""
        return "vary" if not self.policy.varies and varies(headers) else ""

    def _keep_out(self, reason: str, headers: Headers, notes: Notes) -> Headers:
        notes.kept_out_by = reason
        if (event := _COUNTED.get(reason)) is not None:
            self.policy.metrics.count(event)
        return keep_out(headers, self.policy.forbidding, self.policy.key_names)

    def _freshness(self, edge_ttl: int) -> Headers:
        # stale-if-error is the same while purges fail: it shows an old page only while the app is
        # down, and so does a soft purge, which leaves the old page for that very case.
        browser_ttl = min(shown.route.browser_ttl for shown in self.shown)
        stale_if_error = min(shown.route.stale_if_error for shown in self.shown)
        return self.policy.freshness(browser_ttl, edge_ttl, stale_if_error)

    def _with_keys(
        self, request: RequestFacts, headers: Headers, notes: Notes, *, freshness: Headers
    ) -> Headers:
        if notes.is_unclear:
            return self._keep_out("unclear", headers, notes)  # nothing would purge it
        own = self._keys(headers, notes)
        keys = build_keys(own, partial(self._any_key, notes), self.policy.key_headers)
        if keys is None:
            _warn_of_budget(self.route, self.policy.key_budget)
            return self._keep_out("budget", headers, notes)
        self.policy.note_keys(keys, notes)
        if request.has_changed(keys.names):
            # It may show what was there before, and reach the cache after the purge.
            return self._keep_out("gate", headers, notes)
        dropped = self.policy.replaced if freshness else self.policy.key_names
        return [*without(headers, dropped), *freshness, *keys.headers]

    def _any_key(self, notes: Notes, key: str) -> str | None:
        notes.is_merged = True  # it is asked only then
        return self.policy.any_key(key)

    def _keys(self, headers: Headers, notes: Notes) -> list[str]:
        """Return all keys, the broadest first: Fastly ignores what follows one that is too long."""
        shown = self.shown
        if len(shown) > 1:
            shown = tuple(sorted(shown, key=lambda s: len(s.topic.params)))
        tagged = self._tagged(headers, notes)
        types = [*(s.type_key for s in shown), *filter(None, map(self.policy.type_key, tagged))]
        return [SITE_KEY, *types, *(s.topic.name for s in shown), *tagged]

    def _tagged(self, headers: Headers, notes: Notes) -> list[str]:
        """Return the keys that the view and the app have added, and those of what was read."""
        return [*notes.keys, *self.policy.keys_said(headers), *notes.rows]

    def _held(self, request: RequestFacts, headers: Headers, notes: Notes) -> list[Shown]:
        """Return what the response is held for, all in the same way; nothing if it is not held."""
        if request.method != "GET" or notes.declines_hold or has_header(headers, "grip-hold"):
            notes.unheld_by = "declined" if notes.declines_hold else "own"
            return []
        held = [shown for shown in self.shown if _is_held(shown.route, request.accept)]
        if not held:
            is_for_others = any(s.route.hold not in (None, "ws") for s in self.shown)
            notes.unheld_by = "accept" if is_for_others else "settings"
        elif self.is_private and (reason := self.refusal(request)) is not None:
            notes.unheld_by = "stranger"
            _warn_of_stranger(self.route, reason)
            return []
        return [shown for shown in held if shown.route.hold == _hold_of(held)]

    def _stream(self, request: RequestFacts, headers: Headers, held: list[Shown]) -> Headers:
        if not held:
            return []
        channels = _channels(request, held)
        link = self.next_link(channels, request.mount) if None not in channels.values() else ""
        # What was made while a topic changed may be held after the last item that would tell.
        is_late = link != "" and request.has_changed(channels)
        keep_alive_s = min(shown.route.keep_alive for shown in held)
        is_event_stream = (
            first_value(headers, "content-type").lower().startswith("text/event-stream")
        )
        return stream_headers(
            channels,
            next_link=link,
            next_link_timeout_s=CATCH_UP_SOON_S if is_late else NEXT_LINK_TIMEOUT_S,
            keep_alive_s=keep_alive_s if is_event_stream else 0,
        )

    def next_link(self, names: Iterable[str], mount: str) -> str:
        """Return where a GRIP proxy asks for what the clients of a stream have missed."""
        if self.is_private:
            return private_next_link(names, self.policy.secret, mount)
        return next_link(names, mount)

    def _answer_poll(self, request: RequestFacts, headers: Headers, held: list[Shown]) -> Headers:
        """Hold who has this response already, and nobody else."""
        hold = self._long_poll(request, held)
        if self.policy.is_purgeable and self.policy.answers_polls:
            # The cache keeps one copy for all, and compares it with what each of them has.
            return hold
        tag = first_value(headers, "etag").removeprefix("W/")
        # Without its quotes it might be a part of another.
        has_it = re.fullmatch('".+"', tag) is not None and tag in request.if_none_match
        return [*hold, ("Grip-Status", "304")] if has_it else []

    def _long_poll(self, request: RequestFacts, held: list[Shown]) -> Headers:
        channels = _channels(request, held)
        # As for a stream: it may be held after the last item that would tell.
        is_late = request.has_changed(channels)
        timeout_s = min(shown.route.hold_timeout for shown in held)
        return long_poll_headers(channels, timeout_s=MIN_HOLD_TIMEOUT_S if is_late else timeout_s)

    def _with_etag(self, request: RequestFacts, headers: Headers, notes: Notes) -> Headers:
        """Unless the app has a tag of its own, it is the versions of all that the response shows.

        What changed meanwhile has none: it may show either version.
        """
        if has_header(headers, "etag") or notes.is_unclear:
            return headers
        tagged = [key for key in self._tagged(headers, notes) if self.policy.type_key(key)]
        names = list(dict.fromkeys([*self.names, *tagged, *self._tables(notes)]))
        # In this order: if nothing has changed by now, these were the versions all along. All that
        # will be asked is asked at once, as a shared store is far.
        versions = request.gate.versions([*names, *self._keys(headers, notes)])
        if not versions or request.has_changed(names, lag=False):
            return headers
        return [*headers, ("ETag", etag(versions[name] for name in names))]

    def _tables(self, notes: Notes) -> list[str]:
        """Return the keys of changes of which it is not known which rows they are."""
        types = [key for row in notes.rows if (key := self.policy.type_key(row))]
        return [SITE_KEY, *types] if types else []

    def _depends_on_accept(self) -> bool:
        return any(shown.route.accept for shown in self.shown)

    # --- what is said of it -----------------------------------------------------------------

    def _explained(self, request: RequestFacts, headers: Headers, notes: Notes) -> Headers:
        """Say what was decided and why, in an answer that no cache keeps."""
        said = {
            "route": self.route,
            "topics": self.names,
            "versions": [request.versions.get(name, "") for name in self.names],
            "hold": first_value(headers, "grip-hold") or None,
            "cache": None
            if notes.kept_out_by
            else next(
                (v for n in self.policy.controls if (v := first_value(headers, n.lower()))), None
            )
            or first_value(headers, "cache-control")
            or None,
            "limit": request.longest_ttl,
            "keys": list(notes.named),
            "key-bytes": notes.key_bytes,
            "key-budget": self.policy.key_budget,
        }
        why = {
            "hold": notes.unheld_by,
            "cache": notes.kept_out_by,
            "keys": "merged" if notes.is_merged else "",
        }
        # Whatever the app says: not in a browser either.
        kept_out = keep_out(
            without(headers, FRESHNESS), self.policy.forbidding, self.policy.key_names
        )
        return [*kept_out, *build_debug(said, why)]


class Unplanned(Enum):
    """What no route is for, and yet ours."""

    NEXT_LINK = "a next link"


class Plans(dict[str, "Plan | Unplanned | None"]):
    """The plan of each path, None where the request is none of ours.

    A dict, so that paths that were asked for before cost no call: `find` is called for others.
    """

    def __init__(self, find: Callable[[str], Plan | Unplanned | None]) -> None:
        self._find = find

    def __missing__(self, path: str) -> Plan | Unplanned | None:
        plan = self._find(path)
        # Paths come from strangers: not only their number is bounded.
        if len(path) <= MAX_CACHED_PATH:
            if len(self) >= MAX_PLANS:
                self.clear()
            self[path] = plan
        return plan


class Policy:
    """Finds the plan of a path. Built once from the settings.

    `secret` signs the next links of private topics. Without a CDN that is told of changes, nothing
    `is_purgeable`, and no response is made cacheable. `metrics` are told what is kept out of caches
    for reasons that one would want to know of.
    """

    def __init__(self, settings: Settings, metrics: Metrics | None = None) -> None:
        self.metrics = Counts() if metrics is None else metrics
        self._longest_keys = 0
        self.debug = settings.debug
        dialects = settings.dialects
        self.key_headers = key_headers(dialects, budget_bytes=settings.key_budget)
        self.key_names = frozenset(header.name.lower() for header in self.key_headers)
        # An app may name its keys for Fastly, whatever edge it has.
        own = {header.name.lower(): header.parse for header in self.key_headers}
        self._parsers = {"surrogate-key": parse_keys, **own}
        self.key_budget = min(header.budget_bytes for header in self.key_headers)
        self.controls = tuple(dict.fromkeys(d.control for d in dialects if d.control))
        """The headers besides `Cache-Control` that say how long an edge keeps a response."""
        self.varies = all(dialect.varies for dialect in dialects)
        self.answers_polls = all(dialect.answers_polls for dialect in dialects)
        self.forbidding = forbid(self.controls)
        self.replaced = FRESHNESS | self.key_names
        self.metrics.gauge("key_budget_bytes", self.key_budget)
        self.is_purgeable = bool(settings.cdns)
        self.secret = settings.secret
        self.scopes = Scopes(settings.scopes)
        self._topics = settings.topics
        self._verifier = Verifier(settings.proxies)
        self._matcher = Matcher(
            (route.pattern, (topic, route)) for topic in settings.topics for route in topic.routes
        )
        # The same few paths are asked for again and again.
        self.plans = Plans(self._match)
        self.freshness = lru_cache(maxsize=256)(self._freshness)
        self.type_key = lru_cache(maxsize=4096)(self._type_key)

    def match(self, path: str) -> Plan | None:
        """Return the plan of a decoded path, or None if no route is configured for it."""
        plan = self.plans[path]
        return plan if isinstance(plan, Plan) else None

    def _match(self, path: str) -> Plan | Unplanned | None:
        if path.startswith(NEXT_LINK):
            return Unplanned.NEXT_LINK  # a route for everything is not for these
        shown = [
            _shown(settings, settings.template.fill(params), route)
            for (settings, route), params in self._matcher.match(path)
        ]
        if not shown:
            return None
        if len(shown) > MAX_CHANNELS:
            logger.warning(
                "%s shows %d topics; a proxy takes %d",
                path,
                len(shown),
                MAX_CHANNELS,
                extra=log_fields(
                    route=shown[0].route.pattern.text, topics=len(shown), limit=MAX_CHANNELS
                ),
            )
        return Plan(tuple(shown), self)

    def refusal(self, grip_sig: str, now: float) -> str | None:
        """Return why a request is not taken for one of a GRIP proxy's, None if it is.

        Without a verify key anybody is believed; private topics are not set up without. `now` is
        Unix time.
        """
        if not self._verifier.has_keys:
            return None
        if not grip_sig:
            return "Grip-Sig is missing"
        try:
            self._verifier.check(grip_sig, now=now)
        except SignatureError as error:
            return error.reason
        return None

    def _freshness(self, browser_ttl: int, edge_ttl: int, stale_if_error: int) -> Headers:
        return [
            ("Cache-Control", f"max-age={browser_ttl}, s-maxage={edge_ttl}"),
            *(lifetime(name, edge_ttl, stale_if_error) for name in self.controls),
        ]

    def keys_said(self, headers: Headers) -> list[str]:
        """Return the keys that the response has already, in headers that our edges read."""
        said: list[str] = []
        parsers = self._parsers
        for name, value in headers:
            if (parse := parsers.get(name.lower())) is not None:
                said += parse([value])
        return said

    def note_keys(self, keys: Keys, notes: Notes) -> None:
        """Note the keys of a response, for whoever counts and whoever asks."""
        notes.named = keys.names
        notes.key_bytes = longest = keys.longest
        if notes.is_merged:
            self.metrics.count("keys_merged")
        if longest > self._longest_keys:
            self._longest_keys = longest
            self.metrics.gauge("key_bytes", longest)

    def may_debug(self, secret: str) -> bool:
        """Whether who says this may be told what is decided."""
        if not self.debug:
            return False
        return compare_digest(secret.encode(errors="surrogatepass"), self.debug.encode())

    def plan_of(self, names: Iterable[str]) -> Plan | None:
        """Return the plan of a next link for these topics, None if one of them has none."""
        shown = [self._recovered(name) for name in names]
        if not 0 < len(shown) <= MAX_CHANNELS or None in shown:
            return None
        return Plan(tuple(filter(None, shown)), self)

    def _recovered(self, name: str) -> Shown | None:
        settings, topic = find_topic(self._topics, name) or (None, None)
        if settings is None or topic is None or not settings.can_recover("stream"):
            return None
        route = settings.rendered_routes["stream"]
        is_shown = route.pattern.fill(dict(topic.params)) is not None
        return _shown(settings, topic, route) if is_shown else None

    def name_topic(self, name: str, params: Mapping[str, object]) -> str:
        """Return a topic's name, from itself or from its template and values.

        TopicError if there is none.
        """
        return named_topic(self._topics, name, params)[1].name

    def any_key(self, key: str) -> str | None:
        """Return what stands for all topics of this one's template where there is no room for each.

        None if the key is no topic's.
        """
        if (template := template_of(key)) is not None:
            return template.any_key if key != template.type_key else None
        topic = find_topic(self._topics, key)
        return topic[0].template.any_key if topic and topic[1].params else None

    def _type_key(self, key: str) -> str | None:
        """Return what is purged instead of a topic's key when there is no room for that."""
        if (template := template_of(key)) is not None:
            return template.type_key
        topic = find_topic(self._topics, key)
        return topic[0].template.type_key if topic else None


def _shown(settings: TopicSettings, topic: Topic, route: Route) -> Shown:
    # A next link reads the topic's values from its name; the others are asked again as they were.
    recovers = route.hold is not None and settings.can_recover(route.hold)
    is_readable = route.hold != "stream" or not topic.is_shortened
    type_key = settings.template.type_key
    auto_tags = settings.auto_tags is not None
    return Shown(topic, route, recovers and is_readable, settings.private, type_key, auto_tags)


def find_topic(topics: Iterable[TopicSettings], name: str) -> tuple[TopicSettings, Topic] | None:
    """Return the declared topic that has this name. The settings see to it that it is only one."""
    for settings in topics:
        if name.startswith(settings.template.literals[0]):
            topic = settings.template.read(name)
            if topic is not None:
                return settings, topic
    return None


def named_topic(
    topics: Iterable[TopicSettings], name: str, params: Mapping[str, object]
) -> tuple[TopicSettings, Topic]:
    """Return a topic by its name, or by its template and values. TopicError if there is none."""
    topics = tuple(topics)
    for topic in topics:
        if topic.template.text == name:
            return topic, _fill(topic, params)
    found = None if params else find_topic(topics, name)
    if found is None:
        declared = ", ".join(f'"{topic.template.text}"' for topic in topics)
        raise TopicError(f'no topic is named "{name}"; the settings declare {declared}')
    return found


def _fill(settings: TopicSettings, params: Mapping[str, object]) -> Topic:
    template = settings.template
    if set(params) != set(template.params):
        wanted = ", ".join(f"{param}=..." for param in template.params) or "no values"
        given = ", ".join(params) or "none"
        raise TopicError(f'topic "{template.text}" takes {wanted}; given were {given}')
    if None in params.values():
        raise TopicError(f'topic "{template.text}" takes no None')
    try:
        return template.fill(params)
    except ValueError as error:
        raise TopicError(f'topic "{template.text}": {error}') from None


_asked = attrgetter("method", "accept", "if_none_match", "is_authorized", "mount", "longest_ttl")


def _is_long(request: RequestFacts) -> bool:
    return len(request.accept) + len(request.if_none_match) + len(request.mount) > MAX_ASKED


def _is_polled(held: list[Shown]) -> bool:
    return bool(held) and held[0].route.hold == "response"


def _channels(request: RequestFacts, held: list[Shown]) -> dict[str, str | None]:
    """Return the version of each channel; of none, if one of them cannot recover."""
    names = list(dict.fromkeys(shown.topic.name for shown in held))[:MAX_CHANNELS]
    versions = request.versions if all(shown.recovers for shown in held) else {}
    return {name: versions.get(name) for name in names}


def _is_held(route: Route, accept: str) -> bool:
    if route.hold in (None, "ws"):  # a WebSocket is none of its responses
        return False
    return route.accept is None or _accepts(accept, route.accept)


def _hold_of(held: list[Shown]) -> Hold:
    """A route that names what it answers comes before one that holds everything."""
    first = next((shown for shown in held if shown.route.accept), held[0])
    assert first.route.hold is not None  # noqa: S101 - only held routes come here
    return first.route.hold


def _accepts(accept: str, media_type: str) -> bool:
    # A wildcard is no wish to be held: only who names the type gets it, as EventSource does.
    wished = (part.lower().replace(" ", "").partition(";") for part in accept.split(","))
    return any(name == media_type and q not in ("q=0", "q=0.0") for name, _, q in wished)


# The routes of which it was said. They are as many as the settings have.
_asked_by_strangers: set[str] = set()


def _warn_of_stranger(route: str, reason: str) -> None:
    if route in _asked_by_strangers:
        return
    _asked_by_strangers.add(route)
    logger.warning(
        "%s: private, and asked by nobody known as a GRIP proxy (%s), so it is answered without "
        "a hold; is GRIP_VERIFY_KEY the proxy's sig_key, and does the cache pass Grip-Sig on?",
        route,
        reason,
        extra=log_fields(route=route, reason=reason),
    )


@lru_cache(maxsize=1024)
def _warn_of_budget(route: str, budget: int) -> None:
    """Once a route: the cache holds the memory of having said it."""
    logger.warning(
        "%s: the surrogate keys exceed key_budget (%d bytes), so its responses are not cached; "
        "tag less, or raise key_budget and the header limits of everything on the way",
        route,
        budget,
        extra=log_fields(route=route, limit=budget),
    )

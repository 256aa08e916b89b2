"""What each setting means, in words: `docs/settings.md` is made of this and of `settings/`.

Defaults, and what is expected, are not repeated here. They are asked of the code that reads the
settings, so the page cannot say anything else.

Pure, and read by nobody who serves a request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grip_edge_middleware import settings
from grip_edge_middleware.errors import SettingsError
from grip_edge_middleware.settings import defaults


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the settings dict, and what no code says about it."""

    name: str
    meaning: str
    unit: str = ""
    environ: Sequence[str] = ()
    """Where it may come from if the dict does not have it."""
    source: str = ""
    """Where a limit, or a default, comes from."""

    @property
    def levels(self) -> tuple[str, ...]:
        """Where in the dict it may stand; the narrowest wins."""
        if self.name in defaults.TOPIC_ONLY:
            return ("topic",)
        if self.name in defaults.ROUTE_DEFAULTS:
            return ("top", "topic", "route")
        return ("top", "topic") if self.name in defaults.TOPIC_DEFAULTS else ("top",)

    @property
    def default(self) -> str:
        """The default as it is written in Python, "" if there is none."""
        for of_level in _DEFAULTS:
            if self.name in of_level:
                value = of_level[self.name]
                return repr(list(value) if isinstance(value, tuple) else value)
        return ""

    @property
    def expected(self) -> str:
        """What a value may be, in the words of the error that reports a wrong one."""
        wrong: Any = [0] if self.name == "routes" else "?"
        wrong = ["?"] if self.name == "models" else wrong
        found: dict[str, Any] = {"topics": {"t": {}}}
        place = found if "top" in self.levels else found["topics"]["t"]
        place[self.name] = wrong
        return next(m for m in map(_expectation, _mistakes(found, self.name)) if m)


@dataclass(frozen=True, slots=True)
class Entry:
    """A dict within the dict: its title, where it stands, and its keys with their meaning."""

    title: str
    keys: Mapping[str, str]
    example: Mapping[str, Any]
    """Settings with such a dict, which has the unknown key "?"."""

    @property
    def known(self) -> frozenset[str]:
        """The keys that the code knows, in the words of the error that reports another."""
        try:
            settings.Settings.parse(self.example, {})
        except SettingsError as error:
            text = str(error)
        [known] = re.findall(r"unknown setting.*\(known are (.*)\)", text)
        return frozenset(known.split(", "))


_DEFAULTS: tuple[Mapping[str, Any], ...] = (
    defaults.ROUTE_DEFAULTS,
    defaults.TOPIC_DEFAULTS,
    defaults.GLOBAL_DEFAULTS,
    {"dispatch": "here", "store": "memory"},
)


def _mistakes(found: Mapping[str, Any], name: str) -> list[str]:
    try:
        settings.Settings.parse(found, {})
    except SettingsError as error:
        return [m.problem for m in error.mistakes if name in m.path]
    return []


def _expectation(problem: str) -> str:
    found = re.match(r"expected (.*?)(, got .*)?$", problem)
    return found[1] if found else ""


_FASTLY_KEY = (
    "https://www.fastly.com/documentation/reference/http/http-headers/Surrogate-Key/"  # 16,384
)

SETTINGS = (
    Setting(
        "topics",
        "What clients watch, by name. `counter-{name}` is the GRIP channel and the surrogate key; "
        "its parameters are "
        "filled from a route's path, and from a model's attributes.",
    ),
    Setting(
        "routes",
        "The paths whose responses show the topic, as `/x/<name>` or `/x/{name}`, with converters "
        "as `{id:int}`. "
        "A dict overrides its topic's settings for one of them.",
    ),
    Setting(
        "models",
        "The classes whose saves change the topic. A dict says which saves, and which attributes "
        "fill the name.",
    ),
    Setting(
        "hold",
        'How the GRIP proxy keeps clients: `"stream"` for server-sent events, `"response"` for '
        'long-polling, `"ws"` for WebSockets. '
        "With `None` the response is cached and purged, and not held.",
    ),
    Setting(
        "accept",
        'Hold only who asks for this media type, as `"text/event-stream"`. Others get the page.',
    ),
    Setting(
        "throttle",
        "The time between two pushes of a topic. The first change leaves at once, the last one "
        "always does.",
        "seconds",
    ),
    Setting(
        "edge_ttl",
        "How long a CDN may keep a response. A shorter time that the app gives shared caches "
        "prevails.",
        "seconds",
    ),
    Setting(
        "browser_ttl",
        "How long a browser may. No purge reaches a browser.",
        "seconds",
    ),
    Setting(
        "stale_if_error",
        "How long a CDN may show an old response while the app is down.",
        "seconds",
        source="https://www.rfc-editor.org/rfc/rfc5861#section-4",
    ),
    Setting(
        "hold_timeout",
        "How long a long-poll waits before it is told that nothing changed.",
        "seconds",
        source="https://pushpin.org/docs/protocols/grip/",
    ),
    Setting(
        "keep_alive",
        "After how much silence an event stream gets a comment, so that nothing on the way takes "
        "it for dead. 0: none.",
        "seconds",
    ),
    Setting(
        "public",
        "Share the responses to requests with `Authorization`. Else they are kept for nobody.",
        source="https://www.rfc-editor.org/rfc/rfc9111#section-3.5",
    ),
    Setting(
        "receive",
        "Have what the client of a WebSocket says be a POST of the path. Else it is dropped.",
    ),
    Setting(
        "on_close",
        "A function that is called with the WebSocket that its client closed; under ASGI it may "
        "be a coroutine function.",
    ),
    Setting(
        "origins",
        "The other origins whose pages may open WebSockets, as browsers send cookies with any "
        'page\'s. `"*"` is any.',
    ),
    Setting(
        "payload",
        "A function from an instance to what is pushed, instead of the route's answer: text, "
        "bytes, or what becomes JSON.",
    ),
    Setting(
        "coalesce",
        "Push only the last of several payloads in a window. `False`: all of them, in order.",
    ),
    Setting(
        "recovery",
        "How a stream's clients catch up with what they missed: by a next link, or not at all.",
    ),
    Setting(
        "refetch",
        "Say `True` if messages only tell clients to fetch a page: the last one is then sent "
        "again with the repeated purge.",
    ),
    Setting(
        "private",
        "Never cached, and held only for a GRIP proxy that proves to be one.",
    ),
    Setting(
        "auto_tags",
        "The rows and lists that a view reads are surrogate keys of its page. Lists by a column "
        "among `scopes` have keys "
        "of their own.",
    ),
    Setting(
        "grip_url",
        "Where the GRIP proxies are told what to send: one URL, or several. Each is tried again "
        "by itself. "
        "`None` publishes nowhere.",
        environ=("GRIP_URL", "GRIP_VERIFY_KEY"),
    ),
    Setting(
        "cdn",
        "What is purged: one, or a list, the nearest to the app first. Without it nothing is made "
        "cacheable. [Which edges there are](edges.md).",
        environ=(
            "FASTLY_SERVICE_ID",
            "FASTLY_API_TOKEN",
            "CLOUDFLARE_ZONE_ID",
            "CLOUDFLARE_API_TOKEN",
            "CLOUDFRONT_DISTRIBUTION_ID",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AKAMAI_HOST",
            "AKAMAI_CLIENT_TOKEN",
            "AKAMAI_CLIENT_SECRET",
            "AKAMAI_ACCESS_TOKEN",
        ),
    ),
    Setting(
        "regions",
        "CDNs and GRIP proxies by region. Each region is told when its own purge is acknowledged.",
    ),
    Setting(
        "secret",
        "Signs the next links of private topics. The same in all processes.",
        environ=("GRIP_EDGE_SECRET",),
    ),
    Setting(
        "origin",
        "The app's own URL: its Host when a route is rendered, and where to render without the "
        "app in the process.",
    ),
    Setting("timeout", "What any request of ours may take.", "seconds"),
    Setting(
        "flush_timeout",
        "How long a process that stops waits to deliver what is pending.",
        "seconds",
    ),
    Setting(
        "confirm_after",
        "How long after a topic's last change its purge is repeated, for what was on its way "
        "meanwhile. 0: never.",
        "seconds",
    ),
    Setting(
        "replica_lag",
        "How far a read may be behind a commit. Answers are not cached for as long after a "
        "change, and the repeated "
        "purge waits for it.",
        "seconds",
    ),
    Setting(
        "degraded_ttl",
        "How long a CDN may keep a response at most while its purges fail. 0: not at all.",
        "seconds",
    ),
    Setting(
        "purge_deadline",
        "How long a CDN that keeps failing is waited for before what changes is pushed without "
        "its purge. "
        "0: not at all; `None`: as long as it takes.",
        "seconds",
    ),
    Setting(
        "key_budget",
        "How long the header with keys may be. A CDN's name stands for what "
        "[it takes](edges.md#limits). Beyond, keys are merged, and then the "
        "response is not cached. The default fits nginx's 4 KiB for all headers.",
        "bytes",
        source=_FASTLY_KEY,
    ),
    Setting(
        "cache_groups",
        "Say the keys as `Cache-Groups` as well, for caches that heed them. 32 fit, of 32 "
        "characters each.",
        source="https://www.rfc-editor.org/rfc/rfc9875",
    ),
    Setting(
        "metrics",
        "Who is told numbers. [What is counted](observability.md#metrics).",
    ),
    Setting(
        "tracing",
        "Make OpenTelemetry spans, from commit to publish, with the app's SDK or a provider.",
    ),
    Setting(
        "debug",
        "Whoever sends it as `Grip-Edge-Debug` is told in the answer what was decided, and why.",
        environ=("GRIP_EDGE_DEBUG",),
    ),
    Setting(
        "outbox",
        "What is committed is delivered even if the process is killed right after.",
    ),
    Setting(
        "store",
        "Where processes share what is pending, and the gate.",
        environ=("GRIP_EDGE_STORE",),
    ),
    Setting(
        "dispatch",
        'With `"external"` this process only writes into the store; `grip-edge dispatch`, or '
        "other processes, send.",
    ),
    Setting(
        "max_pending",
        "How many topics may wait while a target is down. More are purged together, by what they "
        "have in common.",
        "topics",
    ),
)

ENTRIES = (
    Entry(
        "A route",
        {
            "path": "The path, with its parameters.",
            "...": "What may be set for a route, see above.",
        },
        {"topics": {"t": {"routes": [{"path": "/", "?": 0}]}}},
    ),
    Entry(
        "A model",
        {
            "model": 'A class, or `"module:Class"`, which need not be imported yet.',
            "on": (
                'Which saves: some of `"insert"`, `"update"` and `"delete"`. All of them if left '
                "out."
            ),
            "when": (
                "A function that is asked of the new state whether it counts. What ceases to "
                "count is not purged."
            ),
            "params": (
                'Which attributes fill the name, where they are called otherwise: `{"id": '
                '"auction_id"}`.'
            ),
        },
        {"topics": {"t": {"models": [{"model": "a:B", "?": 0}]}}},
    ),
    Entry(
        "A Varnish",
        {
            "url": "`http://host:port`. `varnish://host:port` is short for it.",
            "soft": "Keep what is purged for when the app is down; `True` if left out.",
        },
        {"topics": {"t": {}}, "cdn": {"varnish": {"url": "http://h:1", "?": 0}}},
    ),
    Entry(
        "A Fastly service",
        {
            "service_id": "Or `FASTLY_SERVICE_ID` in the environment.",
            "token": "With the scope `purge_select`. Or `FASTLY_API_TOKEN` in the environment.",
            "url": "Another address of the API.",
            "soft": "Keep what is purged for when the app is down; `True` if left out.",
        },
        {"topics": {"t": {}}, "cdn": {"fastly": {"service_id": "s", "token": "t", "?": 0}}},
    ),
    Entry(
        "A Cloudflare zone",
        {
            "zone_id": "Or `CLOUDFLARE_ZONE_ID`. `cloudflare://ZONE_ID` is short for it.",
            "token": "With the permission *Zone, Cache Purge*. Or `CLOUDFLARE_API_TOKEN`.",
            "plan": 'The account\'s: `"free"`, `"pro"`, `"business"` or `"enterprise"`. `grip-edge '
            "check` compares its purges with `throttle`.",
            "url": "Another address of the API.",
        },
        {"topics": {"t": {}}, "cdn": {"cloudflare": {"zone_id": "z", "token": "t", "?": 0}}},
    ),
    Entry(
        "A CloudFront distribution",
        {
            "distribution_id": "Or `CLOUDFRONT_DISTRIBUTION_ID`. `cloudfront://ID` is short for "
            "it.",
            "access_key_id": "Or `AWS_ACCESS_KEY_ID`.",
            "secret_access_key": "May `cloudfront:CreateInvalidation`. Or `AWS_SECRET_ACCESS_KEY`.",
            "session_token": "Of a temporary key. Or `AWS_SESSION_TOKEN`.",
            "header": "What the distribution's `CacheTagConfig` names; `Cache-Tag` if left out.",
            "url": "Another address of the API.",
        },
        {
            "topics": {"t": {}},
            "cdn": {
                "cloudfront": {
                    "distribution_id": "d",
                    "access_key_id": "a",
                    "secret_access_key": "s",
                    "?": 0,
                }
            },
        },
    ),
    Entry(
        "An Akamai account",
        {
            "host": "The API client's. Or `AKAMAI_HOST`. `akamai://HOST` is short for it.",
            "client_token": "Or `AKAMAI_CLIENT_TOKEN`.",
            "client_secret": "Or `AKAMAI_CLIENT_SECRET`.",
            "access_token": "May use *CCU APIs*. Or `AKAMAI_ACCESS_TOKEN`.",
            "network": '`"production"`, or `"staging"`.',
            "soft": "Keep what is purged for when the app is down; `True` if left out.",
        },
        {
            "topics": {"t": {}},
            "cdn": {
                "akamai": {
                    "host": "h",
                    "client_token": "c",
                    "client_secret": "s",
                    "access_token": "a",
                    "?": 0,
                }
            },
        },
    ),
    Entry(
        "A Souin",
        {
            "url": "`http://host:port` of its API. `souin://host:port` is short for it.",
            "path": "The API's; `/souin-api/souin` if left out.",
        },
        {"topics": {"t": {}}, "cdn": {"souin": {"url": "http://h:1", "?": 0}}},
    ),
    Entry(
        "Another edge",
        {
            "url": "What is asked to purge.",
            "method": "`PURGE`, or `POST` for JSON, if left out.",
            "headers": "A dict of what else the request says: a token, say.",
            "keys_in": 'Where the keys are: `"header"` or `"json"`.',
            "name": "The header's name, `Surrogate-Key` if left out; or the JSON member's.",
            "separator": "Between the keys. In JSON they are a list without it.",
            "body": "A dict of what else is in the JSON.",
            "batch": "How many keys a request takes; 100 if left out.",
            "ok": "The statuses that acknowledge; 200 and 204 if left out.",
            "settle": "Seconds until an acknowledged purge is everywhere.",
            "tags": "The header of a response with its keys; `Surrogate-Key` if left out.",
            "tags_separator": "Between them: a space, a comma, or both.",
            "control": 'The header that says how long it keeps a response: `"Surrogate-Control"`, '
            '`"CDN-Cache-Control"` or `None`.',
            "varies": "Whether it keeps an answer for each value of what `Vary` names.",
        },
        {"topics": {"t": {}}, "cdn": {"generic": {"url": "http://h", "?": 0}}},
    ),
    Entry(
        "A region",
        {
            "cdn": "As at the top level. Its tokens do not come from the environment.",
            "grip_url": "As at the top level.",
        },
        {"topics": {"t": {}}, "regions": {"eu": {"cdn": "varnish://h:1", "?": 0}}},
    ),
    Entry(
        "Scopes",
        {"scopes": 'Columns, as `["author_id"]` or `["post.author_id"]`.'},
        {"topics": {"t": {"auto_tags": {"?": 0}}}},
    ),
    Entry(
        "An outbox",
        {
            "grace": (
                f"Seconds for which a row is left to its process; {settings.OUTBOX_GRACE_S:g} if "
                f"left out."
            ),
            "name": "Tells apart edges with different settings on one database.",
        },
        {"topics": {"t": {}}, "outbox": {"?": 0}},
    ),
    Entry(
        "A store",
        {
            "url": "As at the top level.",
            "name": (
                f'Tells apart apps on one Redis; `"{settings.DEFAULT_STORE_NAME}"` if left out.'
            ),
        },
        {"topics": {"t": {}}, "store": {"url": "redis://h:1/0", "?": 0}},
    ),
)

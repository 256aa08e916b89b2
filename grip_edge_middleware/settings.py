"""The settings dict, read once at start into values that the rest can trust.

Every mistake is reported, each with its path, what was found, what was expected and the nearest
valid name. Secrets may come from the environment: `GRIP_URL`, `GRIP_VERIFY_KEY`,
`FASTLY_SERVICE_ID`, `FASTLY_API_TOKEN`, `GRIP_EDGE_SECRET`, `GRIP_EDGE_DEBUG`. They are left out of
every `repr`.

Pure: the environment is passed in.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from itertools import combinations
from typing import Any, Literal, NoReturn, TypeVar, cast, get_args
from urllib.parse import urlsplit

from grip_edge_middleware.cache_control import MAX_SECONDS
from grip_edge_middleware.errors import Mistake, SettingsError
from grip_edge_middleware.grip import (
    MIN_HOLD_TIMEOUT_S,
    Proxy,
    decode_key,
    has_port,
    parse_grip_url,
)
from grip_edge_middleware.metrics import Metrics
from grip_edge_middleware.routing import Pattern
from grip_edge_middleware.signature import Signer
from grip_edge_middleware.topics import TopicTemplate, overlap
from grip_edge_middleware.types import Hold, Operation

T = TypeVar("T")

HOLDS: tuple[Hold, ...] = get_args(Hold)
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

# Half of what is recommended for HMAC with SHA-256; a word would be guessed.
MIN_SECRET = 16
# Who knows it may ask the app as often as he likes, from anywhere.
MIN_DEBUG = 32

# Longer than a target usually takes, and than clocks of machines usually differ.
OUTBOX_GRACE_S = 10.0
MAX_OUTBOX_NAME = 64

# What an object must have to be told numbers.
_METRICS = ("count", "gauge", "read", "after_fork")

DEFAULT_STORE_NAME = "default"

DEV_VARIABLE = "GRIP_EDGE_DEV"
"""With this in the environment, nobody else is told: a GRIP_URL, a space, and a `cdn`.

`grip-edge dev` sets it, so that an app under development purges and publishes nowhere else.
"""
_STORES: Mapping[str, str] = {
    "sqlite": "sqlite",
    **dict.fromkeys(("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"), "redis"),
    **dict.fromkeys(("valkey", "valkeys"), "redis"),
}

# What each CDN takes as Surrogate-Key, in bytes.
KEY_BUDGETS = {
    # What examples/edge gives Varnish room for: a longer header, and an object may lose its keys.
    "varnish": 7_500,
    # https://www.fastly.com/documentation/reference/http/http-headers/Surrogate-Key/: 16,384, and
    # what is beyond is silently not a key.
    "fastly": 16_000,
}


@dataclass(frozen=True, slots=True)
class Route:
    """A path whose responses show a topic, with everything that its topic left to the defaults.

    Times are whole seconds. `accept` is the media type that a request must ask for to be held;
    `hold_timeout` is how long a long-poll waits.
    """

    pattern: Pattern
    hold: Hold | None
    hold_timeout: int
    accept: str | None
    edge_ttl: int
    browser_ttl: int
    stale_if_error: int
    keep_alive: int
    public: bool


@dataclass(frozen=True, slots=True)
class Model:
    """Which saves of which class change a topic, and the attributes that fill its template."""

    model: str | type
    on: frozenset[Operation] = frozenset(OPERATIONS)
    when: str | Callable[[Any], bool] | None = None
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """One entry of `topics`."""

    template: TopicTemplate
    routes: tuple[Route, ...]
    models: tuple[Model, ...]
    throttle: float
    payload: str | Callable[[Any], Any] | None
    coalesce: bool
    recovery: str | None
    refetch: bool
    private: bool
    auto_tags: frozenset[str] | None = None
    """The scopes of lists, if what a view reads are surrogate keys of its response."""

    @property
    def recovers(self) -> bool:
        """Whether who missed a message is shown what it said."""
        return any(self.can_recover(hold) for hold in self.held_routes)

    def can_recover(self, hold: Hold) -> bool:
        """Whether clients held so can be: long-polls are asked again, streams need a next link."""
        has_answer = hold == "response" or hold in self.rendered_routes
        return self.recovery is not None and has_answer

    @property
    def held_routes(self) -> dict[Hold, Route]:
        """The routes that are held, one for each kind of hold."""
        return {route.hold: route for route in self.routes if route.hold}

    @property
    def rendered_routes(self) -> dict[Hold, Route]:
        """The held routes whose answers follow from the topic: without a message, these are one."""
        known = set(self.template.params)
        return {h: r for h, r in self.held_routes.items() if known.issuperset(r.pattern.params)}


@dataclass(frozen=True, slots=True)
class Varnish:
    """A Varnish with the VCL that we ship."""

    url: str
    soft: bool = True


@dataclass(frozen=True, slots=True)
class Fastly:
    """A Fastly service. The token needs the scope `purge_select`."""

    service_id: str
    token: str = field(repr=False)
    url: str = "https://api.fastly.com"
    soft: bool = True


@dataclass(frozen=True, slots=True)
class RegionSettings:
    """Its CDNs, the nearest to the app first, and the GRIP proxies behind them."""

    name: str
    cdns: tuple[Varnish | Fastly, ...] = ()
    proxies: tuple[Proxy, ...] = ()


@dataclass(frozen=True, slots=True)
class OutboxSettings:
    """For how many seconds a row is left to its process, and whose rows are taken."""

    grace: float = OUTBOX_GRACE_S
    name: str = ""


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """A store that processes share: `kind` is "sqlite", with the path of a file, or "redis".

    `name` tells apart apps that share one.
    """

    kind: str
    url: str = field(repr=False)  # it may have a password
    name: str = DEFAULT_STORE_NAME


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings dict, valid."""

    topics: tuple[TopicSettings, ...]
    throttle: float
    """Of what no topic declares."""
    trunk: RegionSettings
    """What is in no region: `cdn` and `grip_url`."""
    regions: tuple[RegionSettings, ...]
    origin: str | None
    timeout: float
    flush_timeout: float
    max_pending: int
    key_budget: int
    confirm_after: tuple[float, ...]
    replica_lag: float
    secret: str = field(repr=False)
    degraded_ttl: int
    purge_deadline: float
    """Infinite if a publish waits for its purge for as long as it takes."""
    outbox: OutboxSettings | None
    store: StoreSettings | None
    """None for the memory of each process."""
    is_external: bool
    """Whether another process sends what this one submits."""
    metrics: Metrics | Literal["prometheus"] | None
    tracing: object
    """Whether spans are made; or the OpenTelemetry provider that makes them."""
    debug: str = field(repr=False)
    """What a request says that may know what is decided; empty if none may."""

    @property
    def proxies(self) -> tuple[Proxy, ...]:
        """The GRIP proxies everywhere."""
        return sum((region.proxies for region in self.regions), self.trunk.proxies)

    @property
    def cdns(self) -> tuple[Varnish | Fastly, ...]:
        """The CDNs everywhere."""
        return sum((region.cdns for region in self.regions), self.trunk.cdns)

    @property
    def tags_rows(self) -> bool:
        """Whether what is read are keys of some topic's pages."""
        return any(topic.auto_tags is not None for topic in self.topics)

    @property
    def scopes(self) -> frozenset[str]:
        """The columns by which lists are told apart."""
        return frozenset().union(*(topic.auto_tags or () for topic in self.topics))

    @classmethod
    def parse(cls, settings: object, environ: Mapping[str, str]) -> Settings:
        """Read the dict. SettingsError lists every mistake."""
        reader = _Reader(environ)
        parsed = reader.settings(_on_dev_edge(settings, environ.get(DEV_VARIABLE, "")))
        if reader.mistakes:
            raise SettingsError(reader.mistakes)
        assert parsed is not None  # noqa: S101 - without a mistake there is a value
        return parsed


def _on_dev_edge(found: object, urls: str) -> object:
    if not urls or not isinstance(found, Mapping):
        return found
    grip_url, _, cdn = urls.partition(" ")
    kept = {name: value for name, value in found.items() if name not in ("regions", "dispatch")}
    return {**kept, "grip_url": grip_url, "cdn": cdn}


# What may be set for all topics, for one, and for one of its routes; the narrowest wins.
_ROUTE_DEFAULTS: Mapping[str, Any] = {
    "hold": None,
    # Pushpin's own default.
    "hold_timeout": 55,
    "accept": None,
    "edge_ttl": 600,
    "browser_ttl": 0,
    "stale_if_error": 86_400,
    "keep_alive": 20,
    "public": False,
}
_TOPIC_DEFAULTS: Mapping[str, Any] = {
    "throttle": 1.0,
    "coalesce": True,
    "recovery": "next-link",
    "refetch": False,
    "private": False,
    "auto_tags": None,
}
_TOPIC_ONLY = ("routes", "models", "payload")
_GLOBAL_DEFAULTS: Mapping[str, Any] = {
    "origin": None,
    "timeout": 5.0,
    "flush_timeout": 5.0,
    "max_pending": 100_000,
    # Fits nginx's default of 4,096 bytes for all headers of a response, and leaves a quarter.
    "key_budget": 3_072,
    # 2 is what CDNs with shields recommend between two purges. The first finds what was on its way
    # to the cache, the second tells who was given that meanwhile.
    "confirm_after": (1.0, 2.0),
    "replica_lag": 0.0,
    # Old pages are gone before anybody wonders, and the cache still takes most of a crowd's load.
    "degraded_ttl": 5,
    "purge_deadline": 10.0,
    "outbox": None,
    "metrics": None,
    "tracing": False,
}
_GLOBAL_ONLY = ("topics", "grip_url", "cdn", "regions", "secret", "debug", "store", "dispatch")


class _Wrong(Exception):  # noqa: N818 - never leaves this file
    """A value cannot be used. Caught where its path is known."""

    def __init__(self, problem: str, hint: str = "") -> None:
        self.mistake = (problem, hint)


class _Reader:
    """Walks the dict and collects mistakes."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.mistakes: list[Mistake] = []
        self.is_in_region = False

    def settings(self, found: object) -> Settings | None:
        if not isinstance(found, Mapping):
            # Not repeated: it may be a URL with a key.
            self.wrong("GRIP_EDGE", f"expected a dict, got {_kind(found)}")
            return None
        known = (*_GLOBAL_ONLY, *_GLOBAL_DEFAULTS, *_TOPIC_DEFAULTS, *_ROUTE_DEFAULTS)
        self.names("", found, known)
        shared = self.values("", found, {**_ROUTE_DEFAULTS, **_TOPIC_DEFAULTS})
        own = self.values("", found, _GLOBAL_DEFAULTS)
        topics = self.topics(found.get("topics"), shared)
        regions = self.regions(found.get("regions"))
        is_published = any(region.proxies for region in regions)
        is_held = any(topic.held_routes for topic in topics)
        proxies = self.proxies(found, is_needed=is_held and not is_published)
        trunk, *regions = self.keyed([RegionSettings("", (), proxies), *regions])
        self.check_private(topics, [p for region in (trunk, *regions) for p in region.proxies])
        if own["confirm_after"] == () and any(topic.refetch for topic in topics):
            self.wrong("refetch", "nothing is sent again with confirm_after 0", "leave out one")
        return Settings(
            topics=topics,
            throttle=shared["throttle"],
            trunk=replace(trunk, cdns=self.cdns("cdn", found.get("cdn"))),
            regions=tuple(regions),
            secret=self.secret(found, topics),
            debug=self.debug(found),
            store=self.store(found),
            is_external=self.is_external(found),
            **own,
        )

    def store(self, found: Mapping[Any, Any]) -> StoreSettings | None:
        return self.attempt(
            "store", _store, found.get("store", self.environ.get("GRIP_EDGE_STORE"))
        )

    def is_external(self, found: Mapping[Any, Any]) -> bool:
        who = found.get("dispatch", "here")
        if who not in ("here", "external"):
            self.wrong("dispatch", f'expected "here" or "external", got {_show(who)}')
        if who == "external" and "store" not in found and "GRIP_EDGE_STORE" not in self.environ:
            self.wrong(
                "dispatch",
                "nobody else sees what is submitted here without a store that processes share",
                'set store to "redis://..." or "sqlite:///..."',
            )
        return bool(who == "external")

    def topics(self, found: object, defaults: Mapping[str, Any]) -> tuple[TopicSettings, ...]:
        if not isinstance(found, Mapping) or not found:
            self.wrong(
                "topics",
                f"expected a dict of topics, got {_show(found)}",
                'for example {"counter-{name}": {"routes": ["/counters/{name}/"]}}',
            )
            return ()
        topics = [self.topic(f"topics[{_show(n)}]", n, t, defaults) for n, t in found.items()]
        valid = tuple(topic for topic in topics if topic is not None)
        self.check_names(valid)
        self.check_holds(valid)
        return valid

    def topic(
        self, path: str, name: object, found: object, defaults: Mapping[str, Any]
    ) -> TopicSettings | None:
        template = self.attempt(path, _template, name)
        if not isinstance(found, Mapping):
            self.wrong(path, f"expected a dict, got {_show(found)}")
            return None
        self.names(path, found, (*_TOPIC_ONLY, *_TOPIC_DEFAULTS, *_ROUTE_DEFAULTS))
        values = self.values(path, found, defaults)
        routes = self.many(
            f"{path}.routes", found.get("routes", ()), partial(self.route, defaults=values)
        )
        models = self.many(f"{path}.models", found.get("models", ()), self.model)
        if template is None:
            return None
        topic = TopicSettings(
            template,
            routes,
            models,
            throttle=values["throttle"],
            payload=self.attempt(f"{path}.payload", _payload, found.get("payload")),
            coalesce=values["coalesce"],
            recovery=values["recovery"],
            refetch=values["refetch"],
            private=values["private"],
            auto_tags=values["auto_tags"],
        )
        self.check_rendering(path, topic)
        self.check_params(path, topic)
        return topic

    def route(self, path: str, found: object, defaults: Mapping[str, Any]) -> Route | None:
        entry: Mapping[Any, Any] = {"path": found} if isinstance(found, str) else _mapping(found)
        self.names(path, entry, ("path", *_ROUTE_DEFAULTS))
        values = self.values(path, entry, {n: defaults[n] for n in _ROUTE_DEFAULTS})
        pattern = self.attempt(path, _pattern, entry.get("path"))
        return None if pattern is None else Route(pattern, **values)

    def model(self, path: str, found: object) -> Model | None:
        if not isinstance(found, Mapping):
            return Model(_model(found))
        self.names(path, found, ("model", "on", "when", "params"))
        model = self.attempt(f"{path}.model", _model, found.get("model"))
        on = self.attempt(f"{path}.on", _operations, found.get("on", OPERATIONS))
        when = self.attempt(f"{path}.when", _callable, found.get("when"))
        params = self.attempt(f"{path}.params", _params, found.get("params", {}))
        return None if model is None else Model(model, on or frozenset(), when, params or {})

    def check_names(self, topics: Sequence[TopicSettings]) -> None:
        for one, other in combinations(topics, 2):
            first, second = one.template.literals[0], other.template.literals[0]
            if not first.startswith(second) and not second.startswith(first):
                continue
            if (name := overlap(one.template, other.template)) is not None:
                self.wrong(
                    f"topics[{_show(other.template.text)}]",
                    f"{name!r} is also a name of topic {one.template.text!r}, "
                    "so that each would get what is meant for the other",
                    'rename one, or separate with ":" as in "list:{id}", which no value contains',
                )

    def check_holds(self, topics: Sequence[TopicSettings]) -> None:
        """A response is held in one way, whichever topics it shows."""
        held: dict[tuple[str, str | None], Route] = {}
        for topic in topics:
            for route in topic.held_routes.values():
                first = held.setdefault((route.pattern.regex.pattern, route.accept), route)
                if first.hold != route.hold:
                    self.wrong(
                        f"topics[{_show(topic.template.text)}].routes",
                        f'{route.pattern.text} has hold "{route.hold}" here and '
                        f'"{first.hold}" in another topic',
                        "use one of them, or tell the requests apart with accept",
                    )

    def check_private(self, topics: Sequence[TopicSettings], proxies: Sequence[Proxy]) -> None:
        """Who may see a page is decided by its view, and who may hold it by the proxy's word."""
        has_keys = proxies and all(proxy.verify_key for proxy in proxies)
        for topic in topics if not has_keys else ():
            if topic.private and topic.held_routes:
                self.wrong(
                    f"topics[{_show(topic.template.text)}].private",
                    "no verify key tells the requests of a GRIP proxy from anybody's",
                    "set GRIP_VERIFY_KEY to the proxy's sig_key, or verify-key in grip_url",
                )
        seen: dict[str, bool] = {}
        for topic in topics:
            path = f"topics[{_show(topic.template.text)}]"
            for route in topic.routes:
                if topic.private and route.public:
                    self.wrong(f"{path}.private", f"{route.pattern.text} is public", "choose one")
                if seen.setdefault(route.pattern.regex.pattern, topic.private) != topic.private:
                    self.wrong(
                        f"{path}.private",
                        f"{route.pattern.text} is private in one topic and not in another",
                        "make both private, or give them pages of their own",
                    )

    def secret(self, found: Mapping[Any, Any], topics: Sequence[TopicSettings]) -> str:
        """Return what signs the next links of private topics."""
        secret = found.get("secret", self.environ.get("GRIP_EDGE_SECRET"))
        hint = "set it or GRIP_EDGE_SECRET to 32 random characters, in all processes the same"
        if secret is None:
            if any(topic.private and topic.can_recover("stream") for topic in topics):
                self.wrong("secret", "missing, and it signs the next links of private topics", hint)
            return ""
        if not isinstance(secret, str) or len(secret) < MIN_SECRET:
            # What was found is not repeated.
            self.wrong("secret", f"expected a text of {MIN_SECRET} characters or more", hint)
            return ""
        return secret

    def debug(self, found: Mapping[Any, Any]) -> str:
        """Return what a request must say to be told what is decided."""
        secret = found.get("debug", self.environ.get("GRIP_EDGE_DEBUG"))
        if secret is None:
            return ""
        if isinstance(secret, str) and re.fullmatch(rf"[!-~]{{{MIN_DEBUG},}}", secret):
            return secret
        # What was found is not repeated.
        self.wrong(
            "debug",
            f"expected a text of {MIN_DEBUG} characters or more, printable ASCII without spaces",
            "who sends it as Grip-Edge-Debug is told what is decided; leave it out for nobody",
        )
        return ""

    def check_rendering(self, path: str, topic: TopicSettings) -> None:
        """What is published is what a route answers, so it must follow from the topic."""
        if topic.payload is not None:
            return
        held: dict[Hold, Route] = {}
        for route in topic.routes:
            if route.hold is None:
                continue
            if (first := held.setdefault(route.hold, route)) is not route:
                self.wrong(
                    f"{path}.routes",
                    f'{first.pattern.text} and {route.pattern.text} both have hold "{route.hold}", '
                    "so it is open which of them is published",
                    "set a payload, or give each a topic of its own",
                )
            for name in route.pattern.params:
                if name not in topic.template.params:
                    self.wrong(
                        f"{path}.routes",
                        f"{route.pattern.text} is held and has the parameter {name!r}, which the "
                        "topic's name lacks, so its body cannot be rendered for the topic",
                        f"add {{{name}}} to the topic's name, or set a payload",
                    )

    def check_params(self, path: str, topic: TopicSettings) -> None:
        """Every parameter of the name comes from each of its routes."""
        for route in topic.routes:
            for name in topic.template.params:
                if name not in route.pattern.params:
                    self.wrong(
                        f"{path}.routes",
                        f"{route.pattern.text} has no parameter {name!r} to fill the topic's name",
                        _nearest(name, route.pattern.params)
                        or f"add <{name}> to the path, or tag the response in the view",
                    )
        for position, model in enumerate(topic.models):
            for name in model.params:
                if name not in topic.template.params:
                    self.wrong(
                        f"{path}.models[{position}].params[{name!r}]",
                        "the topic's name has no such parameter",
                        _nearest(name, topic.template.params),
                    )

    def proxies(self, found: Mapping[Any, Any], *, is_needed: bool) -> tuple[Proxy, ...]:
        if "grip_url" in found:
            return self.grip_urls("grip_url", found["grip_url"])
        urls = self.environ.get("GRIP_URL")
        if urls is None and is_needed:
            self.wrong(
                "grip_url",
                "missing, and a topic has a hold, so nobody would get what is published",
                'set it or GRIP_URL, as in "http://localhost:5561"; None publishes nowhere',
            )
        return self.grip_urls("GRIP_URL (environment)", urls)

    def grip_urls(self, path: str, urls: object) -> tuple[Proxy, ...]:
        if isinstance(urls, str):
            urls = re.split(r"[\s,]+", urls.strip())
        return self.many(path, urls if urls is not None else (), _proxy)

    def keyed(self, regions: list[RegionSettings]) -> list[RegionSettings]:
        """Return the regions; whichever proxy has no key of its own has the environment's."""
        verify_key = self.environ.get("GRIP_VERIFY_KEY")
        if verify_key is None:
            return regions

        def read(key: str) -> list[RegionSettings]:
            return [replace(r, proxies=_with_verify_key(r.proxies, key)) for r in regions]

        return self.attempt("GRIP_VERIFY_KEY (environment)", read, verify_key) or regions

    def regions(self, found: object) -> list[RegionSettings]:
        if found is None:
            return []
        if not isinstance(found, Mapping):
            # Not repeated: it may be a URL with a key.
            hint = 'for example {"eu": {"cdn": "varnish://eu:6081", "grip_url": "http://eu:5561"}}'
            self.wrong("regions", f"expected a dict of regions, got {_kind(found)}", hint)
            return []
        # What the environment says is for what is in no region.
        reader = _Reader({})
        reader.is_in_region = True
        reader.mistakes = self.mistakes
        regions = [reader.region(name, entry) for name, entry in found.items()]
        return [region for region in regions if region is not None]

    def region(self, name: object, found: object) -> RegionSettings | None:
        is_url = isinstance(name, str) and "://" in name
        path = f"regions[{_show(_without_secrets(name) if is_url else name)}]"
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name, re.ASCII):
            self.wrong(path, "expected a name of letters, digits, - and _")
            return None
        if not isinstance(found, Mapping):
            self.wrong(path, f'expected {{"cdn": ..., "grip_url": ...}}, got {_kind(found)}')
            return None
        self.names(path, found, ("cdn", "grip_url"))
        if found.get("cdn") is None and found.get("grip_url") is None:
            self.wrong(path, "has neither cdn nor grip_url", "give it one, or leave it out")
        cdns = self.cdns(f"{path}.cdn", found.get("cdn"))
        return RegionSettings(name, cdns, self.grip_urls(f"{path}.grip_url", found.get("grip_url")))

    def cdns(self, path: str, found: object) -> tuple[Varnish | Fastly, ...]:
        entries = found if isinstance(found, list | tuple) else [] if found is None else [found]
        return self.many(path, entries, self.cdn)

    def cdn(self, path: str, found: object) -> Varnish | Fastly | None:
        kind, options = _cdn(found)
        if kind == "varnish":
            return self.varnish(f"{path}[{kind!r}]", options)
        return self.fastly(f"{path}[{kind!r}]", options)

    def varnish(self, path: str, options: Mapping[Any, Any]) -> Varnish | None:
        self.names(path, options, ("url", "soft"))
        url = self.attempt(f"{path}.url", _http_url, options.get("url"))
        soft = self.attempt(f"{path}.soft", _boolean, options.get("soft", True))
        if url is not None and urlsplit(url).path:
            self.wrong(f"{path}.url", "a purge goes to no path", "leave out what follows the port")
        return None if url is None or soft is None else Varnish(url, soft)

    def fastly(self, path: str, options: Mapping[Any, Any]) -> Fastly | None:
        self.names(path, options, ("service_id", "token", "url", "soft"))
        service_id = self.credential(path, options, "service_id", "FASTLY_SERVICE_ID")
        token = self.credential(path, options, "token", "FASTLY_API_TOKEN")
        url = self.attempt(f"{path}.url", _http_url, options.get("url", "https://api.fastly.com"))
        soft = self.attempt(f"{path}.soft", _boolean, options.get("soft", True))
        if service_id is None or token is None or url is None or soft is None:
            return None
        return Fastly(service_id, token, url, soft)

    def credential(
        self, path: str, options: Mapping[Any, Any], name: str, variable: str
    ) -> str | None:
        value = options.get(name) or self.environ.get(variable)
        if isinstance(value, str) and re.fullmatch(r"[!-~]+", value):
            return value
        # What was found is not repeated: it may be most of a secret.
        problem = "expected printable ASCII without spaces" if value else "missing"
        hint = f"set it or {variable} in the environment"
        if self.is_in_region:
            hint = f"set it; {variable} in the environment is for the cdn in no region"
        self.wrong(f"{path}.{name}", problem, hint)
        return None

    def names(self, path: str, found: Mapping[Any, Any], known: Iterable[str]) -> None:
        known = tuple(known)
        for name in found:
            if name not in known:
                hint = _nearest(name, known) or f"known are {', '.join(sorted(known))}"
                self.wrong(f"{path}.{name}".lstrip("."), "unknown setting", hint)

    def values(
        self, path: str, found: Mapping[Any, Any], defaults: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {
            name: default
            if name not in found
            else self.attempt(f"{path}.{name}".lstrip("."), _CHECKS[name], found[name], default)
            for name, default in defaults.items()
        }

    def many(self, path: str, found: object, read: Callable[[str, Any], T | None]) -> tuple[T, ...]:
        """Read each item of a list with `read(path, item)`."""
        if isinstance(found, str | bytes | Mapping) or not isinstance(found, Iterable):
            self.wrong(path, f"expected a list, got {_show(found)}")
            return ()
        values = [
            self.attempt(at, partial(read, at), item)
            for at, item in ((f"{path}[{position}]", item) for position, item in enumerate(found))
        ]
        return tuple(value for value in values if value is not None)

    def attempt(
        self, path: str, read: Callable[[Any], T], found: object, default: T | None = None
    ) -> T | None:
        try:
            return read(found)
        except _Wrong as wrong:
            self.wrong(path, *wrong.mistake)
        except ValueError as error:
            self.wrong(path, str(error))
        return default

    def wrong(self, path: str, problem: str, hint: str = "") -> None:
        self.mistakes.append(Mistake(path, problem, hint))


def _show(found: object) -> str:
    if isinstance(found, str):
        return json.dumps(found if len(found) <= 60 else f"{found[:57]}...")
    is_plain = found is None or isinstance(found, bool | int | float | type)
    return repr(found)[:60] if is_plain else _kind(found)


def _kind(found: object) -> str:
    return "None" if found is None else f"{type(found).__name__}"


def _nearest(name: object, known: Iterable[str]) -> str:
    close = get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f'did you mean "{close[0]}"?' if close else ""


def _expected(what: str, found: object, hint: str = "") -> NoReturn:
    raise _Wrong(f"expected {what}, got {_show(found)}", hint)


def _mapping(found: object) -> Mapping[Any, Any]:
    return found if isinstance(found, Mapping) else _expected("a path or a dict", found)


def _template(found: object) -> TopicTemplate:
    template = TopicTemplate.parse(found) if isinstance(found, str) else _expected("a name", found)
    if "on_commit" in template.params:
        raise _Wrong('a parameter cannot be named "on_commit"', "rename it")
    return template


def _pattern(found: object) -> Pattern:
    if not isinstance(found, str):
        _expected('a path such as "/counters/<name>/"', found)
    return Pattern.parse(found)


def _boolean(found: object) -> bool:
    return found if isinstance(found, bool) else _expected("True or False", found)


def _is_number(found: Any) -> bool:
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    return is_number and 0 <= found <= MAX_SECONDS


def _only_names(found: Mapping[Any, Any], *known: str) -> None:
    for name in found:
        if name not in known:
            hint = _nearest(name, known) or f"known are {', '.join(known)}"
            raise _Wrong(f"unknown setting {_show(name)}", hint)


def _auto_tags(found: object) -> frozenset[str] | None:
    """Return the scopes, None if nothing is tagged by itself."""
    if isinstance(found, bool) or found is None:
        return frozenset() if found else None
    if not isinstance(found, Mapping):
        _expected('True, False or {"scopes": [columns]}', found)
    _only_names(found, "scopes")
    scopes = found.get("scopes", ())
    if isinstance(scopes, str) or not isinstance(scopes, Iterable):
        _expected('a list of columns such as ["author_id"]', scopes)
    names = list(scopes)
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"\w+(\.\w+)?", name):
            _expected('a column such as "author_id" or "post.author_id"', name)
    return frozenset(name.lower() for name in names)


def _outbox(found: object) -> OutboxSettings | None:
    if isinstance(found, bool) or found is None:
        return OutboxSettings() if found else None
    if not isinstance(found, Mapping):
        _expected('True, False or {"grace": seconds, "name": a name}', found)
    _only_names(found, "grace", "name")
    name = found.get("name", "")
    if not isinstance(name, str) or len(name) > MAX_OUTBOX_NAME:
        _expected(f"a name of at most {MAX_OUTBOX_NAME} characters", name)
    return OutboxSettings(_some_seconds(found.get("grace", OUTBOX_GRACE_S)), name)


def _metrics(found: object) -> Metrics | Literal["prometheus"] | None:
    if found is None:
        return None
    if isinstance(found, str):
        if found != "prometheus":
            hint = _nearest(found, ("prometheus",))
            _expected('"prometheus", None or an object that counts', found, hint)
        return "prometheus"
    lacking = [name for name in _METRICS if not callable(getattr(found, name, None))]
    if lacking:
        methods = ", ".join(_METRICS)
        _expected(f'"prometheus", None or an object with {methods}', found)
    return cast("Metrics", found)


def _tracing(found: object) -> object:
    if isinstance(found, bool) or callable(getattr(found, "get_tracer", None)):
        return found
    return _expected("True, False or an OpenTelemetry TracerProvider", found)


def _store(found: object) -> StoreSettings | None:
    """Return where processes share what is pending, None if each has its own."""
    if found in (None, "memory"):
        return None
    entry: Mapping[Any, Any] = {"url": found} if isinstance(found, str) else _mapping(found)
    _only_names(entry, "url", "name")
    url, name = entry.get("url"), entry.get("name", DEFAULT_STORE_NAME)
    # What was found is not repeated: it may have a password.
    expected = '"memory", "sqlite:///path/of/a/file", "redis://host:port/0", or {"url", "name"}'
    url = url if isinstance(url, str) else ""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _STORES:
        raise _Wrong(f"expected {expected}", _nearest(scheme, _STORES))
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,64}", name):
        _expected("a name of at most 64 letters, digits, dots and dashes", name)
    if scheme != "sqlite":
        return StoreSettings("redis", url.replace("valkey", "redis", 1), name)
    if "name" in entry:
        raise _Wrong("an SQLite file has no names", "give each app a file of its own")
    host, _, path = rest.partition("/")
    if host or not path or "?" in path or path == ":memory:":
        raise _Wrong(
            f"expected {expected}", 'as in "sqlite:///edge.sqlite3" or "sqlite:////var/lib/edge"'
        )
    return StoreSettings("sqlite", path, name)


def _whole_seconds(found: Any) -> int:
    if _is_number(found) and isinstance(found, int):
        return found
    return _expected("whole seconds, 0 or more", found)


def _hold_timeout(found: Any) -> int:
    if _is_number(found) and isinstance(found, int) and found >= MIN_HOLD_TIMEOUT_S:
        return found
    return _expected(f"whole seconds, {MIN_HOLD_TIMEOUT_S} or more", found)


def _seconds(found: Any) -> float:
    return float(found) if _is_number(found) else _expected("seconds, 0 or more", found)


def _confirm_after(found: Any) -> tuple[float, ...]:
    waits = found if isinstance(found, list | tuple) else [found] if found != 0 else []
    if not all(_is_number(wait) and wait > 0 for wait in waits):
        _expected("seconds, 0 or more, or a list of seconds, above 0", found)
    return tuple(float(wait) for wait in waits)


def _some_seconds(found: Any) -> float:
    is_some = _is_number(found) and found > 0
    return float(found) if is_some else _expected("seconds, above 0", found)


def _count(found: object) -> int:
    if isinstance(found, int) and not isinstance(found, bool) and found > 0:
        return found
    return _expected("a whole number above 0", found)


def _key_budget(found: object) -> int:
    if isinstance(found, str):
        choices = " or ".join(f'"{name}"' for name in KEY_BUDGETS)
        hint = _nearest(found, KEY_BUDGETS)
        return KEY_BUDGETS.get(found) or _expected(f"bytes or {choices}", found, hint)
    return _count(found)


def _hold(found: object) -> Hold | None:
    for hold in HOLDS:
        if found == hold:
            return hold
    choices = " or ".join(['"stream"', '"response"', "None"])
    return None if found is None else _expected(choices, found, _nearest(found, HOLDS))


def _media_type(found: object) -> str | None:
    if found is None:
        return None
    if isinstance(found, str) and re.fullmatch(r"[\w.+-]+/[\w.+-]+", found, re.ASCII):
        return found.lower()
    return _expected('a media type such as "text/event-stream"', found)


def _http_url(found: object) -> str:
    if isinstance(found, str) and re.fullmatch(r"https?://[\w.\[\]:-]+(/[\w./~-]*)?", found):
        split = urlsplit(found)
        if split.hostname and has_port(split):
            return found.rstrip("/")
    return _expected("a URL such as http://host:port", _without_secrets(found))


def _without_secrets(found: object) -> object:
    """Return what was found, unless a part of it may be a secret."""
    if not isinstance(found, str) or re.fullmatch(r"(\w*://)?[\w.-]*(:\d+)?/*", found):
        return found
    scheme, separator, _ = found.partition("://")
    return f"{scheme}{separator}..." if separator else "a text without ://"


def _proxy(_: str, found: object) -> Proxy:
    # What was found is not repeated: it contains a key.
    proxy = parse_grip_url(found) if isinstance(found, str) else _expected("a URL", type(found))
    if proxy.verify_key is not None:
        Signer.parse(proxy)
    return proxy


def _with_verify_key(proxies: Iterable[Proxy], found: str) -> tuple[Proxy, ...]:
    """Return the proxies; who has no key of its own is given this one."""
    key = decode_key("the verify key", found)
    keyed = tuple(p if p.verify_key is not None else replace(p, verify_key=key) for p in proxies)
    for proxy in keyed:
        Signer.parse(proxy)
    return keyed


def _model(found: object) -> str | type:
    if isinstance(found, type):
        return found
    if isinstance(found, str) and re.fullmatch(r"[\w.]+:[\w.]+", found):
        return found
    return _expected('a class or "module:Class"', found)


def _callable(found: object) -> Callable[[Any], Any] | str | None:
    if found is None or callable(found):
        return found
    if isinstance(found, str) and re.fullmatch(r"[\w.]+:[\w.]+", found):
        return found
    return _expected('a callable or "module:name"', found)


_payload = _callable


def _operations(found: object) -> frozenset[Operation]:
    names = [found] if isinstance(found, str) else found
    if not isinstance(names, Iterable):
        _expected("a list of operations", found)
    chosen = list(names)
    if not chosen:
        _expected("at least one operation", found)
    for name in chosen:
        if name not in OPERATIONS:
            _expected(" or ".join(f'"{o}"' for o in OPERATIONS), name, _nearest(name, OPERATIONS))
    return frozenset(chosen)


def _params(found: object) -> Mapping[str, str]:
    if not isinstance(found, Mapping):
        _expected('a dict such as {"id": "auction_id"}', found)
    for attribute in found.values():
        if not isinstance(attribute, str) or not attribute.isidentifier():
            _expected("an attribute's name", attribute)
    return dict(found)


def _cdn(found: object) -> tuple[str, Mapping[Any, Any]]:
    """Return the kind and its options from `varnish://host:port` or `{"varnish": {...}}`."""
    if isinstance(found, Mapping) and len(found) == 1:
        [(kind, options)] = found.items()
        if kind not in ("varnish", "fastly"):
            raise _Wrong(f"unknown CDN {_show(kind)}", _nearest(kind, ("varnish", "fastly")))
        if not isinstance(options, Mapping):
            # Not repeated: it may be a token.
            raise _Wrong(f'expected {{"{kind}": {{...}}}}, got {_kind(options)} in it')
        return kind, options
    if isinstance(found, str):
        split = urlsplit(found)
        if split.scheme == "varnish" and split.hostname:
            return "varnish", {"url": found.replace("varnish", "http", 1)}
        # Not .hostname, which is lower case: a service id is not.
        if split.scheme == "fastly" and re.fullmatch(r"fastly://\w*", found):
            return "fastly", {"service_id": split.netloc}
    expected = '"varnish://host:port", "fastly://SERVICE_ID" or {"fastly": {...}}'
    return _expected(expected, _without_secrets(found))


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "hold": _hold,
    "hold_timeout": _hold_timeout,
    "accept": _media_type,
    "edge_ttl": _whole_seconds,
    "browser_ttl": _whole_seconds,
    "stale_if_error": _whole_seconds,
    "keep_alive": _whole_seconds,
    "public": _boolean,
    "throttle": _seconds,
    "coalesce": _boolean,
    "refetch": _boolean,
    "private": _boolean,
    "auto_tags": _auto_tags,
    "recovery": lambda found: (
        found if found in ("next-link", None) else _expected('"next-link" or None', found)
    ),
    "origin": lambda found: None if found is None else _http_url(found),
    "timeout": _some_seconds,
    "flush_timeout": _seconds,
    "max_pending": _count,
    "key_budget": _key_budget,
    "confirm_after": _confirm_after,
    "replica_lag": _seconds,
    "degraded_ttl": _whole_seconds,
    "outbox": _outbox,
    "metrics": _metrics,
    "tracing": _tracing,
    "purge_deadline": lambda found: math.inf if found is None else _seconds(found),
}

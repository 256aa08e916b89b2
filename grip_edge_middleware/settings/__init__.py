"""The settings dict, read once at start into values that the rest can trust.

Every mistake is reported, each with its path, what was found, what was expected and the nearest
valid name. Secrets may come from the environment: `GRIP_URL`, `GRIP_VERIFY_KEY`,
`GRIP_EDGE_SECRET`, `GRIP_EDGE_DEBUG`, and those of CDNs (`cdns.py`). They are left out of every
`repr`.

Pure: the environment is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

from grip_edge_middleware.dialects import (
    AKAMAI,
    CACHE_GROUPS,
    CLOUDFLARE,
    CLOUDFRONT,
    DIALECTS,
    FASTLY,
    SOUIN,
    VARNISH,
    Dialect,
)
from grip_edge_middleware.errors import SettingsError
from grip_edge_middleware.grip import Proxy
from grip_edge_middleware.metrics import Metrics
from grip_edge_middleware.routing import Pattern
from grip_edge_middleware.topics import TopicTemplate
from grip_edge_middleware.types import Hold, Operation

HOLDS: tuple[Hold, ...] = get_args(Hold)
OPERATIONS: tuple[Operation, ...] = get_args(Operation)

# Half of what is recommended for HMAC with SHA-256; a word would be guessed.
MIN_SECRET = 16
# Who knows it may ask the app as often as he likes, from anywhere.
MIN_DEBUG = 32

# Longer than a target usually takes, and than clocks of machines usually differ.
OUTBOX_GRACE_S = 10.0
MAX_OUTBOX_NAME = 64

DEFAULT_STORE_NAME = "default"

DEV_VARIABLE = "GRIP_EDGE_DEV"
"""With this in the environment, nobody else is told: a GRIP_URL, a space, and a `cdn`.

`grip-edge dev` sets it, so that an app under development purges and publishes nowhere else.
"""

KEY_BUDGETS = {name: dialect.budget for name, dialect in DIALECTS.items()}
"""What each CDN takes as the header with keys, in bytes, with room for what is on the way."""


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
    receive: bool = False
    """Whether what the client of a WebSocket says is asked of the app."""
    on_close: str | Callable[[Any], Any] | None = None
    origins: tuple[str, ...] = ()
    """From which other origins browsers may open a WebSocket; "*" is any."""


@dataclass(frozen=True, slots=True)
class Model:
    """Which saves of which class change a topic, and the attributes that fill its template."""

    model: str | type
    on: frozenset[Operation] = frozenset(OPERATIONS)
    when: str | Callable[[Any], bool] | None = None
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
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

    # These are asked for each topic that is sent, so each is found out once.
    @cached_property
    def recovers(self) -> bool:
        """Whether who missed a message is shown what it said."""
        return any(self.can_recover(hold) for hold in self.held_routes)

    def can_recover(self, hold: Hold) -> bool:
        """Whether clients held so can be: streams need a next link, others are asked again."""
        has_answer = hold != "stream" or hold in self.rendered_routes
        return self.recovery is not None and has_answer

    @cached_property
    def held_routes(self) -> dict[Hold, Route]:
        """The routes that are held, one for each kind of hold."""
        return {route.hold: route for route in self.routes if route.hold}

    @cached_property
    def rendered_routes(self) -> dict[Hold, Route]:
        """The held routes whose answers follow from the topic: without a message, these are one."""
        known = set(self.template.params)
        return {h: r for h, r in self.held_routes.items() if known.issuperset(r.pattern.params)}


@dataclass(frozen=True, slots=True)
class Varnish:
    """A Varnish with the VCL that we ship."""

    dialect: ClassVar[Dialect] = VARNISH
    """What it reads and takes."""

    url: str
    soft: bool = True


@dataclass(frozen=True, slots=True)
class Fastly:
    """A Fastly service. The token needs the scope `purge_select`."""

    dialect: ClassVar[Dialect] = FASTLY
    """What it reads and takes."""

    service_id: str
    token: str = field(repr=False)
    url: str = "https://api.fastly.com"
    soft: bool = True


@dataclass(frozen=True, slots=True)
class Souin:
    """A Souin, as Caddy's cache for example. The path is that of its API."""

    dialect: ClassVar[Dialect] = SOUIN
    """What it reads and takes."""

    url: str
    path: str = "/souin-api/souin"


Plan = Literal["free", "pro", "business", "enterprise"]
Network = Literal["production", "staging"]
KeysIn = Literal["header", "json"]


@dataclass(frozen=True, slots=True)
class Cloudflare:
    """A zone of Cloudflare's. The token needs the permission Cache Purge."""

    dialect: ClassVar[Dialect] = CLOUDFLARE
    """What it reads and takes."""

    zone_id: str
    token: str = field(repr=False)
    url: str = "https://api.cloudflare.com/client/v4"
    plan: Plan = "free"


@dataclass(frozen=True, slots=True)
class CloudFront:
    """A distribution of CloudFront's. `header` is what its CacheTagConfig names."""

    distribution_id: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)
    header: str = CLOUDFRONT.header
    url: str = "https://cloudfront.amazonaws.com"

    @property
    def dialect(self) -> Dialect:
        """What it reads and takes."""
        return replace(CLOUDFRONT, header=self.header)


@dataclass(frozen=True, slots=True)
class Akamai:
    """An Akamai account whose API client may use Fast Purge."""

    dialect: ClassVar[Dialect] = AKAMAI
    """What it reads and takes."""

    host: str
    client_token: str = field(repr=False)
    client_secret: str = field(repr=False)
    access_token: str = field(repr=False)
    network: Network = "production"
    soft: bool = True


@dataclass(frozen=True, slots=True)
class Generic:
    """Any other edge: how it is told is described, in the header or in the JSON of a request.

    `url`, `headers` and `body` may have secrets.
    """

    url: str = field(repr=False)
    name: str
    """The request's header that has the keys, or the member of its JSON."""
    dialect: Dialect
    """What it reads of a response, and takes in a request."""
    keys_in: KeysIn = "header"
    method: str = "PURGE"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    body: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    """What else is in the JSON."""
    separator: str | None = None
    """Between keys in the request; None for a JSON list."""
    ok: frozenset[int] = frozenset({200, 204})


CDN = Varnish | Fastly | Souin | Cloudflare | CloudFront | Akamai | Generic
"""What is purged when something changes."""


@dataclass(frozen=True, slots=True)
class RegionSettings:
    """Its CDNs, the nearest to the app first, and the GRIP proxies behind them."""

    name: str
    cdns: tuple[CDN, ...] = ()
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
    cache_groups: bool
    """Whether the keys are said as RFC 9875's groups as well."""
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
    def cdns(self) -> tuple[CDN, ...]:
        """The CDNs everywhere."""
        return sum((region.cdns for region in self.regions), self.trunk.cdns)

    @property
    def dialects(self) -> tuple[Dialect, ...]:
        """What reads a response, each once."""
        groups = (CACHE_GROUPS,) if self.cache_groups else ()
        return tuple(dict.fromkeys((*(cdn.dialect for cdn in self.cdns), *groups)))

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
        # They are made of the values above.
        from grip_edge_middleware.settings.reader import Reader
        from grip_edge_middleware.settings.top_level import read_settings

        reader = Reader(environ)
        parsed = read_settings(reader, _on_dev_edge(settings, environ.get(DEV_VARIABLE, "")))
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

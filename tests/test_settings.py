"""The settings dict: every mistake at once, each said so that it can be mended."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from grip_edge_middleware.errors import SettingsError
from grip_edge_middleware.grip import FASTLY_VERIFY_KEY, Proxy, parse_grip_url
from grip_edge_middleware.settings import (
    CDN,
    Akamai,
    Cloudflare,
    CloudFront,
    Fastly,
    Generic,
    OutboxSettings,
    RegionSettings,
    Route,
    Settings,
    Souin,
    StoreSettings,
    TopicSettings,
    Varnish,
    defaults,
)

# What must never be seen again, wherever it was put.
SECRET = "xq7-SECRET-zz9"
USER = "USER-of-a-url"
ROUTE = {"routes": ["/c/<name>/"]}

OF_TOPIC = {*defaults.ROUTE_DEFAULTS, *defaults.TOPIC_DEFAULTS}
# As an error lists them.
ALL = ", ".join(sorted({*OF_TOPIC, *defaults.GLOBAL_DEFAULTS, *defaults.GLOBAL_ONLY}))
OF_TOPICS = ", ".join(sorted({*OF_TOPIC, *defaults.TOPIC_ONLY}))


class Counter:
    """A model."""


def parse(environ: Mapping[str, str] | None = None, /, **settings: Any) -> Settings:
    return Settings.parse({"topics": {"c-{name}": ROUTE}, **settings}, environ or {})


def topic(entry: object, **settings: Any) -> TopicSettings:
    return parse(**{"grip_url": None, **settings, "topics": {"c-{name}": entry}}).topics[0]


def route(entry: object, **settings: Any) -> Route:
    return topic({"routes": [entry]}, **settings).routes[0]


def complain(settings: object, environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the lines of the error, without its heading."""
    with pytest.raises(SettingsError) as caught:
        Settings.parse(settings, environ or {})
    heading, *lines = str(caught.value).split("\n")
    assert heading.endswith("in GRIP_EDGE")
    assert len(lines) == len(caught.value.mistakes)
    return [line.removeprefix("  ") for line in lines]


def with_topic(entry: object, name: object = "c-{name}") -> dict[str, Any]:
    return {"grip_url": None, "topics": {name: entry}}


def with_route(entry: object) -> dict[str, Any]:
    return with_topic({"routes": [entry]})


def with_model(entry: object) -> dict[str, Any]:
    return with_topic({**ROUTE, "models": [entry]})


def with_cdn(entry: object) -> dict[str, Any]:
    return {**with_topic(ROUTE), "cdn": entry}


# --- what is right --------------------------------------------------------------------------------


def test_a_publish_may_wait_for_its_purge_for_ever() -> None:
    assert Settings.parse({**with_topic(ROUTE), "purge_deadline": None}, {}).purge_deadline == inf


@pytest.mark.parametrize(("said", "size"), [(1, 1), ("varnish", 7_500), ("fastly", 16_000)])
def test_a_key_budget_may_be_the_one_of_a_cdn(said: object, size: int) -> None:
    assert Settings.parse({**with_topic(ROUTE), "key_budget": said}, {}).key_budget == size


@pytest.mark.parametrize(
    ("found", "waits"), [(0, ()), (0.5, (0.5,)), ([0.5, 2], (0.5, 2.0)), ([], ())]
)
def test_a_purge_is_confirmed_never_once_or_more_often(
    found: object, waits: tuple[float, ...]
) -> None:
    assert Settings.parse({**with_topic(ROUTE), "confirm_after": found}, {}).confirm_after == waits


def test_a_single_route_is_enough() -> None:
    settings = Settings.parse({"topics": {"c-{name}": ROUTE}}, {})

    assert settings.proxies == ()
    assert settings.cdns == ()
    assert settings.origin is None
    assert (settings.timeout, settings.flush_timeout) == (5.0, 5.0)
    assert (settings.max_pending, settings.key_budget) == (100_000, 3_072)
    assert (settings.degraded_ttl, settings.purge_deadline) == (5, 10.0)
    [parsed] = settings.topics
    assert (parsed.throttle, parsed.coalesce, parsed.payload) == (1.0, True, None)
    assert parsed.models == ()
    assert parsed.routes == (
        Route(
            parsed.routes[0].pattern,
            hold=None,
            hold_timeout=55,
            accept=None,
            edge_ttl=600,
            browser_ttl=0,
            stale_if_error=86_400,
            keep_alive=20,
            public=False,
        ),
    )


@pytest.mark.parametrize(
    ("name", "everywhere", "here", "nowhere"),
    [
        ("hold", "stream", "response", None),
        ("accept", "text/html", "text/event-stream", None),
        ("edge_ttl", 60, 5, 0),
        ("browser_ttl", 60, 5, 0),
        ("stale_if_error", 60, 5, 0),
        ("keep_alive", 60, 5, 0),
        ("hold_timeout", 60, 5, 30),
        ("public", True, False, True),
    ],
)
def test_a_route_overrides_its_topic_and_a_topic_all_topics(
    name: str, everywhere: object, here: object, nowhere: object
) -> None:
    plain = "/c/<name>/"
    own = {"path": plain, name: nowhere}

    assert getattr(route(plain, **{name: everywhere}), name) == everywhere
    narrower = topic({"routes": [plain], name: here}, **{name: everywhere})
    assert getattr(narrower.routes[0], name) == here
    narrowest = topic({"routes": [own], name: here}, **{name: everywhere})
    assert getattr(narrowest.routes[0], name) == nowhere


@pytest.mark.parametrize(
    ("name", "everywhere", "here"),
    [("throttle", 2, 0.5), ("coalesce", False, True), ("refetch", False, True)],
)
def test_a_topic_overrides_all_topics(name: str, everywhere: object, here: object) -> None:
    assert getattr(topic(ROUTE, **{name: everywhere}), name) == everywhere
    assert getattr(topic({**ROUTE, name: here}, **{name: everywhere}), name) == here


@pytest.mark.parametrize(
    ("found", "scopes"),
    [
        (True, frozenset()),
        ({"scopes": ["Author_ID", "post.blog_id"]}, frozenset({"author_id", "post.blog_id"})),
        ({}, frozenset()),
        (False, None),
        (None, None),
    ],
)
def test_rows_are_keys_of_all_topics_or_of_one(
    found: object, scopes: frozenset[str] | None
) -> None:
    assert topic(ROUTE, auto_tags=found).auto_tags == scopes
    assert topic({**ROUTE, "auto_tags": found}, auto_tags=True).auto_tags == scopes


@pytest.mark.parametrize(
    ("found", "outbox"),
    [
        (True, OutboxSettings(10.0, "")),
        ({"grace": 2}, OutboxSettings(2.0, "")),
        ({"name": "shop"}, OutboxSettings(10.0, "shop")),
        (False, None),
        (None, None),
    ],
)
def test_an_outbox_has_a_grace_and_a_name(found: object, outbox: OutboxSettings | None) -> None:
    assert Settings.parse({**with_topic(ROUTE), "outbox": found}, {}).outbox == outbox


@pytest.mark.parametrize(
    ("found", "store"),
    [
        (None, None),
        ("memory", None),
        ("sqlite:///edge.sqlite3", StoreSettings("sqlite", "edge.sqlite3")),
        ("sqlite:////var/lib/edge", StoreSettings("sqlite", "/var/lib/edge")),
        ("redis://:pw@host:1/2", StoreSettings("redis", "redis://:pw@host:1/2")),
        ("valkeys://host", StoreSettings("redis", "rediss://host")),
        ("redis+sentinel://a:1,b:2/main", StoreSettings("redis", "redis+sentinel://a:1,b:2/main")),
        ({"url": "redis://host", "name": "shop"}, StoreSettings("redis", "redis://host", "shop")),
    ],
)
def test_processes_share_a_file_or_a_redis(found: object, store: StoreSettings | None) -> None:
    assert Settings.parse({**with_topic(ROUTE), "store": found}, {}).store == store


def test_a_store_may_come_from_the_environment() -> None:
    settings = Settings.parse(with_topic(ROUTE), {"GRIP_EDGE_STORE": "redis://host"})

    assert settings.store == StoreSettings("redis", "redis://host")


def test_another_process_may_send_what_is_shared() -> None:
    settings = {**with_topic(ROUTE), "dispatch": "external"}

    assert Settings.parse({**settings, "store": "redis://host"}, {}).is_external


def test_each_kind_of_hold_has_its_route() -> None:
    entry = {
        "routes": [
            "/plain/<name>",
            {"path": "/stream/<name>", "hold": "stream"},
            {"path": "/poll/<name>", "hold": "response"},
        ]
    }

    held = topic(entry).held_routes
    assert {hold: r.pattern.text for hold, r in held.items()} == {
        "stream": "/stream/<name>",
        "response": "/poll/<name>",
    }


def test_a_model_is_a_class_or_a_path() -> None:
    models = topic(
        {
            **ROUTE,
            "models": [
                Counter,
                "app.models:Counter",
                {"model": Counter, "on": "insert", "when": bool, "params": {"name": "slug"}},
                {"model": "a:B.C", "on": ["update", "delete"], "when": "a:b"},
            ],
        }
    ).models

    assert [m.model for m in models] == [Counter, "app.models:Counter", Counter, "a:B.C"]
    assert [sorted(m.on) for m in models] == [
        ["delete", "insert", "update"],
        ["delete", "insert", "update"],
        ["insert"],
        ["delete", "update"],
    ]
    assert [m.when for m in models] == [None, None, bool, "a:b"]
    assert [m.params for m in models] == [{}, {}, {"name": "slug"}, {}]


# --- (grip_url, proxies) --------------------------------------------------------------------------

TWO = (Proxy("http://a:1"), Proxy("http://b:2"))


@pytest.mark.parametrize(
    ("urls", "proxies"),
    [
        (None, ()),
        ([], ()),
        ("http://a:1", TWO[:1]),
        (" http://a:1\n", TWO[:1]),
        ("http://a:1,http://b:2", TWO),
        ("http://a:1, http://b:2", TWO),
        ("http://a:1 http://b:2", TWO),
        ("http://a:1\nhttp://b:2\n", TWO),
        (["http://a:1", "http://b:2"], TWO),
        (("http://a:1", "http://b:2"), TWO),
        ("http://a:1?iss=i&key=base64:YWJj", (Proxy("http://a:1", "i", b"abc"),)),
        (
            "https://api.fastly.com/service/S?verify-iss=fastly:S&key=K",
            (parse_grip_url("https://api.fastly.com/service/S?key=K"),),
        ),
    ],
)
def test_grip_url_names_the_proxies(urls: object, proxies: tuple[Proxy, ...]) -> None:
    assert parse({"GRIP_URL": "http://other"}, grip_url=urls).proxies == proxies


def test_grip_url_comes_from_the_environment() -> None:
    assert parse({"GRIP_URL": "http://a:1 http://b:2"}).proxies == TWO


def test_a_proxys_own_verify_key_comes_before_the_environments() -> None:
    url = "http://a http://b?verify-key=own"
    proxies = parse({"GRIP_URL": url, "GRIP_VERIFY_KEY": "shared"}).proxies

    assert [proxy.verify_key for proxy in proxies] == ["shared", "own"]


def test_the_environments_verify_key_may_be_base64() -> None:
    [proxy] = parse({"GRIP_URL": "http://a", "GRIP_VERIFY_KEY": "base64:AP8="}).proxies

    assert proxy.verify_key == b"\x00\xff"


def test_fastlys_verify_key_comes_before_the_environments() -> None:
    url = "https://api.fastly.com/service/S?key=K"
    [proxy] = parse({"GRIP_URL": url, "GRIP_VERIFY_KEY": "shared"}).proxies

    assert proxy == parse_grip_url(url)


UNUSABLE = (
    "the verify key is neither a secret nor a public key that can be used "
    "(EC P-256, or RSA with 2,048 bits or more, as PEM, DER or JWK)"
)
SHARED = (
    "Fastly signs for all its customers with this verify key: "
    "say for whom with verify-iss=fastly:SERVICE_ID"
)


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("", "the verify key is empty"),
        ("base64:", "the verify key is empty"),
        (f"base64:{SECRET}!", "the verify key says base64: and is not valid base64"),
        (f"-----BEGIN PUBLIC KEY-----\n{SECRET}\n-----END PUBLIC KEY-----", UNUSABLE),
        (f'{{"kty": "EC", "crv": "P-256", "x": "{SECRET}", "y": "{SECRET}"}}', UNUSABLE),
        (f"{SECRET}\udcff", UNUSABLE),
        # Else who has any service at Fastly could speak for the proxy.
        (FASTLY_VERIFY_KEY, SHARED),
    ],
)
def test_a_verify_key_that_cannot_be_used_is_a_mistake_and_not_repeated(
    key: str, problem: str
) -> None:
    lines = complain({"topics": {"c": {}}, "grip_url": ["http://a:1"]}, {"GRIP_VERIFY_KEY": key})

    assert lines == [f"GRIP_VERIFY_KEY (environment): {problem}"]


def test_a_verify_key_in_a_url_is_checked_where_it_stands() -> None:
    key = quote(f"-----BEGIN PUBLIC KEY-----{SECRET}")
    lines = complain(
        {
            "topics": {"c": {}},
            "grip_url": [
                "http://a:1",
                f"http://b:2?verify-key={key}",
                f"http://c:3?verify-key={quote(FASTLY_VERIFY_KEY)}",
                f"http://d:4?verify-iss=i&verify-key={quote(FASTLY_VERIFY_KEY)}",
            ],
        }
    )

    assert lines == [f"grip_url[1]: {UNUSABLE}", f"grip_url[2]: {SHARED}"]


def test_a_hold_without_a_proxy_is_fine_if_that_is_said() -> None:
    assert parse(grip_url=None, hold="stream").proxies == ()


# --- (cdn, CDNs) ----------------------------------------------------------------------------------

ENVIRONMENT = {"FASTLY_SERVICE_ID": "EnvSid", "FASTLY_API_TOKEN": "EnvToken"}
VARNISH = Varnish("http://h:6081")


@pytest.mark.parametrize(
    ("cdn", "cdns"),
    [
        (None, ()),
        ([], ()),
        ("varnish://h:6081", (VARNISH,)),
        ("varnish://h", (Varnish("http://h"),)),
        ("varnish://h:6081/", (VARNISH,)),
        ("varnish://[::1]:6081", (Varnish("http://[::1]:6081"),)),
        ({"varnish": {"url": "http://h:6081"}}, (VARNISH,)),
        ({"varnish": {"url": "https://h/", "soft": False}}, (Varnish("https://h", soft=False),)),
        ("fastly://AbC", (Fastly("AbC", "EnvToken"),)),
        ("fastly://", (Fastly("EnvSid", "EnvToken"),)),
        ({"fastly": {}}, (Fastly("EnvSid", "EnvToken"),)),
        ({"fastly": {"service_id": None, "token": None}}, (Fastly("EnvSid", "EnvToken"),)),
        ({"fastly": {"service_id": "AbC", "token": "T"}}, (Fastly("AbC", "T"),)),
        (
            {"fastly": {"token": "T", "url": "http://h/", "soft": False}},
            (Fastly("EnvSid", "T", "http://h", soft=False),),
        ),
        (["varnish://h:6081", "fastly://"], (VARNISH, Fastly("EnvSid", "EnvToken"))),
        (("varnish://h:6081", {"varnish": {"url": "http://h:6081"}}), (VARNISH, VARNISH)),
    ],
)
def test_cdn_names_the_caches(cdn: object, cdns: tuple[CDN, ...]) -> None:
    assert parse(ENVIRONMENT, cdn=cdn).cdns == cdns


SECRETS = {
    "CLOUDFLARE_ZONE_ID": "EnvZone",
    "CLOUDFLARE_API_TOKEN": "EnvToken",
    "CLOUDFRONT_DISTRIBUTION_ID": "EnvDist",
    "AWS_ACCESS_KEY_ID": "EnvKey",
    "AWS_SECRET_ACCESS_KEY": "EnvSecret",
    "AWS_SESSION_TOKEN": "EnvSession",
    "AKAMAI_HOST": "env.luna.akamaiapis.net",
    "AKAMAI_CLIENT_TOKEN": "EnvClient",
    "AKAMAI_CLIENT_SECRET": "EnvClientSecret",
    "AKAMAI_ACCESS_TOKEN": "EnvAccess",
}
DISTRIBUTION = {"distribution_id": "E1", "access_key_id": "K", "secret_access_key": "S"}
CLIENT = {"host": "h.net", "client_token": "c", "client_secret": "s", "access_token": "a"}


@pytest.mark.parametrize(
    ("cdn", "expected"),
    [
        ("cloudflare://AbC", Cloudflare("AbC", "EnvToken")),
        ("cloudflare://", Cloudflare("EnvZone", "EnvToken")),
        ({"cloudflare": {"zone_id": "z", "token": "t"}}, Cloudflare("z", "t")),
        (
            {"cloudflare": {"token": "t", "plan": "pro", "url": "http://h/"}},
            Cloudflare("EnvZone", "t", "http://h", "pro"),
        ),
        ("souin://h:2019", Souin("http://h:2019")),
        ({"souin": {"url": "https://h", "path": "/api/s"}}, Souin("https://h", "/api/s")),
        ("cloudfront://E1", CloudFront("E1", "EnvKey", "EnvSecret", "EnvSession")),
        ("cloudfront://", CloudFront("EnvDist", "EnvKey", "EnvSecret", "EnvSession")),
        # A key of one's own has no session of the environment's.
        ({"cloudfront": DISTRIBUTION}, CloudFront("E1", "K", "S")),
        (
            {"cloudfront": {**DISTRIBUTION, "session_token": "T", "header": "X-Tags"}},
            CloudFront("E1", "K", "S", "T", "X-Tags"),
        ),
        (
            "akamai://",
            Akamai("env.luna.akamaiapis.net", "EnvClient", "EnvClientSecret", "EnvAccess"),
        ),
        ("akamai://h.net", Akamai("h.net", "EnvClient", "EnvClientSecret", "EnvAccess")),
        (
            {"akamai": {**CLIENT, "network": "staging", "soft": False}},
            Akamai("h.net", "c", "s", "a", "staging", soft=False),
        ),
    ],
    ids=str,
)
def test_cdn_names_any_edge(cdn: object, expected: CDN) -> None:
    assert parse(SECRETS, cdn=cdn).cdns == (expected,)


def test_an_edge_may_be_described() -> None:
    [edge] = parse(
        cdn={
            "generic": {
                "url": "https://h/purge?id=1",
                "keys_in": "json",
                "name": "tags",
                "body": {"site": "s"},
                "headers": {"Authorization": "Bearer t"},
                "batch": 10,
                "ok": 202,
                "settle": 2,
                "tags": "Cache-Tag",
                "tags_separator": ",",
                "control": "CDN-Cache-Control",
                "varies": True,
            }
        }
    ).cdns

    assert isinstance(edge, Generic)
    assert (edge.method, edge.name, edge.separator) == ("POST", "tags", None)
    assert edge.ok == {202}
    assert (edge.body, edge.headers) == ({"site": "s"}, {"Authorization": "Bearer t"})
    read = edge.dialect
    assert (read.header, read.separators, read.control) == (
        "Cache-Tag",
        (",",),
        "CDN-Cache-Control",
    )
    assert (read.purge_keys, read.settle_s, read.varies) == (10, 2.0, True)


@pytest.mark.parametrize(
    ("cdn", "lines"),
    [
        (
            "cloudflare://Z",
            [
                (
                    "cdn[0]['cloudflare'].token: missing (set it or CLOUDFLARE_API_TOKEN in the "
                    "environment; a token with the permission Zone, Cache Purge is made at "
                    "https://dash.cloudflare.com/profile/api-tokens)"
                )
            ],
        ),
        (
            {"cloudflare": {"zone_id": "z", "token": "t", "plan": "fre"}},
            [
                (
                    'cdn[0][\'cloudflare\'].plan: expected "free" or "pro" or "business" or '
                    '"enterprise", got "fre" (did you mean "free"?)'
                )
            ],
        ),
        (
            "cloudfront://E1",
            [
                f"cdn[0]['cloudfront'].{name}: missing (set it or {variable} in the environment; "
                "an access key whose policy allows cloudfront:CreateInvalidation is made in IAM)"
                for name, variable in (
                    ("access_key_id", "AWS_ACCESS_KEY_ID"),
                    ("secret_access_key", "AWS_SECRET_ACCESS_KEY"),
                )
            ],
        ),
        (
            {"cloudfront": {**DISTRIBUTION, "header": "a b"}},
            ["cdn[0]['cloudfront'].header: expected a header's name, got \"a b\""],
        ),
        (
            {"akamai": {**CLIENT, "host": "https://h.net/", "network": "test"}},
            [
                ("cdn[0]['akamai'].host: expected a host such as \"akab-...luna.akamaiapis.net\""),
                'cdn[0][\'akamai\'].network: expected "production" or "staging", got "test"',
            ],
        ),
        (
            {"souin": {"url": "http://h/x", "path": "souin"}},
            [
                "cdn[0]['souin'].url: a purge goes to no path (leave out what follows the port)",
                ('cdn[0][\'souin\'].path: expected a path such as "/souin-api/souin", got "souin"'),
            ],
        ),
        (
            {"generic": {"keys_in": "jsn", "ok": [500]}},
            [
                (
                    'cdn[0][\'generic\'].keys_in: expected "header" or "json", got "jsn" '
                    '(did you mean "json"?)'
                ),
                "cdn[0]['generic'].url: expected a URL such as https://host/purge, got None",
                "cdn[0]['generic'].ok: expected statuses from 200 to 299, got list",
            ],
        ),
        (
            {"generic": {"url": "http://h", "body": {"a": 1}, "headers": {"a b": "c"}}},
            [
                "cdn[0]['generic'].headers: expected a header's name, got \"a b\"",
                "cdn[0]['generic'].body: nothing has a body where keys_in is header",
            ],
        ),
    ],
    ids=str,
)
def test_a_mistake_in_an_edge_says_where_what_and_what_to_do(cdn: object, lines: list[str]) -> None:
    assert complain({**with_topic(ROUTE), "cdn": cdn}) == lines


def test_two_edges_cannot_read_one_header_each_in_its_own_way() -> None:
    cdn = ["souin://h", {"fastly": {"service_id": "s", "token": "t"}}]

    assert complain({**with_topic(ROUTE), "cdn": cdn}) == [
        (
            "cdn: Souin and Fastly read Surrogate-Key, and each in another way "
            "(name another header for one of them, if it can be told which)"
        )
    ]


def test_souin_is_told_of_no_cache_groups() -> None:
    lines = complain({**with_topic(ROUTE), "cdn": "souin://h", "cache_groups": True})

    assert [line.partition(":")[0] for line in lines] == ["cache_groups"]


# --- regions --------------------------------------------------------------------------------------


def test_regions_have_their_own_caches_and_proxies() -> None:
    settings = parse(
        cdn="varnish://shield",
        grip_url="http://z:1",
        regions={
            "eu": {"cdn": ["varnish://h:6081"], "grip_url": "http://a:1 http://b:2"},
            "us-east": {"cdn": {"fastly": {"service_id": "S", "token": "T"}}, "grip_url": None},
        },
    )

    assert settings.trunk == RegionSettings("", (Varnish("http://shield"),), (Proxy("http://z:1"),))
    assert settings.regions == (
        RegionSettings("eu", (VARNISH,), TWO),
        RegionSettings("us-east", (Fastly("S", "T"),), ()),
    )
    assert settings.cdns == (Varnish("http://shield"), VARNISH, Fastly("S", "T"))
    assert settings.proxies == (Proxy("http://z:1"), *TWO)


@pytest.mark.parametrize("regions", [None, {}])
def test_there_need_be_no_regions(regions: object) -> None:
    assert parse(regions=regions).regions == ()


def test_a_topic_may_be_held_by_the_proxies_of_regions_alone() -> None:
    assert parse(hold="stream", regions={"eu": {"grip_url": "http://a:1"}}).trunk.proxies == ()


def test_proxies_of_regions_have_the_environments_verify_key_too() -> None:
    settings = parse({"GRIP_VERIFY_KEY": "shared"}, regions={"eu": {"grip_url": "http://a:1"}})

    assert [proxy.verify_key for proxy in settings.proxies] == ["shared"]


def test_a_private_topic_needs_a_verify_key_in_every_region() -> None:
    regions = {"eu": {"grip_url": "http://a:1?verify-key=k"}, "us": {"grip_url": "http://b:2"}}
    lines = complain(
        {
            "topics": {"c": {"private": True, "hold": "response", "routes": ["/c"]}},
            "grip_url": None,
            "regions": regions,
        }
    )

    assert lines[0].startswith('topics["c"].private: no verify key tells')


KNOWN_CDNS = "known are varnish, fastly, souin, cloudflare, cloudfront, akamai, generic"


def test_a_socket_needs_a_verify_key_and_a_secret() -> None:
    lines = complain(
        {"topics": {"c": {"hold": "ws", "routes": ["/c"]}}, "grip_url": "http://a:1"},
    )

    assert lines == [
        (
            'topics["c"].hold: "ws", and no verify key tells the requests of a GRIP proxy from '
            "anybody's (set GRIP_VERIFY_KEY to the proxy's sig_key, or verify-key in grip_url)"
        ),
        (
            "secret: missing, and it signs what is known of each WebSocket (set it or "
            "GRIP_EDGE_SECRET to 32 random characters, in all processes the same)"
        ),
    ]


def test_one_path_may_be_a_stream_and_a_socket() -> None:
    routes = [{"path": "/c", "hold": "stream"}, {"path": "/c", "hold": "ws", "origins": "*"}]
    settings = Settings.parse(
        {
            "topics": {"c": {"routes": routes}},
            "grip_url": f"http://a:1?verify-key={'k' * 32}",
            "secret": "s" * 32,
        },
        {},
    )

    assert set(settings.topics[0].held_routes) == {"stream", "ws"}
    assert settings.topics[0].routes[1].origins == ("*",)


def with_regions(found: object) -> dict[str, Any]:
    return {**with_topic(ROUTE), "regions": found}


EXAMPLE_REGION = 'for example {"eu": {"cdn": "varnish://eu:6081", "grip_url": "http://eu:5561"}}'
NO_TOKEN = "missing (set it; FASTLY_API_TOKEN in the environment is for the cdn in no region)"
NO_GRIP_URL = "expected http://host:port or https://host/path, with ?iss=...&key=..."
REGION_MISTAKES: list[tuple[object, list[str]]] = [
    (
        f"http://a?key={SECRET}",
        [f"regions: expected a dict of regions, got str ({EXAMPLE_REGION})"],
    ),
    (["eu"], [f"regions: expected a dict of regions, got list ({EXAMPLE_REGION})"]),
    (
        {"e u": {"cdn": "varnish://h"}},
        ['regions["e u"]: expected a name of letters, digits, - and _'],
    ),
    ({5: {"cdn": "varnish://h"}}, ["regions[5]: expected a name of letters, digits, - and _"]),
    (
        {"eu": f"http://a?key={SECRET}"},
        ['regions["eu"]: expected {"cdn": ..., "grip_url": ...}, got str'],
    ),
    (
        {"eu": {}},
        ['regions["eu"]: has neither cdn nor grip_url (give it one, or leave it out)'],
    ),
    (
        {"eu": {"cdns": "varnish://h", "grip_url": "http://a"}},
        ['regions["eu"].cdns: unknown setting (did you mean "cdn"?)'],
    ),
    (
        {"eu": {"cdn": {"varnsh": {}}}},
        ['regions["eu"].cdn[0]: unknown CDN "varnsh" (did you mean "varnish"?)'],
    ),
    (
        {"eu": {"cdn": "fastly://S"}, "us": {"grip_url": ["http://a", f"ftp://{SECRET}"]}},
        [
            f"regions[\"eu\"].cdn[0]['fastly'].token: {NO_TOKEN}",
            f'regions["us"].grip_url[1]: {NO_GRIP_URL}',
        ],
    ),
]


@pytest.mark.parametrize(("regions", "lines"), REGION_MISTAKES)
def test_a_mistake_in_a_region_says_where_what_and_what_to_do(
    regions: object, lines: list[str]
) -> None:
    assert complain(with_regions(regions), ENVIRONMENT) == lines


def test_a_regions_name_that_may_be_a_secret_is_not_repeated() -> None:
    [line] = complain(with_regions({f"http://a?key={SECRET}": {}}))

    assert SECRET not in line


# --- mistakes: (settings, lines) ------------------------------------------------------------------

EXAMPLE = 'for example {"counter-{name}": {"routes": ["/counters/{name}/"]}}'

MISTAKES: list[tuple[Any, list[str]]] = [
    (None, ["GRIP_EDGE: expected a dict, got None"]),
    ([], ["GRIP_EDGE: expected a dict, got list"]),
    ({}, [f"topics: expected a dict of topics, got None ({EXAMPLE})"]),
    ({"topics": {}}, [f"topics: expected a dict of topics, got dict ({EXAMPLE})"]),
    ({"topics": ["a"]}, [f"topics: expected a dict of topics, got list ({EXAMPLE})"]),
    (
        {**with_topic(ROUTE), "grip_urls": "http://h"},
        ['grip_urls: unknown setting (did you mean "grip_url"?)'],
    ),
    (
        {**with_topic(ROUTE), "edge-ttl": 1},
        ['edge-ttl: unknown setting (did you mean "edge_ttl"?)'],
    ),
    (
        {**with_topic(ROUTE), "zzz": 1},
        [f"zzz: unknown setting (known are {ALL})"],
    ),
    (
        {**with_topic(ROUTE), 5: 1},
        [f"5: unknown setting (known are {ALL})"],
    ),
    # What may be set for all topics.
    (
        {**with_topic(ROUTE), "hold": "steam"},
        ['hold: expected "stream", "response", "ws" or None, got "steam" (did you mean "stream"?)'],
    ),
    (
        {**with_topic(ROUTE), "hold": True},
        ['hold: expected "stream", "response", "ws" or None, got True'],
    ),
    (
        {**with_topic(ROUTE), "hold": []},
        ['hold: expected "stream", "response", "ws" or None, got list'],
    ),
    (
        {**with_topic(ROUTE), "accept": "json"},
        ['accept: expected a media type such as "text/event-stream", got "json"'],
    ),
    (
        {**with_topic(ROUTE), "accept": "a/b, c/d"},
        ['accept: expected a media type such as "text/event-stream", got "a/b, c/d"'],
    ),
    (
        {**with_topic(ROUTE), "edge_ttl": 1.5},
        ["edge_ttl: expected whole seconds, 0 or more, got 1.5"],
    ),
    (
        {**with_topic(ROUTE), "edge_ttl": -1},
        ["edge_ttl: expected whole seconds, 0 or more, got -1"],
    ),
    (
        {**with_topic(ROUTE), "edge_ttl": "9"},
        ['edge_ttl: expected whole seconds, 0 or more, got "9"'],
    ),
    (
        {**with_topic(ROUTE), "edge_ttl": True},
        ["edge_ttl: expected whole seconds, 0 or more, got True"],
    ),
    (
        {**with_topic(ROUTE), "edge_ttl": None},
        ["edge_ttl: expected whole seconds, 0 or more, got None"],
    ),
    (
        {**with_topic(ROUTE), "browser_ttl": {}},
        ["browser_ttl: expected whole seconds, 0 or more, got dict"],
    ),
    ({**with_topic(ROUTE), "public": "yes"}, ['public: expected True or False, got "yes"']),
    ({**with_topic(ROUTE), "public": 1}, ["public: expected True or False, got 1"]),
    (
        {**with_topic(ROUTE), "recieve": True},
        ['recieve: unknown setting (did you mean "receive"?)'],
    ),
    ({**with_topic(ROUTE), "receive": "all"}, ['receive: expected True or False, got "all"']),
    (
        {**with_topic(ROUTE), "on_close": "app.closed"},
        ['on_close: expected a callable or "module:name", got "app.closed"'],
    ),
    *(
        (
            {**with_topic(ROUTE), "origins": found},
            [f'origins: expected a list such as ["https://example.com"], or "*", got {said}'],
        )
        for found, said in (("https://example.com", '"https://example.com"'), (1, "1"))
    ),
    *(
        (
            {**with_topic(ROUTE), "origins": [found]},
            [f"origins: expected an origin such as https://example.com, got {said}"],
        )
        for found, said in (
            ("example.com", '"example.com"'),
            ("https://example.com/", '"https://example.com/"'),
            ("https://ann:secret@example.com", '"https://..."'),
            ("ws://example.com", '"ws://example.com"'),
            (None, "None"),
        )
    ),
    ({**with_topic(ROUTE), "throttle": -1}, ["throttle: expected seconds, 0 or more, got -1"]),
    (
        {**with_topic(ROUTE), "throttle": float("nan")},
        ["throttle: expected seconds, 0 or more, got nan"],
    ),
    (
        {**with_topic(ROUTE), "throttle": float("inf")},
        ["throttle: expected seconds, 0 or more, got inf"],
    ),
    (
        {**with_topic(ROUTE), "auto_tags": "yes"},
        ['auto_tags: expected True, False or {"scopes": [columns]}, got "yes"'],
    ),
    (
        {**with_topic(ROUTE), "auto_tags": {"scope": []}},
        ['auto_tags: unknown setting "scope" (did you mean "scopes"?)'],
    ),
    (
        {**with_topic(ROUTE), "auto_tags": {"scopes": "author_id"}},
        ['auto_tags: expected a list of columns such as ["author_id"], got "author_id"'],
    ),
    (
        {**with_topic(ROUTE), "auto_tags": {"scopes": ["a b"]}},
        ['auto_tags: expected a column such as "author_id" or "post.author_id", got "a b"'],
    ),
    (
        {**with_topic(ROUTE), "store": "redi://:secret@host"},
        [
            (
                'store: expected "memory", "sqlite:///path/of/a/file", "redis://host:port/0", or '
                '{"url", "name"} (did you mean "redis"?)'
            )
        ],
    ),
    (
        {**with_topic(ROUTE), "store": "sqlite://edge.sqlite3"},
        [
            (
                'store: expected "memory", "sqlite:///path/of/a/file", "redis://host:port/0", or '
                '{"url", "name"} (as in "sqlite:///edge.sqlite3" or "sqlite:////var/lib/edge")'
            )
        ],
    ),
    (
        {**with_topic(ROUTE), "store": {"url": "redis://host", "name": "a b"}},
        ['store: expected a name of at most 64 letters, digits, dots and dashes, got "a b"'],
    ),
    (
        {**with_topic(ROUTE), "dispatch": "external"},
        [
            (
                "dispatch: nobody else sees what is submitted here without a store that processes "
                'share (set store to "redis://..." or "sqlite:///...")'
            )
        ],
    ),
    (
        {**with_topic(ROUTE), "store": {"url": "sqlite:///a", "name": "shop"}},
        ["store: an SQLite file has no names (give each app a file of its own)"],
    ),
    (
        {**with_topic(ROUTE), "dispatch": "there"},
        ['dispatch: expected "here" or "external", got "there"'],
    ),
    (
        {**with_topic(ROUTE), "metrics": "promtheus"},
        [
            (
                'metrics: expected "prometheus", None or an object that counts, got "promtheus" '
                '(did you mean "prometheus"?)'
            )
        ],
    ),
    (
        {**with_topic(ROUTE), "metrics": 5},
        [
            (
                'metrics: expected "prometheus", None or an object with count, gauge, read, '
                "after_fork, got 5"
            )
        ],
    ),
    (
        {**with_topic(ROUTE), "tracing": "yes"},
        ['tracing: expected True, False or an OpenTelemetry TracerProvider, got "yes"'],
    ),
    (
        {**with_topic(ROUTE), "debug": "a word"},
        [
            (
                "debug: expected a text of 32 characters or more, printable ASCII without spaces "
                "(who sends it as Grip-Edge-Debug is told what is decided; leave it out for nobody)"
            )
        ],
    ),
    (
        {**with_topic(ROUTE), "outbox": 5},
        ['outbox: expected True, False or {"grace": seconds, "name": a name}, got 5'],
    ),
    (
        {**with_topic(ROUTE), "outbox": {"delay": 5}},
        ['outbox: unknown setting "delay" (known are grace, name)'],
    ),
    (
        {**with_topic(ROUTE), "outbox": {"name": 5}},
        ["outbox: expected a name of at most 64 characters, got 5"],
    ),
    (
        {**with_topic(ROUTE), "outbox": {"grace": 0}},
        ["outbox: expected seconds, above 0, got 0"],
    ),
    (
        with_topic(ROUTE, "note-{on_commit}"),
        ['topics["note-{on_commit}"]: a parameter cannot be named "on_commit" (rename it)'],
    ),
    ({**with_topic(ROUTE), "coalesce": None}, ["coalesce: expected True or False, got None"]),
    *(
        (
            {**with_topic(ROUTE), "confirm_after": found},
            [f"confirm_after: expected seconds, 0 or more, or a list of seconds, above 0, {got}"],
        )
        for found, got in (("2", 'got "2"'), (-1, "got -1"), ([0.5, 0], "got list"))
    ),
    (
        {**with_topic({**ROUTE, "refetch": True}), "confirm_after": 0},
        ["refetch: nothing is sent again with confirm_after 0 (leave out one)"],
    ),
    ({**with_topic(ROUTE), "refetch": 1}, ["refetch: expected True or False, got 1"]),
    (
        {**with_topic(ROUTE), "hold_timeout": 4},
        ["hold_timeout: expected whole seconds, 5 or more, got 4"],
    ),
    (
        {**with_topic(ROUTE), "hold_timeout": 5.5},
        ["hold_timeout: expected whole seconds, 5 or more, got 5.5"],
    ),
    # What is there once.
    ({**with_topic(ROUTE), "timeout": 0}, ["timeout: expected seconds, above 0, got 0"]),
    (
        {**with_topic(ROUTE), "flush_timeout": "1"},
        ['flush_timeout: expected seconds, 0 or more, got "1"'],
    ),
    (
        {**with_topic(ROUTE), "max_pending": 0},
        ["max_pending: expected a whole number above 0, got 0"],
    ),
    (
        {**with_topic(ROUTE), "key_budget": 1e3},
        ["key_budget: expected a whole number above 0, got 1000.0"],
    ),
    (
        {**with_topic(ROUTE), "key_budget": "fastli"},
        [
            (
                'key_budget: expected bytes or "varnish" or "fastly" or "souin" or "cloudflare" '
                'or "cloudfront" or "akamai", got "fastli" '
                '(did you mean "fastly"?)'
            )
        ],
    ),
    (
        {**with_topic(ROUTE), "degraded_ttl": 2.5},
        ["degraded_ttl: expected whole seconds, 0 or more, got 2.5"],
    ),
    (
        {**with_topic(ROUTE), "purge_deadline": -1},
        ["purge_deadline: expected seconds, 0 or more, got -1"],
    ),
    (
        {**with_topic(ROUTE), "origin": "localhost:8000"},
        ['origin: expected a URL such as http://host:port, got "localhost:8000"'],
    ),
    (
        {**with_topic(ROUTE), "origin": "http://h?x=1"},
        ['origin: expected a URL such as http://host:port, got "http://..."'],
    ),
    # Topics.
    (with_topic(None), ['topics["c-{name}"]: expected a dict, got None']),
    (with_topic("/c/"), ['topics["c-{name}"]: expected a dict, got "/c/"']),
    (with_topic(ROUTE, 5), ["topics[5]: expected a name, got 5"]),
    (with_topic({}, ""), ['topics[""]: a topic needs a name']),
    (
        with_topic({}, "a,b"),
        [
            (
                "topics[\"a,b\"]: ',' cannot stand in a topic's name; "
                "use letters, digits and . _ ~ : / @ | - around {parameters}"
            )
        ],
    ),
    (
        with_topic({}, "{a}{b}"),
        [
            (
                'topics["{a}{b}"]: two parameters need one of . _ ~ : / @ | - between them, '
                'as in "{a}:{b}"'
            )
        ],
    ),
    (
        with_topic({**ROUTE, "route": "/"}),
        ['topics["c-{name}"].route: unknown setting (did you mean "routes"?)'],
    ),
    (
        with_topic({**ROUTE, "cdn": None}),
        [f'topics["c-{{name}}"].cdn: unknown setting (known are {OF_TOPICS})'],
    ),
    (
        with_topic({**ROUTE, "hold": "responses"}),
        [
            (
                'topics["c-{name}"].hold: expected "stream", "response", "ws" or None, '
                'got "responses" (did you mean "response"?)'
            )
        ],
    ),
    (
        with_topic({**ROUTE, "payload": "feeds"}),
        ['topics["c-{name}"].payload: expected a callable or "module:name", got "feeds"'],
    ),
    (
        with_topic({**ROUTE, "payload": 5}),
        ['topics["c-{name}"].payload: expected a callable or "module:name", got 5'],
    ),
    (
        {"grip_url": None, "topics": {"c-{a}": {}, "c-{b}": {}}},
        [
            (
                "topics[\"c-{b}\"]: 'c-x' is also a name of topic 'c-{a}', so "
                "that each would get what "
                'is meant for the other (rename one, or separate with ":" as in "list:{id}", '
                "which no value contains)"
            )
        ],
    ),
    # Routes.
    (with_topic({"routes": "/c/"}), ['topics["c-{name}"].routes: expected a list, got "/c/"']),
    (with_topic({"routes": None}), ['topics["c-{name}"].routes: expected a list, got None']),
    (with_topic({"routes": 5}), ['topics["c-{name}"].routes: expected a list, got 5']),
    (with_route(5), ['topics["c-{name}"].routes[0]: expected a path or a dict, got 5']),
    (with_route(None), ['topics["c-{name}"].routes[0]: expected a path or a dict, got None']),
    (
        with_route({}),
        [
            'topics["c-{name}"].routes[0]: expected a path such as "/counters/<name>/", got None',
        ],
    ),
    (with_route("c/<name>/"), ['topics["c-{name}"].routes[0]: a path begins with "/"']),
    *(
        (
            with_route(path),
            [
                (
                    'topics["c-{name}"].routes[0]: a path is decoded and has no query: '
                    "?, # and % do not stand in it"
                )
            ],
        )
        for path in ("/c/<name>/?page=1", "/c/<name>/#top", "/a%20b/<name>/")
    ),
    (
        with_route({"path": "/<name>", "holds": 1}),
        ['topics["c-{name}"].routes[0].holds: unknown setting (did you mean "hold"?)'],
    ),
    (
        with_route({"path": "/<name>", "throttle": 1}),
        [
            (
                'topics["c-{name}"].routes[0].throttle: unknown setting (known are accept, '
                "browser_ttl, edge_ttl, hold, hold_timeout, keep_alive, on_close, origins, path, "
                "public, receive, stale_if_error)"
            )
        ],
    ),
    (
        with_route({"path": "/<name>", "edge_ttl": "x"}),
        ['topics["c-{name}"].routes[0].edge_ttl: expected whole seconds, 0 or more, got "x"'],
    ),
    (
        with_route("/c/<nam>/"),
        [
            (
                'topics["c-{name}"].routes: /c/<nam>/ has no parameter '
                "'name' to fill the topic's "
                'name (did you mean "nam"?)'
            )
        ],
    ),
    (
        with_route("/c/"),
        [
            (
                "topics[\"c-{name}\"].routes: /c/ has no parameter 'name' to fill the topic's name "
                "(add <name> to the path, or tag the response in the view)"
            )
        ],
    ),
    (
        with_route({"path": "/<name>/<int:page>", "hold": "stream"}),
        [
            (
                'topics["c-{name}"].routes: /<name>/<int:page> is held and '
                "has the parameter 'page', "
                "which the topic's name lacks, so its body cannot be rendered for the topic "
                "(add {page} to the topic's name, or set a payload)"
            )
        ],
    ),
    (
        with_topic({"routes": ["/a/<name>", "/b/<name>"], "hold": "stream"}),
        [
            (
                'topics["c-{name}"].routes: /a/<name> and /b/<name> both have '
                'hold "stream", so it is '
                "open which of them is published (set a payload, or give each a topic of its own)"
            )
        ],
    ),
    # Models.
    (
        with_topic({**ROUTE, "models": Counter}),
        ['topics["c-{name}"].models: expected a list, got ' + repr(Counter)[:60]],
    ),
    (
        with_topic({**ROUTE, "models": "a:B"}),
        ['topics["c-{name}"].models: expected a list, got "a:B"'],
    ),
    (
        with_model("models.Counter"),
        ['topics["c-{name}"].models[0]: expected a class or "module:Class", got "models.Counter"'],
    ),
    (
        with_model({}),
        ['topics["c-{name}"].models[0].model: expected a class or "module:Class", got None'],
    ),
    (
        with_model({"model": "a:B", "on": "updates"}),
        [
            (
                'topics["c-{name}"].models[0].on: expected "insert" or "update" or "delete", '
                'got "updates" (did you mean "update"?)'
            )
        ],
    ),
    (
        with_model({"model": "a:B", "on": None}),
        ['topics["c-{name}"].models[0].on: expected a list of operations, got None'],
    ),
    (
        with_model({"model": "a:B", "on": []}),
        ['topics["c-{name}"].models[0].on: expected at least one operation, got list'],
    ),
    (
        with_model({"model": "a:B", "when": "x"}),
        ['topics["c-{name}"].models[0].when: expected a callable or "module:name", got "x"'],
    ),
    (
        with_model({"model": "a:B", "params": {"nam": "slug"}}),
        [
            (
                "topics[\"c-{name}\"].models[0].params['nam']: the topic's "
                "name has no such parameter "
                '(did you mean "name"?)'
            )
        ],
    ),
    (
        with_model({"model": "a:B", "params": {"name": 1}}),
        ['topics["c-{name}"].models[0].params: expected an attribute\'s name, got 1'],
    ),
    (
        with_model({"model": "a:B", "params": {"name": ""}}),
        ['topics["c-{name}"].models[0].params: expected an attribute\'s name, got ""'],
    ),
    (
        with_model({"model": "a:B", "params": ["name"]}),
        [
            (
                'topics["c-{name}"].models[0].params: expected a dict such as '
                '{"id": "auction_id"}, '
                "got list"
            )
        ],
    ),
    (
        with_model({"model": "a:B", "params": None}),
        [
            (
                'topics["c-{name}"].models[0].params: expected a dict such as '
                '{"id": "auction_id"}, '
                "got None"
            )
        ],
    ),
    # Where it is sent.
    (
        {"topics": {"c-{name}": {**ROUTE, "hold": "stream"}}},
        [
            (
                "grip_url: missing, and a topic has a hold, so nobody would get what is published "
                '(set it or GRIP_URL, as in "http://localhost:5561"; None publishes nowhere)'
            )
        ],
    ),
    ({**with_topic(ROUTE), "grip_url": 5}, ["grip_url: expected a list, got 5"]),
    (
        {**with_topic(ROUTE), "grip_url": ["http://h", 5]},
        ["grip_url[1]: expected a URL, got <class 'int'>"],
    ),
    (
        {**with_topic(ROUTE), "grip_url": "localhost:5561"},
        ["grip_url[0]: expected http://host:port or https://host/path, with ?iss=...&key=..."],
    ),
    (
        {**with_topic(ROUTE), "grip_url": "http://h:5561/publish/"},
        ["grip_url[0]: expected the proxy's base URL, without /publish"],
    ),
    (
        with_cdn("varnish://h:6081/cache"),
        ["cdn[0]['varnish'].url: a purge goes to no path (leave out what follows the port)"],
    ),
    (
        with_cdn("http://h:6081"),
        [
            (
                'cdn[0]: expected "varnish://host:port", "fastly://SERVICE_ID" '
                'or {"fastly": {...}}, '
                'got "http://h:6081" '
                f"({KNOWN_CDNS})"
            )
        ],
    ),
    (
        with_cdn("varnish://"),
        [
            (
                'cdn[0]: expected "varnish://host:port", "fastly://SERVICE_ID" '
                'or {"fastly": {...}}, '
                'got "varnish://" '
                f"({KNOWN_CDNS})"
            )
        ],
    ),
    (
        with_cdn(["varnish://h", 5]),
        [
            (
                'cdn[1]: expected "varnish://host:port", "fastly://SERVICE_ID" '
                'or {"fastly": {...}}, '
                "got 5 "
                f"({KNOWN_CDNS})"
            )
        ],
    ),
    (with_cdn({"vanish": {}}), ['cdn[0]: unknown CDN "vanish" (did you mean "varnish"?)']),
    (with_cdn({5: {}}), ["cdn[0]: unknown CDN 5"]),
    (
        with_cdn({"varnish": {}}),
        ["cdn[0]['varnish'].url: expected a URL such as http://host:port, got None"],
    ),
    (
        with_cdn({"varnish": {"url": "varnish://h"}}),
        ["cdn[0]['varnish'].url: expected a URL such as http://host:port, got \"varnish://h\""],
    ),
    (
        with_cdn({"varnish": {"url": "http://h", "sfot": 1}}),
        ["cdn[0]['varnish'].sfot: unknown setting (did you mean \"soft\"?)"],
    ),
    (
        with_cdn({"varnish": {"url": "http://h", "soft": None}}),
        ["cdn[0]['varnish'].soft: expected True or False, got None"],
    ),
    (
        with_cdn("fastly://"),
        [
            "cdn[0]['fastly'].service_id: missing (set it or FASTLY_SERVICE_ID in the environment)",
            "cdn[0]['fastly'].token: missing (set it or FASTLY_API_TOKEN in the environment)",
        ],
    ),
    (
        with_cdn({"fastly": {"service_id": "s", "token": "a b"}}),
        [
            (
                "cdn[0]['fastly'].token: expected printable ASCII without spaces "
                "(set it or FASTLY_API_TOKEN in the environment)"
            )
        ],
    ),
    (
        with_cdn({"fastly": {"service_id": 5, "token": "t", "url": None}}),
        [
            (
                "cdn[0]['fastly'].service_id: expected printable ASCII without spaces "
                "(set it or FASTLY_SERVICE_ID in the environment)"
            ),
            "cdn[0]['fastly'].url: expected a URL such as http://host:port, got None",
        ],
    ),
]


@pytest.mark.parametrize(("settings", "lines"), MISTAKES, ids=[m[1][0][:60] for m in MISTAKES])
def test_a_mistake_says_where_what_and_what_to_do(settings: object, lines: list[str]) -> None:
    assert complain(settings) == lines


def test_a_mistake_in_the_environment_says_so() -> None:
    lines = complain({"topics": {"c-{name}": ROUTE}}, {"GRIP_URL": "nonsense"})

    assert lines == [
        (
            "GRIP_URL (environment)[0]: expected http://host:port or https://host/path, "
            "with ?iss=...&key=..."
        )
    ]


def test_all_mistakes_are_said_at_once() -> None:
    settings = {
        "grip_url": "x",
        "cdn": ["varnish://h", {"vanish": {}}],
        "timeout": 0,
        "nonsense": 1,
        "topics": {
            "a b": {"routes": ["x", "/y"], "models": ["z"]},
            "c-{name}": {"routes": ["/c/"], "hold": "steam"},
            "d": None,
        },
    }

    assert [line.split(": ")[0] for line in complain(settings)] == [
        "nonsense",
        "timeout",
        'topics["a b"]',
        'topics["a b"].routes[0]',
        'topics["a b"].models[0]',
        'topics["c-{name}"].hold',
        'topics["c-{name}"].routes',
        'topics["d"]',
        "grip_url[0]",
        "cdn[1]",
    ]


def test_one_mistake_is_not_said_twice() -> None:
    # A topic's setting is what its routes fall back on, and each of them would complain.
    assert len(complain(with_topic({"routes": ["/a/<name>", "/b/<name>"], "edge_ttl": "x"}))) == 1


def test_the_heading_counts() -> None:
    with pytest.raises(SettingsError, match=r"^1 mistake in GRIP_EDGE\n  GRIP_EDGE: expected"):
        Settings.parse(None, {})
    with pytest.raises(SettingsError, match=r"^2 mistakes in GRIP_EDGE\n"):
        Settings.parse({**with_topic(ROUTE), "timeout": 0, "public": 0}, {})


# --- mistakes that would otherwise be silent ------------------------------------------------------


@pytest.mark.parametrize("name", ["routes", "models"])
def test_a_dict_where_a_list_belongs_is_a_mistake(name: str) -> None:
    # Its values would be dropped: {"/c/<name>/": {"hold": "stream"}} would never hold.
    entries = {"routes": {"/c/<name>/": {"hold": "stream"}}, "models": {"a:B": {"on": "insert"}}}

    assert complain(with_topic({name: entries[name]})) == [
        f'topics["c-{{name}}"].{name}: expected a list, got dict'
    ]


def test_a_dict_as_grip_url_is_a_mistake() -> None:
    assert complain({**with_topic(ROUTE), "grip_url": {"http://h": {"key": "k"}}}) == [
        "grip_url: expected a list, got dict"
    ]


@pytest.mark.parametrize(
    "cdn", ["varnish://h:6081?soft=0", "fastly://Sid?soft=0", "fastly://Sid/x", "varnish://h#x"]
)
def test_what_a_cdn_url_cannot_say_is_a_mistake(cdn: str) -> None:
    with pytest.raises(SettingsError):
        parse(ENVIRONMENT, cdn=cdn)


@pytest.mark.parametrize("port", ["port", "99999", "-1"])
def test_a_port_that_is_none_is_a_mistake(port: str) -> None:
    for settings in (
        {"cdn": f"varnish://h:{port}"},
        {"cdn": {"varnish": {"url": f"http://h:{port}"}}},
        {"origin": f"http://h:{port}"},
        {"grip_url": f"http://h:{port}"},
    ):
        with pytest.raises(SettingsError):
            parse(**settings)


def test_a_media_type_is_compared_as_it_is_written_in_any_case() -> None:
    # The policy compares with the request's in lower case.
    assert route({"path": "/<name>", "accept": "Text/Event-Stream"}).accept == "text/event-stream"


# --- secrets --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"cdn": {"fastly": {"service_id": "s", "token": SECRET}}},
        {"cdn": {"cloudflare": {"zone_id": "s", "token": SECRET}}},
        {"cdn": {"cloudfront": {**DISTRIBUTION, "secret_access_key": SECRET}}},
        {"cdn": {"cloudfront": {**DISTRIBUTION, "session_token": SECRET}}},
        *({"cdn": {"akamai": {**CLIENT, name: SECRET}}} for name in CLIENT if name != "host"),
        {"cdn": {"generic": {"url": "http://h", "headers": {"X-Key": SECRET}}}},
        {"cdn": {"generic": {"url": f"http://h/?key={SECRET}"}}},
        {"grip_url": f"http://h?key={SECRET}"},
        {"grip_url": f"http://h?iss=i&key={SECRET}&verify-key={SECRET}"},
        {"store": f"redis://:{SECRET}@host"},
        {"debug": f"{SECRET:-<32}"},
    ],
)
def test_the_settings_show_no_secret(settings: dict[str, Any]) -> None:
    assert SECRET not in repr(parse(**settings))


def test_the_settings_show_no_secret_of_the_environment() -> None:
    environ = {
        "GRIP_URL": f"http://h?key={SECRET}",
        "GRIP_VERIFY_KEY": SECRET,
        "FASTLY_API_TOKEN": SECRET,
        "GRIP_EDGE_DEBUG": f"{SECRET:-<32}",
    }

    assert SECRET not in repr(parse(environ, cdn="fastly://s"))


@pytest.mark.parametrize(
    "settings",
    [
        {"grip_url": SECRET},
        {"grip_url": f"htp://h?key={SECRET}"},
        {"grip_url": f"http://h?kee={SECRET}"},
        {"grip_url": f"http://h?iss=i&x=1&key={SECRET}"},
        {"grip_url": f"http://h?key=base64:{SECRET}"},
        {"grip_url": f"http://h?verify-key=base64:{SECRET}"},
        {"grip_url": f"http://h?key=a,{SECRET}"},
        {"grip_url": f"http://h?key=a {SECRET}"},
        {"grip_url": f"http://h?key=a&{SECRET}"},
        {"grip_url": [[f"http://h?key={SECRET}"]]},
        {"grip_url": [SECRET.encode()]},
        {"grip_url": SECRET.encode()},
        {"grip_url": {f"http://h?kee={SECRET}": 1}},
        {"grip_urls": f"http://h?key={SECRET}"},
        {"cdn": {"fastly": {"service_id": "s", "token": f"{SECRET} "}}},
        {"cdn": {"fastly": {"service_id": "s", "token": [SECRET]}}},
        {"cdn": {"fastly": {"service_id": "s", "tokn": SECRET}}},
        {"cdn": {"fastly": {"service_id": "s", "token": SECRET, "url": None}}},
        *(
            {"cdn": {"cloudflare": {"zone_id": "z", "token": token}}}
            for token in (f"{SECRET} ", [SECRET], f"{SECRET}\n")
        ),
        {"cdn": {"cloudflare": SECRET}},
        {"cdn": {"cloudfront": {**DISTRIBUTION, "secret_access_key": f"{SECRET} "}}},
        {"cdn": {"cloudfront": {**DISTRIBUTION, "session_token": [SECRET]}}},
        *({"cdn": {"akamai": {**CLIENT, name: f"{SECRET} "}}} for name in CLIENT),
        {"cdn": {"akamai": {**CLIENT, "host": f"{USER}:{SECRET}@h"}}},
        {"cdn": {"generic": {"url": f"http://{USER}:{SECRET}@h/"}}},
        {"cdn": {"generic": {"url": f"http://h/?t={SECRET} "}}},
        {"cdn": {"generic": {"url": "http://h", "headers": {"X-Key": f"{SECRET}\n"}}}},
        {"cdn": {"generic": {"url": "http://h", "headers": SECRET}}},
        {"cdn": {"generic": {"url": "http://h", "body": SECRET, "keys_in": "json", "name": "n"}}},
        {"cdn": {"fastly": SECRET}},
        {"cdn": {"fastly": [SECRET]}},
        {"cdn": {"fastlly": {"token": SECRET}}},
        {"cdn": {"service_id": "s", "token": SECRET}},
        {"cdn": {"token": SECRET}},
        *(
            {name: value}
            for rest in (f"{USER}:{SECRET}@h:1", f"h:1?token={SECRET}", f"h:1/?token={SECRET}")
            for name, value in (
                ("origin", f"http://{rest}"),
                ("origin", rest),
                ("cdn", f"varnish://{rest}"),
                ("cdn", f"http://{rest}"),
                ("cdn", {"varnish": {"url": f"http://{rest}"}}),
                ("cdn", {"fastly": {"service_id": "s", "token": "t", "url": f"http://{rest}"}}),
                ("grip_url", f"http://{rest}"),
                ("store", f"redi://{rest}"),
                ("store", f"sqlite://{rest}"),
                ("store", rest),
            )
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("is_in_region", [False, True], ids=["", "in a region"])
def test_no_mistake_repeats_a_secret(settings: dict[str, Any], is_in_region: bool) -> None:
    found = {"regions": {"eu": settings}} if is_in_region else settings
    lines = complain({"topics": {"c-{name}": ROUTE}, **found})

    assert lines
    assert not [line for line in lines if SECRET in line or USER in line]


@pytest.mark.parametrize(
    "environ",
    [
        {"GRIP_URL": f"http://h?kee={SECRET}"},
        {"GRIP_URL": f"h?key={SECRET}"},
        {"GRIP_EDGE_DEBUG": f"{SECRET:-<32} "},
        {"FASTLY_API_TOKEN": f"{SECRET}\n"},
        {"FASTLY_SERVICE_ID": "s s", "FASTLY_API_TOKEN": SECRET},
    ],
    ids=str,
)
def test_no_mistake_repeats_a_secret_of_the_environment(environ: dict[str, str]) -> None:
    lines = complain({"topics": {"c-{name}": ROUTE}, "cdn": "fastly://"}, environ)

    assert not [line for line in lines if SECRET in line]


def test_a_grip_url_in_place_of_the_dict_is_not_repeated() -> None:
    assert SECRET not in "".join(complain(f"http://h?key={SECRET}"))


# --- anything else --------------------------------------------------------------------------------

NAMES = st.sampled_from(
    [
        *("topics", "grip_url", "cdn", "hold", "accept", "edge_ttl", "browser_ttl", "keep_alive"),
        *("public", "throttle", "coalesce", "origin", "timeout", "flush_timeout", "max_pending"),
        "key_budget",
        *(
            "degraded_ttl",
            "purge_deadline",
            "routes",
            "models",
            "payload",
            "path",
            "model",
            "on",
            "when",
            "params",
        ),
        *("fastly", "varnish", "url", "token", "service_id", "soft", "c-{name}", "", "a,b"),
    ]
)
TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["/c/<name>/", "/<a²>", "http://[", "a:B", "stream", "fastly://", "http://h:x"]
    ),
    st.text("/<>{}:?=&.aint²[]%1", max_size=8).map(lambda text: "/" + text),
    st.text("/<>{}:?=&.aint²[]%1", max_size=8).map(lambda text: "http://h" + text),
)
GARBAGE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.binary(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(NAMES, NAMES, TEXTS, st.integers(), st.none()), inner, max_size=4
        ),
    ),
    max_leaves=25,
)


def is_read_or_refused(settings: object, environ: Mapping[str, str] | None = None) -> bool:
    try:
        parsed = Settings.parse(settings, environ or {})
    except SettingsError as error:
        return bool(error.mistakes)
    return bool(parsed.topics)


@given(GARBAGE)
def test_garbage_is_read_or_refused_and_never_another_error(garbage: object) -> None:
    assert is_read_or_refused(garbage)


@given(st.dictionaries(NAMES, GARBAGE), st.dictionaries(NAMES, GARBAGE))
@example({"throttle": 10**400}, {})
@example({"edge_ttl": -(10**5000)}, {})
@example({"on": [[]]}, {"models": [{"model": "a:B", "on": [[]]}]})
@example({}, {"routes": ["/<a²>"]})
@example({"cdn": {"varnish": {"url": "http://["}}}, {})
@example({"grip_url": "http://[x"}, {})
@example({"origin": "http://[::1"}, {})
def test_garbage_within_a_topic_is_read_or_refused(
    shared: dict[str, Any], own: dict[str, Any]
) -> None:
    assert is_read_or_refused({**shared, "topics": {"c-{name}": {**ROUTE, **own}}})


@given(st.one_of(st.text(), TEXTS))
def test_garbage_in_the_environment_is_read_or_refused(garbage: str) -> None:
    environ = dict.fromkeys(
        ["GRIP_URL", "GRIP_VERIFY_KEY", "FASTLY_SERVICE_ID", "FASTLY_API_TOKEN"], garbage
    )
    settings = {"topics": {"c": {}}, "cdn": "fastly://"}

    assert is_read_or_refused(settings, environ)


@pytest.mark.parametrize(
    "settings",
    [
        {"origin": f"http://h?token=a@{SECRET}"},
        {"origin": f"http://h:{SECRET}"},
        {"cdn": f"varnish://h?x=a@{SECRET}"},
        {"cdn": f"varnish://h:{SECRET}"},
        {"cdn": f"fastly://user:{SECRET}@s"},
        {"grip_url": f"http://user:pa/{SECRET}@h"},
        {"grip_url": f"http://h:{SECRET}"},
    ],
    ids=str,
)
def test_no_part_of_a_url_that_cannot_be_used_is_repeated(settings: dict[str, Any]) -> None:
    lines = complain({"topics": {"c-{name}": ROUTE}, **settings})

    assert lines
    assert not [line for line in lines if SECRET in line]

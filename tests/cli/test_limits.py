"""What is warned of, from the settings alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from grip_edge_middleware.cli.findings import Level
from grip_edge_middleware.cli.limits import limits, workers_of
from grip_edge_middleware.grip import SHIPPED_VERIFY_KEY
from grip_edge_middleware.settings import Settings

VERIFY = f"verify-key={'k' * 32}"
PUSHPIN = f"http://localhost:5561?{VERIFY}"
HELD = {"counters": {"routes": ["/counters/"], "hold": "stream"}}
POLLED = {"counters": {"routes": ["/counters/"], "hold": "response"}}
FASTLY = {"fastly": {"service_id": "SID", "token": "t"}}


def found(settings: Mapping[str, Any], workers: int | None = None) -> dict[str, tuple[Level, str]]:
    given = {"topics": HELD, "grip_url": PUSHPIN, "cdn": "varnish://localhost", **settings}
    read = Settings.parse(given, {})
    return {f.about: (f.level, f.says) for f in limits(read, workers=workers)}


def test_defaults_are_all_well() -> None:
    assert {level for level, _ in found({}).values()} == {"ok"}


@pytest.mark.parametrize(
    ("settings", "about", "level", "says"),
    [
        ({"cdn": None}, "cdn", "warning", "none, so nothing is purged"),
        ({"grip_url": None}, "grip_url", "warning", "none, so nobody is told"),
        ({"topics": {"a": {"routes": ["/"]}}}, "hold", "warning", "no route has one"),
        ({"key_budget": 3_073}, "key_budget", "warning", "nginx"),
        ({"key_budget": 7_501}, "key_budget", "warning", "http_resp_hdr_len"),
        ({"key_budget": 16_385, "cdn": FASTLY}, "key_budget", "warning", "Fastly forgets"),
        ({"key_budget": "fastly", "cdn": FASTLY}, "key_budget", "warning", "Pushpin drops"),
        ({"throttle": 0}, "throttle", "warning", "message_rate"),
        ({"throttle": 0.5}, "throttle", "ok", "so 1,250 clients"),
        ({"keep_alive": 0}, "keep_alive", "warning", "/counters/: no byte while idle"),
        ({"keep_alive": 60}, "keep_alive", "warning", "/counters/: a byte only every 60 s"),
        ({"topics": POLLED, "hold_timeout": 60}, "hold_timeout", "warning", "60 s without a byte"),
        ({"confirm_after": 0}, "confirm_after", "warning", "stays there"),
        ({"purge_deadline": 0}, "purge_deadline", "warning", "does not wait"),
        ({"edge_ttl": 0}, "edge_ttl", "warning", "/counters/: 0"),
        ({"store": "redis://localhost"}, "store", "ok", "redis"),
        (
            {"store": "redis://localhost", "dispatch": "external"},
            "dispatch",
            "warning",
            "what is published of counters is rendered",
        ),
        (
            {"store": "redis://h", "dispatch": "external", "origin": "http://h:8000"},
            "dispatch",
            "ok",
            "must run somewhere",
        ),
    ],
)
def test_what_bites_is_warned_of(
    settings: Mapping[str, Any], about: str, level: Level, says: str
) -> None:
    found_level, found_says = found(settings)[about]

    assert found_level == level
    assert says in found_says


CLOUDFLARE = {"zone_id": "Z", "token": "t"}
AKAMAI = {"host": "h", "client_token": "c", "client_secret": "s", "access_token": "a"}
ACCEPTED = {"counters": {"routes": ["/counters/"], "hold": "stream", "accept": "text/event-stream"}}


@pytest.mark.parametrize(
    ("cdn", "settings", "about", "level", "says"),
    [
        (
            {"cloudflare": CLOUDFLARE},
            {},
            "rate Cloudflare",
            "warning",
            "has 5 purges a minute",
        ),
        ({"cloudflare": CLOUDFLARE}, {"throttle": 12}, "rate Cloudflare", "ok", "25 at once"),
        (
            {"cloudflare": {**CLOUDFLARE, "plan": "pro"}},
            {},
            "rate Cloudflare",
            "ok",
            "pro has 300 purges a minute",
        ),
        ({"cloudflare": CLOUDFLARE}, {}, "recovery Cloudflare", "ok", "the app answers them"),
        (
            {"cloudflare": CLOUDFLARE},
            {"topics": ACCEPTED},
            "accept Cloudflare",
            "warning",
            "/counters/: it keeps one answer",
        ),
        (
            {"cloudflare": CLOUDFLARE},
            {"topics": POLLED},
            "long-polls Cloudflare",
            "warning",
            "counters: it does not compare",
        ),
        ("souin://h", {"topics": POLLED}, "long-polls Souin", "warning", "does not compare"),
        ({"akamai": AKAMAI}, {}, "keys Akamai", "ok", "128 in Edge-Cache-Tag"),
        ({"akamai": AKAMAI}, {}, "settling Akamai", "ok", "everywhere after 5 s"),
    ],
)
def test_what_a_cdn_takes_and_cannot_do_is_told(
    cdn: object, settings: Mapping[str, Any], about: str, level: Level, says: str
) -> None:
    found_level, found_says = found({"cdn": cdn, **settings})[about]

    assert found_level == level
    assert says in found_says


@pytest.mark.parametrize(
    ("url", "level", "says"),
    [
        ("http://pushpin:5561", "warning", "no verify key"),
        (f"http://localhost:5561?verify-key={SHIPPED_VERIFY_KEY}", "warning", "everybody knows"),
        (f"https://grip.example?verify-key={SHIPPED_VERIFY_KEY}", "wrong", "everybody knows"),
        ("http://localhost:5561?verify-key=short", "warning", "has 5 bytes"),
        (f"http://grip.example:5561?{VERIFY}", "warning", "without encryption"),
        (f"http://93.184.216.34:5561?{VERIFY}", "warning", "without encryption"),
    ],
)
def test_who_is_believed_is_warned_of(url: str, level: Level, says: str) -> None:
    about = f"grip {url.partition('?')[0]}"

    found_level, found_says = found({"grip_url": url})[about]

    assert found_level == level
    assert says in found_says
    assert "short" not in found_says


@pytest.mark.parametrize(
    "url",
    [
        f"http://10.0.0.7:5561?{VERIFY}",
        f"http://pushpin.internal:5561?{VERIFY}",
        "https://api.fastly.com/service/SID?key=token",
    ],
)
def test_what_is_near_or_fastlys_needs_nothing(url: str) -> None:
    assert {level for level, _ in found({"grip_url": url}).values()} == {"ok"}


def test_the_shipped_key_is_that_of_the_embedded_edge() -> None:
    from grip_edge_middleware.devedge import VERIFY_KEY

    assert VERIFY_KEY == SHIPPED_VERIFY_KEY


def test_more_channels_than_a_proxy_takes_are_wrong() -> None:
    topics = {
        f"topic-{n}": {"routes": ["/all"], "hold": "stream", "payload": "m:f"} for n in range(21)
    }

    assert found({"topics": topics})["routes /all"][0] == "wrong"


@pytest.mark.parametrize(("workers", "level"), [(None, "ok"), (1, "ok"), (2, "wrong")])
def test_several_workers_need_a_shared_store(workers: int | None, level: Level) -> None:
    assert found({}, workers)["store"][0] == level


@pytest.mark.parametrize(
    ("environ", "workers"),
    [
        ({}, None),
        ({"WEB_CONCURRENCY": "4"}, 4),
        ({"WEB_CONCURRENCY": "many"}, None),
        ({"GUNICORN_CMD_ARGS": "--bind=:80 -w 3"}, 3),
        ({"GUNICORN_CMD_ARGS": "--workers=5", "WEB_CONCURRENCY": "4"}, 5),
        ({"GUNICORN_CMD_ARGS": "--worker-class gevent"}, None),
    ],
)
def test_the_environment_says_how_many_workers(
    environ: dict[str, str], workers: int | None
) -> None:
    assert workers_of(environ) == workers

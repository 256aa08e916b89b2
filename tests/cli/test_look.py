"""What is read from the headers of a page."""

from __future__ import annotations

import pytest

from grip_edge_middleware.cli.look import CacheState, cache_state, parse_channels


@pytest.mark.parametrize(
    ("headers", "state"),
    [
        ({}, "unknown"),
        ({"via": "1.1 varnish"}, "unknown"),
        ({"x-cache": "HIT"}, "hit"),
        ({"x-cache": "MISS"}, "miss"),
        ({"x-cache": "MISS, HIT"}, "hit"),
        ({"x-cache": "Hit from cloudfront"}, "hit"),
        ({"x-cache": "STALE"}, "stale"),
        ({"cf-cache-status": "DYNAMIC"}, "miss"),
        ({"cf-cache-status": "EXPIRED"}, "stale"),
        ({"cache-status": 'ExampleCache; hit; ttl=376, "CDN"; fwd=uri-miss'}, "hit"),
        ({"cache-status": "ExampleCache; fwd=uri-miss; stored"}, "miss"),
        ({"age": "0"}, "unknown"),
        ({"age": "7"}, "hit"),
        ({"age": "soon"}, "unknown"),
        ({"x-varnish": "3 2"}, "hit"),
        ({"x-varnish": "3"}, "miss"),
    ],
)
def test_what_caches_say_is_understood(headers: dict[str, str], state: CacheState) -> None:
    assert cache_state(headers) == state


@pytest.mark.parametrize(
    ("value", "channels"),
    [
        ("", []),
        ("a", [("a", None)]),
        ("a; prev-id=1; filter=require-sub, b", [("a", "1"), ("b", None)]),
        ("a;prev-id=1,,b ;x", [("a", "1"), ("b", None)]),
    ],
)
def test_channels_are_read(value: str, channels: list[tuple[str, str | None]]) -> None:
    assert parse_channels(value) == channels

"""What may be set where, and what it is when nothing is said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What may be set for all topics, for one, and for one of its routes; the narrowest wins.
ROUTE_DEFAULTS: Mapping[str, Any] = {
    "hold": None,
    # Pushpin's own default.
    "hold_timeout": 55,
    "accept": None,
    "edge_ttl": 600,
    "browser_ttl": 0,
    "stale_if_error": 86_400,
    "keep_alive": 20,
    "public": False,
    "receive": False,
    "on_close": None,
    "origins": (),
}
TOPIC_DEFAULTS: Mapping[str, Any] = {
    "throttle": 1.0,
    "coalesce": True,
    "recovery": "next-link",
    "refetch": False,
    "private": False,
    "auto_tags": None,
}
TOPIC_ONLY = ("routes", "models", "payload")
GLOBAL_DEFAULTS: Mapping[str, Any] = {
    "origin": None,
    "timeout": 5.0,
    "flush_timeout": 5.0,
    "max_pending": 100_000,
    # Fits nginx's default of 4,096 bytes for all headers of a response, and leaves a quarter.
    "key_budget": 3_072,
    "cache_groups": False,
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
GLOBAL_ONLY = ("topics", "grip_url", "cdn", "regions", "secret", "debug", "store", "dispatch")

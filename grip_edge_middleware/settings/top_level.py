"""The dict itself: what is set for all topics, and where everything else is read from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from grip_edge_middleware.settings import (
    MIN_DEBUG,
    MIN_SECRET,
    RegionSettings,
    Settings,
    StoreSettings,
    TopicSettings,
    checks,
)
from grip_edge_middleware.settings.cdns import check_headers, read_cdns
from grip_edge_middleware.settings.defaults import (
    GLOBAL_DEFAULTS,
    GLOBAL_ONLY,
    ROUTE_DEFAULTS,
    TOPIC_DEFAULTS,
)
from grip_edge_middleware.settings.reader import Reader
from grip_edge_middleware.settings.regions import keyed, read_proxies, read_regions
from grip_edge_middleware.settings.topics import check_private, check_sockets, read_topics
from grip_edge_middleware.settings.wording import kind, show


def read_settings(reader: Reader, found: object) -> Settings | None:
    """Return the settings. If the reader has mistakes then, they are not to be used."""
    if not isinstance(found, Mapping):
        # Not repeated: it may be a URL with a key.
        reader.wrong("GRIP_EDGE", f"expected a dict, got {kind(found)}")
        return None
    known = (*GLOBAL_ONLY, *GLOBAL_DEFAULTS, *TOPIC_DEFAULTS, *ROUTE_DEFAULTS)
    reader.names("", found, known)
    shared = reader.values("", found, {**ROUTE_DEFAULTS, **TOPIC_DEFAULTS})
    own = reader.values("", found, GLOBAL_DEFAULTS)
    topics = read_topics(reader, found.get("topics"), shared)
    regions = read_regions(reader, found.get("regions"))
    is_published = any(region.proxies for region in regions)
    is_held = any(topic.held_routes for topic in topics)
    proxies = read_proxies(reader, found, is_needed=is_held and not is_published)
    trunk, *regions = keyed(reader, [RegionSettings("", (), proxies), *regions])
    everywhere = [p for region in (trunk, *regions) for p in region.proxies]
    check_private(reader, topics, everywhere)
    check_sockets(reader, topics, everywhere)
    if own["confirm_after"] == () and any(topic.refetch for topic in topics):
        reader.wrong("refetch", "nothing is sent again with confirm_after 0", "leave out one")
    settings = Settings(
        topics=topics,
        throttle=shared["throttle"],
        trunk=replace(trunk, cdns=read_cdns(reader, "cdn", found.get("cdn"))),
        regions=tuple(regions),
        secret=_secret(reader, found, topics),
        debug=_debug(reader, found),
        store=_store(reader, found),
        is_external=_is_external(reader, found),
        **own,
    )
    check_headers(reader, settings.dialects)
    return settings


def _store(reader: Reader, found: Mapping[Any, Any]) -> StoreSettings | None:
    return reader.attempt(
        "store", checks.store, found.get("store", reader.environ.get("GRIP_EDGE_STORE"))
    )


def _is_external(reader: Reader, found: Mapping[Any, Any]) -> bool:
    who = found.get("dispatch", "here")
    if who not in ("here", "external"):
        reader.wrong("dispatch", f'expected "here" or "external", got {show(who)}')
    if who == "external" and "store" not in found and "GRIP_EDGE_STORE" not in reader.environ:
        reader.wrong(
            "dispatch",
            "nobody else sees what is submitted here without a store that processes share",
            'set store to "redis://..." or "sqlite:///..."',
        )
    return bool(who == "external")


def _secret(reader: Reader, found: Mapping[Any, Any], topics: Sequence[TopicSettings]) -> str:
    """Return what signs the next links of private topics, and what a proxy keeps with sockets."""
    secret = found.get("secret", reader.environ.get("GRIP_EDGE_SECRET"))
    hint = "set it or GRIP_EDGE_SECRET to 32 random characters, in all processes the same"
    if secret is None:
        if any(topic.private and topic.can_recover("stream") for topic in topics):
            reader.wrong("secret", "missing, and it signs the next links of private topics", hint)
        elif any("ws" in topic.held_routes for topic in topics):
            reader.wrong("secret", "missing, and it signs what is known of each WebSocket", hint)
        return ""
    if not isinstance(secret, str) or len(secret) < MIN_SECRET:
        # What was found is not repeated.
        reader.wrong("secret", f"expected a text of {MIN_SECRET} characters or more", hint)
        return ""
    return secret


def _debug(reader: Reader, found: Mapping[Any, Any]) -> str:
    """Return what a request must say to be told what is decided."""
    secret = found.get("debug", reader.environ.get("GRIP_EDGE_DEBUG"))
    if secret is None:
        return ""
    if isinstance(secret, str) and re.fullmatch(rf"[!-~]{{{MIN_DEBUG},}}", secret):
        return secret
    # What was found is not repeated.
    reader.wrong(
        "debug",
        f"expected a text of {MIN_DEBUG} characters or more, printable ASCII without spaces",
        "who sends it as Grip-Edge-Debug is told what is decided; leave it out for nobody",
    )
    return ""

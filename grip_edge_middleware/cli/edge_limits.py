"""What the limits of the CDNs mean for these settings: keys, rates, and what they cannot do.

Pure: the settings and `dialects.py` say it all.
"""

from __future__ import annotations

from collections.abc import Iterator

from grip_edge_middleware.cli.findings import Finding, ok, warning
from grip_edge_middleware.dialects import Dialect
from grip_edge_middleware.settings import CDN, Cloudflare, Settings

# From here on it is told that a publish waits for the purge to be everywhere.
LONG_S = 1.0


def edge_limits(settings: Settings) -> Iterator[Finding]:
    """Yield what is known of each CDN, once for each kind."""
    for cdn in {cdn.dialect.title: cdn for cdn in settings.cdns}.values():
        yield from _keys(cdn.dialect, settings)
        yield from _rate(cdn, settings)
        yield from _settling(cdn.dialect)
        yield from _polls(cdn.dialect, settings)
        yield from _variants(cdn.dialect, settings)


def _keys(dialect: Dialect, settings: Settings) -> Iterator[Finding]:
    limit, title = dialect.max_bytes, dialect.title
    if limit is not None and settings.key_budget > limit:
        yield warning(
            "key_budget",
            f"{settings.key_budget:,} bytes, and {title} forgets what is beyond {limit:,}: so much "
            "is sent, and what needs more is not cached",
            f"set key_budget to {dialect.budget:,}",
        )
    if dialect.max_keys is not None:
        yield ok(
            f"keys {title}",
            f"{dialect.max_keys} in {dialect.header}; what has more names them by their kind, or "
            "is not cached",
        )


def _rate(cdn: CDN, settings: Settings) -> Iterator[Finding]:
    if not isinstance(cdn, Cloudflare):
        return
    rate = cdn.dialect.rates[cdn.plan]
    throttle = min([settings.throttle, *(topic.throttle for topic in settings.topics)])
    allowed = f"the plan {cdn.plan} has {rate.per_minute:,} purges a minute"
    needed = 60 / rate.per_minute
    if throttle < needed:
        yield warning(
            "rate Cloudflare",
            f"throttle is {throttle:g} s, and {allowed}: what changes all the time must wait",
            f"set throttle to {needed:g} or more, or plan to what the account has",
        )
    else:
        yield ok("rate Cloudflare", f"{allowed}, {rate.at_once} at once")


def _settling(dialect: Dialect) -> Iterator[Finding]:
    if dialect.settle_s >= LONG_S:
        yield ok(
            f"settling {dialect.title}",
            f"a purge is everywhere after {dialect.settle_s:g} s, and a publish waits for that",
        )


def _polls(dialect: Dialect, settings: Settings) -> Iterator[Finding]:
    polled = [topic.template.text for topic in settings.topics if "response" in topic.held_routes]
    if polled and not dialect.answers_polls:
        yield warning(
            f"long-polls {dialect.title}",
            f"{', '.join(polled)}: it does not compare what a client has, so the app answers "
            "each long-poll, and none is cached",
            'set hold to "stream", or let a Varnish cache them',
        )


def _variants(dialect: Dialect, settings: Settings) -> Iterator[Finding]:
    if dialect.varies:
        return
    told_apart = [
        route.pattern.text
        for topic in settings.topics
        for route in topic.routes
        if route.accept is not None
    ]
    if told_apart:
        yield warning(
            f"accept {dialect.title}",
            f"{', '.join(told_apart)}: it keeps one answer for all that a page varies by, so these "
            "are not cached",
            "give the stream a path of its own, without accept",
        )
    recovered = [t.template.text for t in settings.topics if t.can_recover("stream")]
    if recovered and any("stream" in t.held_routes for t in settings.topics):
        yield ok(
            f"recovery {dialect.title}",
            f"{', '.join(recovered)}: next links vary by Grip-Last, so the app answers them",
        )

"""What of the settings will bite: limits of Pushpin and Varnish, and what was left open.

Pure: the settings say it all. What targets answer is in `reach.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from grip_edge_middleware.cli.edge_limits import edge_limits
from grip_edge_middleware.cli.findings import Finding, ok, warning, wrong
from grip_edge_middleware.grip import MAX_CHANNELS, SHIPPED_VERIFY_KEY, Proxy
from grip_edge_middleware.settings import KEY_BUDGETS, Route, Settings, Varnish
from grip_edge_middleware.signature import MIN_SECRET_BYTES, is_secret

# Idle connections are closed after 60 s by nginx, by AWS' balancers and by Varnish's pipes.
COMMON_IDLE_S = 60
# nginx' proxy_buffer_size, Pushpin's client_buffer_size and Varnish's http_resp_hdr_len: what is
# beyond is answered by 502, by a closed connection, and by 503.
NGINX_HEAD, PUSHPIN_HEAD, VARNISH_LINE = 4_096, 8_192, 8_192
# What a head has besides its keys: GRIP's headers, Set-Cookie, a Content-Security-Policy.
OTHER_HEADERS = 1_024
# Pushpin's message_rate: items times receivers, a second. Beyond its message_hwm, the newest are
# dropped.
MESSAGE_RATE, MESSAGE_HWM = 2_500, 25_000

_WORKERS = re.compile(r"(?:^|\s)(?:-w|--workers)[\s=]*([0-9]+)")


def limits(settings: Settings, *, workers: int | None) -> Iterator[Finding]:
    """Yield what can be known from the settings. `workers` is how many processes serve the app."""
    yield _extent(settings)
    yield from _unused(settings)
    yield from _keys(settings)
    yield from edge_limits(settings)
    yield from _channels(settings)
    yield from _rate(settings)
    yield from _idleness(settings)
    yield _workers(settings, workers)
    yield from _trust(settings)
    yield from _freshness(settings)
    yield from _rendering(settings)


def workers_of(environ: Mapping[str, str]) -> int | None:
    """Return how many workers the environment tells a server to start, None if it does not."""
    # What is said later wins, and gunicorn reads its arguments after the other.
    arguments = environ.get("GUNICORN_CMD_ARGS", "")
    said = [environ.get("WEB_CONCURRENCY", ""), *_WORKERS.findall(arguments)][-1]
    return int(said) if re.fullmatch("[0-9]{1,6}", said) else None


def _extent(settings: Settings) -> Finding:
    routes = [route for topic in settings.topics for route in topic.routes]
    held = sum(route.hold is not None for route in routes)
    topics = _count(len(settings.topics), "topic")
    return ok("settings", f"{topics}, {_count(len(routes), 'route')}, {held} of them held")


def _unused(settings: Settings) -> Iterator[Finding]:
    is_held = any(topic.held_routes for topic in settings.topics)
    if not settings.cdns:
        yield warning("cdn", "none, so nothing is purged, and no page is made cacheable", "set cdn")
    if is_held and not settings.proxies:
        yield warning("grip_url", "none, so nobody is told what is published", "set grip_url")
    if settings.proxies and not is_held:
        yield warning("hold", "no route has one, so nobody listens", 'set hold to "stream"')


def _keys(settings: Settings) -> Iterator[Finding]:
    budget = settings.key_budget
    room = f"key_budget is {budget:,} bytes"
    has_varnish = any(isinstance(cdn, Varnish) for cdn in settings.cdns)
    if any(budget > limit for cdn in settings.cdns if (limit := cdn.dialect.max_bytes)):
        return  # which is said with what else the CDN takes
    if has_varnish and budget > KEY_BUDGETS["varnish"]:
        yield warning(
            "key_budget",
            f"{room}; by default Varnish answers 503 to a line of more than {VARNISH_LINE:,} "
            "(http_resp_hdr_len), and an object loses its keys when workspace_backend is full",
            'set key_budget to "varnish", or raise both, and http_resp_size',
        )
    elif budget > PUSHPIN_HEAD - OTHER_HEADERS and not has_varnish and settings.proxies:
        yield warning(
            "key_budget",
            f"{room}; by default Pushpin drops a connection without a word if a response's head is "
            f"larger than {PUSHPIN_HEAD:,}",
            "take the header with keys off before it, or raise client_buffer_size in pushpin.conf",
        )
    elif budget > NGINX_HEAD - OTHER_HEADERS:
        yield warning(
            "key_budget",
            f"{room}; by default an nginx between app and cache answers 502 to a head of more than "
            f"{NGINX_HEAD:,}",
            "raise its proxy_buffer_size, if there is one",
        )
    else:
        yield ok("key_budget", f"{room}, which fits the defaults of nginx, Pushpin and Varnish")


def _channels(settings: Settings) -> Iterator[Finding]:
    held = Counter(
        route.pattern.text
        for topic in settings.topics
        for route in topic.routes
        if route.hold is not None
    )
    for path, number in held.items():
        if number > MAX_CHANNELS:
            yield wrong(
                f"routes {path}",
                f"{number} topics are held on one page, and a GRIP proxy takes {MAX_CHANNELS}; "
                "what is published for the others does not arrive",
                "let one topic stand for several",
            )


def _rate(settings: Settings) -> Iterator[Finding]:
    held = [topic for topic in settings.topics if topic.held_routes]
    if not held or all(_is_fastly(proxy) for proxy in settings.proxies):
        return
    throttle = min(topic.throttle for topic in held)
    default = f"Pushpin's message_rate is {MESSAGE_RATE:,} deliveries a second by default"
    if throttle == 0:
        yield warning(
            "throttle",
            f"0, so each change leaves at once; {default}, and beyond {MESSAGE_HWM:,} that wait "
            "the newest are dropped",
            "set throttle, or raise message_rate and message_hwm in pushpin.conf",
        )
        return
    receivers = int(MESSAGE_RATE * throttle)
    yield ok(
        "throttle",
        f"{throttle:g} s; {default}, so {receivers:,} clients of a topic that changes all the "
        "time are served in time (for more, raise it in pushpin.conf)",
    )


def _idleness(settings: Settings) -> Iterator[Finding]:
    held = [route for topic in settings.topics for route in topic.held_routes.values()]
    findings = [finding for route in held if (finding := _idle(route)) is not None]
    yield from findings
    if held and not findings:
        yield ok("keep_alive", f"below the {COMMON_IDLE_S} s after which many proxies hang up")


def _idle(route: Route) -> Finding | None:
    path = route.pattern.text
    if route.hold == "response" and route.hold_timeout >= COMMON_IDLE_S:
        return warning(
            "hold_timeout",
            f"{path}: {route.hold_timeout} s without a byte, and many proxies hang up after "
            f"{COMMON_IDLE_S} s",
            "set hold_timeout to 55 or less, or raise the idle timeout of all on the way",
        )
    if route.hold == "response" or 0 < route.keep_alive < COMMON_IDLE_S:
        return None
    quiet = f"a byte only every {route.keep_alive} s" if route.keep_alive else "no byte while idle"
    return warning(
        "keep_alive",
        f"{path}: {quiet}, and many proxies hang up after {COMMON_IDLE_S} s",
        "set keep_alive to 20, or raise the idle timeout of all on the way",
    )


def _workers(settings: Settings, workers: int | None) -> Finding:
    if settings.store is not None:
        return ok("store", f"{settings.store.kind}, which all processes share")
    if workers is not None and workers > 1:
        return wrong(
            "store",
            f"each of the {workers} workers has its own: none knows what another throttles, "
            "publishes or keeps out of the cache",
            'set store to "sqlite:///path/of/a/file", or to "redis://..." for several machines',
        )
    if workers == 1:
        return ok("store", "in memory, which is enough for one worker")
    return ok("store", "in memory, which is enough for one worker; for more, say --workers N here")


def _trust(settings: Settings) -> Iterator[Finding]:
    for proxy in settings.proxies:
        yield from _trust_in(proxy)
    private = [t.template.text for t in settings.topics if t.private]
    if private:
        yield ok("private", f"{', '.join(private)}: asked with a verify key and a secret")


def _trust_in(proxy: Proxy) -> Iterator[Finding]:
    about = f"grip {proxy.control_uri}"
    key = proxy.verify_key
    if key is None:
        yield warning(
            about,
            "no verify key, so whoever reaches the app is taken for the GRIP proxy",
            "set GRIP_VERIFY_KEY to the proxy's sig_key",
        )
    elif key in (SHIPPED_VERIFY_KEY, SHIPPED_VERIFY_KEY.encode()):
        finding = warning if _is_near(proxy) else wrong
        yield finding(
            about,
            "its verify key is that of examples/edge, which everybody knows",
            "set sig_key and GRIP_VERIFY_KEY to 32 random bytes",
        )
    elif is_secret(key) and len(key) < MIN_SECRET_BYTES:
        yield warning(
            about,
            f"its verify key has {len(key)} bytes, and may be guessed",
            f"set sig_key and GRIP_VERIFY_KEY to {MIN_SECRET_BYTES} random bytes",
        )
    if proxy.control_uri.startswith("http://") and not _is_near(proxy):
        yield warning(
            about,
            "it is reached over the public network without encryption, and Pushpin asks nobody "
            "for a key",
            "let it listen on a private address, or use https",
        )


def _is_near(proxy: Proxy) -> bool:
    """Whether its host is on this machine, or in a private network."""
    host = urlsplit(proxy.control_uri).hostname or ""
    try:
        return ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".internal", ".local", ".localhost"))


def _is_fastly(proxy: Proxy) -> bool:
    return urlsplit(proxy.control_uri).hostname == "api.fastly.com"


def _freshness(settings: Settings) -> Iterator[Finding]:
    if settings.cdns and not settings.confirm_after:
        yield warning(
            "confirm_after",
            "0: an old page that was on its way to the cache when it was purged stays there",
            "leave it out",
        )
    if settings.cdns and settings.purge_deadline == 0:
        yield warning(
            "purge_deadline",
            "0: after the first purge that fails, a publish does not wait for the next",
            "leave it out",
        )
    for topic in settings.topics:
        for route in topic.routes:
            if route.edge_ttl == 0 and not topic.private and settings.cdns:
                yield warning(
                    "edge_ttl",
                    f"{route.pattern.text}: 0, so it is never cached, and each client asks the app",
                    "give it seconds, or no route",
                )


def _rendering(settings: Settings) -> Iterator[Finding]:
    needs = [t.template.text for t in settings.topics if t.held_routes and t.payload is None]
    if settings.is_external and settings.origin is None and needs:
        yield warning(
            "dispatch",
            f"external, and what is published of {', '.join(needs)} is rendered",
            "set origin, unless `grip-edge dispatch` is given an edge around the app",
        )
    elif settings.is_external:
        yield ok("dispatch", "external: `grip-edge dispatch` must run somewhere")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

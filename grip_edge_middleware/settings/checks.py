"""What a value must be: one function for each kind, which returns it or says what is wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from grip_edge_middleware.cache_control import MAX_SECONDS
from grip_edge_middleware.grip import (
    MIN_HOLD_TIMEOUT_S,
    Proxy,
    decode_key,
    has_port,
    parse_grip_url,
)
from grip_edge_middleware.metrics import Metrics
from grip_edge_middleware.routing import Pattern
from grip_edge_middleware.settings import (
    DEFAULT_STORE_NAME,
    HOLDS,
    KEY_BUDGETS,
    MAX_OUTBOX_NAME,
    OPERATIONS,
    OUTBOX_GRACE_S,
    OutboxSettings,
    StoreSettings,
)
from grip_edge_middleware.settings.wording import (
    Wrong,
    expected,
    nearest,
    only_names,
    without_secrets,
)
from grip_edge_middleware.signature import Signer
from grip_edge_middleware.topics import TopicTemplate
from grip_edge_middleware.types import Hold, Operation

# What an object must have to be told numbers.
_METRICS = ("count", "gauge", "read", "after_fork")

_STORES: Mapping[str, str] = {
    "sqlite": "sqlite",
    **dict.fromkeys(("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"), "redis"),
    **dict.fromkeys(("valkey", "valkeys"), "redis"),
}


def path_or_dict(found: object) -> Mapping[Any, Any]:
    """Return a dict; a text would have been a path."""
    return found if isinstance(found, Mapping) else expected("a path or a dict", found)


def template(found: object) -> TopicTemplate:
    """Return the template that a topic's name is."""
    template = TopicTemplate.parse(found) if isinstance(found, str) else expected("a name", found)
    if "on_commit" in template.params:
        raise Wrong('a parameter cannot be named "on_commit"', "rename it")
    return template


def pattern(found: object) -> Pattern:
    """Return the pattern that a path is."""
    if not isinstance(found, str):
        expected('a path such as "/counters/<name>/"', found)
    return Pattern.parse(found)


def boolean(found: object) -> bool:
    """Return True or False."""
    return found if isinstance(found, bool) else expected("True or False", found)


def is_number(found: Any) -> bool:
    """Whether it is a number of seconds that a header can say."""
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    return is_number and 0 <= found <= MAX_SECONDS


def auto_tags(found: object) -> frozenset[str] | None:
    """Return the scopes, None if nothing is tagged by itself."""
    if isinstance(found, bool) or found is None:
        return frozenset() if found else None
    if not isinstance(found, Mapping):
        expected('True, False or {"scopes": [columns]}', found)
    only_names(found, "scopes")
    scopes = found.get("scopes", ())
    if isinstance(scopes, str) or not isinstance(scopes, Iterable):
        expected('a list of columns such as ["author_id"]', scopes)
    names = list(scopes)
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"\w+(\.\w+)?", name):
            expected('a column such as "author_id" or "post.author_id"', name)
    return frozenset(name.lower() for name in names)


def outbox(found: object) -> OutboxSettings | None:
    """Return the outbox, None if there is none."""
    if isinstance(found, bool) or found is None:
        return OutboxSettings() if found else None
    if not isinstance(found, Mapping):
        expected('True, False or {"grace": seconds, "name": a name}', found)
    only_names(found, "grace", "name")
    name = found.get("name", "")
    if not isinstance(name, str) or len(name) > MAX_OUTBOX_NAME:
        expected(f"a name of at most {MAX_OUTBOX_NAME} characters", name)
    return OutboxSettings(some_seconds(found.get("grace", OUTBOX_GRACE_S)), name)


def metrics(found: object) -> Metrics | Literal["prometheus"] | None:
    """Return what counts, or by which name it is known."""
    if found is None:
        return None
    if isinstance(found, str):
        if found != "prometheus":
            hint = nearest(found, ("prometheus",))
            expected('"prometheus", None or an object that counts', found, hint)
        return "prometheus"
    lacking = [name for name in _METRICS if not callable(getattr(found, name, None))]
    if lacking:
        methods = ", ".join(_METRICS)
        expected(f'"prometheus", None or an object with {methods}', found)
    return cast("Metrics", found)


def tracing(found: object) -> object:
    """Return whether there are spans, or who makes them."""
    if isinstance(found, bool) or callable(getattr(found, "get_tracer", None)):
        return found
    return expected("True, False or an OpenTelemetry TracerProvider", found)


def store(found: object) -> StoreSettings | None:
    """Return where processes share what is pending, None if each has its own."""
    if found in (None, "memory"):
        return None
    entry: Mapping[Any, Any] = {"url": found} if isinstance(found, str) else path_or_dict(found)
    only_names(entry, "url", "name")
    url, name = entry.get("url"), entry.get("name", DEFAULT_STORE_NAME)
    # What was found is not repeated: it may have a password.
    forms = '"memory", "sqlite:///path/of/a/file", "redis://host:port/0", or {"url", "name"}'
    url = url if isinstance(url, str) else ""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _STORES:
        raise Wrong(f"expected {forms}", nearest(scheme, _STORES))
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,64}", name):
        expected("a name of at most 64 letters, digits, dots and dashes", name)
    if scheme != "sqlite":
        return StoreSettings("redis", url.replace("valkey", "redis", 1), name)
    if "name" in entry:
        raise Wrong("an SQLite file has no names", "give each app a file of its own")
    host, _, path = rest.partition("/")
    if host or not path or "?" in path or path == ":memory:":
        raise Wrong(
            f"expected {forms}", 'as in "sqlite:///edge.sqlite3" or "sqlite:////var/lib/edge"'
        )
    return StoreSettings("sqlite", path, name)


def whole_seconds(found: Any) -> int:
    """Return whole seconds."""
    if is_number(found) and isinstance(found, int):
        return found
    return expected("whole seconds, 0 or more", found)


def hold_timeout(found: Any) -> int:
    """Return for how many seconds a long-poll waits."""
    if is_number(found) and isinstance(found, int) and found >= MIN_HOLD_TIMEOUT_S:
        return found
    return expected(f"whole seconds, {MIN_HOLD_TIMEOUT_S} or more", found)


def seconds(found: Any) -> float:
    """Return seconds."""
    return float(found) if is_number(found) else expected("seconds, 0 or more", found)


def confirm_after(found: Any) -> tuple[float, ...]:
    """Return the waits before each confirmation."""
    waits = found if isinstance(found, list | tuple) else [found] if found != 0 else []
    if not all(is_number(wait) and wait > 0 for wait in waits):
        expected("seconds, 0 or more, or a list of seconds, above 0", found)
    return tuple(float(wait) for wait in waits)


def some_seconds(found: Any) -> float:
    """Return seconds, more than none."""
    is_some = is_number(found) and found > 0
    return float(found) if is_some else expected("seconds, above 0", found)


def count(found: object) -> int:
    """Return a whole number above 0."""
    if isinstance(found, int) and not isinstance(found, bool) and found > 0:
        return found
    return expected("a whole number above 0", found)


def key_budget(found: object) -> int:
    """Return bytes; a CDN's name is what it takes."""
    if isinstance(found, str):
        choices = " or ".join(f'"{name}"' for name in KEY_BUDGETS)
        hint = nearest(found, KEY_BUDGETS)
        return KEY_BUDGETS.get(found) or expected(f"bytes or {choices}", found, hint)
    return count(found)


def hold(found: object) -> Hold | None:
    """Return how a request is held."""
    for hold in HOLDS:
        if found == hold:
            return hold
    choices = ", ".join(f'"{hold}"' for hold in HOLDS)
    hint = nearest(found, HOLDS)
    return None if found is None else expected(f"{choices} or None", found, hint)


def origins(found: object) -> tuple[str, ...]:
    """Return the origins whose pages may open WebSockets, in lower case."""
    if found == "*":
        return ("*",)
    if isinstance(found, str) or not isinstance(found, Iterable):
        expected('a list such as ["https://example.com"], or "*"', found)
    return tuple(origin(each) for each in found)


def origin(found: object) -> str:
    """Return what a browser says in `Origin`."""
    if found == "*":
        return "*"
    if isinstance(found, str) and re.fullmatch(r"https?://[\w.\[\]:-]+", found):
        split = urlsplit(found)
        if split.hostname and has_port(split):
            return found.lower()
    return expected("an origin such as https://example.com", without_secrets(found))


def media_type(found: object) -> str | None:
    """Return a media type, in lower case."""
    if found is None:
        return None
    if isinstance(found, str) and re.fullmatch(r"[\w.+-]+/[\w.+-]+", found, re.ASCII):
        return found.lower()
    return expected('a media type such as "text/event-stream"', found)


def http_url(found: object) -> str:
    """Return a URL without a query, and without a slash at its end."""
    if isinstance(found, str) and re.fullmatch(r"https?://[\w.\[\]:-]+(/[\w./~-]*)?", found):
        split = urlsplit(found)
        if split.hostname and has_port(split):
            return found.rstrip("/")
    return expected("a URL such as http://host:port", without_secrets(found))


def proxy(_: str, found: object) -> Proxy:
    """Return the GRIP proxy that a URL is."""
    # What was found is not repeated: it contains a key.
    proxy = parse_grip_url(found) if isinstance(found, str) else expected("a URL", type(found))
    if proxy.verify_key is not None:
        Signer.parse(proxy)
    return proxy


def with_verify_key(proxies: Iterable[Proxy], found: str) -> tuple[Proxy, ...]:
    """Return the proxies; who has no key of its own is given this one."""
    key = decode_key("the verify key", found)
    keyed = tuple(p if p.verify_key is not None else replace(p, verify_key=key) for p in proxies)
    for proxy in keyed:
        Signer.parse(proxy)
    return keyed


def model(found: object) -> str | type:
    """Return a class, or where it is."""
    if isinstance(found, type):
        return found
    if isinstance(found, str) and re.fullmatch(r"[\w.]+:[\w.]+", found):
        return found
    return expected('a class or "module:Class"', found)


def function(found: object) -> Callable[[Any], Any] | str | None:
    """Return a callable, or where it is."""
    if found is None or callable(found):
        return found
    if isinstance(found, str) and re.fullmatch(r"[\w.]+:[\w.]+", found):
        return found
    return expected('a callable or "module:name"', found)


def operations(found: object) -> frozenset[Operation]:
    """Return the operations that are watched."""
    names = [found] if isinstance(found, str) else found
    if not isinstance(names, Iterable):
        expected("a list of operations", found)
    chosen = list(names)
    if not chosen:
        expected("at least one operation", found)
    for name in chosen:
        if name not in OPERATIONS:
            expected(" or ".join(f'"{o}"' for o in OPERATIONS), name, nearest(name, OPERATIONS))
    return frozenset(chosen)


def params(found: object) -> Mapping[str, str]:
    """Return the attributes that fill a name."""
    if not isinstance(found, Mapping):
        expected('a dict such as {"id": "auction_id"}', found)
    for attribute in found.values():
        if not isinstance(attribute, str) or not attribute.isidentifier():
            expected("an attribute's name", attribute)
    return dict(found)


CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "hold": hold,
    "hold_timeout": hold_timeout,
    "accept": media_type,
    "edge_ttl": whole_seconds,
    "browser_ttl": whole_seconds,
    "stale_if_error": whole_seconds,
    "keep_alive": whole_seconds,
    "public": boolean,
    "receive": boolean,
    "on_close": function,
    "origins": origins,
    "throttle": seconds,
    "coalesce": boolean,
    "refetch": boolean,
    "private": boolean,
    "auto_tags": auto_tags,
    "recovery": lambda found: (
        found if found in ("next-link", None) else expected('"next-link" or None', found)
    ),
    "origin": lambda found: None if found is None else http_url(found),
    "timeout": some_seconds,
    "flush_timeout": seconds,
    "max_pending": count,
    "key_budget": key_budget,
    "cache_groups": boolean,
    "confirm_after": confirm_after,
    "replica_lag": seconds,
    "degraded_ttl": whole_seconds,
    "outbox": outbox,
    "metrics": metrics,
    "tracing": tracing,
    "purge_deadline": lambda found: math.inf if found is None else seconds(found),
}

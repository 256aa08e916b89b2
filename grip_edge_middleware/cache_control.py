"""What a response says to caches, and how it is told to say otherwise.

Pure: values only. https://www.rfc-editor.org/rfc/rfc9111, and what CDNs make of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from grip_edge_middleware.types import Headers

# https://www.rfc-editor.org/rfc/rfc9111#section-1.2.2: what caches can count to.
MAX_SECONDS = 2**31 - 1

# https://www.rfc-editor.org/rfc/rfc9110#section-15.1: a cache may keep these without being told
# to, and Fastly does so for an hour (302 as well), so they must be purgeable.
KEPT_UNASKED = frozenset({203, 204, 206, 300, 301, 302, 308, 404, 405, 410, 414, 501})

# No single directive keeps a response out of every cache, so it is always these two.
_DO_NOT_STORE: Headers = [
    ("Cache-Control", "private, no-store"),
    ("Surrogate-Control", "no-store"),
]
_FORBIDDING = frozenset({"private", "no-store", "no-cache"})

# What some edges read, and Cache-Control only if it is not there. The second is RFC 9213's.
TARGETED = frozenset(
    {"surrogate-control", "cdn-cache-control", "cloudflare-cdn-cache-control", "edge-control"}
)
_CONTROLS = TARGETED | {"cache-control"}
_EDGE_LIFETIMES = {"cache-control": "s-maxage", **dict.fromkeys(TARGETED, "max-age")}
FRESHNESS = _CONTROLS | {"expires"}


def private_by(headers: Headers) -> str:
    """Return by which header the app keeps the response to one client, or out of caches.

    Its name, in lower case; empty if by none.
    """
    for name, value in headers:
        match name.lower():
            case "set-cookie" as found:
                return found
            case found if found in _CONTROLS and _directives(value) & _FORBIDDING:
                return found
            case "vary" as found if "*" in _directives(value):
                return found
    return ""


def varies(headers: Headers) -> bool:
    """Whether there are several answers, by more than their encoding."""
    named = (_directives(value) for name, value in headers if name.lower() == "vary")
    return any(tokens - {"accept-encoding", ""} for tokens in named)


def has_freshness(headers: Headers) -> bool:
    """Whether the app itself says how long caches may keep the response."""
    return any(
        name.lower() in FRESHNESS and ("max-age" in value or "s-maxage" in value)
        for name, value in headers
    ) or has_header(headers, "expires")


def edge_ttls(headers: Headers) -> Iterator[int]:
    """Yield the lifetimes that the app itself gives shared caches: a shorter one prevails."""
    for name, value in headers:
        wanted = _EDGE_LIFETIMES.get(name.lower())
        for directive in value.lower().split(",") if wanted else ():
            said, _, seconds = directive.strip().partition("=")
            if said == wanted and seconds.strip('"').isdecimal():
                yield min(int(seconds.strip('"')[:10]), MAX_SECONDS)


def forbid(controls: Iterable[str]) -> Headers:
    """Return what keeps a response out of the caches that read these headers, and others."""
    more = [(name, "no-store") for name in controls if name.lower() != "surrogate-control"]
    return [*_DO_NOT_STORE, *more]


def lifetime(control: str, seconds: int, stale_if_error: int) -> tuple[str, str]:
    """Return the line that has an edge keep a response for so many seconds."""
    # https://techdocs.akamai.com/property-mgr/docs/know-caching: it has no stale-if-error.
    has_stale = stale_if_error and control != "Edge-Control"
    stale = f", stale-if-error={stale_if_error}" if has_stale else ""
    return control, f"max-age={seconds}{stale}"


def keep_out(
    headers: Headers,
    forbidding: Headers = _DO_NOT_STORE,
    keys: frozenset[str] = frozenset({"surrogate-key"}),
) -> Headers:
    """Keep a response out of every cache; what the app itself says to browsers stays.

    `forbidding` is what `forbid` returned, `keys` are the headers with keys, in lower case.
    """
    is_said = any(
        name.lower() == "cache-control" and _directives(value) & {"private", "no-store"}
        for name, value in headers
    )
    added = forbidding[1:] if is_said else forbidding
    dropped = (TARGETED if is_said else FRESHNESS) | keys
    return [*without(headers, dropped), *added]


def vary_on_accept(headers: Headers) -> Headers:
    """Have caches keep a response for each `Accept`."""
    values = [value for name, value in headers if name.lower() == "vary"]
    if any(token in ("accept", "*") for value in values for token in _directives(value)):
        return headers
    return [*without(headers, {"vary"}), ("Vary", ", ".join([*values, "Accept"]))]


def without(headers: Headers, names: Iterable[str]) -> Headers:
    """Return the other lines. Names are in lower case."""
    return [(name, value) for name, value in headers if name.lower() not in names]


def has_header(headers: Headers, wanted: str) -> bool:
    """Whether there is a line of that name, in lower case."""
    return any(name.lower() == wanted for name, _ in headers)


def first_value(headers: Headers, wanted: str) -> str:
    """Return the value of the first line of that name, in lower case; empty if there is none."""
    return next((value for name, value in headers if name.lower() == wanted), "")


def _directives(value: str) -> set[str]:
    return {part.partition("=")[0].strip().lower() for part in value.split(",")}

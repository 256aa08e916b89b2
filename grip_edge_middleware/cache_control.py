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
_EDGE_LIFETIMES = {
    "cache-control": "s-maxage",
    "surrogate-control": "max-age",
    "cdn-cache-control": "max-age",
}
FRESHNESS = frozenset({"cache-control", "surrogate-control", "cdn-cache-control", "expires"})


def private_by(headers: Headers) -> str:
    """Return by which header the app keeps the response to one client, or out of caches.

    Its name, in lower case; empty if by none.
    """
    for name, value in headers:
        match name.lower():
            case "set-cookie" as found:
                return found
            case "cache-control" | "surrogate-control" | "cdn-cache-control" as found if (
                _directives(value) & _FORBIDDING
            ):
                return found
            case "vary" as found if "*" in _directives(value):
                return found
    return ""


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


def keep_out(headers: Headers) -> Headers:
    """Keep a response out of every cache; what the app itself says to browsers stays."""
    is_said = any(
        name.lower() == "cache-control" and _directives(value) & {"private", "no-store"}
        for name, value in headers
    )
    pair = _DO_NOT_STORE[1:] if is_said else _DO_NOT_STORE
    dropped = {"surrogate-control", "cdn-cache-control", "surrogate-key"}
    if not is_said:
        dropped |= {"cache-control", "expires"}
    return [*without(headers, dropped), *pair]


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

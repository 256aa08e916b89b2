"""Assertions about responses of an app: of any test client, framework or HTTP library.

Whatever has a status and headers will do: werkzeug, Django, Starlette, httpx, requests, urllib.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NoReturn

from grip_edge_middleware.cache_control import TARGETED
from grip_edge_middleware.dialects import unescape_tag
from grip_edge_middleware.surrogate import parse_keys
from grip_edge_middleware.testing.wording import nearest

_ABOUT_THE_EDGE = re.compile(
    r"cache-control|surrogate-.*|.*cdn-cache-control|edge-control|(edge-)?cache-tag|grip-.*|set-cookie|vary|x-cache|age|etag"
)


@dataclass(frozen=True, slots=True)
class Seen:
    """A response's status, and its headers by their names in lower case."""

    status: int
    headers: dict[str, str]

    @classmethod
    def of(cls, response: Any) -> Seen:
        """Read a response of any library. TypeError if it is none."""
        if isinstance(response, Seen):
            return response
        status, lines = _status(response), _header_lines(response)
        if status is None or lines is None:
            kind = f"{type(response).__module__}.{type(response).__qualname__}"
            raise TypeError(f"expected a response, with a status and headers, got a {kind}")
        headers: dict[str, str] = {}
        for name, value in lines:
            known = headers.get(name.lower())
            headers[name.lower()] = value if known is None else f"{known}, {value}"
        return cls(status, headers)

    def __str__(self) -> str:
        about = [name for name in self.headers if _ABOUT_THE_EDGE.fullmatch(name)]
        said = [f"  {name.title()}: {self.headers[name]}" for name in about]
        return "\n".join(
            [f"the response is a {self.status} with:", *(said or ["  no header of the edge's"])]
        )

    @property
    def keys(self) -> list[str]:
        """Its surrogate keys."""
        said = parse_keys([self.headers.get("surrogate-key", "")])
        tags = parse_keys(self.headers.get(name, "") for name in ("cache-tag", "edge-cache-tag"))
        return list(dict.fromkeys([*said, *map(unescape_tag, tags)]))

    @property
    def channels(self) -> list[str]:
        """The channels that it subscribes to."""
        named = self.headers.get("grip-channel", "").split(",")
        return [name for each in named if (name := each.partition(";")[0].strip())]

    @property
    def edge_ttl(self) -> int | None:
        """For how many seconds a CDN may keep it, None if it may not."""
        said = (self.headers.get(name, "") for name in sorted(TARGETED))
        found = re.search(r"\bmax-age=(\d+)", ", ".join(said))
        return int(found[1]) if found else None


def assert_tagged(response: Any, *keys: str) -> None:
    """Check that a response has these surrogate keys, perhaps among others."""
    __tracebackhide__ = True
    seen = Seen.of(response)
    for key in keys:
        if key not in seen.keys:
            _fail(seen, f'the response is not tagged "{key}"{nearest(key, seen.keys)}')


def assert_not_tagged(response: Any, *keys: str) -> None:
    """Check that a response has none of these surrogate keys."""
    __tracebackhide__ = True
    seen = Seen.of(response)
    for key in keys:
        if key in seen.keys:
            _fail(seen, f'the response is tagged "{key}"')


def assert_held(response: Any, hold: str = "stream", *, channel: str | None = None) -> None:
    """Check that a GRIP proxy would hold a response open, and on which channel."""
    __tracebackhide__ = True
    seen = Seen.of(response)
    found = seen.headers.get("grip-hold")
    if found is None:
        _fail(seen, f'expected a hold "{hold}", but the response is not held')
    if found != hold:
        _fail(seen, f'expected a hold "{hold}", got "{found}"')
    if channel is not None and channel not in seen.channels:
        near, found = nearest(channel, seen.channels), ", ".join(seen.channels)
        _fail(seen, f'expected a hold on "{channel}"{near}, got {found}')


def assert_not_held(response: Any) -> None:
    """Check that a GRIP proxy would pass a response on and end it."""
    __tracebackhide__ = True
    seen = Seen.of(response)
    if "grip-hold" in seen.headers:
        _fail(seen, "expected a response that is not held")


def assert_cacheable(response: Any, *, ttl: int | None = None) -> None:
    """Check that a CDN may keep a response, for `ttl` seconds if that is given."""
    __tracebackhide__ = True
    seen = Seen.of(response)
    if seen.edge_ttl is None:
        _fail(seen, "expected a response that a CDN may keep")
    if ttl is not None and seen.edge_ttl != ttl:
        _fail(seen, f"expected that a CDN keeps the response for {ttl} s, not {seen.edge_ttl} s")


def assert_not_cacheable(response: Any) -> None:
    """Check that no CDN may keep a response."""
    __tracebackhide__ = True
    seen = Seen.of(response)
    if seen.edge_ttl is not None:
        _fail(seen, "expected a response that no CDN may keep")


def assert_hit(response: Any) -> None:
    """Check that a response came from the cache of the embedded edge."""
    __tracebackhide__ = True
    _check_cache(Seen.of(response), "HIT")


def assert_miss(response: Any) -> None:
    """Check that the embedded edge asked the app for a response."""
    __tracebackhide__ = True
    _check_cache(Seen.of(response), "MISS")


def _check_cache(seen: Seen, wanted: str) -> None:
    __tracebackhide__ = True
    found = seen.headers.get("x-cache")
    if found is None:
        _fail(seen, f"expected a cache {wanted}, but the response did not come through a cache")
    if found != wanted:
        _fail(seen, f"expected a cache {wanted}, got a {found}")


def _status(response: Any) -> int | None:
    for name in ("status_code", "status", "code"):
        found = getattr(response, name, None)
        if isinstance(found, int):
            return found
    return None


def _header_lines(response: Any) -> list[tuple[str, str]] | None:
    headers = getattr(response, "headers", None)
    items = getattr(headers, "multi_items", None) or getattr(headers, "items", None)
    return None if items is None else [(str(name), str(value)) for name, value in items()]


def _fail(seen: Seen, what: str) -> NoReturn:
    __tracebackhide__ = True
    raise AssertionError(f"{what}\n{seen}")

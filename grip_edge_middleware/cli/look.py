"""A page as it came: what its headers say of hold, channels, keys and cache.

`look` fetches it; what is read from the headers is decided by plain functions.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from grip_edge_middleware.cli.status import WrongUse
from grip_edge_middleware.dialects import unescape_tag
from grip_edge_middleware.grip import PRIVATE_NEXT_LINK, has_port
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.policy import Plan
from grip_edge_middleware.surrogate import parse_keys
from grip_edge_middleware.transport import HttpTransport

# How long an answer must go on after its head to be taken for a stream.
LINGER_S = 0.5
USER_AGENT = "grip-edge"
EVENT_STREAM = "text/event-stream"

CacheState = Literal["hit", "miss", "stale", "unknown"]


@dataclass(frozen=True, slots=True)
class Look:
    """A response, and whether it went on when we left."""

    response: Response
    is_open: bool = False

    @property
    def is_held(self) -> bool:
        """Whether a GRIP proxy holds it open. What the app sends without end looks the same."""
        return self.is_open and not self.has_grip_headers

    @property
    def has_grip_headers(self) -> bool:
        """Whether what is for a GRIP proxy is there."""
        return any(name.startswith("grip-") for name in self.response.headers)

    @property
    def keys(self) -> list[str]:
        """Its surrogate keys, as far as they are shown."""
        headers = self.response.headers
        exact = parse_keys(headers.get(name, "") for name in ("surrogate-key", "xkey"))
        tags = parse_keys(headers.get(name, "") for name in ("cache-tag", "edge-cache-tag"))
        return list(dict.fromkeys([*exact, *map(unescape_tag, tags)]))

    @property
    def channels(self) -> list[tuple[str, str | None]]:
        """Each channel, and the version that the response shows of it."""
        return parse_channels(self.response.headers.get("grip-channel", ""))

    @property
    def next_link(self) -> str | None:
        """Where the proxy asks for what was missed. What signs a private one is left out."""
        said = re.match(r"<([^>]*)>", self.response.headers.get("grip-link", ""))
        if said is None:
            return None
        before, private, _ = said[1].partition(PRIVATE_NEXT_LINK)
        return f"{before}{private}..." if private else said[1]

    @property
    def cache(self) -> CacheState:
        """Whether it came from a cache."""
        return cache_state(self.response.headers)


def look_options() -> argparse.ArgumentParser:
    """Return the options of the commands that fetch a page, for argparse's `parents`."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--header",
        metavar="'NAME: VALUE'",
        action="append",
        default=[],
        type=_header,
        help="send this header too; it is never shown",
    )
    options.add_argument("--accept", metavar="TYPE", help="what to ask for (default: as its route)")
    options.add_argument(
        "--timeout", metavar="S", type=_seconds, default=5.0, help="for an answer (default: 5)"
    )
    return options


def look(
    transport: HttpTransport, url: str, headers: Mapping[str, str], *, linger_s: float = LINGER_S
) -> Look:
    """Fetch a page as a client does, and leave. DeliveryError if nobody answers."""
    request = Request("GET", url, {"User-Agent": USER_AGENT, **headers})
    return Look(*transport.begin(request, linger_s=linger_s))


def page_headers(options: argparse.Namespace, plan: Plan | None) -> dict[str, str]:
    """Return what a request says, so that it is held if its route ever is."""
    return {"Accept": options.accept or wanted_type(plan), **dict(options.header)}


def wanted_type(plan: Plan | None) -> str:
    """Return the media type that a client of this page asks for."""
    routes = [shown.route for shown in plan.shown] if plan else []
    named = next((route.accept for route in routes if route.accept), None)
    is_stream = any(route.hold == "stream" for route in routes)
    return named or (EVENT_STREAM if is_stream else "*/*")


def checked_url(found: str) -> str:
    """Return a URL that can be fetched. WrongUse says what is wrong with it."""
    try:
        split = urlsplit(found)
    except ValueError as error:
        raise WrongUse(f"{found}: {error}") from None
    if split.scheme not in ("http", "https") or not split.hostname or not has_port(split):
        shown = found if "@" not in found else "what was given"
        raise WrongUse(f"{shown}: expected a URL, as in http://localhost:7999/counters/a")
    if "@" in split.netloc:
        # Not repeated: it would be in every line that names the URL.
        raise WrongUse("the URL has a user and password; say --header 'Authorization: ...'")
    if re.search(r"[^!-~]", found):
        raise WrongUse(f"{found}: a URL is ASCII, with %-escapes for the rest")
    return found


def path_of(found: str) -> str:
    """Return the decoded path of a URL, or of a path. WrongUse if it is neither."""
    if found.startswith("/"):
        return unquote(re.split("[?#]", found, maxsplit=1)[0])
    if "://" not in found:
        raise WrongUse(f'"{found}": expected a path or a URL, as in /counters/a')
    return unquote(urlsplit(checked_url(found)).path or "/")


def parse_channels(value: str) -> list[tuple[str, str | None]]:
    """Return the channels of a `Grip-Channel`, each with its `prev-id`."""
    channels = []
    for part in filter(None, map(str.strip, value.split(","))):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        said = dict(piece.partition("=")[::2] for piece in parameters)
        channels.append((name, said.get("prev-id")))
    return channels


def cache_state(headers: Mapping[str, str]) -> CacheState:
    """Return whether a response came from a cache, by whatever caches say of that.

    One hit on the way is one: what is purged must be in none of them.
    """
    # RFC 9211
    said = headers.get("cache-status", "").lower()
    if re.search(r";\s*hit\b", said):
        return "hit"
    words = set(re.findall(r"[a-z]+", _told(headers).lower()))
    if words & {"stale", "expired", "updating"}:
        return "stale"
    if words & {"hit", "revalidated"}:
        return "hit"
    age = headers.get("age", "")
    # Varnish names both requests: this one, and the one that fetched the copy.
    if (age.isdigit() and int(age) > 0) or len(headers.get("x-varnish", "").split()) > 1:
        return "hit"
    is_told = said or words & {"miss", "pass", "dynamic", "bypass"} or "x-varnish" in headers
    return "miss" if is_told else "unknown"


def cache_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return what caches say of themselves."""
    names = ("cache-status", "x-cache", "x-cache-hits", "cf-cache-status", "age", "via")
    return {name: headers[name] for name in names if name in headers}


def _told(headers: Mapping[str, str]) -> str:
    return f"{headers.get('x-cache', '')} {headers.get('cf-cache-status', '')}"


def _header(found: str) -> tuple[str, str]:
    name, separator, value = found.partition(":")
    # RFC 9110, section 5.6.2. Not repeated: it may be a secret.
    if not separator or not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII):
        raise argparse.ArgumentTypeError("expected 'Name: value'")
    if not re.fullmatch(r"[\t -~]*", value):
        raise argparse.ArgumentTypeError(f"the value of {name} is not ASCII in one line")
    return name, value.strip()


def _seconds(found: str) -> float:
    try:
        seconds = float(found)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f'expected seconds, above 0, got "{found}"')
    return seconds

"""Whether every target is there and takes our requests: asked for what changes nothing.

A CDN is told to purge a key that nobody has, a GRIP proxy to tell nobody nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from grip_edge_middleware.cli.findings import Finding, ok, warning, wrong
from grip_edge_middleware.edge import make_purger, make_shelf
from grip_edge_middleware.errors import DeliveryError, SettingsError, StoreError
from grip_edge_middleware.grip import NOBODY, Proxy, build_marker
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.publisher import Publisher
from grip_edge_middleware.settings import (
    CDN,
    Akamai,
    Cloudflare,
    CloudFront,
    Fastly,
    Generic,
    Settings,
    Souin,
    StoreSettings,
    Varnish,
)
from grip_edge_middleware.transport import NO_ANSWER, Transport

# The version of an item that says nothing.
CHECK = "check"

Asking = Callable[[], Finding]


def reach(settings: Settings, transport: Transport) -> list[Finding]:
    """Ask all targets at once; return what each said, in the order of the settings."""
    asking = list(_askings(settings, transport))
    if not asking:
        return []
    with ThreadPoolExecutor(max_workers=len(asking)) as threads:
        return list(threads.map(lambda ask: ask(), asking))


def _askings(settings: Settings, transport: Transport) -> Iterator[Asking]:
    for region in (settings.trunk, *settings.regions):
        for cdn in region.cdns:
            yield partial(ask_cdn, cdn, region.name, transport)
        for proxy in region.proxies:
            yield partial(ask_proxy, proxy, region.name, transport)
    if settings.origin is not None:
        yield partial(ask_origin, settings.origin, transport)
    if settings.store is not None:
        yield partial(ask_store, settings.store, settings)


def ask_cdn(cdn: CDN, region: str, transport: Transport) -> Finding:
    """Purge a key that nobody has."""
    purger = make_purger(cdn, region)
    [batch] = purger.batches([NOBODY])
    try:
        response = transport.send(batch.request)
    except DeliveryError as error:
        return wrong(purger.name, error.reason, _when_silent(error, "cdn"))
    try:
        purger.check(response)
    except DeliveryError as error:
        advice = _ADVICE[type(cdn)]
        return wrong(purger.name, error.reason, advice.get(response.status, advice[0]))
    return ok(purger.name, "takes purges")


def ask_proxy(proxy: Proxy, region: str, transport: Transport) -> Finding:
    """Publish what says nothing, on a channel of nobody."""
    publisher = Publisher(proxy, region=region)
    item = build_marker(NOBODY, ["stream"], id=CHECK, prev_id=CHECK)
    [batch] = publisher.batches([item], now=time.time())
    try:
        response = transport.send(batch.request)
    except DeliveryError as error:
        return wrong(publisher.name, error.reason, _when_silent(error, "grip_url"))
    return judge_publish(publisher, response)


def judge_publish(publisher: Publisher, response: Response) -> Finding:
    """Return what the answer to a publish says of who gave it."""
    try:
        publisher.check(response)
    except DeliveryError as error:
        advice = _ADVICE_GRIP
        return wrong(publisher.name, error.reason, advice.get(response.status, advice[0]))
    if not response.body.startswith(b"Published"):
        says = 'answered 200 to a publish, but not "Published", as GRIP proxies do'
        return warning(publisher.name, says, _ADVICE_GRIP[0])
    return ok(publisher.name, "takes what is published")


def ask_origin(origin: str, transport: Transport) -> Finding:
    """Ask whether there is an app at all."""
    about = f"origin {origin}"
    try:
        response = transport.send(Request("GET", f"{origin}/"))
    except DeliveryError as error:
        return wrong(about, error.reason, _when_silent(error, "origin"))
    if response.status >= 500:
        return wrong(about, f"answered {response.status}", "is the app running there?")
    return ok(about, "is there")


def ask_store(store: StoreSettings, settings: Settings) -> Finding:
    """Ask the store what is pending. A file that is not there yet is not made: not by this user."""
    about = f"store {store.kind}"
    if store.kind == "sqlite" and not Path(store.url).exists():
        return _file_to_be(about, Path(store.url).absolute())
    try:
        shelf = make_shelf(store, settings)
    except SettingsError as error:
        return wrong(about, error.mistakes[0].problem, error.mistakes[0].hint)
    try:
        shelf.oldest()
    except StoreError as error:
        return wrong(about, error.reason, "is it running, and may this user write to it?")
    finally:
        shelf.close()
    return ok(about, "answers")


def _file_to_be(about: str, path: Path) -> Finding:
    if not path.parent.is_dir():
        return wrong(about, f"there is no folder {path.parent}", "make it, for the app's user")
    return ok(about, f"{path} is made when it is used first")


def _when_silent(error: DeliveryError, setting: str) -> str:
    if error.reason.startswith(NO_ANSWER):
        return f"is a firewall between? is {setting} right? see --timeout"
    return f"is it running? is {setting} right?"


# What to do when a target answers so; 0 for any other status.
_ADVICE_FASTLY = {
    0: "is url the purge API's?",
    401: "give cdn, or FASTLY_API_TOKEN, a token of the account that has this service",
    403: "make a token with the scope purge_select for this service",
    404: "is service_id, or FASTLY_SERVICE_ID, right?",
    429: "Fastly's limit of purges is used up; wait, or purge less",
}
_ADVICE_VARNISH = {
    0: "use examples/edge/default.vcl, which needs the vmods xkey and var; is the port Varnish's?",
    403: "add this machine to acl purgers",
}
_ADVICE: Mapping[type[CDN], Mapping[int, str]] = {
    Varnish: _ADVICE_VARNISH,
    Fastly: _ADVICE_FASTLY,
    Souin: {
        0: "is url the API's, and path what the configuration has for it?",
        403: "let this machine reach the API",
        404: "enable the API (api { souin } in a Caddyfile), or set path to where it is",
    },
    Cloudflare: {
        0: "is url the API's?",
        400: "is zone_id, or CLOUDFLARE_ZONE_ID, right?",
        401: "give cdn, or CLOUDFLARE_API_TOKEN, a token that is valid",
        403: "make a token with the permission Zone, Cache Purge for this zone",
        404: "is zone_id, or CLOUDFLARE_ZONE_ID, right?",
        429: "the plan's limit of purges is used up; wait, raise throttle, or change the plan",
    },
    CloudFront: {
        0: "is url the API's?",
        400: "has the distribution a CacheTagConfig, and fewer than 3,000 invalidations under way?",
        403: "give the key's policy cloudfront:CreateInvalidation; is the clock right?",
        404: "is distribution_id right?",
    },
    Akamai: {
        0: "is host the API client's?",
        400: "is the clock right? a signature is good for 30 seconds",
        401: "give cdn the client's three tokens; is the clock right?",
        403: "give the API client the service CCU APIs, read and write",
        429: "the account's limit of tags is used up; wait, or raise throttle",
    },
    Generic: {0: "are url, method, name and ok what the edge wants?"},
}
_ADVICE_GRIP = {
    0: "grip_url is where publishers go (Pushpin's push_in_http_port, 5561), not where clients do",
    401: "set key, and iss where the proxy wants it, in grip_url",
    403: "set key, and iss where the proxy wants it, in grip_url; Fastly's needs the scope global",
}

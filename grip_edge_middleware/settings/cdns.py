"""The CDNs: as a URL, or as a dict. What is secret may come from the environment.

`FASTLY_SERVICE_ID`, `FASTLY_API_TOKEN`; `CLOUDFLARE_ZONE_ID`, `CLOUDFLARE_API_TOKEN`;
`CLOUDFRONT_DISTRIBUTION_ID`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`;
`AKAMAI_HOST`, `AKAMAI_CLIENT_TOKEN`, `AKAMAI_CLIENT_SECRET`, `AKAMAI_ACCESS_TOKEN`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, get_args
from urllib.parse import urlsplit

from grip_edge_middleware.dialects import CLOUDFRONT, Dialect
from grip_edge_middleware.settings import (
    CDN,
    Akamai,
    Cloudflare,
    CloudFront,
    Fastly,
    Generic,
    KeysIn,
    Network,
    Plan,
    Souin,
    Varnish,
    checks,
)
from grip_edge_middleware.settings.reader import Reader
from grip_edge_middleware.settings.wording import Wrong, expected, nearest, show, without_secrets
from grip_edge_middleware.settings.wording import kind as kind_of
from grip_edge_middleware.surrogate import key_headers

Options = Mapping[Any, Any]

# Where each secret is made, and what it must be allowed to do.
_ABOUT = {
    "cloudflare": "a token with the permission Zone, Cache Purge is made at "
    "https://dash.cloudflare.com/profile/api-tokens",
    "cloudfront": "an access key whose policy allows cloudfront:CreateInvalidation is made in IAM",
    "akamai": "an API client with the service CCU APIs, read and write, is made in Control Center, "
    "Identity & access",
}
_CONTROLS = ("Surrogate-Control", "CDN-Cache-Control")


def read_cdns(reader: Reader, path: str, found: object) -> tuple[CDN, ...]:
    """Return `cdn`: one, or several."""
    entries = found if isinstance(found, list | tuple) else [] if found is None else [found]
    return reader.many(path, entries, partial(_cdn, reader))


def check_headers(reader: Reader, dialects: Sequence[Dialect]) -> None:
    """Note it if edges read one header, and each in another way."""
    try:
        key_headers(dialects, budget_bytes=1)
    except ValueError as error:
        hint = "name another header for one of them, if it can be told which"
        reader.wrong("cdn", str(error), hint)
    titles = {dialect.title for dialect in dialects}
    if {"Souin", "Cache groups"} <= titles:
        reader.wrong(
            "cache_groups",
            "Souin reads Cache-Groups instead of Surrogate-Key, and not as RFC 9875 has it",
            "leave it out",
        )


def _cdn(reader: Reader, path: str, found: object) -> CDN | None:
    kind, options = _kind_and_options(found)
    return _READERS[kind](reader, f"{path}[{kind!r}]", options)


def _varnish(reader: Reader, path: str, options: Options) -> Varnish | None:
    reader.names(path, options, ("url", "soft"))
    url = _url_without_path(reader, path, options)
    soft = reader.attempt(f"{path}.soft", checks.boolean, options.get("soft", True))
    return None if url is None or soft is None else Varnish(url, soft)


def _fastly(reader: Reader, path: str, options: Options) -> Fastly | None:
    reader.names(path, options, ("service_id", "token", "url", "soft"))
    service_id = reader.credential(path, options, "service_id", "FASTLY_SERVICE_ID")
    token = reader.credential(path, options, "token", "FASTLY_API_TOKEN")
    url = _url(reader, path, options, "https://api.fastly.com")
    soft = reader.attempt(f"{path}.soft", checks.boolean, options.get("soft", True))
    if service_id is None or token is None or url is None or soft is None:
        return None
    return Fastly(service_id, token, url, soft)


def _souin(reader: Reader, path: str, options: Options) -> Souin | None:
    reader.names(path, options, ("url", "path"))
    url = _url_without_path(reader, path, options)
    api = reader.attempt(f"{path}.path", _path, options.get("path", "/souin-api/souin"))
    return None if url is None or api is None else Souin(url, api)


def _cloudflare(reader: Reader, path: str, options: Options) -> Cloudflare | None:
    reader.names(path, options, ("zone_id", "token", "url", "plan"))
    zone_id = reader.credential(path, options, "zone_id", "CLOUDFLARE_ZONE_ID")
    about = _ABOUT["cloudflare"]
    token = reader.credential(path, options, "token", "CLOUDFLARE_API_TOKEN", about)
    url = _url(reader, path, options, "https://api.cloudflare.com/client/v4")
    plan = reader.attempt(f"{path}.plan", _plan, options.get("plan", "free"))
    if zone_id is None or token is None or url is None or plan is None:
        return None
    return Cloudflare(zone_id, token, url, plan)


def _cloudfront(reader: Reader, path: str, options: Options) -> CloudFront | None:
    secrets = ("access_key_id", "secret_access_key", "session_token")
    reader.names(path, options, ("distribution_id", *secrets, "header", "url"))
    distribution = reader.credential(path, options, "distribution_id", "CLOUDFRONT_DISTRIBUTION_ID")
    about = _ABOUT["cloudfront"]
    key_id = reader.credential(path, options, "access_key_id", "AWS_ACCESS_KEY_ID", about)
    secret = reader.credential(path, options, "secret_access_key", "AWS_SECRET_ACCESS_KEY", about)
    session: str | None = ""
    if options.get("session_token") or (
        "AWS_SESSION_TOKEN" in reader.environ and not options.get("access_key_id")
    ):
        session = reader.credential(path, options, "session_token", "AWS_SESSION_TOKEN", about)
    found = options.get("header", CLOUDFRONT.header)
    header = reader.attempt(f"{path}.header", _header_name, found)
    url = _url(reader, path, options, "https://cloudfront.amazonaws.com")
    if distribution is None or key_id is None or secret is None:
        return None
    if session is None or header is None or url is None:
        return None
    return CloudFront(distribution, key_id, secret, session, header, url)


def _akamai(reader: Reader, path: str, options: Options) -> Akamai | None:
    secrets = ("client_token", "client_secret", "access_token")
    reader.names(path, options, ("host", *secrets, "network", "soft"))
    about = _ABOUT["akamai"]
    host = reader.credential(path, options, "host", "AKAMAI_HOST", about)
    if host is not None and not re.fullmatch(r"[\w.-]+(:\d+)?", host, re.ASCII):
        reader.wrong(f"{path}.host", 'expected a host such as "akab-...luna.akamaiapis.net"')
        host = None
    client_token = reader.credential(path, options, "client_token", "AKAMAI_CLIENT_TOKEN", about)
    client_secret = reader.credential(path, options, "client_secret", "AKAMAI_CLIENT_SECRET", about)
    access_token = reader.credential(path, options, "access_token", "AKAMAI_ACCESS_TOKEN", about)
    network = reader.attempt(f"{path}.network", _network, options.get("network", "production"))
    soft = reader.attempt(f"{path}.soft", checks.boolean, options.get("soft", True))
    if host is None or client_token is None or client_secret is None or access_token is None:
        return None
    if network is None or soft is None:
        return None
    return Akamai(host, client_token, client_secret, access_token, network, soft)


def _generic(reader: Reader, path: str, options: Options) -> Generic | None:
    known = ("url", "method", "headers", "keys_in", "name", "separator", "body", "batch", "ok")
    reader.names(path, options, (*known, "settle", "tags", "tags_separator", "control", "varies"))

    def read(name: str, check: Callable[[Any], Any], default: object = None) -> Any:
        return reader.attempt(f"{path}.{name}", check, options.get(name, default))

    before = len(reader.mistakes)
    keys_in = read("keys_in", _keys_in, "header")
    is_json = keys_in == "json"
    dialect = Dialect(
        "generic",
        read("tags", _header_name, "Surrogate-Key"),
        (read("tags_separator", _separator, " "),),
        budget=0,
        control=read("control", _control, "Surrogate-Control") or "",
        varies=read("varies", checks.boolean, False),
        purge_keys=read("batch", checks.count, 100),
        purge_bytes=None if is_json else 7_500,
        settle_s=read("settle", checks.seconds, 0),
    )
    generic = Generic(
        read("url", _url_with_query),
        read("name", _member if is_json else _header_name, None if is_json else "Surrogate-Key"),
        dialect,
        keys_in,
        read("method", _method, "POST" if is_json else "PURGE"),
        read("headers", _request_headers, {}),
        read("body", _json, {}),
        read("separator", _separator_or_none, None if is_json else " "),
        read("ok", _statuses, [200, 204]),
    )
    if generic.body and not is_json:
        reader.wrong(f"{path}.body", "nothing has a body where keys_in is header")
    return generic if len(reader.mistakes) == before else None


def _kind_and_options(found: object) -> tuple[str, Options]:
    """Return the kind and its options from `varnish://host:port` or `{"varnish": {...}}`."""
    if isinstance(found, Mapping) and len(found) == 1:
        [(kind, options)] = found.items()
        if kind not in _READERS:
            raise Wrong(f"unknown CDN {show(kind)}", nearest(kind, _READERS))
        if not isinstance(options, Mapping):
            # Not repeated: it may be a token.
            raise Wrong(f'expected {{"{kind}": {{...}}}}, got {kind_of(options)} in it')
        return kind, options
    if isinstance(found, str):
        split = urlsplit(found)
        if split.scheme in ("varnish", "souin") and split.hostname:
            return split.scheme, {"url": found.replace(split.scheme, "http", 1)}
        # Not .hostname, which is lower case: a service id is not.
        if split.scheme in _IDS and re.fullmatch(r"\w+://[\w.:-]*", found, re.ASCII):
            return split.scheme, {_IDS[split.scheme]: split.netloc}
    forms = '"varnish://host:port", "fastly://SERVICE_ID" or {"fastly": {...}}'
    return expected(forms, without_secrets(found), f"known are {', '.join(_READERS)}")


_READERS: Mapping[str, Callable[[Reader, str, Options], CDN | None]] = {
    "varnish": _varnish,
    "fastly": _fastly,
    "souin": _souin,
    "cloudflare": _cloudflare,
    "cloudfront": _cloudfront,
    "akamai": _akamai,
    "generic": _generic,
}
_IDS = {
    "fastly": "service_id",
    "cloudflare": "zone_id",
    "cloudfront": "distribution_id",
    "akamai": "host",
}


# --- what a value must be ---------------------------------------------------------------------


def _url(reader: Reader, path: str, options: Options, default: str | None = None) -> str | None:
    return reader.attempt(f"{path}.url", checks.http_url, options.get("url", default))


def _url_without_path(reader: Reader, path: str, options: Options) -> str | None:
    url = _url(reader, path, options)
    if url is not None and urlsplit(url).path:
        reader.wrong(f"{path}.url", "a purge goes to no path", "leave out what follows the port")
    return url


def _path(found: object) -> str:
    if isinstance(found, str) and re.fullmatch(r"(/[\w.~-]+)+", found, re.ASCII):
        return found
    return expected('a path such as "/souin-api/souin"', found)


def _plan(found: object) -> Plan:
    plan: Plan = _one_of(found, get_args(Plan))
    return plan


def _network(found: object) -> Network:
    network: Network = _one_of(found, get_args(Network))
    return network


def _keys_in(found: object) -> KeysIn:
    where: KeysIn = _one_of(found, get_args(KeysIn))
    return where


def _control(found: object) -> str | None:
    return None if found is None else str(_one_of(found, _CONTROLS))


def _one_of(found: object, known: Sequence[str]) -> Any:
    if found in known:
        return found
    return expected(" or ".join(f'"{name}"' for name in known), found, nearest(found, known))


def _header_name(found: object) -> str:
    if isinstance(found, str) and re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", found, re.ASCII):
        return found
    return expected("a header's name", found)


def _member(found: object) -> str:
    return found if isinstance(found, str) and found else expected("a name in the JSON", found)


def _method(found: object) -> str:
    if isinstance(found, str) and re.fullmatch(r"[A-Z]{1,32}", found):
        return found
    return expected('a method such as "PURGE"', found)


def _separator(found: object) -> str:
    return str(_one_of(found, (" ", ",", ", ")))


def _separator_or_none(found: object) -> str | None:
    return None if found is None else _separator(found)


def _statuses(found: object) -> frozenset[int]:
    statuses = found if isinstance(found, list | tuple) else [found]
    if not statuses or not all(type(s) is int and 200 <= s < 300 for s in statuses):
        expected("statuses from 200 to 299", found)
    return frozenset(statuses)


def _request_headers(found: object) -> Mapping[str, str]:
    # What was found is not repeated: it may be a token.
    if not isinstance(found, Mapping):
        raise Wrong(f"expected a dict of headers, got {kind_of(found)}")
    for name, value in found.items():
        _header_name(name)
        if not isinstance(value, str) or not re.fullmatch(r"[ -~]*", value):
            raise Wrong(f"{name}: expected printable ASCII")
    return dict(found)


def _json(found: object) -> Mapping[str, Any]:
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise Wrong(f"expected a dict, got {kind_of(found)}")
    return dict(found)


def _url_with_query(found: object) -> str:
    if isinstance(found, str) and re.fullmatch(r"https?://[!-~]+", found):
        split = urlsplit(found)
        if split.hostname and not split.username and not split.fragment:
            return found
    return expected("a URL such as https://host/purge", without_secrets(found))

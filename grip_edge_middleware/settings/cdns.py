"""The CDNs: as a URL, or as a dict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from grip_edge_middleware.settings import Fastly, Varnish, checks
from grip_edge_middleware.settings.reader import Reader
from grip_edge_middleware.settings.wording import Wrong, expected, nearest, show, without_secrets
from grip_edge_middleware.settings.wording import kind as kind_of


def read_cdns(reader: Reader, path: str, found: object) -> tuple[Varnish | Fastly, ...]:
    """Return `cdn`: one, or several."""
    entries = found if isinstance(found, list | tuple) else [] if found is None else [found]
    return reader.many(path, entries, partial(_cdn, reader))


def _cdn(reader: Reader, path: str, found: object) -> Varnish | Fastly | None:
    kind, options = _kind_and_options(found)
    if kind == "varnish":
        return _varnish(reader, f"{path}[{kind!r}]", options)
    return _fastly(reader, f"{path}[{kind!r}]", options)


def _varnish(reader: Reader, path: str, options: Mapping[Any, Any]) -> Varnish | None:
    reader.names(path, options, ("url", "soft"))
    url = reader.attempt(f"{path}.url", checks.http_url, options.get("url"))
    soft = reader.attempt(f"{path}.soft", checks.boolean, options.get("soft", True))
    if url is not None and urlsplit(url).path:
        reader.wrong(f"{path}.url", "a purge goes to no path", "leave out what follows the port")
    return None if url is None or soft is None else Varnish(url, soft)


def _fastly(reader: Reader, path: str, options: Mapping[Any, Any]) -> Fastly | None:
    reader.names(path, options, ("service_id", "token", "url", "soft"))
    service_id = reader.credential(path, options, "service_id", "FASTLY_SERVICE_ID")
    token = reader.credential(path, options, "token", "FASTLY_API_TOKEN")
    url = reader.attempt(
        f"{path}.url", checks.http_url, options.get("url", "https://api.fastly.com")
    )
    soft = reader.attempt(f"{path}.soft", checks.boolean, options.get("soft", True))
    if service_id is None or token is None or url is None or soft is None:
        return None
    return Fastly(service_id, token, url, soft)


def _kind_and_options(found: object) -> tuple[str, Mapping[Any, Any]]:
    """Return the kind and its options from `varnish://host:port` or `{"varnish": {...}}`."""
    if isinstance(found, Mapping) and len(found) == 1:
        [(kind, options)] = found.items()
        if kind not in ("varnish", "fastly"):
            raise Wrong(f"unknown CDN {show(kind)}", nearest(kind, ("varnish", "fastly")))
        if not isinstance(options, Mapping):
            # Not repeated: it may be a token.
            raise Wrong(f'expected {{"{kind}": {{...}}}}, got {kind_of(options)} in it')
        return kind, options
    if isinstance(found, str):
        split = urlsplit(found)
        if split.scheme == "varnish" and split.hostname:
            return "varnish", {"url": found.replace("varnish", "http", 1)}
        # Not .hostname, which is lower case: a service id is not.
        if split.scheme == "fastly" and re.fullmatch(r"fastly://\w*", found):
            return "fastly", {"service_id": split.netloc}
    forms = '"varnish://host:port", "fastly://SERVICE_ID" or {"fastly": {...}}'
    return expected(forms, without_secrets(found))

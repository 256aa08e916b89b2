"""The GRIP proxies, and the regions that they and CDNs may be in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from grip_edge_middleware.grip import Proxy
from grip_edge_middleware.settings import RegionSettings, checks
from grip_edge_middleware.settings.cdns import read_cdns
from grip_edge_middleware.settings.reader import Reader
from grip_edge_middleware.settings.wording import kind, show, without_secrets


def read_proxies(reader: Reader, found: Mapping[Any, Any], *, is_needed: bool) -> tuple[Proxy, ...]:
    """Return `grip_url`, else what the environment says."""
    if "grip_url" in found:
        return _grip_urls(reader, "grip_url", found["grip_url"])
    urls = reader.environ.get("GRIP_URL")
    if urls is None and is_needed:
        reader.wrong(
            "grip_url",
            "missing, and a topic has a hold, so nobody would get what is published",
            'set it or GRIP_URL, as in "http://localhost:5561"; None publishes nowhere',
        )
    return _grip_urls(reader, "GRIP_URL (environment)", urls)


def _grip_urls(reader: Reader, path: str, urls: object) -> tuple[Proxy, ...]:
    if isinstance(urls, str):
        urls = re.split(r"[\s,]+", urls.strip())
    return reader.many(path, urls if urls is not None else (), checks.proxy)


def keyed(reader: Reader, regions: list[RegionSettings]) -> list[RegionSettings]:
    """Return the regions; whichever proxy has no key of its own has the environment's."""
    verify_key = reader.environ.get("GRIP_VERIFY_KEY")
    if verify_key is None:
        return regions

    def read(key: str) -> list[RegionSettings]:
        return [replace(r, proxies=checks.with_verify_key(r.proxies, key)) for r in regions]

    return reader.attempt("GRIP_VERIFY_KEY (environment)", read, verify_key) or regions


def read_regions(reader: Reader, found: object) -> list[RegionSettings]:
    """Return `regions`."""
    if found is None:
        return []
    if not isinstance(found, Mapping):
        # Not repeated: it may be a URL with a key.
        hint = 'for example {"eu": {"cdn": "varnish://eu:6081", "grip_url": "http://eu:5561"}}'
        reader.wrong("regions", f"expected a dict of regions, got {kind(found)}", hint)
        return []
    # What the environment says is for what is in no region.
    inner = Reader({})
    inner.is_in_region = True
    inner.mistakes = reader.mistakes
    regions = [_region(inner, name, entry) for name, entry in found.items()]
    return [region for region in regions if region is not None]


def _region(reader: Reader, name: object, found: object) -> RegionSettings | None:
    is_url = isinstance(name, str) and "://" in name
    path = f"regions[{show(without_secrets(name) if is_url else name)}]"
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name, re.ASCII):
        reader.wrong(path, "expected a name of letters, digits, - and _")
        return None
    if not isinstance(found, Mapping):
        reader.wrong(path, f'expected {{"cdn": ..., "grip_url": ...}}, got {kind(found)}')
        return None
    reader.names(path, found, ("cdn", "grip_url"))
    if found.get("cdn") is None and found.get("grip_url") is None:
        reader.wrong(path, "has neither cdn nor grip_url", "give it one, or leave it out")
    cdns = read_cdns(reader, f"{path}.cdn", found.get("cdn"))
    return RegionSettings(name, cdns, _grip_urls(reader, f"{path}.grip_url", found.get("grip_url")))

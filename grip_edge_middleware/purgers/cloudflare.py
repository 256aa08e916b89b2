"""Cloudflare's purge API.

https://developers.cloudflare.com/api/resources/cache/methods/purge/
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

from grip_edge_middleware.dialects import CLOUDFLARE
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.purgers import PurgeBatch, spelled, split


class CloudflarePurger:
    """Purges tags of a zone, a hundred in a request. What has one is gone: it has no soft purge.

    The token needs the permission Zone, Cache Purge. `429` says when to try again, which counts
    for the whole account.
    """

    settle_s = CLOUDFLARE.settle_s

    def __init__(
        self,
        zone_id: str,
        token: str,
        *,
        url: str = "https://api.cloudflare.com/client/v4",
        region: str = "",
    ) -> None:
        self.name = f"{region} cloudflare {zone_id}".lstrip()
        self._url = f"{url}/zones/{quote(zone_id, safe='')}/purge_cache"
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def batches(self, keys: Iterable[str]) -> Iterator[PurgeBatch]:
        """Split the keys into requests of at most 100."""
        for batch in split(keys, CLOUDFLARE):
            body = json.dumps({"tags": spelled(batch, CLOUDFLARE)}).encode()
            yield PurgeBatch(batch, Request("POST", self._url, self._headers, body))

    def check(self, response: Response) -> None:
        """Accept 200 with `"success": true`. Of an error, its codes are repeated, and no text."""
        answer = _json(response.body)
        codes = _codes(answer)
        if response.status in (401, 403):
            reason = "the token is not valid, or lacks the permission Cache Purge for this zone"
            raise DeliveryError(self.name, f"{response.status}: {reason}{codes}")
        if response.status == 429:
            reason = "429: the account has made as many purges as its plan allows"
            raise DeliveryError(self.name, f"{reason}{codes}")
        if response.status != 200:
            raise DeliveryError(self.name, f"answered {response.status} to a purge{codes}")
        if answer.get("success") is not True:
            reason = 'answered 200 without "success": true'
            raise DeliveryError(self.name, f"{reason}{codes}")


def _json(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    return answer if isinstance(answer, dict) else {}


def _codes(answer: dict[str, Any]) -> str:
    errors = answer.get("errors")
    codes = [e.get("code") for e in errors if isinstance(e, dict)] if type(errors) is list else []
    said = ", ".join(str(code) for code in codes[:5] if type(code) is int)
    return f" (error {said})" if said else ""

"""How a GRIP proxy is told what to send: the control API of Pushpin and Fastly Fanout.

Pure: says which requests publish which items and which answers acknowledge that.

https://pushpin.org/docs/usage/#publishing
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jwt

from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.grip import Proxy
from grip_edge_middleware.http import Request, Response

# Pushpin answers 400 to a body of more than 1,000,000 bytes; a tenth is left for the frame.
MAX_BODY_BYTES = 900_000
# Measured: of 5,000 items in one request Pushpin lost some, of 1,000 none.
MAX_ITEMS = 1_000
# A legacy realm's token is made for each request, so it need not outlive it by much.
TOKEN_LIFETIME_S = 600


@dataclass(frozen=True, slots=True)
class PublishBatch:
    """One publish request and the items that it carries."""

    items: tuple[Mapping[str, Any], ...]
    request: Request

    @property
    def channels(self) -> tuple[str, ...]:
        """The channel of each item."""
        return tuple(item["channel"] for item in self.items)


class Publisher:
    """One GRIP proxy. Its name begins with its region's."""

    def __init__(self, proxy: Proxy, *, region: str = "") -> None:
        self.name = f"{region} grip {proxy.control_uri}".lstrip()
        self._proxy = proxy
        # Fastly wants the trailing slash, Pushpin takes it.
        self._url = f"{proxy.control_uri}/publish/"
        self._recover_url = f"{proxy.control_uri}/recover/"

    def batches(self, items: Iterable[Mapping[str, Any]], *, now: float) -> Iterator[PublishBatch]:
        """Split the items into requests, in order. `now` is Unix time, for the token."""
        batch: list[tuple[Mapping[str, Any], bytes]] = []
        size = 0
        for item in items:
            encoded = json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode()
            if batch and (size + len(encoded) > MAX_BODY_BYTES or len(batch) == MAX_ITEMS):
                yield self._batch(batch, now)
                batch, size = [], 0
            batch.append((item, encoded))
            size += len(encoded) + 1
        if batch:
            yield self._batch(batch, now)

    def recovery(self, *, now: float) -> Request:
        """Return the request that has all clients ask their next links, or their pages, anew."""
        return Request("POST", self._recover_url, self._authorization(now))

    def check_recovery(self, response: Response) -> None:
        """Accept what `check` does. A proxy that knows no such request need not be asked again."""
        if response.status in (404, 405):
            reason = f"answered {response.status} to /recover/"
            raise DeliveryError(self.name, reason, is_final=True)
        self.check(response)

    def check(self, response: Response) -> None:
        """Accept 200, which says that the proxy has the items, not that anybody received them."""
        if response.status == 200:
            return
        if response.status in (401, 403):
            reason = f"{response.status}: the key in grip_url is not accepted"
            raise DeliveryError(self.name, reason)
        # 400 and 413: understood, and refused for what is in it.
        is_final = response.status in (400, 413)
        reason = f"answered {response.status} to a publish"
        raise DeliveryError(self.name, reason, is_final=is_final)

    def _batch(self, batch: list[tuple[Mapping[str, Any], bytes]], now: float) -> PublishBatch:
        body = b'{"items":[%s]}' % b",".join(encoded for _, encoded in batch)
        headers = {"Content-Type": "application/json", **self._authorization(now)}
        request = Request("POST", self._url, headers, body)
        return PublishBatch(tuple(item for item, _ in batch), request)

    def _authorization(self, now: float) -> dict[str, str]:
        key = self._proxy.key
        if key is None:
            return {}
        if self._proxy.control_iss is None:
            token = key if isinstance(key, str) else key.decode("latin-1")
        else:
            claims = {"iss": self._proxy.control_iss, "exp": int(now) + TOKEN_LIFETIME_S}
            token = jwt.encode(claims, key, algorithm="HS256")
        return {"Authorization": f"Bearer {token}"}

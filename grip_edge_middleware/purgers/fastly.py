"""Fastly's purge API.

https://www.fastly.com/documentation/reference/api/purging/
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from grip_edge_middleware.dialects import FASTLY
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.purgers import PurgeBatch, split


class FastlyPurger:
    """Purges keys in batches, as JSON.

    Soft by default, so that the edge keeps what it can show while the app is down; that needs
    `stale-if-error`, which the middleware sends, and no `stale-while-revalidate`, which it does
    not. The token needs the scope `purge_select`.
    """

    settle_s = FASTLY.settle_s

    def __init__(
        self,
        service_id: str,
        token: str,
        *,
        url: str = "https://api.fastly.com",
        soft: bool = True,
        region: str = "",
    ) -> None:
        self.name = f"{region} fastly {service_id}".lstrip()
        # The JSON form even for one key: in the path form a key with a slash breaks.
        self._url = f"{url}/service/{quote(service_id, safe='')}/purge"
        self._headers = {
            "Fastly-Key": token,
            "Accept": "application/json",
            "Content-Type": "application/json",
        }
        if soft:
            self._headers["Fastly-Soft-Purge"] = "1"

    def batches(self, keys: Iterable[str]) -> Iterator[PurgeBatch]:
        """Split the keys into requests of at most 256."""
        for batch in split(keys, FASTLY):
            body = json.dumps({"surrogate_keys": batch}).encode()
            yield PurgeBatch(batch, Request("POST", self._url, self._headers, body))

    def check(self, response: Response) -> None:
        """Accept 200 with a JSON object, as Fastly answers with the id of each key's purge."""
        if response.status == 401:
            raise DeliveryError(self.name, "401: the token is not valid for this service")
        if response.status == 403:
            raise DeliveryError(self.name, "403: the token lacks the scope purge_select")
        if response.status != 200:
            raise DeliveryError(self.name, f"answered {response.status} to a purge")
        try:
            answer = json.loads(response.body)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise DeliveryError(self.name, "answered 200 with something else than a JSON object")

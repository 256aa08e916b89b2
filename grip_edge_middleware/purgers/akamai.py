"""Akamai's Fast Purge API, and EdgeGrid, by which it knows who asks.

https://techdocs.akamai.com/purge-cache/reference/post-invalidate-tag
"""

from __future__ import annotations

import base64
import hmac
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import urlsplit

from grip_edge_middleware.dialects import AKAMAI
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.purgers import PurgeBatch, spelled, split

# https://techdocs.akamai.com/developer/docs/edgegrid: of a longer body, its beginning is signed.
MAX_SIGNED_BYTES = 131_072


@dataclass(frozen=True, slots=True)
class Credentials:
    """An API client."""

    client_token: str = field(repr=False)
    client_secret: str = field(repr=False)
    access_token: str = field(repr=False)


class AkamaiPurger:
    """Invalidates cache tags, or with `soft=False` deletes what has them.

    Soft by default, so that the edge keeps what it can show while the app is down. The API client
    needs the service CCU APIs, read and write. `clock` tells Unix time, `nonce` returns what no
    other request had.
    """

    settle_s = AKAMAI.settle_s

    def __init__(
        self,
        host: str,
        credentials: Credentials,
        *,
        network: str = "production",
        soft: bool = True,
        region: str = "",
        scheme: str = "https",
        clock: Callable[[], float] = time.time,
        nonce: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self.name = f"{region} akamai {network}".lstrip()
        self._url = f"{scheme}://{host}/ccu/v3/{'invalidate' if soft else 'delete'}/tag/{network}"
        self._credentials = credentials
        self._clock = clock
        self._nonce = nonce

    def batches(self, keys: Iterable[str]) -> Iterator[PurgeBatch]:
        """Split the keys into requests of at most 300, each signed when it is asked for."""
        for batch in split(keys, AKAMAI):
            body = json.dumps({"objects": spelled(batch, AKAMAI)}).encode()
            request = Request("POST", self._url, {"Content-Type": "application/json"}, body)
            signature = sign(request, self._credentials, now=self._clock(), nonce=self._nonce())
            headers = {**request.headers, "Authorization": signature}
            yield PurgeBatch(batch, Request("POST", self._url, headers, body))

    def check(self, response: Response) -> None:
        """Accept 201, which says that the purge is on its way."""
        if response.status == 401:
            raise DeliveryError(self.name, "401: the API client's credentials are not valid")
        if response.status == 403:
            raise DeliveryError(self.name, "403: the API client may not use CCU APIs")
        if response.status != 201:
            raise DeliveryError(self.name, f"answered {response.status} to a purge")


def sign(
    request: Request,
    credentials: Credentials,
    *,
    now: float,
    nonce: str,
    max_bytes: int = MAX_SIGNED_BYTES,
) -> str:
    """Return what `Authorization` says.

    https://techdocs.akamai.com/developer/docs/edgegrid
    """
    timestamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H:%M:%S+0000")
    unsigned = (
        f"EG1-HMAC-SHA256 client_token={credentials.client_token};"
        f"access_token={credentials.access_token};timestamp={timestamp};nonce={nonce};"
    )
    is_signed = request.method == "POST" and request.body
    digest = sha256(request.body[:max_bytes]).digest() if is_signed else b""
    url = urlsplit(request.url)
    path = f"{url.path}?{url.query}" if url.query else url.path
    no_headers = ""
    parts = [request.method, url.scheme, url.netloc, path, no_headers, _base64(digest), unsigned]
    signature = _hmac(_hmac(credentials.client_secret, timestamp), "\t".join(parts))
    return f"{unsigned}signature={signature}"


def _hmac(key: str, text: str) -> str:
    return _base64(hmac.digest(key.encode(), text.encode(), "sha256"))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

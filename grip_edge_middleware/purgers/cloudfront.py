"""CloudFront's invalidations by tag, and AWS' Signature Version 4, by which it knows who asks.

https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/invalidation-by-tags.html
"""

from __future__ import annotations

import hmac
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import parse_qsl, quote, urlsplit

from grip_edge_middleware.dialects import CLOUDFRONT
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.purgers import PurgeBatch, spelled, split

_API = "2020-05-31"
# It is the same everywhere, and signed as if it were there.
_REGION = "us-east-1"
_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key, with a session's token if it is a temporary one."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


class CloudFrontPurger:
    """Invalidates tags of a distribution that has a CacheTagConfig.

    The key's policy must allow `cloudfront:CreateInvalidation`. Each tag is paid for as a path is.
    `clock` tells Unix time, `nonce` returns what no other request had.
    """

    settle_s = CLOUDFRONT.settle_s

    def __init__(
        self,
        distribution_id: str,
        credentials: Credentials,
        *,
        url: str = "https://cloudfront.amazonaws.com",
        region: str = "",
        clock: Callable[[], float] = time.time,
        nonce: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self.name = f"{region} cloudfront {distribution_id}".lstrip()
        self._url = f"{url}/{_API}/distribution/{quote(distribution_id, safe='')}/invalidation"
        self._credentials = credentials
        self._clock = clock
        self._nonce = nonce

    def batches(self, keys: Iterable[str]) -> Iterator[PurgeBatch]:
        """Split the keys into requests of at most 1,000, each signed when it is asked for."""
        for batch in split(keys, CLOUDFRONT):
            body = _invalidation(spelled(batch, CLOUDFRONT), self._nonce())
            request = Request("POST", self._url, {"Content-Type": "text/xml"}, body)
            headers = sign(
                request,
                self._credentials,
                service="cloudfront",
                region=_REGION,
                now=self._clock(),
            )
            yield PurgeBatch(batch, Request("POST", self._url, headers, body))

    def check(self, response: Response) -> None:
        """Accept 201. Of an error, its code is repeated, and no text."""
        if response.status == 201:
            return
        found = re.search(rb"<Code>(\w{1,64})</Code>", response.body)
        code = f" ({found[1].decode(errors='replace')})" if found else ""
        if response.status == 403:
            reason = "403: the access key is not valid, or may not cloudfront:CreateInvalidation"
            raise DeliveryError(self.name, f"{reason}{code}")
        raise DeliveryError(self.name, f"answered {response.status} to an invalidation{code}")


def _invalidation(tags: Iterable[str], reference: str) -> bytes:
    """Return the request's body. A tag has no character that XML would have escaped."""
    items = [f"<Path>#{tag}</Path>" for tag in tags]
    return (
        f'<InvalidationBatch xmlns="http://cloudfront.amazonaws.com/doc/{_API}/">'
        f"<Paths><Quantity>{len(items)}</Quantity><Items>{''.join(items)}</Items></Paths>"
        f"<CallerReference>{reference}</CallerReference></InvalidationBatch>"
    ).encode()


def sign(
    request: Request, credentials: Credentials, *, service: str, region: str, now: float
) -> dict[str, str]:
    """Return the request's headers, signed.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html
    """
    timestamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {**request.headers, "X-Amz-Date": timestamp}
    if credentials.session_token:
        headers["X-Amz-Security-Token"] = credentials.session_token
    signed = {"host": urlsplit(request.url).netloc, **{n.lower(): v for n, v in headers.items()}}
    names = ";".join(sorted(signed))
    scope = f"{timestamp[:8]}/{region}/{service}/aws4_request"
    to_sign = "\n".join(
        [_ALGORITHM, timestamp, scope, sha256(_canonical(request, signed).encode()).hexdigest()]
    )
    key = f"AWS4{credentials.secret_access_key}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    signature = _hmac(key, to_sign).hex()
    headers["Authorization"] = (
        f"{_ALGORITHM} Credential={credentials.access_key_id}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return headers


def _canonical(request: Request, signed: Mapping[str, str]) -> str:
    split_url = urlsplit(request.url)
    query = sorted(parse_qsl(split_url.query, keep_blank_values=True))
    return "\n".join(
        [
            request.method,
            quote(split_url.path, safe="/~") or "/",
            "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in query),
            *(f"{name}:{' '.join(signed[name].split())}" for name in sorted(signed)),
            "",
            ";".join(sorted(signed)),
            sha256(request.body).hexdigest(),
        ]
    )


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")

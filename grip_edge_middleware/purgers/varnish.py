"""Varnish with xkey and the VCL in `examples/edge/`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from grip_edge_middleware.dialects import VARNISH
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.purgers import PurgeBatch, split

# Set by our VCL. Without it the answer may be the app's: a Varnish with another VCL passes on
# methods that it does not know.
ACKNOWLEDGEMENT = "grip-edge-purged"


class VarnishPurger:
    """Purges by `PURGEKEYS` with the keys in `xkey-purge`.

    Soft by default: our VCL shows a soft-purged object to nobody unless the app is down.
    """

    settle_s = VARNISH.settle_s

    def __init__(self, url: str, *, soft: bool = True, region: str = "") -> None:
        self.name = f"{region} varnish {url}".lstrip()
        self._url = f"{url}/"
        self._headers = {} if soft else {"xkey-hard": "1"}

    def batches(self, keys: Iterable[str]) -> Iterator[PurgeBatch]:
        """Split the keys into header lines of at most 7,500 bytes."""
        for batch in split(keys, VARNISH):
            headers = {"xkey-purge": " ".join(batch), **self._headers}
            yield PurgeBatch(batch, Request("PURGEKEYS", self._url, headers))

    def check(self, response: Response) -> None:
        """Accept what our VCL answers to a purge, and nothing else."""
        if response.status == 403:
            reason = "403: this address is not in the VCL's acl purgers"
            raise DeliveryError(self.name, reason)
        if response.status != 200:
            raise DeliveryError(self.name, f"answered {response.status} to a purge")
        if ACKNOWLEDGEMENT not in response.headers:
            reason = "answered 200 without Grip-Edge-Purged: it does not run examples/edge's VCL"
            raise DeliveryError(self.name, reason)

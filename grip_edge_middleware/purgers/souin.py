"""Souin, the cache that Caddy and others have as a module: its API.

https://github.com/darkweak/souin#souin-api
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from grip_edge_middleware.dialects import SOUIN
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.http import Request, Response
from grip_edge_middleware.purgers import PurgeBatch, split


class SouinPurger:
    """Purges by `PURGE` with the keys in `Surrogate-Key`: what has one is gone.

    The API must be enabled, and reached by the app only: it asks nobody who they are.
    """

    settle_s = SOUIN.settle_s

    def __init__(self, url: str, *, path: str = "/souin-api/souin", region: str = "") -> None:
        self.name = f"{region} souin {url}".lstrip()
        self._url = f"{url}{path}"

    def batches(self, keys: Iterable[str]) -> Iterator[PurgeBatch]:
        """Split the keys into header lines of at most 7,500 bytes; it reads the first line only."""
        separator = SOUIN.separators[0]
        for batch in split(keys, SOUIN, separator):
            headers = {"Surrogate-Key": separator.join(batch)}
            yield PurgeBatch(batch, Request("PURGE", self._url, headers))

    def check(self, response: Response) -> None:
        """Accept 204: nothing may have been in the cache, and that is as good."""
        if response.status == 404:
            raise DeliveryError(self.name, "404: its API is not enabled, or has another path")
        if response.status != 204:
            raise DeliveryError(self.name, f"answered {response.status} to a purge")

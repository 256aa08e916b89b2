"""How each CDN is told that something changed.

A purger is pure: it says which requests purge which keys and which answers acknowledge that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from grip_edge_middleware.dialects import Dialect
from grip_edge_middleware.http import Request, Response


@dataclass(frozen=True, slots=True)
class PurgeBatch:
    """One purge request and the keys that are purged when it is acknowledged."""

    keys: tuple[str, ...]
    request: Request


class Purger(Protocol):
    """One CDN, or one tier of caches."""

    @property
    def name(self) -> str:
        """What logs and `health()` call it: its region, if any, and what it is. No secret."""

    @property
    def settle_s(self) -> float:
        """Seconds from the acknowledgement until the purge is everywhere."""

    def batches(self, keys: Iterable[str]) -> Iterator[PurgeBatch]:
        """Split the keys into requests that keep to the CDN's limits."""

    def check(self, response: Response) -> None:
        """Return if the response acknowledges the purge, else raise DeliveryError."""


def split(keys: Iterable[str], dialect: Dialect, separator: str = " ") -> Iterator[tuple[str, ...]]:
    """Split keys into as many as one request may name, in order."""
    most = dialect.purge_keys
    batch: list[str] = []
    size = 0
    for key in keys:
        length = len(dialect.spell(key))
        is_long = dialect.purge_bytes is not None and size + length > dialect.purge_bytes
        if batch and (is_long or len(batch) == most):
            yield tuple(batch)
            batch, size = [], 0
        batch.append(key)
        size += length + len(separator)
    if batch:
        yield tuple(batch)


def spelled(keys: Iterable[str], dialect: Dialect) -> list[str]:
    """Return the keys as the edge was told of them."""
    return [dialect.spell(key) for key in keys]

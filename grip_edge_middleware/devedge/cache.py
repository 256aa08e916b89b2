"""The cache: asks the app once for everybody, and shows the last good copy while the app fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from grip_edge_middleware.devedge.copies import Copies, Copy
from grip_edge_middleware.devedge.exchange import (
    Answer,
    Asked,
    Fetch,
    OriginFailed,
    plain,
    whole_body,
)
from grip_edge_middleware.devedge.happenings import Happening, Tell, nobody, said
from grip_edge_middleware.devedge.rules import (
    FAILURES,
    as_fetched,
    is_from_the_public,
    is_shareable,
    key_of,
    lifetime,
    probe,
    shown,
    trusted,
)
from grip_edge_middleware.surrogate import parse_keys

PURGE = "PURGEKEYS"
PURGERS = frozenset({"127.0.0.1", "::1"})
# What could not be shared is not waited for, for this long: Varnish's hit-for-miss.
UNSHARED_S = 120.0
MAX_UNSHARED = 10_000


class AppFailed(Exception):  # noqa: N818 - a state
    """The app cannot answer, and there is a copy that may stand in for it."""


class Cache:
    """A shared cache in front of `fetch`, purged by surrogate key.

    It speaks to the app, to the GRIP proxy and to purgers as Varnish does with `examples/edge/`.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        clock: Callable[[], float] = time.monotonic,
        tell: Tell = nobody,
    ) -> None:
        self.copies = Copies()
        self._fetch = fetch
        self._tell = tell
        self._clock = clock
        self._flights: dict[str, asyncio.Task[Answer]] = {}
        self._unshared: dict[str, float] = {}

    async def __call__(self, asked: Asked, /) -> Answer:
        """Answer from a copy, or by asking the app."""
        if asked.method == PURGE:
            return self._purged(asked)
        asked = trusted(asked)
        if (held := probe(asked)) is not None:
            return held
        if not is_shareable(asked):
            return await missed(asked, await self._ask(asked))
        return await self._shared(asked)

    def purge(self, keys: list[str], *, hard: bool = False) -> int:
        """Purge by keys; return how many (key, copy) pairs were found."""
        found = self.copies.purge(keys, self._clock(), hard=hard)
        self._tell_purge(keys, found, "hard" if hard else "soft")
        return found

    def purge_all(self) -> None:
        """Remove everything."""
        found = len(self.copies)
        self.copies.purge_all()
        self._tell_purge([], found, "all")

    def _tell_purge(self, keys: list[str], found: int, kind: str) -> None:
        purged = Happening(
            "purge", "app", "cache", kind, names=tuple(keys), count=found, detail=said(purge=kind)
        )
        self._tell(purged)

    def _purged(self, asked: Asked) -> Answer:
        # What comes through the GRIP proxy is the public, whatever address the proxy has.
        if asked.client not in PURGERS or is_from_the_public(asked):
            return plain(403, "Forbidden")
        keys = parse_keys(value for name, value in asked.headers if name == "xkey-purge")
        if not keys:
            return plain(400, "xkey-purge is missing")
        found = self.purge(keys, hard=asked.says("xkey-hard") == "1")
        return plain(200, "Purged").saying(("grip-edge-purged", str(found)))

    async def _shared(self, asked: Asked) -> Answer:
        name = key_of(asked)
        while True:
            copy = self._find(name, asked)
            if copy is not None and copy.is_fresh(self._clock()):
                copy.hits += 1
                return shown(asked, copy.answer, "HIT", copy.hits)
            flight = self._flights.get(name)
            try:
                if flight is None or self._is_unshared(name):
                    answer = await self._fly(name, asked, has_copy=copy is not None)
                    return await missed(asked, answer)
                await self._landed(flight)
            except AppFailed:
                stale = self._find(name, asked)
                if stale is not None:
                    return shown(asked, stale.answer, "STALE", stale.hits)

    async def _landed(self, flight: asyncio.Task[Answer]) -> None:
        """Wait for somebody else's request. Then look again: the answer may not be for us."""
        await asyncio.shield(flight)

    async def _fly(self, name: str, asked: Asked, *, has_copy: bool) -> Answer:
        """Ask the app, for all who want the same: also if who asked first goes away."""
        refill = self._refill(name, asked, has_copy=has_copy)
        if self._is_unshared(name):
            return await refill
        flight = self._flights[name] = asyncio.create_task(refill)
        flight.add_done_callback(lambda done: self._land(name, done))
        return await asyncio.shield(flight)

    def _land(self, name: str, flight: asyncio.Task[Answer]) -> None:
        del self._flights[name]
        if not flight.cancelled():
            flight.exception()  # or else it counts as unheard, if nobody waits any more

    async def _refill(self, name: str, asked: Asked, *, has_copy: bool) -> Answer:
        answer = await self._ask(as_fetched(asked))
        if has_copy and answer.status in FAILURES:
            raise AppFailed
        life = lifetime(answer)
        if life is None:
            self._note_unshared(name)
            return answer
        self._unshared.pop(name, None)
        copy = self.copies.begin(name, asked, answer, life, self._clock())
        try:
            self.copies.complete(name, copy, await whole_body(answer))
        except OriginFailed as failure:
            self.copies.remove(name, copy)
            return failed(failure)
        return copy.answer

    async def _ask(self, asked: Asked) -> Answer:
        try:
            return await self._fetch(asked)
        except OriginFailed as failure:
            return failed(failure)

    def _find(self, name: str, asked: Asked) -> Copy | None:
        return self.copies.find(name, asked, self._clock())

    def _note_unshared(self, name: str) -> None:
        self._unshared[name] = self._clock() + UNSHARED_S
        while len(self._unshared) > MAX_UNSHARED:
            del self._unshared[next(iter(self._unshared))]

    def _is_unshared(self, name: str) -> bool:
        return self._clock() < self._unshared.get(name, 0.0)


async def missed(asked: Asked, answer: Answer) -> Answer:
    """Return what the asker gets of an answer that was just fetched."""
    result = shown(asked, answer, "MISS", 0)
    if result.body is not answer.body:
        await whole_body(answer)  # nobody else reads it, and the app waits until somebody does
    return result


def failed(failure: OriginFailed) -> Answer:
    """Return what is shown when nobody answers."""
    return plain(503, f"the app does not answer: {failure}")

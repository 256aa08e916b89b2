"""An application behind the edge and a cache in front of it: does a write purge what it changed?

    with site(auto_tags=True) as blog:
        blog.ask, blog.pages = stranger(blog.edge.wsgi(app)), ["/", "/posts/1"]
        with blog.write("comment"):
            client.post("/posts/1/comments", data=...)
        print(blog.report())

Every page is in the cache before a write. After it each is asked again, past the cache: those that
answer otherwise have changed, and must have left the cache.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlglot
from sqlglot import exp
from werkzeug.test import Client

from grip_edge_middleware import GripEdge
from tests.recording import DEADLINE_S, Answer, Recorded, RecordingServer, acknowledge

# RFC 9110, section 15.1, as far as the applications answer so.
KEPT_UNASKED = (200, 301, 404, 410)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a page answers. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def keys(self) -> list[str]:
        return self.headers.get("surrogate-key", "").split()

    @property
    def lifetime_s(self) -> int:
        """Seconds for which a CDN keeps it: Surrogate-Control comes before Cache-Control."""
        surrogate, common = (
            self.headers.get(name, "") for name in ("surrogate-control", "cache-control")
        )
        if "set-cookie" in self.headers or re.search("no-store|private", surrogate + common):
            return 0
        for name, said in (("max-age", surrogate), ("s-maxage", common), ("max-age", common)):
            if found := re.search(rf"\b{name}=(\d+)", said):
                return int(found[1])
        return 60 if self.status in KEPT_UNASKED else 0

    @property
    def shown(self) -> tuple[int, str, bytes]:
        """All by which a visitor tells two answers apart."""
        return self.status, self.headers.get("location", ""), self.body


Ask = Callable[[str], Reply]
"""Gets a page as a stranger does."""


def stranger(app: Any) -> Ask:
    """Return who asks a WSGI app, without cookies."""
    client = Client(app, use_cookies=False)

    def ask(url: str) -> Reply:
        response = client.get(url)
        headers = {name.lower(): value for name, value in response.headers}
        return Reply(response.status_code, headers, response.get_data())

    return ask


class Cache:
    """Keeps for everybody what it is allowed to, until a key of it is purged."""

    def __init__(self) -> None:
        self.kept: dict[str, Reply] = {}

    def offer(self, url: str, reply: Reply) -> None:
        if reply.lifetime_s:
            self.kept[url] = reply

    def answer(self, request: Recorded) -> Answer:
        """Purge, as a CDN that is told over HTTP."""
        purged = set(request.keys)
        self.kept = {url: reply for url, reply in self.kept.items() if not purged & {*reply.keys}}
        return acknowledge(request)


@dataclass(frozen=True, slots=True)
class Write:
    """What one write did to the pages that were in the cache."""

    name: str
    pages: int
    changed: list[str]
    purged: list[str]

    @property
    def stale(self) -> list[str]:
        return sorted({*self.changed} - {*self.purged})

    @property
    def over_purged(self) -> list[str]:
        return sorted({*self.purged} - {*self.changed})


@dataclass(frozen=True, slots=True)
class Report:
    """What became of an application's pages, write by write."""

    writes: list[Write]
    untagged: dict[str, list[str]]
    """Pages in the cache, and the tables that they read and have no key of."""
    never_kept: list[str]
    """Pages that were not in the cache before any write."""
    logged: list[str]
    """What the edge said to operators."""

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Report:
        """Return what `dataclasses.asdict` made plain."""
        return cls(**{**found, "writes": [Write(**write) for write in found["writes"]]})

    @property
    def pages(self) -> int:
        return sum(write.pages for write in self.writes)

    @property
    def changed(self) -> int:
        return sum(len(write.changed) for write in self.writes)

    @property
    def purged(self) -> int:
        return sum(len(write.purged) for write in self.writes)

    @property
    def over_purged(self) -> int:
        return sum(len(write.over_purged) for write in self.writes)

    @property
    def hit_rate(self) -> float:
        """That of visitors who see each page once after each write."""
        return 1 - self.purged / self.pages

    @property
    def best_hit_rate(self) -> float:
        """That which they had if exactly the changed pages were purged."""
        return 1 - self.changed / self.pages


class Site:
    """An application, its edge, its cache, and its visitors.

    An app sets `ask` and `pages`, and calls `note_statement` for each SQL statement that it runs.
    `normalise` takes out of a body what differs each time by itself.
    """

    def __init__(self, edge: GripEdge, cache: Cache) -> None:
        self.edge = edge
        self.ask: Ask = lambda url: Reply(500, {}, b"")
        self.pages: list[str] = []
        self.normalise: Callable[[bytes], bytes] = bytes
        self._cache = cache
        self._statements: list[str] = []
        self._writes: list[Write] = []
        self._untagged: dict[str, list[str]] = {}
        self._ever_kept: set[str] = set()

    def note_statement(self, statement: str) -> None:
        self._statements.append(statement)

    @contextmanager
    def write(self, name: str) -> Iterator[None]:
        """Have all pages in the cache, and compare them with what they are after the block."""
        self._flush()
        self._visit()
        # A view that writes when it is read is not a part of this write.
        self._flush()
        before = self._cache.kept
        yield
        self._flush()
        after = self._cache.kept
        fresh = {url: self._get(url) for url in before}
        changed = [url for url in before if fresh[url].shown != before[url].shown]
        purged = [url for url in before if url not in after]
        self._writes.append(Write(name, len(before), changed, purged))
        for url in purged:
            self._cache.offer(url, fresh[url])

    def report(self) -> Report:
        """Return what came of it."""
        never_kept = [url for url in self.pages if url not in self._ever_kept]
        return Report(self._writes, self._untagged, never_kept, _logged.messages)

    def _flush(self) -> None:
        assert self.edge.flush(DEADLINE_S)

    def _visit(self) -> None:
        """Have all pages in the cache."""
        for url in self.pages:
            if url not in self._cache.kept:
                self._cache.offer(url, self._get(url))
        self._ever_kept |= {*self._cache.kept}

    def _get(self, url: str) -> Reply:
        self._statements.clear()
        reply = self.ask(url)
        if reply.lifetime_s:
            self._check_keys(url, " ".join(reply.keys))
        return Reply(reply.status, reply.headers, self.normalise(reply.body))

    def _check_keys(self, url: str, keys: str) -> None:
        read = {table for said in self._statements for table in tables_read(said)}
        missing = [table for table in sorted(read) if not re.search(rf"%row:{table}[.:]", keys)]
        if missing:
            self._untagged[url] = missing


@lru_cache(maxsize=10_000)
def tables_read(statement: str) -> frozenset[str]:
    """Return the tables that a SELECT names, as another reader of SQL understands it."""
    # Its placeholders are of no dialect of SQLite's.
    parsed = sqlglot.parse_one(statement.replace("%s", "?"), read="sqlite")
    if not isinstance(parsed, exp.Query):
        return frozenset()
    defined = {cte.alias_or_name for cte in parsed.find_all(exp.CTE)}
    return frozenset(t.name.lower() for t in parsed.find_all(exp.Table) if t.name) - defined


@contextmanager
def site(*, auto_tags: object) -> Iterator[Site]:
    """Open a site whose settings say nothing but that everything is tagged by itself."""
    cache = Cache()
    with RecordingServer() as cdn:
        cdn.respond = cache.answer
        pages = {"routes": ["/", "/<path:path>"], "auto_tags": auto_tags}
        settings = {
            "cdn": cdn.url.replace("http", "varnish"),
            # So that a flush delivers all that there is to deliver.
            "throttle": 0,
            "confirm_after": 0,
            "topics": {"pages": pages},
        }
        with closing(GripEdge(settings=settings, environ={})) as edge:
            yield Site(edge, cache)


class _Logged(logging.Handler):
    """What the edge says to operators."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))


_logged = _Logged()
logging.getLogger("grip_edge_middleware").addHandler(_logged)


def table(name: str, reports: Mapping[str, Report]) -> str:
    """Return the reports on one application, side by side."""
    first, *_ = reports.values()
    titles = ["write", "pages", "changed"]
    titles += [f"{what}, {by}" for by in reports for what in ("purged", "over")]
    rows: list[list[object]] = [[*titles]]
    for writes in zip(*(report.writes for report in reports.values()), strict=True):
        counts = [n for w in writes for n in (len(w.purged), len(w.over_purged))]
        rows.append([writes[0].name, writes[0].pages, len(writes[0].changed), *counts])
    totals = [n for r in reports.values() for n in (r.purged, r.over_purged)]
    rows.append(["total", first.pages, first.changed, *totals])
    rates = "".join(f"{r.hit_rate:.1%} with {by}, " for by, r in reports.items())
    return "\n".join(
        (
            f"\n{name}:",
            *_aligned(rows),
            f"hit rate: {rates}{first.best_hit_rate:.1%} if exactly the changed pages were purged",
            f"not cached: {', '.join(first.never_kept) or 'none'}",
        )
    )


def _aligned(rows: Iterable[Iterable[object]]) -> Iterator[str]:
    texts = [[str(cell) for cell in row] for row in rows]
    width, *widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for first, *rest in texts:
        cells = (f"{cell:>{wide}}" for cell, wide in zip(rest, widths, strict=True))
        yield f"  {first:<{width}}  {'  '.join(cells)}"

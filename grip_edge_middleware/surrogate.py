"""The headers with a response's surrogate keys: which keys fit on it.

A key that is missing from a cached response makes that response unpurgeable, so nothing is ever
truncated: keys are named together, or the response is not cached. Where several edges read
different headers, each of these names the same keys.

Pure: no sockets, no clock, no framework.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from grip_edge_middleware.dialects import CACHE_GROUPS, Dialect, unescape_tag
from grip_edge_middleware.types import Headers

# Varnish's xkey splits at commas as well. In ASCII only: to Python, bytes of UTF-8 that are read as
# latin-1 may be white space too.
_BETWEEN_KEYS = re.compile(r"[\s,]+", re.ASCII)


def parse_keys(values: Iterable[str]) -> list[str]:
    """Return the keys of the header's lines."""
    return [key for value in values for key in _BETWEEN_KEYS.split(value) if key]


@dataclass(frozen=True, slots=True)
class KeyHeader:
    """One header with keys, for all edges that read it: the strictest of them decides."""

    name: str
    budget_bytes: int
    separator: str = " "
    max_keys: int | None = None
    max_key_bytes: int | None = None
    spell: Callable[[str], str] | None = None
    """How a key stands there; None if as it is."""

    def build(self, keys: Sequence[str]) -> str | None:
        """Return the value, or None if the keys do not fit."""
        if self.max_keys is not None and len(keys) > self.max_keys:
            return None
        if self.spell is not None:
            keys = [self.spell(key) for key in keys]
        value = self.separator.join(keys)
        size, limit = len(value), self.max_key_bytes
        if size > self.budget_bytes:
            return None
        has_too_long = limit is not None and size > limit and any(len(key) > limit for key in keys)
        return None if has_too_long else value

    def parse(self, values: Iterable[str]) -> list[str]:
        """Return the keys of its lines: those of the app, or of an edge nearer to the app."""
        keys = parse_keys(values)
        return keys if self.spell is None else [unescape_tag(key.strip('"')) for key in keys]


def key_headers(dialects: Iterable[Dialect], *, budget_bytes: int) -> tuple[KeyHeader, ...]:
    """Return the headers that these edges read. ValueError if two want one to say different things.

    Without an edge it is `Surrogate-Key`.
    """
    readers: dict[str, list[Dialect]] = {}
    for dialect in dict.fromkeys(dialects):
        readers.setdefault(dialect.header.lower(), []).append(dialect)
    headers = tuple(_header(reading, budget_bytes) for reading in readers.values())
    # Groups are for caches that nobody names.
    has_edge = bool(readers.keys() - {CACHE_GROUPS.header.lower()})
    return headers if has_edge else (KeyHeader("Surrogate-Key", budget_bytes), *headers)


def _header(readers: Sequence[Dialect], budget_bytes: int) -> KeyHeader:
    first = readers[0]
    separators = [s for s in first.separators if all(s in reader.separators for reader in readers)]
    spellings = {(r.is_exact or r.max_key_bytes, r.is_quoted) for r in readers}
    if not separators or len(spellings) > 1:
        names = " and ".join(reader.title for reader in readers)
        raise ValueError(f"{names} read {first.header}, and each in another way")
    return KeyHeader(
        first.header,
        min([budget_bytes, *(r.max_bytes for r in readers if r.max_bytes is not None)]),
        separators[0],
        min((r.max_keys for r in readers if r.max_keys is not None), default=None),
        min((r.max_key_bytes for r in readers if r.max_key_bytes), default=None),
        None if first.is_exact else first.spell,
    )


class Keys(NamedTuple):
    """The keys of a response, and the lines that name them."""

    names: list[str]
    headers: Headers

    @property
    def longest(self) -> int:
        """The bytes of the longest line."""
        return max([len(value) for _, value in self.headers])


def build_keys(
    keys: Iterable[str],
    any_key: Callable[[str], str | None],
    headers: Sequence[KeyHeader],
) -> Keys | None:
    """Return the keys that are named, and their headers, or None if the keys do not fit.

    `any_key` gives the key that stands for all of a key's kind, or None; it is asked only when the
    keys would not fit otherwise, and the most numerous kind goes first. The order is kept.
    """
    own = list(dict.fromkeys(keys))
    if (lines := _lines(own, headers)) is not None:
        return Keys(own, lines)
    kinds = {key: any_key(key) for key in own}
    merged: set[str | None] = set()
    for kind, _ in Counter(filter(None, kinds.values())).most_common():
        merged.add(kind)
        named = list(dict.fromkeys(_names(own, kinds, merged)))
        if (lines := _lines(named, headers)) is not None:
            return Keys(named, lines)
    return None


def _names(
    own: Iterable[str], kinds: Mapping[str, str | None], merged: set[str | None]
) -> Iterable[str]:
    return (kinds[key] or key if kinds[key] in merged else key for key in own)


def _lines(keys: Sequence[str], headers: Sequence[KeyHeader]) -> Headers | None:
    lines: Headers = []
    for header in headers:
        value = header.build(keys)
        if value is None:
            return None
        lines.append((header.name, value))
    return lines

"""The Surrogate-Key header: which keys fit on a response.

A key that is missing from a cached response makes that response unpurgeable, so nothing is ever
truncated: keys are named together, or the response is not cached.

Pure: no sockets, no clock, no framework.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable

# Varnish's xkey splits at commas as well. In ASCII only: to Python, bytes of UTF-8 that are read as
# latin-1 may be white space too.
_BETWEEN_KEYS = re.compile(r"[\s,]+", re.ASCII)


def parse_keys(values: Iterable[str]) -> list[str]:
    """Return the keys of the header's lines."""
    return [key for value in values for key in _BETWEEN_KEYS.split(value) if key]


def build_keys(
    keys: Iterable[str], any_key: Callable[[str], str | None], *, budget_bytes: int
) -> str | None:
    """Return the header's value, or None if the keys do not fit.

    `any_key` gives the key that stands for all of a key's kind, or None; it is asked only when the
    keys would not fit otherwise, and the most numerous kind goes first. The order is kept.
    """
    own = list(dict.fromkeys(keys))
    value = " ".join(own)
    if len(value) <= budget_bytes:
        return value
    kinds = {key: any_key(key) for key in own}
    merged: set[str | None] = set()
    for kind, _ in Counter(filter(None, kinds.values())).most_common():
        merged.add(kind)
        named = (kinds[key] or key if kinds[key] in merged else key for key in own)
        value = " ".join(dict.fromkeys(named))
        if len(value) <= budget_bytes:
            return value
    return None

"""The Surrogate-Key header: which keys fit on a response.

A key that is missing from a cached response makes that response unpurgeable, so nothing is ever
truncated: keys are named together, or the response is not cached.

Pure: no sockets, no clock, no framework.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable


def parse_keys(values: Iterable[str]) -> list[str]:
    """Return the keys of the header's lines. Varnish's xkey splits at commas as well."""
    return [key for value in values for key in value.replace(",", " ").split()]


def build_keys(
    keys: Iterable[str], any_key: Callable[[str], str | None], *, budget_bytes: int
) -> str | None:
    """Return the header's value, or None if the keys do not fit.

    `any_key` gives the key that stands for all of a key's kind, or None; it is asked only when the
    keys would not fit otherwise, and the most numerous kind goes first. The order is kept.
    """
    value = " ".join(dict.fromkeys(keys))
    if len(value) <= budget_bytes:
        return value
    kinds = {key: any_key(key) for key in value.split()}
    for kind, _ in Counter(filter(None, kinds.values())).most_common():
        named = (kind if kinds.get(key) == kind else key for key in value.split())
        value = " ".join(dict.fromkeys(named))
        if len(value) <= budget_bytes:
            return value
    return None

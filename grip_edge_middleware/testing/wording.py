"""How a failed assertion says what there was instead."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from grip_edge_middleware.testing.sent import Record

# Of a longer record the last are what the test is about.
MAX_LISTED = 30


def nearest(wanted: str, names: Iterable[str]) -> str:
    """Return what was probably meant, as the end of a sentence; empty if nothing is near."""
    found = get_close_matches(wanted, dict.fromkeys(names), n=1, cutoff=0.6)
    return f' (did you mean "{found[0]}"?)' if found else ""


def listing(record: Record) -> str:
    """Return what was sent, in order, what was not, and what the edge said of it."""
    return "\n".join([*_lines(record)])


def _lines(record: Record) -> Iterator[str]:
    sent = record.sent
    yield "sent so far, in order:" if sent else "sent so far: nothing"
    skipped = max(0, len(sent) - MAX_LISTED)
    if skipped:
        yield f"  ... {skipped} more before these"
    for number, each in enumerate(sent[skipped:], skipped + 1):
        refused = f", refused: {each.refusal}" if each.refusal else ""
        yield f"  {number}. {each}  [{each.target}{refused}]"
    if pending := record.pending():
        yield f"still pending: {', '.join(pending)}; settle() sends it"
    if record.logged:
        yield "the edge logged:"
        yield from (f"  {line}" for line in record.logged)


@contextmanager
def logged_into(lines: list[str]) -> Iterator[None]:
    """Keep what the edge logs as a warning, or worse, while a block lasts."""
    logger = logging.getLogger("grip_edge_middleware")
    handler = _Lines(lines)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())

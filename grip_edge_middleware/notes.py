"""What the running request says about its response, until the headers leave.

A face makes the notes; `edge.tag` in the view, and the sources when the view reads rows, find them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextvars import ContextVar

from grip_edge_middleware.log_fields import log_fields
from grip_edge_middleware.rows import Params, Reading, Scopes
from grip_edge_middleware.sql import read_statement

logger = logging.getLogger(__name__)


class Notes:
    """What is known of one response besides what the settings say.

    `route` is its path's pattern. `scopes` is how lists are told apart, if the rows that are read
    are keys too; else None. Made for each request of a configured route, so most are defaults of
    the class.
    """

    declines_hold = False
    is_closed = False
    """Whether the headers have left, so that no key can be added."""
    is_over = False
    """Whether the body has left as well, so that nothing that is read now is in it."""
    is_unclear = False
    """Whether something was read of which nobody knows what it is."""

    # What the policy decided, and why:
    named: Sequence[str] = ()
    """The surrogate keys, as far as they fit."""
    key_bytes = 0
    """The bytes of the longest header that names them."""
    is_merged = False
    """Whether some of them are those of a whole kind, since there was no room for each."""
    kept_out_by = ""
    """Why the response is kept out of caches; empty if it is not."""
    unheld_by = ""
    """Why it is not held; empty if it is."""

    def __init__(self, route: str = "", scopes: Scopes | None = None) -> None:
        self.route = route
        self.scopes = scopes
        self.keys: list[str] = []
        """The surrogate keys that the view gave."""
        self.rows: dict[str, None] = {}
        """The keys of the rows and tables that were read, in order."""

    def note_reads(self, statement: str, params: Params, primary_keys: Mapping[str, str]) -> None:
        """Note what an SQL statement read; see `rows.keys_read`."""
        if self.scopes is not None and not self.is_over:
            self.note(Reading.of(read_statement(statement), primary_keys, self.scopes), params)

    def note(self, reading: Reading, params: Params) -> None:
        """Note what a statement read whose text is read already."""
        if self.is_over:
            return
        if self.is_closed:
            if reading.tables or not reading.is_understood:
                _warn_of_late_read(self.route)
        elif not reading.is_understood:
            self.is_unclear = True
        else:
            for key in reading.keys(params):
                self.rows[key] = None


current_notes: ContextVar[Notes | None] = ContextVar("grip_edge_notes", default=None)
"""Those of the response that the running view makes."""


def leave_behind() -> None:
    """Forget the notes of a response that was made in this context before, and has left."""
    notes = current_notes.get()
    if notes is not None and notes.is_closed:
        current_notes.set(None)


# The routes of which it was said. They are as many as the settings have.
_read_late: set[str] = set()


def _warn_of_late_read(route: str) -> None:
    if route in _read_late:
        return
    _read_late.add(route)
    logger.warning(
        "%s: the body reads from the database after its headers have left, so the page has no key "
        "for what it read then, and a change of that does not purge it; read before the body "
        "begins, or tag the page with edge.tag",
        route,
        extra=log_fields(route=route),
    )

"""Wraps an application in its own environment, and counts what becomes of its responses."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from grip_edge_middleware import GripEdge
from grip_edge_middleware.notes import Notes
from grip_edge_middleware.policy import Plan, RequestFacts
from grip_edge_middleware.testing.sent import RecordingLanes
from grip_edge_middleware.types import Headers

# Where everything is sent, if it were: the lanes keep it.
TARGETS = {"cdn": "varnish://127.0.0.1:1", "grip_url": "http://127.0.0.1:1"}

_stack = ExitStack()
_lanes: list[RecordingLanes] = []
_responses: Counter[str] = Counter()
_logged: list[str] = []


def begin(path: Path) -> None:
    """Wrap the application of which this is the file."""
    logging.getLogger("grip_edge_middleware").addHandler(_Logged())
    _count_responses()
    spec = spec_from_file_location("foreign_app", path)
    assert spec is not None
    assert spec.loader is not None
    app: Any = module_from_spec(spec)
    spec.loader.exec_module(app)
    app.wrap(Wrapping())


def end() -> dict[str, Any]:
    """Return what became of the responses, and what would have been sent."""
    _stack.close()
    sent = Counter(type(each).__name__ for lanes in _lanes for each in lanes.sent)
    return {"responses": _responses, "sent": sent, "logged": _logged}


class Wrapping:
    """What an application's file is given."""

    targets = TARGETS

    def edge(self, settings: Mapping[str, Any]) -> GripEdge:
        """Return an edge that sends nothing."""
        return self.record(GripEdge(settings={**TARGETS, **settings}, environ={}))

    def record(self, edge: GripEdge) -> GripEdge:
        """Keep what an edge would send. Its dispatcher's thread works as ever."""
        lanes = RecordingLanes(edge)
        _lanes.append(lanes)
        _stack.enter_context(edge.sending_through(lanes))
        return edge


def _count_responses() -> None:
    """Look at each response that a face hands to the policy, and at what it makes of it."""
    apply = Plan.apply

    def counting(
        plan: Plan, request: RequestFacts, status: int, headers: Headers, notes: Notes
    ) -> Headers:
        before = [*headers]
        applied = apply(plan, request, status, headers, notes)
        names = {name.lower() for name, _ in applied}
        _responses["seen"] += 1
        _responses["changed"] += applied != before
        _responses["tagged"] += "surrogate-key" in names
        _responses["by rows"] += any(key.startswith("%row:") for key in notes.rows)
        _responses["held"] += "grip-hold" in names
        _responses["kept out"] += bool(notes.kept_out_by)
        return applied

    Plan.apply = counting  # type: ignore[method-assign, assignment]


class _Logged(logging.Handler):
    """What the edge says to operators."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        _logged.append(self.format(record))

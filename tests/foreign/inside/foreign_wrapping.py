"""Wraps an application in its own environment, and counts what becomes of its responses."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, TypeVar

from grip_edge_middleware import GripEdge
from grip_edge_middleware.notes import Notes
from grip_edge_middleware.policy import Plan, RequestFacts
from grip_edge_middleware.testing.sent import RecordingLanes

# Where everything is sent, if it were: the lanes keep it.
TARGETS = {"cdn": "varnish://127.0.0.1:1", "grip_url": "http://127.0.0.1:1"}

Line = TypeVar("Line", tuple[str, str], tuple[bytes, bytes])
Apply = Callable[[Plan, RequestFacts, int, list[Line], Notes], list[Line]]

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
    Plan.apply = _counting(Plan.apply)  # type: ignore[method-assign, assignment]
    Plan.apply_raw = _counting(Plan.apply_raw)  # type: ignore[method-assign, assignment]


def _counting(apply: Apply[Line]) -> Apply[Line]:
    def counting(
        plan: Plan, request: RequestFacts, status: int, headers: list[Line], notes: Notes
    ) -> list[Line]:
        before = [*headers]
        applied = apply(plan, request, status, headers, notes)
        names = {_text(name).lower() for name, _ in applied}
        _responses["seen"] += 1
        _responses["changed"] += applied != before
        _responses["tagged"] += "surrogate-key" in names
        _responses["by rows"] += any(key.startswith("%row:") for key in notes.rows)
        _responses["held"] += "grip-hold" in names
        _responses["kept out"] += bool(notes.kept_out_by)
        return applied

    return counting


def _text(name: str | bytes) -> str:
    return name if isinstance(name, str) else name.decode("latin-1")


class _Logged(logging.Handler):
    """What the edge says to operators."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        _logged.append(self.format(record))

"""OpenTelemetry spans from commit to publish, made from the journal.

Each delivery is a trace: from the commit of its oldest change to the last acknowledgement, with a
span for each purge, render and publish. Nothing is done on the app's threads.
"""

from __future__ import annotations

from collections import OrderedDict

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider

from grip_edge_middleware.journal import Entry

NAME = "grip_edge_middleware"
# Deliveries that are not over, or that a late answer is still put with.
MAX_KEPT = 100
# Spans of one delivery: while a target is down it is asked again and again.
MAX_SPANS = 1_000

_Key = tuple[int, int]
_KINDS = {"purge": SpanKind.CLIENT, "publish": SpanKind.CLIENT, "recover": SpanKind.CLIENT}


class Tracing:
    """Makes a trace of each delivery. `provider` is the process's own if none is given."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer(NAME, tracer_provider=provider)
        self._begun: OrderedDict[_Key, list[Entry]] = OrderedDict()
        self._ended: OrderedDict[_Key, Context] = OrderedDict()

    def read(self, entry: Entry) -> None:
        """Take one entry; the last of a delivery makes its trace."""
        key = entry.pid, entry.delivery
        if not entry.delivery:
            return
        if (context := self._ended.get(key)) is not None:
            self._add(entry, context)
            return
        entries = self._begun.setdefault(key, [])
        if len(entries) < MAX_SPANS:
            entries.append(entry)
        if entry.kind == "delivered" and not entry.left:
            self._end(key)
        elif len(self._begun) > MAX_KEPT:
            self._end(next(iter(self._begun)))

    def _end(self, key: _Key) -> None:
        entries = self._begun.pop(key)
        done = [entry for entry in entries if entry.took_s is not None]
        if not done:
            return
        is_change = any(entry.kind == "change" for entry in entries)
        attributes = {
            "grip_edge.topics": sum(e.count for e in entries if e.kind == "change"),
            "grip_edge.delivered": sum(e.count for e in entries if e.kind == "delivered"),
        }
        root = self._tracer.start_span(
            "grip_edge.deliver" if is_change else "grip_edge.repeat",
            context=Context(),
            attributes=attributes,
            start_time=_ns(min(map(_began, entries))),
        )
        context = trace.set_span_in_context(root, Context())
        for entry in done:
            self._add(entry, context)
        root.end(_ns(max(entry.at for entry in done)))
        self._ended[key] = context
        while len(self._ended) > MAX_KEPT:
            self._ended.popitem(last=False)

    def _add(self, entry: Entry, context: Context) -> None:
        if entry.took_s is None:
            return
        attributes: dict[str, str | int | float | list[str]] = {
            "grip_edge.target": entry.target,
            "grip_edge.keys" if entry.kind == "purge" else "grip_edge.topics": entry.count,
            "grip_edge.names": list(entry.names),
        }
        if entry.behind_s is not None:
            attributes["grip_edge.behind_s"] = entry.behind_s
        span = self._tracer.start_span(
            f"grip_edge.{entry.of or entry.kind}",
            context=context,
            kind=_KINDS.get(entry.of or entry.kind, SpanKind.INTERNAL),
            attributes=attributes,
            start_time=_ns(entry.at - entry.took_s),
        )
        if entry.error:
            span.set_status(Status(StatusCode.ERROR, entry.error))
        span.end(_ns(entry.at))


def _began(entry: Entry) -> float:
    return entry.at - max(entry.behind_s or 0.0, entry.took_s or 0.0)


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)

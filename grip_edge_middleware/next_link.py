"""How a held client that may have missed something catches up: the answer to GRIP's next link.

A cached page can be older than the subscription that it opens. So it says which version of each
topic it shows (`prev-id`), and where the GRIP proxy asks for what came since. The faces answer that
themselves: `Grip-Last` names the topics, and what the client has of each.

Pure: no sockets, no clock, no framework. https://pushpin.org/docs/protocols/grip/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from grip_edge_middleware.grip import NEXT_LINK, parse_grip_last, shown_by
from grip_edge_middleware.http import Response
from grip_edge_middleware.policy import Notes, Plan, Policy, RequestFacts, Shown
from grip_edge_middleware.types import Headers

_FOR_CACHES = frozenset(
    {"cache-control", "surrogate-control", "cdn-cache-control", "surrogate-key", "vary"}
)
_GONE = frozenset({404, 410})


@dataclass(frozen=True, slots=True)
class NextLink:
    """One request for what came since."""

    plan: Plan
    seen: Mapping[str, str]
    """The version that the client has, by topic."""

    @classmethod
    def read(cls, policy: Policy, path: str, grip_last: str) -> NextLink | None:
        """Read a request of a next link; None if it is none, or names no topic that recovers."""
        if not path.startswith(NEXT_LINK):
            return None
        seen = parse_grip_last(grip_last)
        plan = policy.plan_of(seen)
        return None if plan is None else cls(plan, seen)

    @property
    def routes(self) -> list[tuple[str, str | None]]:
        """What to render: the path that shows each topic, and the media type to ask for."""
        return [
            (shown.route.pattern.fill(dict(shown.topic.params)) or "", shown.route.accept)
            for shown in self.plan.shown
        ]

    def as_page(self, request: RequestFacts) -> RequestFacts:
        """Return the proxy's request as the page's own would be: it asks for nothing special."""
        accepts = [accept for _, accept in self.routes if accept]
        return replace(request, method="GET", accept=", ".join(accepts))

    def answer(
        self, request: RequestFacts, snapshots: Sequence[Response], notes: Notes
    ) -> tuple[int, Headers, bytes]:
        """Return status, headers and body, given what each of the `routes` answers.

        `notes` is what their views said. What the app says to caches holds for this answer too. A
        client that is up to date gets an empty body and stays held. The stream of what is gone
        ends: without a hold, the proxy closes it.
        """
        if any(snapshot.status in _GONE for snapshot in snapshots):
            return 200, [("Cache-Control", "private, no-store")], b""
        if any(snapshot.status != 200 for snapshot in snapshots):
            # The proxy asks again, five times.
            return 503, [("Cache-Control", "private, no-store")], b""
        body = b"".join(
            snapshot.body
            for shown, snapshot in zip(self.plan.shown, snapshots, strict=True)
            if self._lags(shown, request)
        )
        content_type = snapshots[0].headers.get("content-type", "text/plain")
        headers = [
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            # Varnish has it in the cache key as well; the limit of variants elsewhere is the CDN's.
            ("Vary", "Grip-Last"),
            *(line for snapshot in snapshots for line in _for_caches(snapshot)),
        ]
        return 200, self.plan.apply(request, 200, headers, notes), body

    def _lags(self, shown: Shown, request: RequestFacts) -> bool:
        name = shown.topic.name
        return shown_by(self.seen[name]) != shown_by(request.versions[name])


def _for_caches(snapshot: Response) -> Headers:
    """Return what a response says to caches. A cookie is not handed on, but what it means is."""
    said = [(n, v) for n, v in snapshot.headers.items() if n in _FOR_CACHES]
    return [*said, ("Cache-Control", "private")] if "set-cookie" in snapshot.headers else said

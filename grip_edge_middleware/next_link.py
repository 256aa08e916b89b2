"""How a held client that may have missed something catches up: the answer to GRIP's next link.

A cached page can be older than the subscription that it opens. So it says which version of each
topic it shows (`prev-id`), and where the GRIP proxy asks for what came since. The faces answer that
themselves: `Grip-Last` names the topics, and what the client has of each.

Pure: no sockets, no clock, no framework. https://pushpin.org/docs/protocols/grip/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hmac import compare_digest
from typing import NamedTuple

from grip_edge_middleware.cache_control import FRESHNESS
from grip_edge_middleware.grip import NEXT_LINK, parse_grip_last, shown_by
from grip_edge_middleware.http import Response
from grip_edge_middleware.notes import Notes
from grip_edge_middleware.policy import Plan, Policy, RequestFacts, Shown
from grip_edge_middleware.types import Headers

_FOR_CACHES = (FRESHNESS - {"expires"}) | {"surrogate-key", "vary"}
_GONE = frozenset({404, 410})


class Wanted(NamedTuple):
    """One page to render: its path, and the media type to ask for."""

    path: str
    accept: str | None
    is_private: bool


@dataclass(frozen=True, slots=True)
class NextLink:
    """One request for what came since."""

    plan: Plan
    seen: Mapping[str, str]
    """The version that the client has, by topic."""

    @classmethod
    def read(cls, policy: Policy, path: str, grip_last: str) -> NextLink | None:
        """Read a request of a next link; None if it is none, or names no topic that recovers.

        Nor is it one if it names a private topic at a link that was not given out for it.
        """
        if not path.startswith(NEXT_LINK):
            return None
        seen = parse_grip_last(grip_last)
        plan = policy.plan_of(seen)
        if plan is None or (plan.is_private and not _is_signed(plan, path)):
            return None
        return cls(plan, seen)

    @property
    def routes(self) -> list[Wanted]:
        """What to render."""
        return list(self._pages)

    @property
    def _pages(self) -> dict[Wanted, list[Shown]]:
        """The topics that each page shows: two may share one."""
        pages: dict[Wanted, list[Shown]] = {}
        for shown in self.plan.shown:
            path = shown.route.pattern.fill(dict(shown.topic.params)) or ""
            wanted = Wanted(path, shown.route.accept, shown.is_private)
            pages.setdefault(wanted, []).append(shown)
        return pages

    def as_page(self, request: RequestFacts) -> RequestFacts:
        """Return the proxy's request as the page's own would be: it asks for nothing special."""
        accepts = [wanted.accept for wanted in self.routes if wanted.accept]
        return request._replace(method="GET", accept=", ".join(accepts))

    @staticmethod
    def refuse(reason: str) -> tuple[int, Headers, bytes]:
        """Return status, headers and body for a request that is not a GRIP proxy's."""
        headers = [("Content-Type", "text/plain"), ("Cache-Control", "private, no-store")]
        body = f"This link is for the GRIP proxy only: {reason}\n".encode()
        return 403, [*headers, ("Content-Length", str(len(body)))], body

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
            for topics, snapshot in zip(self._pages.values(), snapshots, strict=True)
            if any(self._lags(shown, request) for shown in topics)
        )
        content_type = snapshots[0].headers.get("content-type", "text/plain")
        headers = [
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            # Varnish has it in the cache key as well; the limit of variants elsewhere is the CDN's.
            ("Vary", "Grip-Last"),
            *(line for snapshot in snapshots for line in self._for_caches(snapshot)),
        ]
        return 200, self.plan.apply(request, 200, headers, notes), body

    def _for_caches(self, snapshot: Response) -> Headers:
        """Return what a response says to caches. Not a cookie, but what it means."""
        wanted = _FOR_CACHES | self.plan.policy.key_names
        said = [(name, value) for name, value in snapshot.headers.items() if name in wanted]
        return [*said, ("Cache-Control", "private")] if "set-cookie" in snapshot.headers else said

    def _lags(self, shown: Shown, request: RequestFacts) -> bool:
        name = shown.topic.name
        return shown_by(self.seen[name]) != shown_by(request.versions.get(name, ""))


def _is_signed(plan: Plan, path: str) -> bool:
    asked = path.encode(errors="surrogatepass")
    return compare_digest(asked, plan.next_link(plan.names, mount="").encode())

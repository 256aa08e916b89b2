"""What a topic has to say: from a claim to the items that GRIP proxies are given.

The response is the message: unless a change brought one of its own, what the topic's routes answer
is published, as it is when this is asked.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.grip import build_item, build_marker
from grip_edge_middleware.http import Response
from grip_edge_middleware.journal import Journal
from grip_edge_middleware.log_fields import log_fields
from grip_edge_middleware.render import TARGET, Renderer
from grip_edge_middleware.settings import Route
from grip_edge_middleware.stores import Claim, Publication
from grip_edge_middleware.types import Hold

logger = logging.getLogger(__name__)

# What a route may answer to be published. What is gone ends the streams that showed it.
_PUBLISHED = frozenset({200, 404, 410})


class Messages:
    """Makes items of claims, with the app's answers where they have no message.

    `clock` is monotonic.
    """

    def __init__(
        self, renderer: Renderer, journal: Journal, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._renderer = renderer
        self._journal = journal
        self._clock = clock
        # Logged once: a broken route may have many topics.
        self._failing_routes: set[str] = set()

    def items(self, claim: Claim, *, delivery: int = 0) -> list[dict[str, Any]]:
        """Return what to publish, oldest first. DeliveryError if a route does not answer.

        `delivery` is what the journal calls it.
        """
        previous = claim.previous if claim.settings.recovers else None
        items = []
        for publication in claim.publications:
            if (item := self._item(claim, publication, previous, delivery)) is not None:
                items.append(item)
                previous = publication.version if claim.settings.recovers else None
        return items

    def _item(
        self, claim: Claim, publication: Publication, previous: str | None, delivery: int
    ) -> dict[str, Any] | None:
        channel, version = claim.topic.name, publication.version
        if publication.is_marker:
            if previous is None or claim.settings.held_routes.keys() <= {"ws"}:
                return None  # everybody would ask, or nobody
            return build_marker(channel, claim.settings.held_routes, id=version, prev_id=previous)
        messages = self._messages(claim, publication, delivery)
        return build_item(channel, messages, id=version, prev_id=previous) if messages else None

    def _messages(
        self, claim: Claim, publication: Publication, delivery: int
    ) -> dict[Hold, Response]:
        """Return the message for each kind of hold that the topic has."""
        if publication.message is not None:
            # A topic without a hold may be held by the app's own Grip headers.
            kinds = claim.settings.held_routes or publication.message
            return {hold: m for hold, m in publication.message.items() if hold in kinds}
        messages = {}
        for hold, route in claim.settings.rendered_routes.items():
            path = route.pattern.fill(dict(claim.topic.params))
            if path is not None:  # else no URL shows these values, and nobody is connected
                messages[hold] = self._render(claim, route, path, delivery)
        return messages

    def _render(self, claim: Claim, route: Route, path: str, delivery: int) -> Response:
        begun = self._clock()
        pattern, names = route.pattern.text, (claim.topic.name,)
        is_private = claim.settings.private
        try:
            response = self._renderer.render(path, route.accept, is_private=is_private)
            if response.status not in _PUBLISHED:
                reason = f"GET {path}: answered {response.status}{_hint(response)}"
                raise DeliveryError(TARGET, reason)
        except DeliveryError as error:
            self._journal.write(
                "failure",
                names,
                target=TARGET,
                took_s=self._clock() - begun,
                error=error.reason,
                of="render",
                delivery=delivery,
            )
            if pattern not in self._failing_routes:
                self._failing_routes.add(pattern)
                logger.warning(
                    "%s cannot be published: %s; trying again",
                    pattern,
                    error.reason,
                    extra=log_fields(target=TARGET, route=pattern, reason=error.reason),
                )
            raise
        self._journal.write(
            "render", names, target=TARGET, took_s=self._clock() - begun, delivery=delivery
        )
        self._failing_routes.discard(pattern)
        return response


def have_something_to_say(claim: Claim) -> bool:
    """Whether a topic is published at all, rather than only cached and purged."""
    if claim.is_escalated:
        return bool(claim.settings.held_routes)
    return bool(claim.settings.rendered_routes) or any(
        p.message or p.is_marker for p in claim.publications
    )


def _hint(response: Response) -> str:
    # Redirected, to a login page perhaps; or refused.
    asks_who = response.status in (302, 303, 401, 403)
    return "; a private view answers if edge.is_rendering" if asks_who else ""

"""Claims and messages as JSON, for whoever keeps them outside of this process.

What it reads was written by this package, perhaps with other settings or by another version: what
is not known any more is only purged.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from grip_edge_middleware.changes import Rows
from grip_edge_middleware.http import Response
from grip_edge_middleware.log_fields import log_fields
from grip_edge_middleware.rows import Scopes
from grip_edge_middleware.settings import TopicSettings
from grip_edge_middleware.stores import NO_CHANGE, Claim, Publication, Since
from grip_edge_middleware.stores.records import Common, Record
from grip_edge_middleware.topics import Topic, TopicTemplate
from grip_edge_middleware.types import Hold

logger = logging.getLogger(__name__)


class Codec:
    """Writes records as text, and reads them with these settings. `throttle_s` is that of rows."""

    def __init__(self, topics: Sequence[TopicSettings], *, throttle_s: float) -> None:
        self._settings = {settings.template.text: settings for settings in topics}
        self._rows = Rows(Scopes(), throttle=throttle_s)
        self._throttle_s = throttle_s

    def encode(self, record: Record) -> str:
        """Return what is to be done for a record; empty if nothing is."""
        work: dict[str, Any] = {}
        if record.waiting is not None:
            work["waiting"] = _encode(record.waiting)
        if record.claimed is not None:
            work["claimed"] = _encode(record.claimed)
            work["owner"] = record.owner
        return _dump(work) if work else ""

    def decode(self, text: str, record: Record) -> None:
        """Read into a record what was encoded of it."""
        if not text:
            return
        work = json.loads(text)
        if "waiting" in work:
            record.waiting = self._decode(work["waiting"])
        if "claimed" in work:
            record.claimed = self._decode(work["claimed"])
            record.owner = work["owner"]

    def _decode(self, encoded: Mapping[str, Any]) -> Claim:
        topic = Topic(
            encoded["topic"],
            encoded["of"],
            tuple((name, value) for name, value in encoded.get("params", ())),
        )
        missing = encoded.get("missing")
        return Claim(
            topic,
            self._settings_of(topic),
            tuple(map(_decode_publication, encoded.get("says", ()))),
            missing=None if missing is None else frozenset(missing),
            is_partial=encoded.get("partial", False),
            failures=encoded.get("failures", 0),
            confirmations=encoded.get("confirmations", 0),
            previous=encoded.get("previous"),
            published_at=encoded.get("published_at"),
            is_escalated=encoded.get("escalated", False),
            since=Since(*encoded.get("since", ())),
        )

    def _settings_of(self, topic: Topic) -> TopicSettings:
        known = self._settings.get(topic.template) or self._rows.settings_of(topic.name)
        if known is not None:
            return known
        if topic.name.startswith("%"):  # all of them
            held = (settings for settings in self._settings.values() if settings.held_routes)
            return next(held, next(iter(self._settings.values())))
        _warn_of_unknown(topic.template)
        return _only_purged(topic.template, self._throttle_s)


def encode_common(common: Common) -> str:
    """Return what is known of all keys as text."""
    return _dump(
        {
            "first_version": common.first_version,
            "caught_up": common.caught_up,
            "forgotten": common.forgotten,
            "escalated": sorted(common.escalated),
        }
    )


def decode_common(text: str) -> Common:
    """Read what is known of all keys."""
    found = json.loads(text)
    return Common(
        found["first_version"], found["caught_up"], found["forgotten"], set(found["escalated"])
    )


def encode_message(message: Mapping[Hold, Response]) -> dict[str, Any]:
    """Return a message as values for JSON."""
    return {
        hold: [r.status, dict(r.headers), base64.b64encode(r.body).decode()]
        for hold, r in message.items()
    }


def decode_message(encoded: Mapping[Hold, Any]) -> dict[Hold, Response]:
    """Read a message."""
    return {
        hold: Response(status, headers, base64.b64decode(body))
        for hold, (status, headers, body) in encoded.items()
    }


def _encode(claim: Claim) -> dict[str, Any]:
    encoded: dict[str, Any] = {"topic": claim.topic.name, "of": claim.topic.template}
    said: dict[str, Any] = {
        "params": claim.topic.params,
        "says": [_encode_publication(publication) for publication in claim.publications],
        "partial": claim.is_partial,
        "failures": claim.failures,
        "confirmations": claim.confirmations,
        "escalated": claim.is_escalated,
    }
    encoded.update((name, value) for name, value in said.items() if value)
    if claim.since != NO_CHANGE:
        encoded["since"] = claim.since
    if claim.missing is not None:
        encoded["missing"] = sorted(claim.missing)
    if claim.previous is not None:
        encoded["previous"] = claim.previous
    if claim.published_at is not None:
        encoded["published_at"] = claim.published_at
    return encoded


def _encode_publication(publication: Publication) -> dict[str, Any]:
    encoded: dict[str, Any] = {"version": publication.version}
    if publication.is_marker:
        encoded["marker"] = True
    if publication.message is not None:
        encoded["message"] = encode_message(publication.message)
    return encoded


def _decode_publication(encoded: Mapping[str, Any]) -> Publication:
    message = encoded.get("message")
    return Publication(
        encoded["version"],
        None if message is None else decode_message(message),
        encoded.get("marker", False),
    )


def _only_purged(template: str, throttle_s: float) -> TopicSettings:
    return TopicSettings(
        TopicTemplate.parse(template),
        routes=(),
        models=(),
        throttle=throttle_s,
        payload=None,
        coalesce=True,
        recovery=None,
        refetch=False,
        private=False,
    )


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


@lru_cache(maxsize=64)
def _warn_of_unknown(template: str) -> None:
    """Once, for the cache holds the memory of having said it."""
    logger.warning(
        'the store has changes of topic "%s", which these settings do not declare, so they are '
        "only purged; do all processes that share it have the same settings?",
        template,
        extra=log_fields(topic=template),
    )

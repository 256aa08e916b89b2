"""What a save changes: from an instance and its old values to topics.

Pure: reads attributes of the instance and nothing else.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, NamedTuple

from grip_edge_middleware.http import Response
from grip_edge_middleware.log_fields import log_fields
from grip_edge_middleware.rows import (
    Scopes,
    list_topic,
    row_template,
    row_topic,
    scope_topic,
    template_of,
)
from grip_edge_middleware.settings import Model, TopicSettings
from grip_edge_middleware.topics import SITE_KEY, Topic, TopicTemplate, text
from grip_edge_middleware.types import Hold, Operation

logger = logging.getLogger(__name__)

# Topics that change often are not made anew each time; beyond, all of a watch are forgotten.
_MOST_KEPT = 1024

Data = str | bytes | Mapping[str, Any] | list[Any]
"""What a user publishes: text and bytes as they are, anything else as JSON."""


@dataclass(frozen=True, slots=True)
class Change:
    """One topic that is not what it was. Without a message, its routes are rendered for one."""

    topic: Topic
    settings: TopicSettings
    message: Mapping[Hold, Response] | None = None
    is_of_all: bool = False
    """Stands for all topics of the template, of which any may have changed."""

    @classmethod
    def of_all(cls, settings: TopicSettings) -> Change:
        """Return a change of all topics of a template."""
        template = settings.template
        is_of_all = bool(template.params)
        return cls(Topic(template.type_key, template.text), settings, is_of_all=is_of_all)

    @classmethod
    def of_site(cls, topics: Sequence[TopicSettings]) -> Change:
        """Return a change of everything."""
        settings = next((topic for topic in topics if topic.held_routes), topics[0])
        return cls(Topic(SITE_KEY, SITE_KEY), settings, is_of_all=True)


def encode(data: Data) -> Mapping[Hold, Response]:
    """Return the data as a message for each kind of hold.

    JSON is an event on a stream (`data: {...}`), and itself for a long-poll or a WebSocket.
    TypeError or ValueError if it is neither text, bytes nor JSON.
    """
    if isinstance(data, str | bytes):
        message = Response(200, {}, _to_bytes(data) if isinstance(data, str) else data)
        return {"stream": message, "response": message, "ws": message}
    body = _to_bytes(json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
    return {
        "stream": Response(200, {"content-type": "text/event-stream"}, b"data: %s\n\n" % body),
        "response": Response(200, {"content-type": "application/json"}, body),
        "ws": Response(200, {"content-type": "application/json"}, body),
    }


def _to_bytes(said: str) -> bytes:
    # Half of a surrogate pair has no UTF-8; escaped so, it is what JSON calls it.
    return said.encode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Watch:
    """One model that changes one topic."""

    topic: TopicSettings
    model: Model
    note_fault: Callable[[], None] = field(default=lambda: None, compare=False)
    """Called when something fails that the settings name."""
    attributes: tuple[str, ...] = field(init=False)
    """The attributes of the model that fill the topic's name."""
    _of_all: Change = field(init=False)
    _kept: dict[tuple[str, ...], Change] = field(default_factory=dict, init=False, compare=False)
    """Changes without a message, by what fills the topic's name."""

    def __post_init__(self) -> None:
        params = self.topic.template.params
        attributes = tuple(self.model.params.get(param, param) for param in params)
        object.__setattr__(self, "attributes", attributes)
        object.__setattr__(self, "_of_all", Change.of_all(self.topic))

    def changes(
        self,
        operation: Operation,
        instance: object,
        before: Mapping[str, object],
        now: Mapping[str, object] = MappingProxyType({}),
    ) -> list[Change]:
        """Return the changes that a save of the instance makes.

        `before` holds the old values of attributes that the save changed: an object that moves
        leaves one topic and enters another, and both have changed. `now` holds new values that
        the instance does not know of itself.
        """
        model, payload = self.model, self.topic.payload
        if operation not in model.on:
            return []
        if model.when is not None and not self._applies(model.when, instance):
            return []
        message = None if payload is None else self._message(payload, instance)
        # What is deleted may know less of itself than the database did.
        known = before if operation == "delete" else now
        values = [
            known[name] if name in known else getattr(instance, name) for name in self.attributes
        ]
        if not before:
            return self._changes_of(values, message)
        old = [before.get(n, v) for n, v in zip(self.attributes, values, strict=True)]
        changes = [*self._changes_of(old, message), *self._changes_of(values, message)]
        return list({c.topic.name: c for c in changes}.values())

    def change_of_all(self, operations: Collection[Operation]) -> Change | None:
        """Return what changes when rows that nobody knows were written, None if nothing."""
        return None if self.model.on.isdisjoint(operations) else self._of_all

    def changes_of_keys(
        self, attribute: str | None, keys: Iterable[object], operations: Collection[Operation]
    ) -> list[Change]:
        """Return what changes with the objects that have these primary keys.

        Their topics, if the attribute that is the key is all that fills a name; else all topics.
        """
        change = self.change_of_all(operations)
        if change is None:
            return []
        is_enough = self.topic.payload is None and set(self.attributes) == {attribute}
        if not is_enough or not all(type(key) is int for key in keys):
            return [change]
        return [c for k in keys for c in self._changes_of([k] * len(self.attributes), None)]

    def _applies(self, when: str | Callable[[Any], Any], instance: object) -> bool:
        try:
            return bool(resolve(when)(instance))
        except Exception:
            name = self.topic.template.text
            logger.exception(
                "when of %s failed; it is taken for changed", name, extra=log_fields(topic=name)
            )
            self.note_fault()
            return True

    def _message(
        self, payload: str | Callable[[Any], Any], instance: object
    ) -> Mapping[Hold, Response] | None:
        try:
            return encode(resolve(payload)(instance))
        except Exception:
            name = self.topic.template.text
            logger.exception(
                "payload of %s failed; it is purged", name, extra=log_fields(topic=name)
            )
            self.note_fault()
            return None

    def _changes_of(
        self, values: Iterable[object], message: Mapping[Hold, Response] | None
    ) -> list[Change]:
        """Return the change of the topic that has these values, in the order of its parameters."""
        texts = tuple([v if type(v) is str else "" if v is None else text(v) for v in values])
        # No URL shows a parameter without a value, so there is nobody to tell.
        if "" in texts:
            return []
        if message is not None:
            return [Change(self._fill(texts), self.topic, message)]
        change = self._kept.get(texts)
        if change is None:
            change = Change(self._fill(texts), self.topic)
            self._keep(texts, change)
        return [change]

    def _fill(self, texts: Iterable[str]) -> Topic:
        template = self.topic.template
        return template.fill(dict(zip(template.params, texts, strict=True)))

    def _keep(self, texts: tuple[str, ...], change: Change) -> None:
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        if not change.topic.is_shortened:  # values of any length are not kept
            self._kept[texts] = change


def resolve(target: str | Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what a dotted path names. It is imported by then: its model's instance exists."""
    if not isinstance(target, str):
        return target
    found = _look_up(target)
    if found is None:
        raise LookupError(f'nothing is named "{target}", or its module was not imported')
    return found  # type: ignore[no-any-return]


def _look_up(path: str) -> Any:
    """Return what `module:name` names among the imported modules, or None.

    Never imports: the module may be in the middle of its own import, or be the running script.
    """
    module, _, names = path.partition(":")
    found: Any = sys.modules.get(module)
    for name in names.split("."):
        found = getattr(found, name, None)
    return found


@dataclass(slots=True)
class Watches:
    """Which watches apply to an instance, found by its class."""

    watches: tuple[Watch, ...]
    _by_class: dict[type, tuple[Watch, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, topics: Iterable[TopicSettings], note_fault: Callable[[], None] = lambda: None
    ) -> Watches:
        """Collect the models of all topics."""
        watched = ((topic, model) for topic in topics for model in topic.models)
        return cls(tuple(Watch(topic, model, note_fault) for topic, model in watched))

    def find(self, kind: type) -> tuple[Watch, ...]:
        """Return the watches of a class or of what it inherits from."""
        found = self._by_class.get(kind)
        if found is None:
            found = tuple(watch for watch in self.watches if _is_of(kind, watch.model))
            # What a path names may come to be imported, under that name, only later.
            if found or not self.unknown():
                self._by_class[kind] = found
        return found

    def classes(self) -> list[type]:
        """Return the watched classes that are known by now."""
        named = (_named(watch.model) for watch in self.watches)
        return list(dict.fromkeys(kind for kind in named if isinstance(kind, type)))

    def unknown(self) -> list[str]:
        """Return the paths that name nothing that is imported."""
        paths = (w.model.model for w in self.watches if isinstance(w.model.model, str))
        return [path for path in dict.fromkeys(paths) if _look_up(path) is None]

    def changes(
        self, operation: Operation, instance: object, before: Mapping[str, object]
    ) -> list[Change]:
        """Return the changes that a save of the instance makes to all topics."""
        return [
            change
            for watch in self.find(type(instance))
            for change in watch.changes(operation, instance, before)
        ]


class Row(NamedTuple):
    """One row that was written, as far as keys go: what identifies it, before and after.

    `pks` has nothing where the table has no single primary key; `scopes` are columns and values.
    """

    table: str
    pks: tuple[object, ...]
    scopes: tuple[tuple[str, object], ...] = ()


class Rows:
    """From rows and tables to changes, for pages whose keys are those of what they read."""

    def __init__(self, scopes: Scopes, *, throttle: float) -> None:
        self.scopes = scopes
        self._settings_of = lru_cache(maxsize=1024)(partial(_row_settings, throttle))
        self._of_table = lru_cache(maxsize=1024)(lambda name: self._settings_of(row_template(name)))

    def changes(self, row: Row) -> list[Change]:
        """Return the changes that a write of the row makes: to it, and to lists that show it."""
        table, pks, scopes = row
        topics = [row_topic(table, pk) for pk in pks if pk is not None]
        if scopes:
            topics += [scope_topic(table, c, v) for c, v in scopes if v is not None]
        settings = self._of_table(table)
        if len(topics) == 1:
            return [Change(topics[0], settings)]
        return [Change(topic, settings) for topic in dict.fromkeys(topics or [list_topic(table)])]

    def change_of_all(self, table: str) -> Change:
        """Return what changes when rows that nobody knows were written."""
        return Change.of_all(self._of_table(table))

    def settings_of(self, key: str) -> TopicSettings | None:
        """Return the settings of the rows of which this is a key, None if it is of none."""
        template = template_of(key)
        return None if template is None else self._settings_of(template)


def _row_settings(throttle: float, template: TopicTemplate) -> TopicSettings:
    return TopicSettings(
        template,
        routes=(),
        models=(),
        throttle=throttle,
        payload=None,
        coalesce=True,
        recovery=None,
        refetch=False,
        private=False,
    )


def _named(model: Model) -> Any:
    return _look_up(model.model) if isinstance(model.model, str) else model.model


def _is_of(kind: type, model: Model) -> bool:
    named = _named(model)
    if named is not None:
        return isinstance(named, type) and issubclass(kind, named)
    # The module is still importing; where a class says it comes from is as good.
    return any(f"{c.__module__}:{c.__qualname__}" == model.model for c in kind.__mro__)

"""What a save changes: from an instance and its old values to topics.

Pure: reads attributes of the instance and nothing else.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from grip_edge_middleware.http import Response
from grip_edge_middleware.settings import Model, TopicSettings
from grip_edge_middleware.topics import Topic, text
from grip_edge_middleware.types import Hold, Operation

logger = logging.getLogger(__name__)

Data = str | bytes | Mapping[str, Any] | list[Any]
"""What a user publishes: text and bytes as they are, anything else as JSON."""


@dataclass(frozen=True, slots=True)
class Change:
    """One topic that is not what it was. Without a message, its routes are rendered for one."""

    topic: Topic
    settings: TopicSettings
    message: Mapping[Hold, Response] | None = None


def encode(data: Data) -> Mapping[Hold, Response]:
    """Return the data as a message for each kind of hold.

    JSON is an event on a stream (`data: {...}`) and a JSON body for a long-poll. TypeError or
    ValueError if it is neither text, bytes nor JSON.
    """
    if isinstance(data, str | bytes):
        message = Response(200, {}, _to_bytes(data) if isinstance(data, str) else data)
        return {"stream": message, "response": message}
    body = _to_bytes(json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
    return {
        "stream": Response(200, {"content-type": "text/event-stream"}, b"data: %s\n\n" % body),
        "response": Response(200, {"content-type": "application/json"}, body),
    }


def _to_bytes(said: str) -> bytes:
    # Half of a surrogate pair has no UTF-8; escaped so, it is what JSON calls it.
    return said.encode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Watch:
    """One model that changes one topic."""

    topic: TopicSettings
    model: Model

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes of the model that fill the topic's name."""
        params = self.topic.template.params
        return tuple(self.model.params.get(param, param) for param in params)

    def changes(
        self, operation: Operation, instance: object, before: Mapping[str, object]
    ) -> list[Change]:
        """Return the changes that a save of the instance makes.

        `before` holds the old values of attributes that the save changed: an object that moves
        leaves one topic and enters another, and both have changed.
        """
        if operation not in self.model.on or not self._applies(instance):
            return []
        message = self._message(instance)
        now = {name: getattr(instance, name) for name in self.attributes}
        topics = dict.fromkeys(
            t for values in ({**now, **before}, now) if (t := self._fill(values))
        )
        return [Change(topic, self.topic, message) for topic in topics]

    def _applies(self, instance: object) -> bool:
        try:
            when = _resolve(self.model.when)
            return when is None or bool(when(instance))
        except Exception:
            logger.exception("when of %s failed; it is taken for changed", self.topic.template.text)
            return True

    def _message(self, instance: object) -> Mapping[Hold, Response] | None:
        try:
            payload = _resolve(self.topic.payload)
            return None if payload is None else encode(payload(instance))
        except Exception:
            logger.exception("payload of %s failed; it is purged", self.topic.template.text)
            return None

    def _fill(self, values: Mapping[str, object]) -> Topic | None:
        filled = {
            param: values[attribute]
            for param, attribute in zip(self.topic.template.params, self.attributes, strict=True)
        }
        # No URL shows a parameter without a value, so there is nobody to tell.
        is_shown = all(value is not None and text(value) for value in filled.values())
        return self.topic.template.fill(filled) if is_shown else None


def _resolve(target: str | Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
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
    def of(cls, topics: Iterable[TopicSettings]) -> Watches:
        """Collect the models of all topics."""
        return cls(tuple(Watch(topic, model) for topic in topics for model in topic.models))

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


def _named(model: Model) -> Any:
    return _look_up(model.model) if isinstance(model.model, str) else model.model


def _is_of(kind: type, model: Model) -> bool:
    named = _named(model)
    if named is not None:
        return isinstance(named, type) and issubclass(kind, named)
    # The module is still importing; where a class says it comes from is as good.
    return any(f"{c.__module__}:{c.__qualname__}" == model.model for c in kind.__mro__)

"""Django writes, by models, querysets or raw SQL, once they are committed.

What is saved, deleted or related object by object is told row by row. Of other statements the rows
are known that they find by primary key; or else the table, so that all topics of its models change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.apps import apps as registry
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.models import Model
from django.db.models.deletion import Collector
from django.utils.connection import ConnectionProxy

from grip_edge_middleware.changes import Change, Watch
from grip_edge_middleware.errors import Mistake, SettingsError
from grip_edge_middleware.rows import Scopes
from grip_edge_middleware.sources import Observer
from grip_edge_middleware.sources.django import connection as followed
from grip_edge_middleware.sources.django import relations, saves
from grip_edge_middleware.sources.django.connection import (
    deleting,
    follow,
    is_relating,
    note,
)
from grip_edge_middleware.sources.django.outbox import DjangoOutbox
from grip_edge_middleware.sources.django.schema import (
    Field,
    Kept,
    Kind,
    Schema,
    Side,
    concrete,
    is_installed,
    kept_models,
    number_key,
    primary_keys,
    schema,
    table_name,
)
from grip_edge_middleware.sources.transactions import safely, write_row
from grip_edge_middleware.sql import Write
from grip_edge_middleware.types import Operation

logger = logging.getLogger(__name__)

_SAVED: frozenset[Operation] = frozenset({"insert", "update"})
_RELATED: frozenset[Operation] = frozenset({"update"})


@dataclass(frozen=True, slots=True)
class _Plan:
    """What of a class's objects is of interest."""

    watches: tuple[Watch, ...]
    kept: tuple[Kept, ...]
    wanted: Mapping[Kind, tuple[Field, ...]]
    """Whose old values count as well, by the model whose table keeps them."""
    relates: tuple[Side, ...]
    """The sides that change with a row of a many-to-many table."""
    related: tuple[Side, ...]
    """Where its objects are, of relations whose other side is watched."""

    @property
    def fields(self) -> list[Field]:
        """All whose values count."""
        return [f for fields in self.wanted.values() for f in fields]


class DjangoSource:
    """Tells an observer what is written through Django, after the commit.

    SettingsError if a watched class lacks an attribute that its topic's name needs.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._schema: Schema | None = None
        self._plans: dict[Kind, _Plan] = {}
        self._outboxes: dict[str, DjangoOutbox] = {}
        self._is_warned = False
        for kind in self._watched():
            _check(kind, observer.watches.find(kind))
        saves.install()
        connection_created.connect(self._connected)
        # Before the settings are read there is no connection; this may be while they are.
        for connection in connections.all(initialized_only=True) if settings.configured else ():
            self._connected(self, connection)
        # What was left is looked for although nobody asks the app: its pages are in the cache.
        for alias in connections if settings.configured else ():
            self._look_after(alias)
        followed.writers.append(self)
        saves.listeners.append(self)
        relations.listeners.append(self)
        self._learn()

    def disconnect(self) -> None:
        """Stop listening. Connections stay followed, with nothing to tell any more."""
        connection_created.disconnect(self._connected)
        for listening in (followed.writers, saves.listeners, relations.listeners):
            if self in listening:
                listening.remove(self)

    def follow(self, target: object) -> bool:
        """Follow a connection that was opened before; False if it is none."""
        if (connection := _connection(target)) is None:
            return False
        follow(connection)
        return True

    def defer(self, on_commit: object, changes: Sequence[Change]) -> bool:
        """Tell of the changes when what is open on a connection, or its alias, is committed."""
        if (connection := _connection(on_commit)) is None:
            return False
        note(connection, self._observer, changes)
        return True

    def changes(self, instance: object) -> list[Change] | None:
        """Return what an update of a model's instance changes; None if it is none."""
        if not isinstance(instance, Model):
            return None
        connection = connections[instance._state.db or DEFAULT_DB_ALIAS]
        return list(self._changes(connection, "update", instance, {}))

    # --- what is saved and deleted --------------------------------------------------------------

    def wanted(self, kind: Kind, model: Kind) -> Collection[Field]:
        """Return the fields whose old values count, of those that the model's table keeps."""
        return self._plan(kind).wanted.get(model, ())

    def saved(
        self, connection: BaseDatabaseWrapper, save: saves.Save, operation: Operation
    ) -> None:
        """Note a save."""
        kind = type(save.instance)

        def changes() -> Iterator[Change]:
            if save.error is not None:
                raise save.error
            instance = saves.after_save(save.instance, self._plan(kind).fields, connection)
            return self._changes(connection, operation, instance, save.before)

        if not self._observer.is_suppressed:
            found = self._or_all(f"a save of {kind.__qualname__}", changes, kind, _SAVED)
            note(connection, self._observer, found)

    def deleting(self, connection: BaseDatabaseWrapper, collector: Collector) -> saves.Note:
        """Return what notes the deletion. Once it is made, the objects do not know themselves."""
        found: dict[str, Change] = {}
        for kind, instances in collector.data.items():
            if self._observer.is_suppressed or not instances or not is_installed(kind):
                continue
            changes = partial(self._changes_of_deletion, connection, kind, instances)
            what = f"a deletion of {kind.__qualname__}"
            for change in self._or_all(what, changes, kind, {"delete"}):
                # An object is collected again as an instance of what it inherits from.
                found.setdefault(change.topic.name, change)
        return partial(note, connection, self._observer, list(found.values()))

    def _changes_of_deletion(
        self, connection: BaseDatabaseWrapper, kind: Kind, instances: Collection[Model]
    ) -> Iterator[Change]:
        plan = self._plan(kind)
        for instance in saves.before_delete(instances, plan.fields, connection):
            yield from self._changes(connection, "delete", instance, {})
        for side in plan.related:
            values = [getattr(i, side.key.target_field.attname) for i in instances]
            look_up = partial(relations.others, side, values, connection)
            yield from self._changes_of_related(side.other, values, look_up)

    def _changes(
        self,
        connection: BaseDatabaseWrapper,
        operation: Operation,
        instance: Model,
        before: Mapping[str, Any],
    ) -> Iterator[Change]:
        plan = self._plan(type(instance))
        for watch in plan.watches:
            yield from watch.changes(operation, instance, before)
        if self._observer.rows is not None:
            for kept in plan.kept:
                yield from self._observer.rows.changes(kept.row(instance, before, connection))
        for side in plan.relates:
            name = side.key.attname
            keys = {v for v in (getattr(instance, name), before.get(name)) if v is not None}
            yield from self._changes_of_objects(side.key, keys, connection)

    # --- what is related --------------------------------------------------------------------------

    def related(
        self, connection: BaseDatabaseWrapper, instance: Model, side: Side, pks: Collection[Any]
    ) -> None:
        """Note that an object was related to others, or no longer is."""

        def changes() -> Iterator[Change]:
            yield from self._observer.watches.changes("update", instance, {})
            yield from self._changes_of_objects(side.other, pks, connection)

        if not self._observer.is_suppressed:
            what = f"the {side.through.__qualname__} of {type(instance).__qualname__}"
            found = self._or_all(what, changes, side.through, _SAVED)
            note(connection, self._observer, found)

    def _changes_of_objects(
        self, key: Any, values: Collection[Any], connection: BaseDatabaseWrapper
    ) -> Iterator[Change]:
        """Yield what changes with the objects to which a many-to-many table refers."""
        look_up = partial(relations.objects, key, values, connection)
        return self._changes_of_related(key, values, look_up)

    def _changes_of_related(
        self, key: Any, values: Collection[Any], look_up: Callable[[], Iterable[Model]]
    ) -> Iterator[Change]:
        kind = key.remote_field.model
        if not self._observer.watches.find(kind):
            return
        if len(values) > relations.MAX_RELATED:
            yield from self._all_of(kind, _RELATED)
            return
        for instance in look_up():
            yield from self._observer.watches.changes("update", instance, {})

    # --- what other statements write --------------------------------------------------------------

    def wrote(
        self,
        connection: BaseDatabaseWrapper,
        writes: Sequence[Write] | None,
        keys: Sequence[object] = (),
    ) -> None:
        """Note the writes of a statement, which tells the table, and perhaps the rows."""
        if self._observer.is_suppressed:
            return
        try:
            self._learn()
            if writes is None or not registry.models_ready:
                changes = self._observer.everything()
            else:
                changes = [c for write in writes for c in self._of_table(connection, write, keys)]
        except Exception as error:
            self._observer.note_fault("a statement", error)
            changes = self._observer.everything()
        note(connection, self._observer, changes)

    def _of_table(
        self, connection: BaseDatabaseWrapper, write: Write, keys: Sequence[object]
    ) -> Iterator[Change]:
        known, table = schema(), write.table
        kinds = {kind: number_key(kind) for kind in known.kinds.get(table, ())}
        if keys:
            columns = known.columns.get(table, ())
            yield from self._observer.changes_of_keys(write, kinds, keys, columns)
        else:
            yield from self._observer.changes_of_all(table, kinds, write.operations)
        sides = known.sides.get(table)
        if sides and not (is_relating(connection, table) or table in deleting.get()):
            models = [side.model for side in sides]
            yield from self._observer.changes_of_all(table, models, _RELATED)

    def _or_all(
        self,
        what: str,
        changes: Callable[[], Iterable[Change]],
        kind: Kind,
        operations: Collection[Operation],
    ) -> list[Change]:
        """Return the changes; if they are not understood, all that they can be."""
        try:
            return list(changes())
        except Exception as error:
            self._observer.note_fault(what, error)
        try:
            return list(self._all_of(kind, operations))
        except Exception as error:
            self._observer.note_fault(f"all of {kind.__qualname__}", error)
            return self._observer.everything()

    def _all_of(self, kind: Kind, operations: Collection[Operation]) -> Iterator[Change]:
        """Take all objects of a class for changed, and what they are related to."""
        for model in kept_models(kind):
            table = table_name(model._meta.db_table)
            sides = [side.model for side in schema().sides.get(table, ())]
            yield from self._observer.changes_of_all(table, [kind], operations)
            yield from self._observer.changes_of_all(table, sides, _RELATED)

    # --- what goes into the outbox ----------------------------------------------------------------

    @property
    def has_outbox(self) -> bool:
        """Whether what is written is to be in one transaction with a row of the outbox."""
        return self._observer.outbox is not None and not self._observer.is_suppressed

    def _look_after(self, alias: str) -> None:
        outbox = self._observer.outbox
        if outbox is not None and alias not in self._outboxes:
            table = self._outboxes[alias] = DjangoOutbox(alias, outbox.name)
            outbox.add_table(table)

    def before_commit(self, connection: BaseDatabaseWrapper) -> None:
        """Write into the outbox what the transaction changes."""
        open_now, table = follow(connection), self._outboxes.get(connection.alias)
        written = write_row(self._observer, table, connection, open_now.ledger.entries())
        if written is not None:
            open_now.rows[self._observer] = written

    # --- what is known of models ------------------------------------------------------------------

    def _connected(self, sender: object, connection: BaseDatabaseWrapper, **_: object) -> None:
        follow(connection)
        self._look_after(connection.alias)
        safely(self._learn)  # else with the first statement, which counts as a change of everything

    def _learn(self) -> None:
        """Take in the models that are installed, again if there are others."""
        if not registry.models_ready or self._schema is schema():
            return
        self._schema = schema()
        self._plans = {}
        for sides in self._schema.sides.values():
            if any(self._observer.watches.find(side.model) for side in sides):
                relations.listen(sides[0].through)
        self._warn_of_unknown_models()

    def _warn_of_unknown_models(self) -> None:
        if not self._is_warned:
            self._is_warned = True
            for path in self._observer.watches.unknown():
                logger.error(
                    'models: nothing that is imported is named "%s", so its saves are not seen; '
                    "a Django model has the path of its module, not the label of its app",
                    path,
                )

    def _watched(self) -> list[Kind]:
        return [kind for kind in self._observer.watches.classes() if issubclass(kind, Model)]

    def _plan(self, kind: Kind) -> _Plan:
        self._learn()
        if (plan := self._plans.get(kind)) is None:
            plan = self._plans[kind] = self._make_plan(kind)
        return plan

    def _make_plan(self, kind: Kind) -> _Plan:
        observer = self._observer
        watches = observer.watches.find(kind)
        _check(kind, watches)
        models = kept_models(kind)
        scopes = Scopes() if observer.rows is None else observer.rows.scopes
        kept = tuple(Kept.of(model, scopes) for model in models)
        sides = [side for sides in schema().sides.values() for side in sides]
        watched = [side for side in sides if observer.watches.find(side.model)]
        relates = tuple(side for side in watched if concrete(side.through) in models)
        related = (side.reversed for side in watched)
        names = {name for watch in watches for name in watch.attributes}
        names.update(f.attname for each in kept for f in each.scopes)
        names.update(side.key.attname for side in relates)
        return _Plan(
            watches,
            kept,
            {model: _fields(model, names) for model in models},
            relates,
            tuple(side for side in related if side.model is concrete(kind)),
        )


def _fields(model: Kind, names: Collection[str]) -> tuple[Field, ...]:
    """Return those of a table, but its primary key: with another, it is another row."""
    keys = primary_keys(model)
    return tuple(
        f for f in model._meta.local_concrete_fields if f.attname in names and f not in keys
    )


def _connection(target: object) -> BaseDatabaseWrapper | None:
    if isinstance(target, BaseDatabaseWrapper):
        return target
    if isinstance(target, ConnectionProxy):
        target = target._alias
    if isinstance(target, str) and settings.configured and target in list(connections):
        return connections[target]
    return None


def _check(kind: Kind, watches: Iterable[Watch]) -> None:
    names = dict.fromkeys(name for watch in watches for name in watch.attributes)
    mistakes = [
        Mistake(
            "models",
            f"{kind.__qualname__} has no attribute {name!r} to fill the topic's name",
            'give it one: {"model": ..., "params": {"' + name + '": "its attribute"}}',
        )
        for name in names
        if not hasattr(kind, name)
    ]
    if mistakes:
        raise SettingsError(mistakes)

"""Every way of writing that SQLAlchemy has, as rows of a table: how it is done, and what it tells.

A way is written once, as a generator that yields what an AsyncSession has to await: the same rows
run on sessions of both kinds, and on the models of whoever declares them.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Column,
    Enum,
    ForeignKey,
    Table,
    bindparam,
    delete,
    event,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    Mapped,
    Session,
    column_property,
    load_only,
    mapped_column,
    relationship,
    selectinload,
    synonym,
)

# --- the models -------------------------------------------------------------------------------
from grip_edge_middleware.rows import row_topic


class Hue(enum.Enum):
    RED = "r"
    BLUE = "b"


class MissingModelError(Exception):
    """Whoever declares these models cannot have this one."""


@dataclass(frozen=True)
class Models:
    """The same models, declared by different means."""

    classes: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.classes[name]
        except KeyError:
            raise MissingModelError(name) from None


def declare(base: Any) -> Models:
    """Declare the models on a declarative base."""
    item_tag, item_mark = (
        Table(
            f"item_{other}",
            base.metadata,
            Column("item_id", ForeignKey("item.id"), primary_key=True),
            Column(
                f"{other}_id",
                ForeignKey(f"{other}.id", ondelete="CASCADE" if other == "mark" else None),
                primary_key=True,
            ),
        )
        for other in ("tag", "mark")
    )

    class Owner(base):  # type: ignore[misc]
        __tablename__ = "owner"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
        items = relationship("Item", back_populates="owner")

    class Item(base):  # type: ignore[misc]
        __tablename__ = "item"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
        price: Mapped[int] = mapped_column(default=0)
        owner_id: Mapped[int | None] = mapped_column(ForeignKey("owner.id"))
        owner = relationship("Owner", back_populates="items")
        tags = relationship("Tag", secondary=item_tag, back_populates="items")
        marks = relationship("Mark", secondary=item_mark)

    class Tag(base):  # type: ignore[misc]
        __tablename__ = "tag"
        id: Mapped[int] = mapped_column(primary_key=True)
        label: Mapped[str]
        items = relationship("Item", secondary=item_tag, back_populates="tags")

    class Mark(base):  # type: ignore[misc]
        __tablename__ = "mark"
        id: Mapped[int] = mapped_column(primary_key=True)
        label: Mapped[str]

    class Folder(base):  # type: ignore[misc]
        __tablename__ = "folder"
        id: Mapped[int] = mapped_column(primary_key=True)
        files = relationship("File", cascade="all, delete-orphan")

    class File(base):  # type: ignore[misc]
        __tablename__ = "file"
        id: Mapped[int] = mapped_column(primary_key=True)
        folder_id: Mapped[int] = mapped_column(ForeignKey("folder.id"))

    class Shelf(base):  # type: ignore[misc]
        __tablename__ = "shelf"
        id: Mapped[int] = mapped_column(primary_key=True)
        books = relationship("Book", cascade="all, delete-orphan", passive_deletes=True)

    class Book(base):  # type: ignore[misc]
        __tablename__ = "book"
        id: Mapped[int] = mapped_column(primary_key=True)
        shelf_id: Mapped[int] = mapped_column(ForeignKey("shelf.id", ondelete="CASCADE"))

    class Team(base):  # type: ignore[misc]
        __tablename__ = "team"
        id: Mapped[int] = mapped_column(primary_key=True)
        players = relationship("Player", passive_deletes="all", foreign_keys="Player.team_id")
        captain_id: Mapped[int | None] = mapped_column(
            ForeignKey(
                "player.id", use_alter=True, name="captain", deferrable=True, initially="DEFERRED"
            )
        )
        captain = relationship("Player", foreign_keys=captain_id, post_update=True)

    class Player(base):  # type: ignore[misc]
        __tablename__ = "player"
        id: Mapped[int] = mapped_column(primary_key=True)
        team_id: Mapped[int | None] = mapped_column(ForeignKey("team.id", ondelete="SET NULL"))

    class Animal(base):  # type: ignore[misc]
        __tablename__ = "animal"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        name: Mapped[str]
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012

    class Dog(Animal):
        __tablename__ = "dog"
        id: Mapped[int] = mapped_column(ForeignKey("animal.id"), primary_key=True)
        breed: Mapped[str]
        __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012

    class Vehicle(base):  # type: ignore[misc]
        __tablename__ = "vehicle"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        name: Mapped[str]
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}  # noqa: RUF012

    class Car(Vehicle):
        __mapper_args__ = {"polymorphic_identity": "car"}  # noqa: RUF012

    class Seat(base):  # type: ignore[misc]
        __tablename__ = "seat"
        line: Mapped[int] = mapped_column(primary_key=True)
        number: Mapped[int] = mapped_column(primary_key=True)
        guest: Mapped[str | None]

    class Ticket(base):  # type: ignore[misc]
        __tablename__ = "ticket"
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str]
        version: Mapped[int] = mapped_column()
        __mapper_args__ = {"version_id_col": version}  # noqa: RUF012

    class Badge(base):  # type: ignore[misc]
        __tablename__ = "badge"
        id: Mapped[UUID] = mapped_column(primary_key=True)
        text: Mapped[str]

    class Paint(base):  # type: ignore[misc]
        __tablename__ = "paint"
        hue: Mapped[Hue] = mapped_column(Enum(Hue), primary_key=True)
        litres: Mapped[int]

    class Country(base):  # type: ignore[misc]
        __tablename__ = "country"
        code: Mapped[str] = mapped_column(primary_key=True)
        name: Mapped[str]

    class City(base):  # type: ignore[misc]
        __tablename__ = "city"
        id: Mapped[int] = mapped_column(primary_key=True)
        country: Mapped[str] = mapped_column(ForeignKey("country.code", onupdate="CASCADE"))

    class Stamp(base):  # type: ignore[misc]
        __tablename__ = "stamp"
        id: Mapped[int] = mapped_column(primary_key=True)
        slug: Mapped[str] = mapped_column(server_default=text("'made'"))

    class Product(base):  # type: ignore[misc]
        __tablename__ = "product"
        id: Mapped[int] = mapped_column(primary_key=True)
        net: Mapped[int] = mapped_column()
        double = column_property(net * 2)
        amount = synonym("net")

        @hybrid_property
        def gross(self) -> int:
            return self.net + 1

    class Log(base):  # type: ignore[misc]
        __tablename__ = "log"
        id: Mapped[int] = mapped_column(primary_key=True)
        line: Mapped[str]

    classes = [c for c in locals().values() if inspect.isclass(c) and hasattr(c, "__mapper__")]
    return Models({**{c.__name__: c for c in classes}, "metadata": base.metadata})


# Who is watched, and by which attribute of which name.
TOPICS: Mapping[str, Sequence[tuple[str, Mapping[str, str]]]] = {
    "items": [("Item", {})],
    "item-{name}": [("Item", {})],
    "owner-{id}": [("Owner", {}), ("Item", {"id": "owner_id"})],
    "tag-{label}": [("Tag", {})],
    "mark-{label}": [("Mark", {})],
    "folder-{id}": [("Folder", {})],
    "file-{id}": [("File", {})],
    "shelf-{id}": [("Shelf", {})],
    "book-{id}": [("Book", {})],
    "team-{id}": [("Team", {})],
    "player-{id}": [("Player", {})],
    "animal-{name}": [("Animal", {})],
    "dog-{breed}": [("Dog", {})],
    "vehicle-{name}": [("Vehicle", {})],
    "seat-{line}-{number}": [("Seat", {})],
    "ticket-{id}": [("Ticket", {})],
    "badge-{id}": [("Badge", {})],
    "paint-{hue}": [("Paint", {"hue": "litres"})],
    "country-{code}": [("Country", {})],
    "city-{id}": [("City", {})],
    "stamp-{slug}": [("Stamp", {})],
    "product-{gross}": [("Product", {})],
    "double-{double}": [("Product", {})],
    "amount-{amount}": [("Product", {})],
    "log-{id}": [("Log", {})],
}


def settings_of(models: Models) -> dict[str, Any]:
    """Return settings in which every model has a topic, and every row is a key."""
    topics = {
        template: {
            "models": [
                {"model": models.classes[name], "params": dict(params)}
                for name, params in watched
                if name in models.classes
            ]
        }
        for template, watched in TOPICS.items()
    }
    return {
        "grip_url": "http://pushpin:5561",
        "auto_tags": {"scopes": ["owner_id"]},
        "topics": {name: topic for name, topic in topics.items() if topic["models"]},
    }


SEEDS: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("owner", {"id": 2, "name": "ann"}),
    ("owner", {"id": 3, "name": "bob"}),
    ("item", {"id": 7, "name": "blue", "price": 5, "owner_id": 3}),
    ("item", {"id": 8, "name": "red", "price": 5, "owner_id": 2}),
    ("tag", {"id": 4, "label": "new"}),
    ("tag", {"id": 5, "label": "old"}),
    ("item_tag", {"item_id": 7, "tag_id": 4}),
    ("mark", {"id": 4, "label": "good"}),
    ("mark", {"id": 5, "label": "bad"}),
    ("item_mark", {"item_id": 7, "mark_id": 4}),
    ("folder", {"id": 2}),
    ("file", {"id": 3, "folder_id": 2}),
    ("file", {"id": 4, "folder_id": 2}),
    ("shelf", {"id": 2}),
    ("book", {"id": 3, "shelf_id": 2}),
    ("team", {"id": 2}),
    ("player", {"id": 3, "team_id": 2}),
    ("animal", {"id": 2, "kind": "dog", "name": "rex"}),
    ("dog", {"id": 2, "breed": "boxer"}),
    ("vehicle", {"id": 2, "kind": "car", "name": "beetle"}),
    ("seat", {"line": 1, "number": 2}),
    ("ticket", {"id": 2, "title": "one", "version": 1}),
    ("badge", {"id": UUID(int=0xABC), "text": "x"}),
    ("paint", {"hue": Hue.RED, "litres": 1}),
    ("country", {"code": "CH", "name": "Switzerland"}),
    ("city", {"id": 2, "country": "CH"}),
    ("stamp", {"id": 2, "slug": "first"}),
    ("product", {"id": 2, "net": 10}),
)


# --- the ways ---------------------------------------------------------------------------------

Write = Callable[[Any, "World"], Any]
"""Writes by a session. A generator, if there is something that an AsyncSession must await."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way of writing, and what is told of it after the commit."""

    name: str
    write: Write
    told: tuple[str, ...]
    is_sync: bool
    """Whether an AsyncSession has it only within `run_sync`."""
    database: str
    """The only kind of database that has it, perhaps."""


@dataclass(slots=True)
class World:
    """What a way needs besides its session."""

    models: Models
    kind: str
    stack: ExitStack = field(default_factory=ExitStack)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.models, name)

    def table(self, name: str) -> Table:
        table: Table = self.models.metadata.tables[name]
        return table

    def listen(self, target: Any, name: str, function: Callable[..., Any], **options: Any) -> None:
        """Listen until the way has ended."""
        event.listen(target, name, function, **options)
        self.stack.callback(event.remove, target, name, function)

    def upsert(self, table: Table) -> Any:
        return (sqlite if self.kind == "sqlite" else postgresql).insert(table)


WAYS: list[Way] = []


def way(told: str, *, sync: bool = False, database: str = "") -> Callable[[Write], Write]:
    """Add a way to the table; `told` names the topics."""

    def add(write: Write) -> Write:
        name = write.__name__.strip("_").replace("_", " ")
        WAYS.append(Way(name, write, tuple(sorted(told.split())), sync, database))
        return write

    return add


def run(session: Any, statement: Any, *args: Any, **options: Any) -> Any:
    """Execute as the session would have it: SQLModel's would not have `execute`."""
    execute = getattr(session, "exec", None)
    if execute is None:
        return session.execute(statement, *args, **options)
    return execute(statement, **({"params": args[0]} if args else {}), **options)


def query(session: Any, model: Any) -> Any:
    """Ask as in SQLAlchemy 1: SQLModel's session would not have it any more."""
    return Session.query(session, model) if hasattr(session, "exec") else session.query(model)


BLUE_ITSELF = "items item-blue owner-3"  # its row is not written
BLUE = f"{BLUE_ITSELF} %row:item:7 %row:item.owner_id:3"
GREEN = "items item-green owner-3 %row:item:9 %row:item.owner_id:3"
ITEMS = "items item-%all owner-%all %row:item:%all"
LOGS = "log-%all %row:log:%all"


def both(*told: str) -> str:
    """Return all of what is told, once each."""
    return " ".join(dict.fromkeys(" ".join(told).split()))


def green(w: World) -> Any:
    return w.Item(id=9, name="green", owner_id=3)


# --- by objects


@way(GREEN)
def add(s: Any, w: World) -> None:
    s.add(green(w))


@way(both(GREEN, "item-black owner-2 %row:item:10 %row:item.owner_id:2"))
def add_all(s: Any, w: World) -> None:
    s.add_all([green(w), w.Item(id=10, name="black", owner_id=2)])


@way("log-1 %row:log:1")
def add_with_a_key_of_the_database(s: Any, w: World) -> None:
    s.add(w.Log(line="x"))


@way(" ".join(f"log-{n} %row:log:{n}" for n in range(1, 1101)))
def add_many_rows(s: Any, w: World) -> None:
    s.add_all([w.Log(line="x") for _ in range(1100)])


@way("stamp-made %row:stamp:3")
def add_with_a_server_default_in_the_name(s: Any, w: World) -> None:
    s.add(w.Stamp(id=3))


@way(BLUE)
def update_attribute(s: Any, w: World) -> Any:
    item = yield s.get(w.Item, 7)
    item.price = 9


@way(BLUE)
def update_by_an_expression(s: Any, w: World) -> Any:
    item = yield s.get(w.Item, 7)
    item.price = w.Item.price + 1


@way(both(BLUE, "item-navy"))
def update_of_a_name(s: Any, w: World) -> Any:
    item = yield s.get(w.Item, 7)
    item.name = "navy"


@way(both(BLUE, "item-navy"))
def update_of_a_name_that_was_never_loaded(s: Any, w: World) -> Any:
    item = yield s.get(w.Item, 7, options=[load_only(w.Item.price)])
    item.name = "navy"


@way(both(BLUE, "item-bluex"))
def update_of_a_name_by_an_expression(s: Any, w: World) -> Any:
    item = yield s.get(w.Item, 7)
    item.name = w.Item.name + "x"


@way("")
def save_that_changes_nothing(s: Any, w: World) -> Any:
    item = yield s.get(w.Item, 7)
    item.price = item.price


@way("")
def change_that_is_taken_back(s: Any, w: World) -> Any:
    item = yield s.get(w.Item, 7)
    item.name, item.price = "navy", 9
    item.name, item.price = "blue", 5


@way(both("items item-red owner-2 %row:item:8 %row:item.owner_id:2"))
def delete_object(s: Any, w: World) -> Any:
    item = yield s.get(w.Item, 8, options=[selectinload(w.Item.tags), selectinload(w.Item.marks)])
    yield deleted(s, item)


@way(
    both("items item-red owner-2 %row:item:8 %row:item.owner_id:2")
    + " item-pink owner-3 %row:item.owner_id:3"
)
def delete_and_a_new_object_with_its_key(s: Any, w: World) -> Any:
    """There is no DELETE, and no INSERT: the row is updated."""
    item = yield s.get(w.Item, 8, options=[selectinload(w.Item.tags), selectinload(w.Item.marks)])
    yield deleted(s, item)
    s.add(w.Item(id=8, name="pink", owner_id=3))


@way(both("ticket-2 %row:ticket:2"))
def delete_of_an_expired_object(s: Any, w: World) -> Any:
    ticket = yield s.get(w.Ticket, 2)
    s.expire(ticket)
    yield deleted(s, ticket)


@way("folder-2 file-3 %row:file:3")
def delete_orphan(s: Any, w: World) -> Any:
    folder = yield s.get(w.Folder, 2, options=[selectinload(w.Folder.files)])
    folder.files.remove(next(file for file in folder.files if file.id == 3))


@way("folder-2 file-3 file-4 %row:folder:2 %row:file:3 %row:file:4")
def delete_with_a_cascade_of_the_session(s: Any, w: World) -> Any:
    folder = yield s.get(w.Folder, 2, options=[selectinload(w.Folder.files)])
    yield deleted(s, folder)


@way("shelf-2 book-%all %row:shelf:2 %row:book:%all")
def delete_with_on_delete_cascade(s: Any, w: World) -> Any:
    yield deleted(s, (yield s.get(w.Shelf, 2)))


@way("team-2 player-%all %row:team:2 %row:player:%all")
def delete_with_on_delete_set_null(s: Any, w: World) -> Any:
    yield deleted(s, (yield s.get(w.Team, 2)))


@way(both(BLUE_ITSELF, "tag-old %row:item_tag:%all"))
def many_to_many_append(s: Any, w: World) -> Any:
    item = yield s.get(w.Item, 7, options=[selectinload(w.Item.tags)])
    item.tags.append((yield s.get(w.Tag, 5)))


@way(both(BLUE_ITSELF, "tag-new %row:item_tag:%all"))
def many_to_many_remove(s: Any, w: World) -> Any:
    item = yield s.get(w.Item, 7, options=[selectinload(w.Item.tags)])
    item.tags.clear()


@way("items item-blue owner-3 tag-old %row:item_tag:%all")
def many_to_many_append_to_the_other_side(s: Any, w: World) -> Any:
    tag = yield s.get(w.Tag, 5, options=[selectinload(w.Tag.items)])
    tag.items.append((yield s.get(w.Item, 7)))


@way(both(BLUE_ITSELF, "mark-bad %row:item_mark:%all"))
def many_to_many_append_without_backref(s: Any, w: World) -> Any:
    item = yield s.get(w.Item, 7, options=[selectinload(w.Item.marks)])
    item.marks.append((yield s.get(w.Mark, 5)))


@way(both(BLUE_ITSELF, "mark-good %row:item_mark:%all"))
def many_to_many_remove_without_backref(s: Any, w: World) -> Any:
    item = yield s.get(w.Item, 7, options=[selectinload(w.Item.marks)])
    item.marks.clear()


@way(both(BLUE, "tag-new mark-good %row:item_tag:%all %row:item_mark:%all"))
def delete_of_an_object_that_is_related(s: Any, w: World) -> Any:
    options = [selectinload(w.Item.tags), selectinload(w.Item.marks)]
    yield deleted(s, (yield s.get(w.Item, 7, options=options)))


@way(both("items item-%all owner-%all", "mark-good %row:mark:4 %row:item_mark:%all"))
def delete_of_an_object_that_is_related_without_its_knowledge(s: Any, w: World) -> Any:
    yield deleted(s, (yield s.get(w.Mark, 4)))


@way(both(GREEN, "owner-3"))
def one_to_many_append(s: Any, w: World) -> Any:
    owner = yield s.get(w.Owner, 3, options=[selectinload(w.Owner.items)])
    owner.items.append(w.Item(id=9, name="green"))


@way(both(BLUE, "owner-2 %row:item.owner_id:2"))
def one_to_many_move(s: Any, w: World) -> Any:
    item = yield s.get(w.Item, 7)
    owner = yield s.get(w.Owner, 2, options=[selectinload(w.Owner.items)])
    owner.items.append(item)


@way(BLUE)
def one_to_many_remove(s: Any, w: World) -> Any:
    owner = yield s.get(w.Owner, 3, options=[selectinload(w.Owner.items)])
    owner.items.clear()


@way(both(BLUE, "owner-2 %row:item.owner_id:2"))
def foreign_key_moved(s: Any, w: World) -> Any:
    item = yield s.get(w.Item, 7)
    item.owner_id = 2


@way(both(BLUE, "owner-2 %row:item.owner_id:2"))
def foreign_key_moved_that_was_never_loaded(s: Any, w: World) -> Any:
    item = yield s.get(w.Item, 7, options=[load_only(w.Item.name)])
    item.owner_id = 2


@way(both(BLUE, "owner-2 %row:item.owner_id:2"))
def many_to_one_moved(s: Any, w: World) -> Any:
    item = yield s.get(w.Item, 7)
    item.owner = yield s.get(w.Owner, 2)


@way(both(BLUE, "owner-2 %row:item.owner_id:2"))
def many_to_one_moved_that_was_never_loaded(s: Any, w: World) -> Any:
    item = yield s.get(w.Item, 7, options=[load_only(w.Item.name)])
    item.owner = yield s.get(w.Owner, 2)


@way("team-2 %row:team:2")
def post_update(s: Any, w: World) -> Any:
    team = yield s.get(w.Team, 2)
    team.captain = yield s.get(w.Player, 3)


@way(
    f"country-CH country-SUI {row_topic('country', 'CH').name} {row_topic('country', 'SUI').name} "
    "city-%all %row:city:%all"
)
def primary_key_changed(s: Any, w: World) -> Any:
    country = yield s.get(w.Country, "CH")
    country.code = "SUI"


@way(both(BLUE, "item-navy"))
def merge(s: Any, w: World) -> Any:
    yield s.merge(w.Item(id=7, name="navy"))


@way(GREEN)
def merge_of_what_is_new(s: Any, w: World) -> Any:
    yield s.merge(green(w))


@way(both(BLUE, "item-navy"))
def expunge_and_save_again(s: Any, w: World) -> Any:
    item = yield s.get(w.Item, 7)
    item.name = "navy"
    s.expunge(item)
    yield run(s, text("UPDATE stamp SET slug = slug WHERE id = 0"))
    s.add(item)


@way("animal-fido dog-pug %row:animal:3 %row:dog:3")
def joined_inheritance_add(s: Any, w: World) -> None:
    s.add(w.Dog(id=3, name="fido", breed="pug"))


@way("animal-rex animal-max dog-boxer %row:animal:2 %row:dog:2")
def joined_inheritance_update_above(s: Any, w: World) -> Any:
    dog = yield s.get(w.Animal, 2)
    dog.name = "max"


@way("animal-rex dog-boxer dog-pug %row:animal:2 %row:dog:2")
def joined_inheritance_update_below(s: Any, w: World) -> Any:
    dog = yield s.get(w.Dog, 2)
    dog.breed = "pug"


@way("animal-rex dog-boxer dog-pug %row:animal:2 %row:dog:2")
def joined_inheritance_update_below_of_what_was_never_loaded(s: Any, w: World) -> Any:
    dog = yield s.get(w.Dog, 2, options=[load_only(w.Dog.name)])
    dog.breed = "pug"


@way("animal-rex dog-boxer %row:animal:2 %row:dog:2")
def joined_inheritance_delete(s: Any, w: World) -> Any:
    yield deleted(s, (yield s.get(w.Dog, 2)))


@way("animal-rex dog-boxer %row:animal:2 %row:dog:2")
def joined_inheritance_delete_of_what_was_never_loaded(s: Any, w: World) -> Any:
    yield deleted(s, (yield s.get(w.Dog, 2, options=[load_only(w.Dog.kind)])))


@way("vehicle-mini %row:vehicle:3")
def single_table_inheritance_add(s: Any, w: World) -> None:
    s.add(w.Car(id=3, name="mini"))


@way("vehicle-beetle vehicle-mini %row:vehicle:2")
def single_table_inheritance_update(s: Any, w: World) -> Any:
    car = yield s.get(w.Vehicle, 2)
    car.name = "mini"


@way("seat-1-2 %row:seat:%any")
def composite_key(s: Any, w: World) -> Any:
    seat = yield s.get(w.Seat, (1, 2))
    seat.guest = "ann"


@way("seat-1-2 seat-1-3 %row:seat:%any")
def composite_key_changed(s: Any, w: World) -> Any:
    seat = yield s.get(w.Seat, (1, 2))
    seat.number = 3


@way("ticket-2 %row:ticket:2")
def versioned(s: Any, w: World) -> Any:
    ticket = yield s.get(w.Ticket, 2)
    ticket.title = "two"


@way(f"badge-{UUID(int=0xABC)} {row_topic('badge', UUID(int=0xABC)).name}")
def uuid_key(s: Any, w: World) -> Any:
    badge = yield s.get(w.Badge, UUID(int=0xABC))
    badge.text = "y"


@way(f"paint-1 paint-2 {row_topic('paint', 'RED').name}")
def enum_key(s: Any, w: World) -> Any:
    paint = yield s.get(w.Paint, Hue.RED)
    paint.litres = 2


@way(f"country-CH {row_topic('country', 'CH').name}")
def text_key(s: Any, w: World) -> Any:
    country = yield s.get(w.Country, "CH")
    country.name = "Suisse"


@way("product-11 product-21 double-20 double-40 amount-10 amount-20 %row:product:2")
def computed_names(s: Any, w: World) -> Any:
    product = yield s.get(w.Product, 2)
    product.net = 20


@way("product-11 double-20 amount-10 %row:product:2")
def computed_names_of_what_is_deleted(s: Any, w: World) -> Any:
    yield deleted(s, (yield s.get(w.Product, 2)))


@way("product-6 double-10 amount-5 %row:product:3")
def computed_names_of_what_is_new(s: Any, w: World) -> None:
    s.add(w.Product(id=3, net=5))


def deleted(s: Any, instance: Any) -> Any:
    return s.delete(instance)


# --- in bulk, by models


@way(ITEMS, sync=True)
def bulk_save_objects(s: Any, w: World) -> None:
    s.bulk_save_objects([green(w)])


@way(ITEMS, sync=True)
def bulk_insert_mappings(s: Any, w: World) -> None:
    s.bulk_insert_mappings(w.Item, [{"id": 9, "name": "green"}, {"id": 10, "name": "black"}])


@way(ITEMS, sync=True)
def bulk_update_mappings(s: Any, w: World) -> None:
    s.bulk_update_mappings(w.Item, [{"id": 7, "price": 9}])


@way("animal-%all dog-%all %row:animal:%all %row:dog:%all", sync=True)
def bulk_insert_of_joined_inheritance(s: Any, w: World) -> None:
    s.bulk_insert_mappings(w.Dog, [{"id": 3, "name": "fido", "breed": "pug", "kind": "dog"}])


@way(ITEMS, sync=True)
def query_update(s: Any, w: World) -> None:
    query(s, w.Item).filter_by(id=7).update({"price": 9})


@way(ITEMS, sync=True)
def query_delete(s: Any, w: World) -> None:
    query(s, w.Item).filter_by(id=8).delete()


@way(ITEMS)
def insert_of_a_model(s: Any, w: World) -> Any:
    yield run(s, insert(w.Item), [{"id": 9, "name": "green"}, {"id": 10, "name": "black"}])


@way(ITEMS)
def insert_of_one(s: Any, w: World) -> Any:
    yield run(s, insert(w.Item).values(id=9, name="green"))


@way(ITEMS)
def insert_returning(s: Any, w: World) -> Any:
    values = [{"id": 9, "name": "green"}, {"id": 10, "name": "black"}]
    yield run(s, insert(w.Item).returning(w.Item), values)


@way("animal-%all dog-%all %row:animal:%all %row:dog:%all")
def insert_of_joined_inheritance(s: Any, w: World) -> Any:
    yield run(s, insert(w.Dog), [{"id": 3, "name": "fido", "breed": "pug", "kind": "dog"}])


@way(LOGS)
def insert_of_many_values(s: Any, w: World) -> Any:
    yield run(s, insert(w.Log).returning(w.Log.id), [{"line": "x"} for _ in range(1100)])


@way(ITEMS)
def update_without_synchronizing(s: Any, w: World) -> Any:
    statement = update(w.Item).where(w.Item.id == 7).values(price=9)
    yield run(s, statement, execution_options={"synchronize_session": False})


@way(ITEMS)
def update_that_evaluates(s: Any, w: World) -> Any:
    yield s.get(w.Item, 7)
    statement = update(w.Item).where(w.Item.id == 7).values(name="navy")
    yield run(s, statement, execution_options={"synchronize_session": "evaluate"})


@way(ITEMS)
def update_that_fetches(s: Any, w: World) -> Any:
    yield s.get(w.Item, 7)
    statement = update(w.Item).where(w.Item.id == 7).values(name="navy")
    yield run(s, statement, execution_options={"synchronize_session": "fetch"})


@way(ITEMS)
def update_by_primary_keys(s: Any, w: World) -> Any:
    yield run(s, update(w.Item), [{"id": 7, "price": 9}, {"id": 8, "price": 9}])


@way("")
def update_of_no_row(s: Any, w: World) -> Any:
    yield run(s, update(w.Item).where(w.Item.id == 99).values(price=9))


@way(ITEMS)
def update_returning(s: Any, w: World) -> Any:
    yield run(s, update(w.Item).where(w.Item.id == 7).values(price=9).returning(w.Item.id))


@way("animal-%all dog-%all %row:animal:%all")
def update_of_joined_inheritance_above(s: Any, w: World) -> Any:
    yield run(s, update(w.Animal).where(w.Animal.kind == "dog").values(name="max"))


@way("animal-%all dog-%all %row:dog:%all")
def update_of_joined_inheritance_below(s: Any, w: World) -> Any:
    yield run(s, update(w.Dog).where(w.Dog.breed == "boxer").values(breed="pug"))


@way("vehicle-%all %row:vehicle:%all")
def update_of_single_table_inheritance(s: Any, w: World) -> Any:
    yield run(s, update(w.Car).values(name="mini"))


@way(ITEMS)
def delete_of_a_model(s: Any, w: World) -> Any:
    yield run(s, delete(w.Item).where(w.Item.id == 8))


@way(ITEMS)
def delete_that_fetches(s: Any, w: World) -> Any:
    statement = delete(w.Item).where(w.Item.id == 8)
    yield run(s, statement, execution_options={"synchronize_session": "fetch"})


@way("")
def delete_of_no_row(s: Any, w: World) -> Any:
    yield run(s, delete(w.Item).where(w.Item.id == 99))


@way("shelf-%all book-%all %row:shelf:%all %row:book:%all")
def delete_of_a_model_with_on_delete_cascade(s: Any, w: World) -> Any:
    yield run(s, delete(w.Shelf))


@way("team-%all player-%all %row:team:%all %row:player:%all")
def delete_of_a_model_with_on_delete_set_null(s: Any, w: World) -> Any:
    yield run(s, delete(w.Team))


@way("country-%all city-%all %row:country:%all %row:city:%all")
def update_of_a_model_with_on_update_cascade(s: Any, w: World) -> Any:
    yield run(s, update(w.Country).values(code="SUI"))


@way(ITEMS)
def upsert(s: Any, w: World) -> Any:
    statement = w.upsert(w.table("item")).values(id=7, name="navy", price=1)
    yield run(s, statement.on_conflict_do_update(index_elements=["id"], set_={"name": "navy"}))


@way(ITEMS)
def upsert_of_a_model(s: Any, w: World) -> Any:
    statement = w.upsert(w.Item).values(id=7, name="navy", price=1)
    yield run(s, statement.on_conflict_do_update(index_elements=["id"], set_={"name": "navy"}))


# --- Core, by tables


@way(ITEMS)
def core_insert_by_session(s: Any, w: World) -> Any:
    yield run(s, w.table("item").insert().values(id=9, name="green"))


@way(ITEMS)
def core_update_by_session(s: Any, w: World) -> Any:
    yield run(s, w.table("item").update().values(price=9))


@way(ITEMS)
def core_delete_by_session(s: Any, w: World) -> Any:
    yield run(s, w.table("item").delete().where(w.table("item").c.id == 8))


@way(ITEMS)
def core_insert_by_connection(s: Any, w: World) -> Any:
    connection = yield s.connection()
    yield connection.execute(w.table("item").insert().values(id=9, name="green"))


@way(ITEMS)
def core_update_by_connection(s: Any, w: World) -> Any:
    connection = yield s.connection()
    yield connection.execute(w.table("item").update().values(price=9))


@way(ITEMS)
def core_delete_by_connection(s: Any, w: World) -> Any:
    connection = yield s.connection()
    yield connection.execute(w.table("item").delete().where(w.table("item").c.id == 8))


@way(ITEMS)
def core_executemany(s: Any, w: World) -> Any:
    connection = yield s.connection()
    values = [{"id": 9, "name": "green"}, {"id": 10, "name": "black"}]
    yield connection.execute(w.table("item").insert(), values)


@way(ITEMS)
def core_update_executemany(s: Any, w: World) -> Any:
    table, connection = w.table("item"), (yield s.connection())
    statement = table.update().where(table.c.id == bindparam("which")).values(price=9)
    yield connection.execute(statement, [{"which": 7}, {"which": 8}])


@way("item-%all items owner-%all tag-%all %row:item_tag:%all")
def core_insert_into_a_secondary_table(s: Any, w: World) -> Any:
    yield run(s, w.table("item_tag").insert().values(item_id=8, tag_id=5))


@way(LOGS)
def insert_from_select(s: Any, w: World) -> Any:
    source = select(w.table("item").c.name)
    yield run(s, w.table("log").insert().from_select(["line"], source))


@way(ITEMS)
def update_from(s: Any, w: World) -> Any:
    item, owner = w.table("item"), w.table("owner")
    statement = item.update().values(name=owner.c.name).where(item.c.owner_id == owner.c.id)
    yield run(s, statement)


@way(ITEMS, database="postgresql")
def delete_using(s: Any, w: World) -> Any:
    item, owner = w.table("item"), w.table("owner")
    yield run(s, item.delete().where(item.c.owner_id == owner.c.id, item.c.id == 8))


@way(ITEMS, database="postgresql")
def cte_that_writes(s: Any, w: World) -> Any:
    item = w.table("item")
    cte = item.update().values(price=9).returning(item.c.id).cte()
    yield run(s, select(func.count()).select_from(cte))


@way(both(ITEMS, LOGS), database="postgresql")
def cte_that_writes_in_a_statement_that_writes(s: Any, w: World) -> Any:
    item, log = w.table("item"), w.table("log")
    cte = item.update().values(price=9).returning(item.c.name).cte()
    yield run(s, log.insert().from_select(["line"], select(cte.c.name)))


@way(LOGS)
def insert_with_a_cte_that_reads(s: Any, w: World) -> Any:
    cte = select(w.table("item").c.name).cte()
    yield run(s, w.table("log").insert().from_select(["line"], select(cte.c.name)))


# --- SQL as text


@way(ITEMS)
def text_insert_by_session(s: Any, w: World) -> Any:
    yield run(s, text("INSERT INTO item (id, name, price) VALUES (9, 'green', 0)"))


@way(ITEMS)
def text_update_by_session(s: Any, w: World) -> Any:
    yield run(s, text("update item set price = :price where id = :id"), {"price": 9, "id": 7})


@way(ITEMS)
def text_delete_by_session(s: Any, w: World) -> Any:
    yield run(s, text('DELETE FROM "item" WHERE id = 8'))


@way("")
def text_update_of_no_row(s: Any, w: World) -> Any:
    yield run(s, text("UPDATE item SET price = 9 WHERE id = 99"))


@way(ITEMS)
def text_insert_by_connection(s: Any, w: World) -> Any:
    connection = yield s.connection()
    yield connection.execute(text("INSERT INTO item (id, name, price) VALUES (9, 'green', 0)"))


@way(ITEMS)
def text_update_by_connection(s: Any, w: World) -> Any:
    connection = yield s.connection()
    yield connection.execute(text("UPDATE item SET price = 9"))


@way(ITEMS)
def text_delete_by_connection(s: Any, w: World) -> Any:
    connection = yield s.connection()
    yield connection.execute(text("-- one\nDELETE FROM item WHERE id = 8"))


@way(ITEMS)
def text_executemany(s: Any, w: World) -> Any:
    connection = yield s.connection()
    values = [{"id": 9}, {"id": 10}]
    yield connection.execute(
        text("INSERT INTO item (id, name, price) VALUES (:id, 'x', 0)"), values
    )


@way(ITEMS)
def text_with_a_common_table(s: Any, w: World) -> Any:
    statement = (
        "WITH w AS (SELECT 7 AS id) UPDATE item SET price = 9 WHERE id IN (SELECT id FROM w)"
    )
    yield run(s, text(statement))


@way(ITEMS)
def exec_driver_sql(s: Any, w: World) -> Any:
    connection = yield s.connection()
    yield connection.exec_driver_sql("UPDATE item SET price = 9 WHERE id = 7")


@way(both("items item-%all owner-%all tag-%all %row:item_tag:%all", LOGS), database="postgresql")
def truncate(s: Any, w: World) -> Any:
    yield run(s, text("TRUNCATE item_tag, log"))


@way(ITEMS, database="postgresql")
def merge_into(s: Any, w: World) -> Any:
    statement = """
        MERGE INTO item USING (SELECT 7 AS id) AS source ON item.id = source.id
        WHEN MATCHED THEN UPDATE SET price = 9
    """
    yield run(s, text(statement))


@way("%all", database="postgresql")
def text_that_does_not_say_what_it_writes(s: Any, w: World) -> Any:
    yield run(s, text("DO $$ BEGIN UPDATE item SET price = 9; END $$"))


@way("", database="postgresql")
def text_that_only_reads(s: Any, w: World) -> Any:
    yield run(s, text("SELECT pg_advisory_xact_lock(1)"))
    yield run(s, text("SET LOCAL work_mem = '8MB'"))
    yield run(s, text("SELECT * FROM item FOR UPDATE"))


# --- from listeners


@way(both(GREEN, LOGS))
def hook_of_a_mapper_writes_to_another_table(s: Any, w: World) -> None:
    log = w.table("log")
    w.listen(w.Item, "after_insert", lambda m, c, o: c.execute(log.insert().values(line=o.name)))
    s.add(green(w))


@way(both(GREEN, ITEMS))
def hook_of_a_mapper_writes_to_the_same_table(s: Any, w: World) -> None:
    item = w.table("item")
    w.listen(w.Item, "after_insert", lambda m, c, o: c.execute(item.update().values(price=9)))
    s.add(green(w))


@way(both(GREEN, "item-%all owner-%all tag-%all %row:item_tag:%all"))
def hook_of_a_mapper_writes_to_a_secondary_table(s: Any, w: World) -> None:
    values = {"item_id": 8, "tag_id": 5}
    link = w.table("item_tag").insert().values(values)
    w.listen(w.Item, "after_insert", lambda m, c, o: c.execute(link))
    s.add(green(w))


@way(both(GREEN, LOGS))
def hook_of_a_mapper_writes_in_bulk(s: Any, w: World) -> None:
    def write(mapper: Any, connection: Any, instance: Any) -> None:
        Session(bind=connection, join_transaction_mode="rollback_only").bulk_insert_mappings(
            w.Log, [{"line": "x"}]
        )

    w.listen(w.Item, "after_insert", write)
    s.add(green(w))


@way(both(BLUE, "item-navy"))
def hook_of_a_mapper_changes_the_object(s: Any, w: World) -> Any:
    w.listen(w.Item, "before_update", lambda m, c, o: setattr(o, "name", "navy"))
    item = yield s.get(w.Item, 7)
    item.price = 9


def _once(function: Callable[[Session], Any]) -> Callable[..., Any]:
    """Listen to a session's event only once."""
    calls: list[None] = []

    def listener(session: Session, *_: Any) -> None:
        if not calls:
            calls.append(None)
            function(session)

    return listener


def _listening(name: str, function: Callable[[Session], Any], **options: Any) -> Write:
    def write(s: Any, w: World) -> Any:
        w.listen(Session, name, _once(lambda session: function(session)), **options)
        s.add(green(w))

    return write


for _event in ("before_flush", "after_flush", "after_flush_postexec", "before_commit"):
    for _order in ("first", "last"):

        def _write_core(s: Any, w: World, name: str = _event, order: str = _order) -> None:
            statement = w.table("log").insert().values(line="x")
            listener = _once(lambda session: session.connection().execute(statement))
            w.listen(Session, name, listener, insert=order == "first")
            s.add(green(w))

        def _write_object(s: Any, w: World, name: str = _event, order: str = _order) -> None:
            listener = _once(lambda session: session.add(w.Log(id=5, line="x")))
            w.listen(Session, name, listener, insert=order == "first")
            s.add(green(w))

        def _write_bulk(s: Any, w: World, name: str = _event, order: str = _order) -> None:
            def write(session: Session) -> None:
                session.bulk_insert_mappings(w.Log, [{"line": "x"}])

            w.listen(Session, name, _once(write), insert=order == "first")
            s.add(green(w))

        for _kind, _write, _told in (
            ("Core", _write_core, LOGS),
            ("an object", _write_object, "log-5 %row:log:5"),
            ("in bulk", _write_bulk, LOGS),
        ):
            _write.__name__ = f"{_event} writes {_kind}, {_order}"
            way(both(GREEN, _told))(_write)


@way(both(BLUE, "item-navy log-5 %row:log:5"))
def before_flush_moves_an_object_that_was_not_loaded(s: Any, w: World) -> Any:
    item = yield s.get(w.Item, 7, options=[load_only(w.Item.price)])
    w.listen(Session, "before_flush", _once(lambda session: setattr(item, "name", "navy")))
    s.add(w.Log(id=5, line="x"))


# --- running them -----------------------------------------------------------------------------


def write_now(way: Way, session: Any, world: World) -> None:
    """Write by a session that answers at once."""
    steps: Any = way.write(session, world)
    if not isinstance(steps, Generator):
        return
    result: Any = None
    try:
        while True:
            result = steps.send(result)
    except StopIteration:
        return


async def write_async(way: Way, session: Any, world: World) -> None:
    """Write by a session of which some answers must be awaited."""
    if way.is_sync:
        await session.run_sync(lambda sync_session: write_now(way, sync_session, world))
        return
    steps: Any = way.write(session, world)
    if not isinstance(steps, Generator):
        return
    result: Any = None
    try:
        while True:
            result = steps.send(result)
            if isinstance(result, Awaitable):
                result = await result
    except StopIteration:
        return


# --- what came of it --------------------------------------------------------------------------


def table(results: Mapping[tuple[str, str], str], variants: Sequence[str]) -> str:
    """Return the matrix as text: of how many outcomes each way was told rightly, and what."""
    widths = [max(8, len(variant)) for variant in variants]
    lines = [_line("", [f"{v:>{w}}" for v, w in zip(variants, widths, strict=True)], "told")]
    for way in WAYS:
        cells = [results.get((way.name, variant), "-") for variant in variants]
        padded = [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]
        lines.append(_line(way.name, padded, _short(" ".join(way.told) or "nothing")))
    return "\n".join(lines)


def _line(name: str, cells: Sequence[str], told: str) -> str:
    return f"{name:<62} {' '.join(cells)}  {told}"


def _short(told: str) -> str:
    return told if len(told) <= 120 else f"{told[:117]}..."

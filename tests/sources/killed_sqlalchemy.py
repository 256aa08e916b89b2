"""Commits in a loop with SQLAlchemy, to be killed; see `kills.py`."""

from __future__ import annotations

import random
from collections.abc import Callable

from sqlalchemy import create_engine, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from grip_edge_middleware import GripEdge
from grip_edge_middleware.sources.sqlalchemy import create_outbox
from tests.sources.kills import Numbers, Order


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]


class Lot(Base):
    __tablename__ = "lot"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]


create_outbox(Base.metadata)


class Program:
    """Sessions, savepoints, rollbacks, and statements of all kinds."""

    def __init__(self, order: Order) -> None:
        self._settings = order.edge
        self._engine = create_engine(order.url)

    def create_tables(self) -> None:
        if self._engine.dialect.name == "sqlite":
            with self._engine.connect() as connection:
                connection.execute(text("PRAGMA journal_mode = WAL"))
        Base.metadata.create_all(self._engine)

    def open_edge(self) -> GripEdge:
        topics = {"item-{number}": {"models": [Item]}, "lot-{number}": {"models": [Lot]}}
        return GripEdge(settings={**self._settings, "topics": topics})

    def look_after(self, edge: GripEdge) -> None:
        edge.follow(self._engine)

    def commit(self, numbers: Numbers, chance: random.Random) -> None:
        with Session(self._engine) as session:
            chance.choice(WAYS)(session, numbers)

    def disconnect(self) -> None:
        self._engine.dispose()


def add(session: Session, numbers: Numbers) -> None:
    session.add(Item(number=next(numbers)))
    session.commit()


def add_several(session: Session, numbers: Numbers) -> None:
    session.add_all(Item(number=next(numbers)) for _ in range(5))
    session.commit()


def move(session: Session, numbers: Numbers) -> None:
    item = session.scalars(select(Item).order_by(Item.id.desc()).limit(1)).first()
    if item is not None:
        item.number = next(numbers)
    session.commit()


def add_around_savepoints(session: Session, numbers: Numbers) -> None:
    session.add(Item(number=next(numbers)))
    session.flush()
    savepoint = session.begin_nested()
    session.add(Item(number=-next(numbers)))
    session.flush()
    savepoint.rollback()
    with session.begin_nested():
        session.add(Item(number=next(numbers)))
    session.commit()


def roll_back(session: Session, numbers: Numbers) -> None:
    session.add(Item(number=-next(numbers)))
    session.flush()
    session.rollback()


def insert_in_bulk(session: Session, numbers: Numbers) -> None:
    session.execute(insert(Lot), [{"number": next(numbers)} for _ in range(5)])
    session.commit()


def insert_by_core(session: Session, numbers: Numbers) -> None:
    with session.get_bind().engine.begin() as connection:
        connection.execute(insert(Lot).values(number=next(numbers)))


def insert_by_text(session: Session, numbers: Numbers) -> None:
    session.execute(text("INSERT INTO lot (number) VALUES (:n)"), {"n": next(numbers)})
    session.add(Item(number=next(numbers)))
    session.commit()


WAYS: list[Callable[[Session, Numbers], None]] = [
    add,
    add_several,
    move,
    add_around_savepoints,
    roll_back,
    insert_in_bulk,
    insert_by_core,
    insert_by_text,
]

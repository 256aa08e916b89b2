"""The models of the matrix as SQLModel declares them, as far as it can.

Not postponed annotations: SQLModel reads them as they are.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import Column, Enum, ForeignKey, String
from sqlalchemy.orm import registry
from sqlmodel import Field, Relationship, SQLModel

from tests.sources.matrix import Hue, Models


class Base(SQLModel, registry=registry()):
    """Apart from the models of others."""


class ItemTag(Base, table=True):
    __tablename__ = "item_tag"
    item_id: int = Field(foreign_key="item.id", primary_key=True)
    tag_id: int = Field(foreign_key="tag.id", primary_key=True)


class ItemMark(Base, table=True):
    __tablename__ = "item_mark"
    item_id: int = Field(foreign_key="item.id", primary_key=True)
    mark_id: int = Field(foreign_key="mark.id", primary_key=True, ondelete="CASCADE")


class Owner(Base, table=True):
    __tablename__ = "owner"
    id: int | None = Field(default=None, primary_key=True)
    name: str
    items: list["Item"] = Relationship(back_populates="owner")


class Item(Base, table=True):
    __tablename__ = "item"
    id: int | None = Field(default=None, primary_key=True)
    name: str
    price: int = 0
    owner_id: int | None = Field(default=None, foreign_key="owner.id")
    owner: Owner | None = Relationship(back_populates="items")
    tags: list["Tag"] = Relationship(back_populates="items", link_model=ItemTag)
    marks: list["Mark"] = Relationship(link_model=ItemMark)


class Tag(Base, table=True):
    __tablename__ = "tag"
    id: int | None = Field(default=None, primary_key=True)
    label: str
    items: list[Item] = Relationship(back_populates="tags", link_model=ItemTag)


class Mark(Base, table=True):
    __tablename__ = "mark"
    id: int | None = Field(default=None, primary_key=True)
    label: str


class Folder(Base, table=True):
    __tablename__ = "folder"
    id: int | None = Field(default=None, primary_key=True)
    files: list["File"] = Relationship(cascade_delete=True)


class File(Base, table=True):
    __tablename__ = "file"
    id: int | None = Field(default=None, primary_key=True)
    folder_id: int = Field(foreign_key="folder.id")


class Shelf(Base, table=True):
    __tablename__ = "shelf"
    id: int | None = Field(default=None, primary_key=True)
    books: list["Book"] = Relationship(cascade_delete=True, passive_deletes=True)


class Book(Base, table=True):
    __tablename__ = "book"
    id: int | None = Field(default=None, primary_key=True)
    shelf_id: int = Field(foreign_key="shelf.id", ondelete="CASCADE")


class Team(Base, table=True):
    __tablename__ = "team"
    id: int | None = Field(default=None, primary_key=True)
    players: list["Player"] = Relationship(
        passive_deletes="all", sa_relationship_kwargs={"foreign_keys": "Player.team_id"}
    )
    captain_id: int | None = Field(
        sa_column=Column(ForeignKey("player.id", use_alter=True, name="captain")), default=None
    )
    captain: "Player" = Relationship(
        sa_relationship_kwargs={"foreign_keys": "Team.captain_id", "post_update": True}
    )


class Player(Base, table=True):
    __tablename__ = "player"
    id: int | None = Field(default=None, primary_key=True)
    team_id: int | None = Field(default=None, foreign_key="team.id", ondelete="SET NULL")


class Seat(Base, table=True):
    __tablename__ = "seat"
    line: int = Field(primary_key=True)
    number: int = Field(primary_key=True)
    guest: str | None = None


class Ticket(Base, table=True):
    __tablename__ = "ticket"
    id: int | None = Field(default=None, primary_key=True)
    title: str
    version: int = Field(default=None)


class Badge(Base, table=True):
    __tablename__ = "badge"
    id: UUID = Field(primary_key=True)
    text: str


class Paint(Base, table=True):
    __tablename__ = "paint"
    hue: Hue = Field(sa_column=Column(Enum(Hue), primary_key=True))
    litres: int


class Country(Base, table=True):
    __tablename__ = "country"
    code: str = Field(primary_key=True)
    name: str


class City(Base, table=True):
    __tablename__ = "city"
    id: int | None = Field(default=None, primary_key=True)
    country: str = Field(sa_column=Column(ForeignKey("country.code", onupdate="CASCADE")))


class Stamp(Base, table=True):
    __tablename__ = "stamp"
    id: int | None = Field(default=None, primary_key=True)
    slug: str = Field(sa_column=Column(String, server_default="made", nullable=False), default=None)


class Log(Base, table=True):
    __tablename__ = "log"
    id: int | None = Field(default=None, primary_key=True)
    line: str


def models() -> Models:
    """Return all of them."""
    found: dict[str, Any] = {kind.__name__: kind for kind in Base.__subclasses__()}
    return Models({**found, "metadata": Base.metadata})

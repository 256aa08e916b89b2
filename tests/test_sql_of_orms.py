"""SQL that ORMs write: the same tables are found as by a parser that no one here wrote."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peewee
import pytest
import sqlglot
from sqlalchemy import (
    Column,
    Dialect,
    ForeignKey,
    Table,
    and_,
    case,
    create_engine,
    delete,
    event,
    exists,
    extract,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    text,
    true,
    tuple_,
    union,
    union_all,
    update,
    values,
)
from sqlalchemy import Integer as SQLInteger
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.dialects.mysql import insert as mysql_insert
from sqlalchemy.dialects.postgresql import asyncpg, psycopg
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    contains_eager,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
    subqueryload,
)
from sqlalchemy.sql.compiler import SQLCompiler
from sqlglot import exp

from grip_edge_middleware.sql import Statement, read_statement


class Base(DeclarativeBase):
    pass


post_tag = Table(
    "post_tag",
    Base.metadata,
    Column("post_id", ForeignKey("post.id"), primary_key=True),
    Column("tag_id", ForeignKey("tag.id"), primary_key=True),
)


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    posts: Mapped[list[Post]] = relationship(back_populates="author")


class Tag(Base):
    __tablename__ = "tag"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Post(Base):
    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    views: Mapped[int]
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author] = relationship(back_populates="posts")
    tags: Mapped[list[Tag]] = relationship(secondary=post_tag)
    comments: Mapped[list[Comment]] = relationship()


class Comment(Base):
    __tablename__ = "comment"
    id: Mapped[int] = mapped_column(primary_key=True)
    post_id: Mapped[int] = mapped_column(ForeignKey("post.id"))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("comment.id"))
    text: Mapped[str]
    replies: Mapped[list[Comment]] = relationship()


class Order(Base):
    """A reserved word, and mixed case."""

    __tablename__ = "order"
    id: Mapped[int] = mapped_column("Id", primary_key=True)
    user: Mapped[str] = mapped_column("User")


class Media(Base):
    __tablename__ = "media"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "media"}  # noqa: RUF012


class Photo(Media):
    __tablename__ = "photo"
    id: Mapped[int] = mapped_column(ForeignKey("media.id"), primary_key=True)
    width: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "photo"}  # noqa: RUF012


# --- compiled statements --------------------------------------------------------------------------

DIALECTS: dict[str, tuple[Dialect, str]] = {
    "sqlite": (sqlite.dialect(), "sqlite"),
    "psycopg": (psycopg.dialect(), "postgres"),  # type: ignore[no-untyped-call]
    "asyncpg": (asyncpg.dialect(), "postgres"),  # type: ignore[no-untyped-call]
    "mysql": (mysql.dialect(), "mysql"),
}
Q = aliased(Post, name="q")
recent = select(Post).where(Post.views > 3).order_by(Post.id).limit(5)
counts = (
    select(Comment.post_id, func.count().label("n")).group_by(Comment.post_id).subquery("counts")
)
popular = select(Post.id, Post.author_id).where(Post.views > 9).cte("popular")
thread = select(Comment.id, Comment.parent_id).where(Comment.id == 1).cte("thread", recursive=True)
thread = thread.union_all(
    select(Comment.id, Comment.parent_id).join(thread, Comment.parent_id == thread.c.id)
)

SHAPES: dict[str, Any] = {
    "entity": select(Post),
    "columns": select(Post.id, Post.title),
    "primary key": select(Post).where(Post.id == 5),
    "one of": select(Post).where(Post.id.in_([1, 2, 3])),
    "one of none": select(Post).where(Post.id.in_([])),
    "two columns in": select(Post).where(tuple_(Post.id, Post.views).in_([(1, 2), (3, 4)])),
    "limit": recent,
    "alias": select(Q).where(Q.id == 5),
    "join": select(Post).join(Post.author).where(Author.name == "x"),
    "outer join": select(Author).outerjoin(Author.posts).where(Author.id == 1),
    "full join": select(Author.id, Post.id).join(Post, full=True),
    "many to many": select(Post).join(Post.tags).where(Tag.name == "x"),
    "three joins": select(Post).join(Post.author).join(Post.tags).join(Post.comments),
    "old join": select(Post, Author).where(Post.author_id == Author.id),
    "self join": select(Post, Q).join(Q, Post.author_id == Q.author_id),
    "joinedload": select(Post).options(joinedload(Post.author), joinedload(Post.tags)),
    "joinedload in a limit": recent.options(joinedload(Post.comments).joinedload(Comment.replies)),
    "contains_eager": select(Post).join(Post.author).options(contains_eager(Post.author)),
    "any": select(Post).where(Post.tags.any(Tag.name == "x")),
    "has": select(Post).where(Post.author.has(Author.name == "x")),
    "exists": select(exists().where(Comment.post_id == 1)),
    "not exists": select(Post).where(~exists().where(Comment.post_id == Post.id)),
    "scalar subquery": select(
        Post.id, select(func.count(Comment.id)).where(Comment.post_id == Post.id).scalar_subquery()
    ),
    "in a subquery": select(Post).where(Post.author_id.in_(select(Author.id))),
    "from a subquery": select(Post, counts.c.n).outerjoin(counts, counts.c.post_id == Post.id),
    "entity from a subquery": select(aliased(Post, recent.subquery())),
    "lateral": select(Author, recent.where(Post.author_id == Author.id).lateral("l")),
    "cte": select(Author).join(popular, popular.c.author_id == Author.id),
    "cte twice": select(popular.c.id).union_all(select(popular.c.author_id)),
    "recursive cte": select(thread.c.id),
    "cte in a join": select(Comment).join(thread, thread.c.id == Comment.id).join(Post),
    "union": union(select(Post.id), select(Comment.id)),
    "union with limits": union_all(
        select(Post.id).limit(1).subquery().select(), select(Tag.id).limit(2).subquery().select()
    ),
    "from_statement": select(Post).from_statement(text("SELECT * FROM post, author")),
    "count": select(func.count()).select_from(Post),
    "distinct": select(Post.author_id).distinct(),
    "group by": select(Post.author_id, func.max(Post.views)).group_by(Post.author_id).having(
        func.count() > 2
    ),
    "window": select(
        Post.id, func.row_number().over(partition_by=Post.author_id, order_by=Post.views)
    ),
    "extract": select(extract("year", literal_column("post.day"))).select_from(Post),
    "case": select(case((Post.views > 3, literal("FROM x")), else_="it's")).select_from(Post),
    "is distinct from": select(Post).where(Post.views.is_distinct_from(3)),
    "and or": select(Post).where(or_(and_(Post.id == 1, Post.views == 2), Post.views == 3)),
    "like": select(Post).where(Post.title.contains("50%_", autoescape=True)),
    "for update": select(Post).join(Post.author).with_for_update(of=Post),
    "reserved": select(Order).where(Order.user == "FROM x"),
    "inheritance": select(Photo).where(Photo.id == 1),
    "values": select(values(Column("n", SQLInteger), name="v").data([(1,), (2,)])).join(
        Post, true()
    ),
    "hint": select(Post).prefix_with("/* FROM x */").suffix_with("/* JOIN y */"),
    "table function": select(func.json_each("[1]").table_valued("value", name="j"), Post.id),
    "insert": insert(Post),
    "insert rows": insert(Post).values([{"title": "a", "views": 1}, {"title": "b", "views": 2}]),
    "insert from select": insert(Tag).from_select(["name"], select(Author.name)),
    "insert from cte": insert(Tag).from_select(["id"], select(popular.c.id)),
    "insert of a subquery": insert(Post).values(
        views=select(func.max(Comment.id)).scalar_subquery()
    ),
    "update": update(Post).values(views=1),
    "update one": update(Post).where(Post.id == 1).values(views=Post.views + 1),
    "update by a subquery": update(Post).values(
        views=select(func.count(Comment.id)).where(Comment.post_id == Post.id).scalar_subquery()
    ),
    "update where exists": update(Post).where(Post.author.has(name="x")).values(views=1),
    "update of a reserved name": update(Order).values(user="x"),
    "update from": update(Post).where(Post.author_id == Author.id).values(views=1),
    "delete": delete(Post),
    "delete one": delete(Post).where(Post.id == 1),
    "delete in": delete(Post).where(Post.id.in_(select(Comment.post_id))),
    "delete from a cte": delete(Post).where(Post.id.in_(select(popular.c.id))),
}  # fmt: skip

gone = delete(Post).where(Post.views == 0).returning(Post.id, Post.author_id).cte("gone")
added = insert(Tag).values(name="x").returning(Tag.id).cte("added")
moved = update(Post).values(views=1).returning(Post.id).cte("moved")


def upsert(insert: Any) -> Any:
    return insert(Tag).values(id=1).on_conflict_do_update(index_elements=["id"], set_={"name": "x"})


SHAPES_OF: dict[str, dict[str, Any]] = {
    "sqlite": {
        "upsert": upsert(sqlite_insert),
        "insert or ignore": sqlite_insert(Tag).values(id=1).on_conflict_do_nothing(),
        "replace": insert(Tag).prefix_with("OR REPLACE"),
        "returning": insert(Post).returning(Post.id),
    },
    **{
        name: {
            "upsert": upsert(postgresql_insert),
            "returning": update(Post).values(views=1).returning(Post),
            "delete using": delete(Post).where(Post.author_id == Author.id),
            "dml in ctes": select(gone.c.id, added.c.id, moved.c.id, Author.id),
            "archive": insert(Tag).from_select(["id"], select(gone.c.id)),
            "distinct on": select(Post).ext(postgresql.distinct_on(Post.author_id)),
            "skip locked": select(Post).with_for_update(skip_locked=True, of=Post),
            "only": select(Post).with_hint(Post, "ONLY", "postgresql"),
            "tablesample": select(Post.__table__.tablesample(func.system(10))),
            "array": select(postgresql.array([Post.id, Post.views])),
            "series": select(func.generate_series(1, 3).table_valued("n"), Post.id),
            "filter": select(func.count(Post.id).filter(Post.views > 1)),
            "jsonb": select(Post).where(
                literal_column("post.data", postgresql.JSONB).has_key("FROM x")
            ),
        }
        for name in ("psycopg", "asyncpg")
    },
    "mysql": {
        "upsert": mysql_insert(Tag).values(id=1).on_duplicate_key_update(name="x"),
        "ignore": insert(Tag).prefix_with("IGNORE"),
        "delete using": delete(Post).where(Post.author_id == Author.id),
        "straight": select(Post.id).prefix_with("STRAIGHT_JOIN"),
        "index hint": select(Post).with_hint(Post, "USE INDEX (a, b)", "mysql"),
    },
}
COMPILED = [
    pytest.param(name, shape, id=f"{name}: {title}")
    for name in DIALECTS
    for title, shape in {**SHAPES, **SHAPES_OF[name]}.items()
]


@pytest.mark.parametrize(("name", "shape"), COMPILED)
def test_the_tables_of_sqlalchemys_statements_are_found(name: str, shape: Any) -> None:
    dialect, grammar = DIALECTS[name]

    assert_same_tables(compile_for(dialect, shape).string, grammar)


def compile_for(dialect: Dialect, shape: Any) -> SQLCompiler:
    compiled = shape.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    assert isinstance(compiled, SQLCompiler)
    return compiled


def assert_same_tables(sql: str, grammar: str) -> None:
    read = read_statement(sql)
    written = {write.table for write in read.writes}

    assert read.is_understood, sql
    assert read.reads | written == tables_by_sqlglot(sql, grammar), sql


def tables_by_sqlglot(sql: str, grammar: str) -> set[str]:
    # Not all of its grammars know all parameters. In PostgreSQL's drivers ? is an operator.
    params = r"%\(\w+\)s|%s|\$\d+" if grammar == "postgres" else r"%s|\?"
    found: set[str] = set()
    for tree in sqlglot.parse(re.sub(params, "1", sql).replace("%%", "%"), dialect=grammar):
        assert tree is not None
        ctes = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
        names = {table.name.lower() for table in tree.find_all(exp.Table)}
        found |= names - ctes - {""}
    return found


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize(
    ("shape", "table", "column", "looked_for"),
    [
        (select(Post).where(Post.id == 5), "post", "id", [5]),
        (select(Post.title).where(Post.id == 5).limit(1), "post", "id", [5]),
        (select(Post).where(Post.id.in_([5, 6])), "post", "id", [5, 6]),
        (select(Q).where(Q.views > 1, Q.id == 5), "post", "id", [5]),
        (select(Post).where(Post.id == 5).options(joinedload(Post.tags)), "post", "id", [5]),
        (select(Post.id + 1).where(Post.author_id == 5, Post.id > 7), "post", "author_id", [5]),
        (select(Order).where(Order.id == 5).with_for_update(), "order", "id", [5]),
        (update(Post).where(Post.id == 5).values(views=1, title="x"), "post", "id", [5]),
        (delete(Post).where(Post.id == 5), "post", "id", [5]),
    ],
)
def test_the_values_that_sqlalchemy_looks_up_are_found(
    shape: Any, table: str, column: str, looked_for: list[int], name: str
) -> None:
    compiled = compile_for(DIALECTS[name][0], shape)
    params = compiled.construct_params()
    in_order = [params[key] for key in compiled.positiontup or ()]
    (lookup,) = read_statement(compiled.string).lookups

    assert (lookup.table, lookup.column) == (table, column)
    assert looked_for == [
        in_order[place] if isinstance(place, int) else params[place] for place in lookup.params
    ]


# --- statements that a session runs ---------------------------------------------------------------


@contextmanager
def recorded_session() -> Iterator[tuple[Session, list[str]]]:
    """Open a session on a database with a post, and record the statements that it runs."""
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    statements: list[str] = []
    with Session(engine) as session:
        session.add(
            Post(
                id=1, title="a", views=9, author=Author(id=1, name="x"), tags=[Tag(id=1, name="t")]
            )
        )
        session.add(Comment(id=1, post_id=1, text="c"))
        session.commit()
        event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
        yield session, statements
    engine.dispose()


def change(session: Session) -> None:
    post = session.get_one(Post, 1)
    post.views += 1
    post.tags.clear()
    post.comments.append(Comment(text="d"))
    session.flush()


@pytest.mark.parametrize(
    ("act", "tables"),
    [
        (lambda s: s.get(Post, 1), "post"),
        (lambda s: s.get(Photo, 1), "photo media"),
        (lambda s: s.get_one(Post, 1).author, "post author"),
        (lambda s: s.get_one(Post, 1).tags, "post post_tag tag"),
        (lambda s: s.refresh(s.get_one(Post, 1)), "post"),
        (
            lambda s: s.scalars(select(Post).options(selectinload(Post.tags))).all(),
            "post post_tag tag",
        ),
        (
            lambda s: s.scalars(
                select(Author).options(selectinload(Author.posts).selectinload(Post.comments))
            ).all(),
            "author post comment",
        ),
        (lambda s: s.scalars(recent.options(subqueryload(Post.comments))).all(), "post comment"),
        (lambda s: s.query(Post).filter_by(id=1).count(), "post"),
        (lambda s: s.add_all([Tag(name="a"), Tag(name="b")]) or s.flush(), "tag"),
        (lambda s: s.execute(insert(Tag), [{"name": "a"}, {"name": "b"}]), "tag"),
        (lambda s: s.scalars(insert(Tag).returning(Tag), [{"name": "a"}, {"name": "b"}]), "tag"),
        (lambda s: s.execute(update(Post), [{"id": 1, "views": 2}]), "post"),
        (lambda s: s.delete(s.get_one(Comment, 1)) or s.flush(), "comment"),
        (change, "post post_tag tag comment"),
    ],
)
def test_the_tables_of_all_statements_of_a_session_are_found(
    act: Callable[[Session], object], tables: str
) -> None:
    found = set()
    with recorded_session() as (session, statements):
        act(session)

        for sql in statements:
            assert_same_tables(sql, "sqlite")
            found |= tables_of(read_statement(sql))

    assert found == set(tables.split())


def tables_of(read: Statement) -> set[str]:
    return {*read.reads, *(write.table for write in read.writes)}


# --- peewee ---------------------------------------------------------------------------------------


class Blog(peewee.Model):
    id = peewee.AutoField()
    name = peewee.CharField()

    class Meta:
        database = peewee.SqliteDatabase(":memory:")


class Entry(Blog):
    blog = peewee.ForeignKeyField(Blog, backref="entries")
    parent = peewee.ForeignKeyField("self", null=True)
    views = peewee.IntegerField()


Other = Entry.alias()
long_ago = Entry.select(Entry.id).where(Entry.views < 3).cte("long_ago")


@pytest.mark.parametrize(
    ("query", "lookups"),
    [
        (Entry.select(), []),
        (Entry.select().where(Entry.id == 5), [("entry", "id", (0,))]),
        (Entry.select().where(Entry.id << [5, 6]), [("entry", "id", (0, 1))]),
        (Entry.select().where((Entry.id == 5) | (Entry.views == 6)), []),
        (Entry.select(Entry, Blog).join(Blog).where(Blog.id == 5), [("blog", "id", (0,))]),
        (Entry.select().join(Other, on=Entry.parent == Other.id).where(Other.id == 5), []),
        (Entry.select().where(Entry.blog.in_(Blog.select().where(Blog.id == 5))), []),
        (Entry.select(Entry.blog, peewee.fn.COUNT(Entry.id)).group_by(Entry.blog), []),
        (Entry.select().where(peewee.fn.EXISTS(Blog.select())).limit(5), []),
        (Entry.select().join(long_ago, on=long_ago.c.id == Entry.id).with_cte(long_ago), []),
        (Entry.select(Entry.id) | Blog.select(Blog.id), []),
        (Blog.insert(name="a"), []),
        (Blog.insert_many([{"name": "a"}, {"name": "b"}]), []),
        (Blog.replace(name="a"), []),  # type: ignore[no-untyped-call]
        (Blog.insert(name="a").on_conflict_ignore(), []),
        (Blog.insert_from(Entry.select(Entry.name), [Blog.name]), []),
        (Entry.update(views=Entry.views + 1).where(Entry.id == 5), [("entry", "id", (1,))]),
        (Entry.update(views=1).where(Entry.blog.in_(Blog.select())), []),
        (Entry.delete().where(Entry.id == 5), [("entry", "id", (0,))]),
    ],
    ids=lambda value: None if isinstance(value, list) else value.sql()[0],
)
def test_the_tables_of_peewees_statements_are_found(query: Any, lookups: list[Any]) -> None:
    sql, _ = query.sql()
    found = read_statement(sql).lookups

    assert_same_tables(sql, "sqlite")
    assert [(lookup.table, lookup.column, lookup.params) for lookup in found] == lookups


# --- Django ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def statements_of_django() -> list[dict[str, str]]:
    # In a process of its own: it can be configured once only.
    script = Path(__file__).with_name("statements_of_django.py")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    statements: list[dict[str, str]] = json.loads(run.stdout)
    return statements


def test_the_tables_of_djangos_statements_are_found(
    statements_of_django: list[dict[str, str]],
) -> None:
    statements = [s for s in statements_of_django if "SAVEPOINT" not in s["sql"]]

    for statement in statements:
        assert_same_tables(statement["sql"], statement["grammar"])
    assert len(statements) > 100

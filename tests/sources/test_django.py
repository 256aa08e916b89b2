"""Which writes through Django are told: what was committed, all of it, once, and nothing else."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import unittest
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.apps import apps
from django.core.management import call_command
from django.core.serializers import deserialize
from django.core.wsgi import get_wsgi_application
from django.db import (
    DatabaseError,
    IntegrityError,
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.db.migrations.state import ModelState, ProjectState
from django.db.models import F
from django.db.models.signals import m2m_changed, post_delete, post_save
from django.test import TestCase
from psycopg import sql
from werkzeug.test import Client

from grip_edge_middleware import GripEdge
from grip_edge_middleware.changes import Change
from grip_edge_middleware.errors import SettingsError
from grip_edge_middleware.metrics import Counts
from grip_edge_middleware.notes import Notes, current_notes
from grip_edge_middleware.rows import Scopes, value_text
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.sources import Observer, connect
from grip_edge_middleware.sources.django import DjangoSource
from tests.recording import DEADLINE_S, RecordingServer
from tests.sources import django_app
from tests.sources.conftest import NewDatabase
from tests.sources.databases import Database
from tests.sources.django_app.models import (
    Author,
    Bookmark,
    Cafe,
    Comment,
    Group,
    Membership,
    Person,
    Place,
    Post,
    Seat,
    ShownPost,
    Tag,
    Token,
)

MODULE = "tests.sources.django_app.models"

# As an app's settings name them: one by its class, the others by their paths.
TOPICS: dict[str, Any] = {
    "post-{id}": {"models": [Post]},
    "posts-by-{author_id}": {"models": [f"{MODULE}:Post"]},
    "tag-{id}": {"models": [f"{MODULE}:Tag"]},
    "comment-{id}": {"models": [f"{MODULE}:Comment"]},
    "place-{id}": {"models": [f"{MODULE}:Place"]},
    "person-{id}": {"models": [f"{MODULE}:Person"]},
    "group-{id}": {"models": [f"{MODULE}:Group"]},
}
AUTO_TAGS = {"scopes": ["author_id"]}


class Told(list[Change]):
    """What was told, in order."""

    metrics = Counts()

    def take(self) -> set[str]:
        """Return the names of the topics, and forget them."""
        taken = set(self.names)
        self.clear()
        return taken

    @property
    def names(self) -> list[str]:
        return [change.topic.name for change in self]


Watch = Callable[..., Told]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Watch topics; return what is told."""
    sources: list[DjangoSource] = []

    def watch(topics: dict[str, Any] | None = None, **options: Any) -> Told:
        told = Told()
        told.metrics = Counts()
        sources.append(DjangoSource(observer(told, topics, **options)))
        return told

    yield watch
    for source in sources:
        source.disconnect()


def observer(told: Told, topics: dict[str, Any] | None = None, **options: Any) -> Observer:
    found = {"grip_url": "http://pushpin:5561", "topics": topics or TOPICS, **options}
    return Observer.of(Settings.parse(found, {}), told.extend, told.metrics)


@pytest.fixture
def tables(database: Database) -> Iterator[None]:
    with django_app.using(database.django):
        yield


@pytest.fixture
def board(tables: None) -> Board:
    return Board.filled()


@dataclass(frozen=True, slots=True)
class Board:
    """Rows that are there before a test."""

    ann: Author
    bob: Author
    post: Post
    red: Tag
    blue: Tag
    comment: Comment
    bookmark: Bookmark
    cafe: Cafe
    eve: Person
    joe: Person
    group: Group
    token: Token
    seat: Seat

    @classmethod
    @transaction.atomic
    def filled(cls) -> Board:
        ann, bob = (Author.objects.create(name=name) for name in ("ann", "bob"))
        red, blue = (Tag.objects.create(name=name) for name in ("red", "blue"))
        post = Post.objects.create(title="one", author=ann)
        post.tags.add(red)
        eve, joe = (Person.objects.create(name=name) for name in ("eve", "joe"))
        return cls(
            ann,
            bob,
            post,
            red,
            blue,
            Comment.objects.create(text="first", post=post),
            Bookmark.objects.create(post=post),
            Cafe.objects.create(name="corner"),
            eve,
            joe,
            Group.objects.create(name="all"),
            Token.objects.create(),
            Seat.objects.create(row=1, number=2),
        )

    @staticmethod
    def clear() -> None:
        with transaction.atomic():
            for kind in apps.get_models(include_auto_created=True):
                if not kind._meta.proxy:
                    kind._base_manager.all()._raw_delete("default")


def row(table: str, pk: object) -> str:
    return f"%row:{table}:{pk if pk in ('%any', '%all') else value_text(pk)}"


def rows_of_statement(post: Post) -> set[str]:
    """The topics when a statement found a post by its primary key, which tells no author."""
    return {f"post-{post.pk}", "posts-by-%all", "%row:post:%all"}


def every(*tables: str) -> set[str]:
    """The topics when unknown rows were written: of the rows, and of what the settings declare."""
    named = {"group_": "group"}
    kinds = {
        "post": {"post-%all", "posts-by-%all"},
        "cafe": {"place-%all"},
        **{t: {f"{named.get(t, t)}-%all"} for t in ("tag", "comment", "place", "person", "group_")},
    }
    return {row(t, "%all") for t in tables}.union(*(kinds.get(t, set()) for t in tables))


def of_post(post: Post, *authors: Author) -> set[str]:
    ids = [author.pk for author in authors or (post.author,)]
    scopes = {f"%row:post.author_id:{pk}" for pk in ids}
    return {f"post-{post.pk}", row("post", post.pk), *(f"posts-by-{pk}" for pk in ids), *scopes}


def told_as(*posts: Post) -> set[str]:
    """The declared topics of posts, whose rows were not written."""
    return {n for post in posts for n in of_post(post) if not n.startswith("%row")}


def of(kind: str, pk: object, *tables: str) -> set[str]:
    return {f"{kind}-{pk}", *(row(table, pk) for table in tables or (kind,))}


# --- the matrix -------------------------------------------------------------------------------

Way = Callable[[Board], set[str]]
"""Writes in one way, and returns what is to be told."""

WAYS: dict[str, Way] = {}


def way(name: str) -> Callable[[Way], Way]:
    def add(write: Way) -> Way:
        WAYS[name] = write
        return write

    return add


@way("save a new object")
def _(board: Board) -> set[str]:
    post = Post(title="new", author=board.ann)
    post.save()
    return of_post(post)


@way("save a change")
def _(board: Board) -> set[str]:
    board.post.title = "changed"
    board.post.save()
    return of_post(board.post)


@way("save a move to another topic")
def _(board: Board) -> set[str]:
    board.post.author = board.bob
    board.post.save()
    return of_post(board.post, board.ann, board.bob)


@way("save(update_fields)")
def _(board: Board) -> set[str]:
    board.post.author = board.bob
    board.post.save(update_fields=["author"])
    return of_post(board.post, board.ann, board.bob)


@way("save over a row by its primary key")
def _(board: Board) -> set[str]:
    Post(pk=board.post.pk, title="over", author=board.bob).save()
    return of_post(board.post, board.ann, board.bob)


@way("save an expression")
def _(board: Board) -> set[str]:
    post = Post.objects.get(pk=board.post.pk)
    post.author_id = F("author_id") + (board.bob.pk - board.ann.pk)
    post.save()
    return of_post(board.post, board.ann, board.bob)


@way("save with fields deferred")
def _(board: Board) -> set[str]:
    post = Post.objects.only("title").get(pk=board.post.pk)
    post.title = "deferred"
    post.save()
    return of_post(board.post)


@way("save a locked object")
def _(board: Board) -> set[str]:
    with transaction.atomic():
        post = Post.objects.select_for_update().get(pk=board.post.pk)
        post.title = "locked"
        post.save()
    return of_post(board.post)


@way("save what in_bulk found")
def _(board: Board) -> set[str]:
    post = Post.objects.in_bulk([board.post.pk])[board.post.pk]
    post.save()
    return of_post(board.post)


@way("save with another primary key")
def _(board: Board) -> set[str]:
    board.post.pk += 1000
    board.post.save()
    return of_post(board.post)


@way("create")
def _(board: Board) -> set[str]:
    return of_post(Post.objects.create(title="new", author=board.bob))


@way("create by a related manager")
def _(board: Board) -> set[str]:
    return of_post(board.ann.post_set.create(title="new"))


@way("move by a related manager")
def _(board: Board) -> set[str]:
    board.bob.post_set.add(board.post)
    return rows_of_statement(board.post)


@way("get_or_create")
def _(board: Board) -> set[str]:
    tag, _ = Tag.objects.get_or_create(name="green")
    return of("tag", tag.pk)


@way("update_or_create")
def _(board: Board) -> set[str]:
    Tag.objects.update_or_create(name="red", defaults={"name": "pink"})
    return of("tag", board.red.pk)


@way("delete an object")
def _(board: Board) -> set[str]:
    pk = board.comment.pk
    board.comment.delete()
    return of("comment", pk)


@way("delete an object that was never loaded")
def _(board: Board) -> set[str]:
    Bookmark.objects.all()._raw_delete("default")
    Post(pk=str(board.post.pk)).delete()
    between = {row("post_tags", "%all"), *of("tag", board.red.pk)} - {row("tag", board.red.pk)}
    return of_post(board.post) | between | every("comment", "bookmark")


@way("delete a queryset")
def _(board: Board) -> set[str]:
    Tag.objects.filter(name__in=["red", "blue"]).delete()
    tags = of("tag", board.red.pk) | of("tag", board.blue.pk)
    return tags | told_as(board.post) | {row("post_tags", "%all")}


@way("delete a queryset without loading it")
def _(board: Board) -> set[str]:
    Comment.objects.all().delete()
    return every("comment")


@way("cascade, and SET NULL")
def _(board: Board) -> set[str]:
    author, post = board.ann.pk, of_post(board.post)
    board.ann.delete()
    between = {row("post_tags", "%all"), f"tag-{board.red.pk}"}
    return {row("author", author)} | post | between | every("comment", "bookmark")


@way("update")
def _(board: Board) -> set[str]:
    Post.objects.filter(pk=board.post.pk).update(author=board.bob)
    return rows_of_statement(board.post)


@way("update by an expression")
def _(board: Board) -> set[str]:
    Post.objects.update(views=F("views") + 1)
    return every("post")


@way("update of no row")
def _(board: Board) -> set[str]:
    Post.objects.filter(title="none").update(views=1)
    Post.objects.filter(title="none").delete()
    return set()


@way("bulk_create")
def _(board: Board) -> set[str]:
    Tag.objects.bulk_create([Tag(name="a"), Tag(name="b")])
    return every("tag")


@way("bulk_create that ignores conflicts")
def _(board: Board) -> set[str]:
    Tag.objects.bulk_create([Tag(name="red"), Tag(name="b")], ignore_conflicts=True)
    return every("tag")


@way("bulk_create that updates on conflict")
def _(board: Board) -> set[str]:
    comments = [Comment(pk=board.comment.pk, text="again", post=board.post)]
    Comment.objects.bulk_create(
        comments, update_conflicts=True, unique_fields=["id"], update_fields=["text"]
    )
    return every("comment")


@way("bulk_update")
def _(board: Board) -> set[str]:
    board.post.title = "bulk"
    Post.objects.bulk_update([board.post], ["title"])
    return rows_of_statement(board.post)


@way("raw INSERT")
def _(board: Board) -> set[str]:
    execute("INSERT INTO tag (name) VALUES (%s)", ["raw"])
    return every("tag")


@way("raw UPDATE")
def _(board: Board) -> set[str]:
    execute("/* ours */ update post set views = views + 1")
    return every("post")


@way("raw DELETE")
def _(board: Board) -> set[str]:
    execute('DELETE FROM "comment" WHERE id = %(pk)s', {"pk": board.comment.pk})
    return {f"comment-{board.comment.pk}", f"%row:comment:{board.comment.pk}"}


@way("raw WITH ... UPDATE")
def _(board: Board) -> set[str]:
    execute("WITH x AS (SELECT id FROM tag) UPDATE post SET views = 2 WHERE id IN (SELECT 1)")
    return every("post")


@way("raw INSERT between two models")
def _(board: Board) -> set[str]:
    pks = [board.post.pk, board.blue.pk]
    execute("INSERT INTO post_tags (post_id, tag_id) VALUES (%s, %s)", pks)
    return {row("post_tags", "%all"), "post-%all", "posts-by-%all", "tag-%all"}


@way("executemany")
def _(board: Board) -> set[str]:
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO tag (name) VALUES (%s)", [["x"], ["y"]])
    return every("tag")


@way("_raw_delete")
def _(board: Board) -> set[str]:
    Comment.objects.all()._raw_delete("default")
    return every("comment")


@way("many-to-many add")
def _(board: Board) -> set[str]:
    board.post.tags.add(board.red, board.blue)
    return told_as(board.post) | {f"tag-{board.blue.pk}", row("post_tags", "%all")}


@way("many-to-many add of what is there")
def _(board: Board) -> set[str]:
    board.post.tags.add(board.red)
    return set()


@way("many-to-many remove")
def _(board: Board) -> set[str]:
    board.post.tags.remove(board.red)
    return told_as(board.post) | {f"tag-{board.red.pk}", row("post_tags", "%all")}


@way("many-to-many set")
def _(board: Board) -> set[str]:
    board.post.tags.set([board.blue])
    tags = {f"tag-{board.red.pk}", f"tag-{board.blue.pk}"}
    return told_as(board.post) | tags | {row("post_tags", "%all")}


@way("many-to-many clear")
def _(board: Board) -> set[str]:
    board.post.tags.clear()
    return told_as(board.post) | {f"tag-{board.red.pk}", row("post_tags", "%all")}


@way("many-to-many create")
def _(board: Board) -> set[str]:
    tag = board.post.tags.create(name="made")
    return told_as(board.post) | of("tag", tag.pk) | {row("post_tags", "%all")}


@way("many-to-many add from the other side")
def _(board: Board) -> set[str]:
    board.blue.posts.add(board.post)
    return told_as(board.post) | {f"tag-{board.blue.pk}", row("post_tags", "%all")}


@way("many-to-many clear from the other side")
def _(board: Board) -> set[str]:
    board.red.posts.clear()
    return told_as(board.post) | {f"tag-{board.red.pk}", row("post_tags", "%all")}


@way("many-to-many to itself")
def _(board: Board) -> set[str]:
    board.eve.friends.add(board.joe)
    return {f"person-{board.eve.pk}", f"person-{board.joe.pk}", row("friends", "%all")}


@way("many-to-many through a model")
def _(board: Board) -> set[str]:
    board.group.members.add(board.eve)
    return {f"person-{board.eve.pk}", f"group-{board.group.pk}", row("membership", "%all")}


@way("create what relates")
def _(board: Board) -> set[str]:
    made = Membership.objects.create(person=board.eve, group=board.group)
    return {f"person-{board.eve.pk}", f"group-{board.group.pk}", row("membership", made.pk)}


@way("save a model that inherits a table")
def _(board: Board) -> set[str]:
    cafe = Cafe.objects.create(name="new")
    return of("place", cafe.pk, "place", "cafe")


@way("update a model that inherits a table")
def _(board: Board) -> set[str]:
    Cafe.objects.update(seats=7)
    return every("cafe")


@way("delete a model that inherits a table")
def _(board: Board) -> set[str]:
    pk = board.cafe.pk
    board.cafe.delete()
    return of("place", pk, "place", "cafe")


@way("update the table that is inherited")
def _(board: Board) -> set[str]:
    Place.objects.update(name="moved")
    return every("place")


@way("save a proxy")
def _(board: Board) -> set[str]:
    ShownPost.objects.get(pk=board.post.pk).save()
    return of_post(board.post)


@way("delete a proxy's queryset")
def _(board: Board) -> set[str]:
    ShownPost.objects.all().delete()
    between = {row("post_tags", "%all"), f"tag-{board.red.pk}"}
    return of_post(board.post) | between | every("comment", "bookmark")


@way("load a fixture")
def _(board: Board) -> set[str]:
    fields = {"title": "raw", "author": board.bob.pk, "views": 0}
    entry = {"model": "django_app.post", "pk": board.post.pk, "fields": fields}
    for found in deserialize("json", json.dumps([entry])):
        found.save()
    return of_post(board.post, board.ann, board.bob)


@way("asave")
def _(board: Board) -> set[str]:
    wait(board.post.asave)
    return of_post(board.post)


@way("acreate")
def _(board: Board) -> set[str]:
    return of("tag", wait(Tag.objects.acreate, name="async").pk)


@way("aupdate")
def _(board: Board) -> set[str]:
    wait(Tag.objects.filter(name="red").aupdate, name="async")
    return every("tag")


@way("adelete")
def _(board: Board) -> set[str]:
    pk = board.comment.pk
    wait(board.comment.adelete)
    return of("comment", pk)


@way("abulk_create")
def _(board: Board) -> set[str]:
    wait(Tag.objects.abulk_create, [Tag(name="async")])
    return every("tag")


@way("a UUID for a primary key")
def _(board: Board) -> set[str]:
    board.token.save()
    return {row("token", board.token.pk.hex)}


@way("a composite primary key")
def _(board: Board) -> set[str]:
    board.seat.is_taken = True
    board.seat.save()
    return {row("seat", "%any")}


@way("flush")
def _(board: Board) -> set[str]:
    call_command("flush", interactive=False, verbosity=0)
    kinds = apps.get_app_config("django_app").get_models(include_auto_created=True)
    if connection.vendor == "sqlite":
        empty = every("friends", "membership")
        return every("sqlite_sequence", *(kind._meta.db_table for kind in kinds)) - empty
    return every(*(kind._meta.db_table for kind in kinds))


def wait(call: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    """Await a call of the asynchronous ORM, which works in this thread then."""

    async def awaited() -> Any:
        return await call(*args, **kwargs)

    return async_to_sync(awaited)()


def execute(statement: str, params: Any = None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, params)


class Undone(Exception):  # noqa: N818
    """What a block is rolled back by."""


@contextmanager
def undone() -> Iterator[None]:
    with suppress(Undone), transaction.atomic():
        yield
        raise Undone


@contextmanager
def released() -> Iterator[None]:
    with transaction.atomic(), transaction.atomic():
        yield


@contextmanager
def undone_to_savepoint() -> Iterator[None]:
    with transaction.atomic(), undone():
        yield


@contextmanager
def autocommit() -> Iterator[None]:
    yield


OUTCOMES: dict[str, tuple[Callable[[], AbstractContextManager[None]], bool]] = {
    "commit": (transaction.atomic, True),
    "rollback": (undone, False),
    "savepoint released": (released, True),
    "savepoint undone": (undone_to_savepoint, False),
    "autocommit": (autocommit, True),
}


@dataclass(slots=True)
class Matrix:
    """What was found, to print: a row for each way, a column for each outcome."""

    cells: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)

    def print(self) -> None:
        width = max(len(name) for _, name in self.cells)
        print(f"\n{'':10} {'':{width}} " + " ".join(f"{o:18}" for o in OUTCOMES))
        for (kind, name), found in sorted(self.cells.items()):
            print(
                f"{kind:10} {name:{width}} " + " ".join(f"{found.get(o, '?'):18}" for o in OUTCOMES)
            )


@pytest.fixture(scope="module")
def matrix() -> Iterator[Matrix]:
    """Print all cells at the end, with `pytest -s`."""
    matrix = Matrix()
    yield matrix
    matrix.print()


@pytest.mark.parametrize("name", WAYS)
def test_each_way_of_writing_is_told_once_if_it_lasts(
    database: Database, tables: None, watch: Watch, matrix: Matrix, name: str
) -> None:
    told = watch(auto_tags=AUTO_TAGS)
    cells = matrix.cells[database.kind, name] = {}

    for outcome, (block, lasts) in OUTCOMES.items():
        Board.clear()
        rows = Board.filled()
        told.clear()
        with block():
            expected = WAYS[name](rows)
            is_early = outcome != "autocommit" and bool(told)
        counts = Counter(told.names)
        # sql.py takes the IGNORE of INSERT OR IGNORE for a table, too.
        counts.pop(row("ignore", "%all"), None)
        is_right = set(counts) == (expected if lasts else set()) and not is_early
        is_once = outcome == "autocommit" or set(counts.values()) <= {1}
        expected_cell = ("once" if expected else "nothing") if lasts else "nothing"
        cells[outcome] = expected_cell if is_right and is_once else f"WRONG: {sorted(counts)}"
        assert set(counts) == (expected if lasts else set()), outcome
        assert is_once, counts
        assert not is_early
    assert told.metrics.snapshot() == {}


# --- what lasts -------------------------------------------------------------------------------


def test_savepoints_made_by_hand_are_followed(board: Board, watch: Watch) -> None:
    told = watch()
    with transaction.atomic():
        kept = transaction.savepoint()
        board.red.save()
        transaction.savepoint_commit(kept)
        lost = transaction.savepoint()
        board.blue.save()
        transaction.savepoint_rollback(lost)
        board.comment.save()

    assert told.take() == {f"tag-{board.red.pk}", f"comment-{board.comment.pk}"}


def test_nothing_of_a_block_marked_for_rollback_is_told(board: Board, watch: Watch) -> None:
    told = watch()
    with transaction.atomic():
        board.red.save()
        transaction.set_rollback(True)
    with suppress(Undone), transaction.atomic(), transaction.atomic(savepoint=False):
        board.red.save()
        raise Undone

    assert told == []


def test_what_follows_an_undone_savepoint_is_told(board: Board, watch: Watch) -> None:
    told = watch()
    with transaction.atomic():
        with suppress(IntegrityError), transaction.atomic():
            board.blue.name = "red"
            board.blue.save()
        board.comment.save()

    assert told.take() == {f"comment-{board.comment.pk}"}


def test_a_durable_block_is_told(board: Board, watch: Watch) -> None:
    told = watch()
    with transaction.atomic(durable=True):
        board.red.save()

    assert told.take() == {f"tag-{board.red.pk}"}


def test_a_manual_transaction_is_told_at_its_commit(board: Board, watch: Watch) -> None:
    told = watch()
    transaction.set_autocommit(False)
    try:
        board.red.save()
        with transaction.atomic():
            board.blue.save()
        assert told == []
        transaction.commit()
        committed = told.take()
        board.red.save()
        transaction.rollback()
    finally:
        transaction.set_autocommit(True)

    assert committed == {f"tag-{board.red.pk}", f"tag-{board.blue.pk}"}
    assert told == []


def test_what_the_end_of_a_manual_transaction_commits_is_told(board: Board, watch: Watch) -> None:
    told = watch()
    transaction.set_autocommit(False)
    board.red.save()
    # SQLite commits; PostgreSQL refuses.
    with suppress(DatabaseError):
        transaction.set_autocommit(True)
    is_committed = connection.autocommit
    transaction.rollback()
    transaction.set_autocommit(True)

    assert told.take() == ({f"tag-{board.red.pk}"} if is_committed else set())


def test_a_hook_of_the_app_that_raises_takes_nothing_along(board: Board, watch: Watch) -> None:
    told = watch()

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), transaction.atomic():  # noqa: PT012
        transaction.on_commit(fail)
        board.red.save()

    assert told.take() == {f"tag-{board.red.pk}"}


def test_what_is_committed_is_told_before_the_hooks_of_the_app(board: Board, watch: Watch) -> None:
    told, seen = watch(), []
    with transaction.atomic():
        transaction.on_commit(lambda: seen.extend(told.names))
        board.red.save()

    assert seen == [f"tag-{board.red.pk}"]


def test_a_commit_that_fails_counts_as_made(board: Board, watch: Watch) -> None:
    told = watch()
    board.comment.post_id = 12345
    with pytest.raises(IntegrityError), transaction.atomic():
        board.comment.save()

    assert told.take() == {f"comment-{board.comment.pk}"}


def test_a_connection_that_is_closed_forgets(board: Board, watch: Watch) -> None:
    told = watch()
    with transaction.atomic():
        board.red.save()
        connection.close()
    board.blue.save()

    assert told.take() == {f"tag-{board.blue.pk}"}


def test_a_save_that_fails_is_not_told(board: Board, watch: Watch) -> None:
    told = watch()
    with pytest.raises(IntegrityError):
        Tag.objects.create(name="red")
    with pytest.raises(DatabaseError):
        Tag(pk=12345, name="none").save(force_update=True)

    assert told == []


def test_both_whom_a_relation_leaves_and_whom_it_meets_are_told(board: Board, watch: Watch) -> None:
    board.group.members.add(board.eve)
    told, relation = watch(), Membership.objects.get()
    relation.person = board.joe
    relation.save()

    people = {f"person-{board.eve.pk}", f"person-{board.joe.pk}"}
    assert told.take() == people | {f"group-{board.group.pk}"}


def test_a_deletion_of_what_is_gone_is_not_told(board: Board, watch: Watch) -> None:
    told, copy = watch(auto_tags=AUTO_TAGS), Comment.objects.get()
    board.comment.delete()
    told.clear()
    copy.delete()

    assert told == []


def test_a_statement_that_is_interrupted_counts_as_made(board: Board, watch: Watch) -> None:
    told = watch()

    def lose(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        execute(sql, params, many, context)
        raise OperationalError("server closed the connection unexpectedly")

    with connection.execute_wrapper(lose):
        with pytest.raises(OperationalError):
            board.red.save()
        with pytest.raises(OperationalError):
            execute("DELETE FROM comment")

    assert told.take() == {"tag-%all", "comment-%all"}


def test_what_is_wrapped_around_statements_before_they_begin_is_taken_off_again(
    database: Database, watch: Watch
) -> None:
    told = watch()
    with django_app.using(database.django):
        connection.close()
        del connections["default"]

        def wrapper(execute: Any, *args: Any) -> Any:
            return execute(*args)

        with connection.execute_wrapper(wrapper):
            connection.ensure_connection()
        execute("INSERT INTO tag (name) VALUES ('late')")

        assert wrapper not in connection.execute_wrappers
        assert told.take() == {"tag-%all"}


def test_connections_of_other_threads_are_followed(board: Board, watch: Watch) -> None:
    told = watch()

    def save() -> None:
        try:
            with transaction.atomic():
                board.red.save()
        finally:
            connections.close_all()

    thread = threading.Thread(target=save)
    thread.start()
    thread.join()

    assert told.take() == {f"tag-{board.red.pk}"}


def test_saves_of_an_event_loop_are_told(board: Board, watch: Watch) -> None:
    told = watch()

    async def save() -> None:
        await asyncio.gather(*(tag.asave() for tag in (board.red, board.blue)))
        await sync_to_async(connections.close_all)()

    asyncio.run(save())

    assert told.take() == {f"tag-{board.red.pk}", f"tag-{board.blue.pk}"}


# --- receivers of the app ---------------------------------------------------------------------


@contextmanager
def receiving(signal: Any, receiver: Callable[..., Any], sender: Any) -> Iterator[None]:
    signal.connect(receiver, sender=sender)
    try:
        yield
    finally:
        signal.disconnect(receiver, sender=sender)


def test_a_receiver_that_raises_loses_nothing(board: Board, watch: Watch) -> None:
    told = watch()

    def fail(**_: object) -> None:
        raise ZeroDivisionError

    with receiving(post_save, fail, Tag), pytest.raises(ZeroDivisionError):
        board.red.save()

    assert told.take() == {f"tag-{board.red.pk}"}


def test_what_a_receiver_writes_to_the_same_table_is_told(board: Board, watch: Watch) -> None:
    told, red, blue = watch(), f"tag-{board.red.pk}", f"tag-{board.blue.pk}"

    def rename(**_: object) -> None:
        Tag.objects.filter(pk=board.blue.pk).update(name="renamed")

    with receiving(post_save, rename, Tag):
        board.red.save()
    saved = told.take()
    with receiving(post_delete, rename, Tag):
        board.red.delete()

    assert saved == {red, blue}
    assert told.take() == {red, blue, *told_as(board.post)}


def test_an_add_that_fails_hides_no_later_write(board: Board, watch: Watch) -> None:
    told = watch()

    def fail(action: str, **_: object) -> None:
        if action == "pre_add":
            raise ZeroDivisionError

    with transaction.atomic():
        with (
            receiving(m2m_changed, fail, Post.tags.through),
            suppress(ZeroDivisionError),
            transaction.atomic(),
        ):
            board.post.tags.add(board.blue)
        pks = [board.post.pk, board.blue.pk]
        execute("INSERT INTO post_tags (post_id, tag_id) VALUES (%s, %s)", pks)

    assert told.take() == {"post-%all", "posts-by-%all", "tag-%all"}


# --- Django's own tests -----------------------------------------------------------------------


def test_a_test_case_sees_what_would_be_told(board: Board, watch: Watch) -> None:
    told = watch()

    class Case(TestCase):
        databases = {"default"}  # noqa: RUF012

        def test_capture(self) -> None:
            with self.captureOnCommitCallbacks(execute=True):
                board.red.save()
                assert told == []
            assert told.take() == {f"tag-{board.red.pk}"}
            board.blue.save()

    result = unittest.TestResult()
    unittest.TestSuite([Case("test_capture")]).run(result)

    assert result.testsRun == 1
    assert [text for _, text in [*result.errors, *result.failures]] == []
    assert told == []


# --- several databases ------------------------------------------------------------------------


def test_each_database_is_told_of_its_own_transactions(
    new_database: NewDatabase, watch: Watch
) -> None:
    one, other = new_database(), new_database()
    told = watch()
    with django_app.using(one.django), django_app.using(other.django, "other"):
        with undone():
            Tag.objects.create(name="lost")
            kept = Tag.objects.using("other").create(pk=77, name="kept")
        first = told.take()
        with transaction.atomic(using="other"):
            kept.save()
            assert told == []

    assert first == told.take() == {"tag-77"}


# --- the edge's own ---------------------------------------------------------------------------


def test_nothing_is_told_of_what_is_suppressed(board: Board) -> None:
    told = Told()
    edge = observer(told, auto_tags=AUTO_TAGS)
    with closing_source(DjangoSource(edge)), transaction.atomic():
        with edge.suppress():
            board.post.save()
            board.post.tags.clear()
            board.comment.delete()
            Tag.objects.update(name=F("name"))
        board.red.save()

    assert told.take() == of("tag", board.red.pk)


@contextmanager
def closing_source(source: DjangoSource) -> Iterator[DjangoSource]:
    try:
        yield source
    finally:
        source.disconnect()


@pytest.mark.parametrize("on_commit", ["alias", "proxy", "connection"])
def test_what_is_deferred_waits_for_the_commit(board: Board, on_commit: str) -> None:
    told = Told()
    edge = observer(told)
    found = {"alias": "default", "proxy": connection, "connection": connections["default"]}
    change = edge.watches.changes("update", board.red, {})
    with closing_source(DjangoSource(edge)) as source:
        with transaction.atomic():
            assert source.defer(found[on_commit], change)
            assert told == []
        committed = told.take()
        with undone():
            source.defer(found[on_commit], change)
        assert told == []
        source.defer(found[on_commit], change)

    assert committed == told.take() == {f"tag-{board.red.pk}"}


def test_what_is_none_of_its_connections_is_left_to_others(watch: Watch) -> None:
    with closing_source(DjangoSource(observer(Told()))) as source:
        assert not source.defer("nowhere", [])
        assert not source.defer(object(), [])
        assert not source.follow(object())
        assert source.follow(connection)
        assert source.changes(object()) is None


def test_an_instance_has_changes(board: Board) -> None:
    with closing_source(DjangoSource(observer(Told(), auto_tags=AUTO_TAGS))) as source:
        changes = source.changes(board.post)

    assert changes is not None
    assert {change.topic.name for change in changes} == of_post(board.post)


def test_a_source_that_is_disconnected_hears_nothing(board: Board, watch: Watch) -> None:
    told = Told()
    DjangoSource(observer(told)).disconnect()
    board.red.save()
    board.post.tags.clear()
    execute("DELETE FROM comment")

    assert told == []


def test_two_edges_are_told_of_their_own(board: Board, watch: Watch) -> None:
    tags, posts = watch({"tag-{id}": {"models": [Tag]}}), watch({"post-{id}": {"models": [Post]}})
    board.red.save()
    board.post.save()

    assert tags.take() == {f"tag-{board.red.pk}"}
    assert posts.take() == {f"post-{board.post.pk}"}


# --- what goes wrong --------------------------------------------------------------------------


def test_a_class_without_the_attribute_is_a_mistake() -> None:
    with pytest.raises(SettingsError, match="Tag has no attribute 'nome'"):
        DjangoSource(observer(Told(), {"tag-{nome}": {"models": [Tag]}}))


def test_a_path_that_names_nothing_is_said(
    board: Board, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        watch({"tag-{id}": {"models": ["django_app.Tag:Tag"]}})

    assert 'nothing that is imported is named "django_app.Tag:Tag"' in caplog.text


def test_an_attribute_that_raises_has_all_of_its_kind_told(board: Board, watch: Watch) -> None:
    told = watch({"post-{slug}": {"models": [Post]}})
    board.post.title = "bad"
    board.post.save()

    assert told.take() == {"post-%all"}
    assert told.metrics.snapshot() == {"source_faults": 1}
    assert Post.objects.get().title == "bad"


def test_a_model_of_a_migration_is_told_by_its_table(board: Board, watch: Watch) -> None:
    told = watch()
    state = ProjectState()
    state.add_model(ModelState.from_model(Tag))
    past: Any = state.apps.get_model("django_app", "Tag")
    past.objects.create(name="migrated")

    assert told.take() == {"tag-%all"}


def test_a_composed_statement_is_read(board: Board, watch: Watch) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("psycopg composes")
    told = watch()
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("UPDATE {} SET views = 1").format(sql.Identifier("post")))

    assert told.take() == {"post-%all", "posts-by-%all"}


def test_a_save_without_old_values_to_know_asks_nothing(board: Board, watch: Watch) -> None:
    watch(auto_tags={"scopes": ["author_id"]})
    asked: list[str] = []

    def ask(execute: Any, sql: str, *args: Any) -> Any:
        asked.append(sql.split()[0])
        return execute(sql, *args)

    with connection.execute_wrapper(ask):
        board.red.save()
        Post.objects.create(title="new", author=board.ann)
        board.post.save(update_fields=["views"])

    assert asked == ["UPDATE", "INSERT", "UPDATE"]


# --- what is read -----------------------------------------------------------------------------


@contextmanager
def reading(*scopes: str) -> Iterator[Notes]:
    notes = Notes(scopes=Scopes(frozenset(scopes)))
    token = current_notes.set(notes)
    try:
        yield notes
    finally:
        current_notes.reset(token)


@pytest.mark.parametrize(
    ("read", "keys"),
    [
        (lambda b: Post.objects.get(pk=b.post.pk), lambda b: {row("post", b.post.pk)}),
        (lambda b: Post.objects.filter(pk=0).first(), lambda b: {row("post", 0)}),
        (lambda b: list(Post.objects.all()), lambda b: {row("post", "%any")}),
        (lambda b: Post.objects.count(), lambda b: {row("post", "%any")}),
        (lambda b: Post.objects.filter(title="none").exists(), lambda b: {row("post", "%any")}),
        (
            lambda b: list(Post.objects.filter(author=b.ann)),
            lambda b: {f"%row:post.author_id:{b.ann.pk}"},
        ),
        (
            lambda b: Post.objects.in_bulk([b.post.pk, 0]),
            lambda b: {row("post", b.post.pk), row("post", 0)},
        ),
        (
            lambda b: Post.objects.select_related("author").get(pk=b.post.pk),
            lambda b: {row("post", b.post.pk), row("author", "%any")},
        ),
        (
            lambda b: list(b.post.tags.all()),
            lambda b: {row("tag", "%any"), row("post_tags", "%any")},
        ),
        (lambda b: Token.objects.get(pk=b.token.pk), lambda b: {row("token", b.token.pk.hex)}),
        (lambda b: Seat.objects.get(pk=(1, 2)), lambda b: {row("seat", "%any")}),
        (lambda b: list(Post.objects.raw("SELECT * FROM post")), lambda b: {row("post", "%any")}),
        (lambda b: list(Post.objects.iterator()), lambda b: {row("post", "%any")}),
        (
            lambda b: wait(Post.objects.aget, pk=b.post.pk),
            lambda b: {row("post", b.post.pk)},
        ),
    ],
)
def test_a_page_has_the_keys_of_what_it_reads(
    board: Board, watch: Watch, read: Callable[[Board], Any], keys: Callable[[Board], set[str]]
) -> None:
    watch(auto_tags=AUTO_TAGS)
    with reading("author_id") as notes, transaction.atomic():
        read(board)

    assert set(notes.rows) == keys(board)
    assert not notes.is_unclear


def test_a_read_that_is_not_understood_makes_the_page_unclear(board: Board, watch: Watch) -> None:
    watch(auto_tags=True)
    if connection.vendor != "postgresql":
        pytest.skip("SQLite calls nothing")
    with reading() as notes:
        execute("DO $$ BEGIN END $$")

    assert notes.is_unclear


def test_a_scope_is_named_by_what_the_database_keeps(board: Board, watch: Watch) -> None:
    told = watch(auto_tags={"scopes": ["lasts"]})
    lasts = timedelta(hours=1)
    with reading("lasts") as notes:
        list(Token.objects.filter(lasts=lasts))
    board.token.lasts = lasts
    board.token.save()

    assert set(notes.rows) < told.take()


def test_what_a_save_asks_is_not_read_by_the_page(board: Board, watch: Watch) -> None:
    watch(auto_tags=AUTO_TAGS)
    with reading("author_id") as notes:
        board.post.save()

    assert notes.rows == {}


# --- from end to end --------------------------------------------------------------------------


def test_a_page_is_purged_when_what_it_shows_is_saved(board: Board) -> None:
    routes = ["/posts/<pk>/", "/authors/<author_id>/posts/", "/comments/count/"]
    with RecordingServer() as server:
        settings = {
            "grip_url": server.url,
            "cdn": server.url.replace("http", "varnish"),
            "confirm_after": 0,
            "topics": {"pages": {"routes": routes, "auto_tags": AUTO_TAGS}},
        }
        with closing(GripEdge(settings=settings, environ={})) as edge:
            client = Client(edge.wsgi(get_wsgi_application()))
            pages = {
                path: set(client.get(path).headers["Surrogate-Key"].split())
                for path in (
                    f"/posts/{board.post.pk}/",
                    f"/authors/{board.ann.pk}/posts/",
                    f"/authors/{board.bob.pk}/posts/",
                    "/comments/count/",
                )
            }
            board.post.title = "changed"
            board.post.save()

            assert edge.flush(DEADLINE_S)
            purged = {key for request in server.purges for key in request.keys}

    is_purged = [bool(keys & purged) for keys in pages.values()]
    assert is_purged == [True, True, False, False]


def test_django_is_left_alone_where_nobody_uses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "django")
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    found = connect(observer(Told()))

    assert not any(isinstance(source, DjangoSource) for source in found)

"""Print, as JSON, the statements that Django's compiler makes and that its sessions run.

A program, since a process configures Django once.
"""

# The stubs are used without their plugin, which knows what fields are.
# mypy: disable-error-code="var-annotated"

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import django
from django.apps import AppConfig
from django.conf import settings
from django.core.exceptions import EmptyResultSet


class Blog(AppConfig):
    name = __name__
    label = "blog"
    path = "."


settings.configure(
    INSTALLED_APPS=[f"{__name__}.Blog"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.db import connection, models, transaction  # noqa: E402
from django.db.backends.postgresql.base import DatabaseWrapper as PostgreSQL  # noqa: E402
from django.db.models import (  # noqa: E402
    Case,
    Count,
    Exists,
    F,
    FilteredRelation,
    Max,
    OuterRef,
    Prefetch,
    Q,
    Subquery,
    Value,
    When,
    Window,
)
from django.db.models.functions import ExtractYear, Lower, RowNumber, TruncMonth  # noqa: E402


class Author(models.Model):
    name = models.CharField(max_length=50)


class Tag(models.Model):
    name = models.CharField(max_length=50, unique=True)


class Post(models.Model):
    title = models.CharField(max_length=50)
    views = models.IntegerField(default=0)
    day = models.DateTimeField(null=True)
    data = models.JSONField(default=dict)
    author = models.ForeignKey(Author, models.CASCADE, related_name="posts")
    tags = models.ManyToManyField(Tag)


class Comment(models.Model):
    post = models.ForeignKey(Post, models.CASCADE, related_name="comments")
    parent = models.ForeignKey("self", models.SET_NULL, null=True, related_name="replies")
    text = models.TextField()


class Order(models.Model):
    user = models.CharField(max_length=50, db_column="from")

    class Meta:
        db_table = "Order"


class Place(models.Model):
    name = models.CharField(max_length=50)


class Shop(Place):
    hours = models.CharField(max_length=50)


MODELS = [Author, Tag, Post, Comment, Order, Place, Shop]
posts, comments = Post.objects, Comment.objects

QUERIES: list[models.QuerySet[Any, Any]] = [
    posts.all(),
    posts.filter(pk=1),
    posts.filter(pk__in=[1, 2, 3]),
    posts.filter(pk__in=[]),
    posts.filter(author_id=1, views__gt=3),
    posts.filter(author__name="x"),
    posts.filter(Q(views=1) | Q(author__name="x")),
    posts.exclude(author__name="x"),
    posts.exclude(tags__name="x"),
    posts.filter(tags__name="x").distinct(),
    posts.filter(tags__name="x").filter(tags__name="y"),
    posts.filter(comments__replies__text__contains="50%_'"),
    posts.select_related("author"),
    posts.select_related("author").order_by("author__name")[:5],
    comments.select_related("post__author", "parent__post"),
    posts.values("author").annotate(n=Count("id")).filter(n__gt=2),
    posts.annotate(n=Count("comments", filter=Q(comments__text="FROM x"))),
    posts.annotate(n=Count("tags", distinct=True)).order_by("-n"),
    posts.annotate(last=Subquery(comments.filter(post=OuterRef("pk")).values("text")[:1])),
    posts.filter(Exists(comments.filter(post=OuterRef("pk")))),
    posts.filter(~Exists(comments.filter(post=OuterRef("pk"), text="x"))),
    posts.filter(author__in=Author.objects.filter(name="x")),
    posts.filter(views=Subquery(posts.values("views").order_by("-views")[:1])),
    posts.annotate(row=Window(RowNumber(), partition_by=F("author"), order_by="views")),
    posts.annotate(row=Window(RowNumber(), partition_by=F("author"))).filter(row__lte=2),
    posts.annotate(r=FilteredRelation("comments", condition=Q(comments__text="x"))).filter(r=None),
    posts.annotate(c=Case(When(views__gt=1, then=Value("FROM x")), default=Value("it's"))),
    posts.annotate(y=ExtractYear("day"), m=TruncMonth("day")).filter(y=2026),
    posts.filter(day__year=2026, title__iexact="x"),
    posts.filter(data__a__b="x"),
    posts.filter(data__has_key="FROM x"),
    posts.annotate(low=Lower("title")).filter(low__startswith="x"),
    posts.filter(views=F("author_id") + 1),
    posts.only("title"),
    posts.dates("day", "month"),
    posts.order_by("?"),
    posts.none().union(posts.all(), posts.filter(pk=1)),
    posts.values("id").union(comments.values("id"), all=True),
    posts.values("id").intersection(comments.values("id")),
    posts.values("id").difference(comments.values("id")).order_by("id"),
    posts.extra(where=["1 = 1"], tables=["blog_tag"]),
    posts.filter(pk__in=posts.order_by("views")[:3]),
    Order.objects.filter(user="FROM x"),
    Shop.objects.filter(name="x"),
    Author.objects.filter(posts__comments__text="x").annotate(m=Max("posts__views")),
]


def act() -> Iterator[Callable[[], object]]:
    """Yield what a program does with its models."""
    author = Author.objects.create(name="a")
    post = posts.create(title="a", author=author)
    tag = Tag.objects.create(name="t")
    yield lambda: Author.objects.create(name="b")
    yield lambda: posts.get(pk=1)
    yield lambda: posts.first()
    yield lambda: posts.count()
    yield lambda: posts.filter(author=author).exists()
    yield lambda: posts.filter(tags__name="x").distinct().count()
    yield lambda: posts.aggregate(Max("views"))
    yield lambda: posts.in_bulk([1, 2])
    yield lambda: list(posts.prefetch_related("tags", Prefetch("comments", comments.all())))
    yield lambda: list(posts.raw("SELECT * FROM blog_post p JOIN blog_author a ON 1 = 1"))
    yield lambda: list(posts.iterator())
    yield post.save
    yield lambda: post.save(update_fields=["title"])
    yield lambda: post.refresh_from_db()
    yield lambda: post.tags.add(tag)
    yield lambda: list(post.tags.all())
    yield lambda: post.tags.set([])
    yield lambda: Tag.objects.get_or_create(name="u")
    yield lambda: Tag.objects.update_or_create(name="u", defaults={"name": "v"})
    yield lambda: Tag.objects.bulk_create([Tag(name=f"b{n}") for n in range(50)])
    yield lambda: Tag.objects.bulk_create([Tag(name="b1")], ignore_conflicts=True)
    yield lambda: Tag.objects.bulk_create(
        [Tag(name="b1")], update_conflicts=True, update_fields=["name"], unique_fields=["name"]
    )
    yield lambda: posts.bulk_update([post], ["views", "title"])
    yield lambda: posts.update(views=F("views") + 1)
    yield lambda: posts.filter(pk=1).update(views=1)
    yield lambda: posts.filter(author__name="a").update(views=2)
    yield lambda: posts.filter(comments__text="x").delete()
    yield lambda: comments.filter(pk=1).delete()
    yield lambda: Shop.objects.create(name="s", hours="9")
    yield lambda: Shop.objects.update(name="t", hours="8")
    yield lambda: Shop.objects.all().delete()
    yield lambda: list(posts.select_for_update(of=["self"]))
    yield author.delete


def main() -> None:
    """Print the statements."""
    found: list[dict[str, str]] = []
    postgresql = PostgreSQL({**connection.settings_dict, "NAME": "none"}, "postgresql")
    # Nothing is asked of a server.
    postgresql.__dict__["pg_version"] = 150000
    for grammar, database in (("sqlite", connection), ("postgres", postgresql)):
        for query in QUERIES:
            try:
                sql, _ = query.query.get_compiler(connection=database).as_sql()
            except EmptyResultSet:
                continue
            found.append({"grammar": grammar, "sql": sql})

    with connection.schema_editor() as editor:
        for model in MODELS:
            editor.create_model(model)

    def record(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        found.append({"grammar": "sqlite", "sql": sql})
        return execute(sql, params, many, context)

    with transaction.atomic(), connection.execute_wrapper(record):
        for action in act():
            action()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()

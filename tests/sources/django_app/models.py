"""A board: one model for each way in which Django keeps objects."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import models

# Types of fields come from a plugin of the stubs, which would load Django to check it.
# mypy: disable-error-code="var-annotated"


class Author(models.Model):
    post_set: Any
    name = models.CharField(max_length=100)

    class Meta:
        db_table = "author"


class Tag(models.Model):
    posts: Any
    name = models.CharField(max_length=100, unique=True)

    class Meta:
        db_table = "tag"


class Post(models.Model):
    title = models.CharField(max_length=100)
    views = models.IntegerField(default=0)
    author = models.ForeignKey(Author, models.CASCADE)
    author_id: Any
    tags = models.ManyToManyField(Tag, related_name="posts", db_table="post_tags")

    class Meta:
        db_table = "post"

    @property
    def slug(self) -> str:
        if self.title == "bad":
            raise ZeroDivisionError
        return str(self.title).lower()


class ShownPost(Post):
    class Meta:
        proxy = True


class Comment(models.Model):
    text = models.CharField(max_length=100)
    post = models.ForeignKey(Post, models.CASCADE)
    post_id: Any

    class Meta:
        db_table = "comment"


class Bookmark(models.Model):
    post = models.ForeignKey(Post, models.SET_NULL, null=True)

    class Meta:
        db_table = "bookmark"


class Place(models.Model):
    name = models.CharField(max_length=100)

    class Meta:
        db_table = "place"


class Cafe(Place):
    seats = models.IntegerField(default=0)

    class Meta:
        db_table = "cafe"


class Person(models.Model):
    name = models.CharField(max_length=100)
    friends = models.ManyToManyField("self", db_table="friends")

    class Meta:
        db_table = "person"


class Group(models.Model):
    name = models.CharField(max_length=100)
    members: models.ManyToManyField[Person, Membership] = models.ManyToManyField(
        Person, through="Membership"
    )

    class Meta:
        db_table = "group_"


class Membership(models.Model):
    person = models.ForeignKey(Person, models.CASCADE)
    group = models.ForeignKey(Group, models.CASCADE)
    role = models.CharField(max_length=100, default="guest")

    class Meta:
        db_table = "membership"


class Token(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    lasts = models.DurationField(null=True)

    class Meta:
        db_table = "token"


class Seat(models.Model):
    pk = models.CompositePrimaryKey("row", "number")
    row = models.IntegerField()
    number = models.IntegerField()
    is_taken = models.BooleanField(default=False)

    class Meta:
        db_table = "seat"

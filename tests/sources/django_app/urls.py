"""The views of the app."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path

from tests.sources.django_app.models import Comment, Post


def post(request: HttpRequest, pk: int) -> HttpResponse:
    found = Post.objects.select_related("author").filter(pk=pk).first()
    return HttpResponse("none" if found is None else f"{found.title} by {found.author.name}")


def posts_by(request: HttpRequest, author_id: int) -> HttpResponse:
    return HttpResponse(", ".join(p.title for p in Post.objects.filter(author_id=author_id)))


def comment_count(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(Comment.objects.count()))


urlpatterns = [
    path("posts/<int:pk>/", post),
    path("authors/<int:author_id>/posts/", posts_by),
    path("comments/count/", comment_count),
]

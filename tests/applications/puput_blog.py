"""The blog puput on Wagtail, with django-contrib-comments, as they are published."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from puput import PUPUT_APPS

from tests.applications import django_site
from tests.applications.browser import Browser
from tests.applications.harness import Report, Site, site, stranger

SCOPES = ["content_object_id", "page_id", "entrypage_from_id", "object_pk", "wagtailcore_page.slug"]


def run(auto_tags: object, directory: Path) -> Report:
    with site(auto_tags=auto_tags) as blog:
        app = django_site.set_up(
            directory,
            INSTALLED_APPS=[
                "django.contrib.admin",
                "django.contrib.auth",
                "django.contrib.contenttypes",
                "django.contrib.messages",
                "django.contrib.sessions",
                "django.contrib.sitemaps",
                "django.contrib.sites",
                "django.contrib.staticfiles",
                *PUPUT_APPS,
                "django_comments",
            ],
            MIDDLEWARE=[
                *django_site.MIDDLEWARE,
                "wagtail.contrib.redirects.middleware.RedirectMiddleware",
            ],
            PUPUT_COMMENTS_PROVIDER="puput.comments.DjangoCommentsProvider",
            ROOT_URLCONF=_urls(),
            TEMPLATES=django_site.templates(),
            WAGTAILADMIN_BASE_URL="http://localhost",
            # It searches the tables of the pages themselves, and so needs none that are migrated.
            WAGTAILSEARCH_BACKENDS={
                "default": {"BACKEND": "wagtail.search.backends.database.fallback"}
            },
            WAGTAIL_SITE_NAME="Blog",
        )
        # With each form for a comment, when it was shown, and a hash of that.
        django_site.listen(
            blog, rb'(?<=name="timestamp" value=")\d+', rb'(?<=value=")[0-9a-f]{40}(?=")'
        )
        _fill()
        face: Any = blog.edge.wsgi(app)
        blog.ask = stranger(face)
        blog.pages = PAGES
        _write(blog, face)
        return blog.report()


def _urls() -> str:
    urls = ModuleType("puput_urls")
    sys.modules[urls.__name__] = urls

    def patterns(name: str) -> Any:
        from django.urls import include, path

        if name != "urlpatterns":
            raise AttributeError(name)
        return [path("comments/", include("django_comments.urls")), path("", include("puput.urls"))]

    urls.__getattr__ = patterns  # type: ignore[method-assign]
    return urls.__name__


def _fill() -> None:
    from django.contrib.auth.models import User
    from django.contrib.sites.models import Site as Home
    from puput.models import BlogPage
    from wagtail.models import Locale, Page
    from wagtail.models import Site as WagtailSite

    Home.objects.get_or_create(pk=1, defaults={"domain": "localhost", "name": "Blog"})
    for name in ("ann", "bob"):
        User.objects.create_superuser(name, f"{name}@example.com", "secret")
    Locale.objects.create(language_code="en")
    root = Page.add_root(instance=Page(title="Root", slug="root"))
    blog = root.add_child(instance=BlogPage(title="Blog", slug="blog", display_comments=True))
    blog.save_revision().publish()
    WagtailSite.objects.create(hostname="localhost", root_page=blog, is_default_site=True)


PAGES = [
    *("/", "/feed/", "/search/?q=One", "/nothing/", "/2025/", "/2026/"),
    *("/one/", "/three/", "/first/", "/late/", "/2026/01/01/one/"),
    *("/tag/art/", "/tag/food/", "/category/prose/", "/author/ann/", "/author/bob/"),
]
_ADMIN = "/blog_admin"


def _write(blog: Site, face: Any) -> None:
    ann, bob, stranger = Browser(face), Browser(face), Browser(face)
    for browser, name in ((ann, "ann"), (bob, "bob")):
        who = {"username": name, "password": "secret"}
        browser.submit(f"{_ADMIN}/login/", ".login-form", **who)
    _add_category(ann, "Prose")
    _add_entry(ann, "One", "2026-01-01 10:00", tags="art", categories=[1])
    _add_entry(bob, "Two", "2026-01-02 10:00", tags="art, food")
    _add_entry(ann, "Three", "2025-12-31 10:00")
    _edit_entries(blog, ann, bob)
    _comment(blog, ann, stranger)
    _keep_the_rest(blog, ann)


def _add_category(browser: Browser, name: str) -> None:
    category = {"name": name, "slug": name.lower()}
    form = f"form[action='{_ADMIN}/snippets/puput/category/add/']"
    browser.submit(f"{_ADMIN}/snippets/puput/category/add/", form, **category)


def _add_entry(
    browser: Browser, title: str, date: str, *, tags: str = "", categories: Sequence[int] = ()
) -> None:
    entry = {"title": title, "slug": title.lower(), "date": date, "tags": tags}
    url = f"{_ADMIN}/pages/add/puput/entrypage/2/"
    browser.submit(
        url, _FORM, body=_rich(f"Of {title}"), **entry, **_inline(categories), **_PUBLISH
    )


_FORM = "#page-edit-form"
_PUBLISH = {"action-publish": "action-publish"}


def _rich(said: str) -> str:
    block = {"key": "a", "text": said, "type": "unstyled", "depth": 0, "inlineStyleRanges": []}
    return json.dumps({"blocks": [{**block, "entityRanges": []}], "entityMap": {}})


def _inline(categories: Sequence[int]) -> dict[str, object]:
    fields: dict[str, object] = {"entry_categories-TOTAL_FORMS": len(categories)}
    for at, category in enumerate(categories):
        fields[f"entry_categories-{at}-category"] = category
        fields[f"entry_categories-{at}-ORDER"] = at + 1
    return fields


def _edit_entries(blog: Site, ann: Browser, bob: Browser) -> None:
    def edit(browser: Browser, pk: int, **fields: object) -> None:
        browser.submit(f"{_ADMIN}/pages/{pk}/edit/", _FORM, **fields)

    with blog.write("publish an entry that was not found before"):
        _add_entry(bob, "Late", "2026-01-02 12:00", tags="art")
    with blog.write("publish an edited body"):
        edit(ann, 3, body=_rich("Better"), **_PUBLISH)
    with blog.write("save a draft"):
        edit(bob, 4, body=_rich("Not yet"))
    with blog.write("publish the draft"):
        edit(bob, 4, **_PUBLISH)
    with blog.write("publish an edited title"):
        edit(ann, 5, title="Three and a half", **_PUBLISH)
    with blog.write("tag an entry otherwise"):
        edit(bob, 4, tags="food, music", **_PUBLISH)
    with blog.write("put an entry into a category"):
        edit(ann, 5, **_inline([1]), **_PUBLISH)
    with blog.write("relate an entry to another"):
        fields = {"TOTAL_FORMS": 1, "0-entrypage_to": 4, "0-ORDER": 1}
        related = {f"related_entrypage_from-{name}": value for name, value in fields.items()}
        edit(ann, 3, **related, **_PUBLISH)
    with blog.write("give an entry another address"):
        edit(ann, 3, slug="first", **_PUBLISH)
    with blog.write("give an entry another date"):
        edit(ann, 5, date="2026-01-01 09:00", **_PUBLISH)
    with blog.write("unpublish an entry"):
        bob.submit(f"{_ADMIN}/pages/4/unpublish/", "form[action*='unpublish']")
    with blog.write("delete an entry"):
        bob.submit(f"{_ADMIN}/pages/4/delete/", "form[action*='delete']")


def _comment(blog: Site, ann: Browser, stranger: Browser) -> None:
    with blog.write("comment on an entry"):
        said = {"name": "Cyd", "email": "cyd@example.com", "comment": "Well said", "honeypot": ""}
        form = "form[action*='comments/post']"
        stranger.submit("/2026/01/02/late/", form, post="post", **said)
    with blog.write("count the comments of an entry"):
        stranger.post("/entry_page/6/update_comments/")
    with blog.write("delete a comment"):
        ann.get("/2026/01/02/late/")  # which sets the cookie for what protects that form
        ann.submit("/comments/delete/1/", "form[method=post]")


def _keep_the_rest(blog: Site, ann: Browser) -> None:
    with blog.write("a category"):
        _add_category(ann, "Verse")
    with blog.write("rename a category"):
        url = f"{_ADMIN}/snippets/puput/category/edit/1/"
        ann.submit(url, f"form[action='{url}']", name="Fine prose")
    with blog.write("edit the title of the blog"):
        ann.submit(f"{_ADMIN}/pages/2/edit/", _FORM, title="The blog", **_PUBLISH)
    with blog.write("edit the name of an author"):
        url = f"{_ADMIN}/users/edit/1/"
        ann.submit(url, f"form[action='{url}']", first_name="Ann", last_name="Lee")
    with blog.write("redirect an address that was not found"):
        url = f"{_ADMIN}/redirects/add/"
        ann.submit(url, f"form[action='{url}']", old_path="/nothing/", redirect_page="6")

"""A blog on Flask and Flask-SQLAlchemy.

It behaves as Flask's tutorial has it (register, log in, write, edit and delete posts), and as the
quick start of Flask-SQLAlchemy does, with comments, tags, pages of authors, a search and figures.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Flask, abort, g, redirect, render_template, request, session, url_for
from flask_sqlalchemy import SQLAlchemy
from jinja2 import DictLoader
from sqlalchemy import Column, ForeignKey, Table, event, func, select, text, update
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    joinedload,
    mapped_column,
    relationship,
    selectinload,
)
from werkzeug.security import check_password_hash, generate_password_hash
from werkzeug.test import Client
from werkzeug.wrappers import Response

from tests.applications.harness import Report, Site, site, stranger

SCOPES = ["post_id", "author_id", "tag_id", "post.slug", "user.username", "tag.name"]


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)

post_tag = Table(
    "post_tag",
    Base.metadata,
    Column("post_id", ForeignKey("post.id"), primary_key=True),
    Column("tag_id", ForeignKey("tag.id"), primary_key=True),
)


class User(db.Model):  # type: ignore[name-defined, misc]
    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(unique=True)
    password: Mapped[str]
    bio: Mapped[str] = mapped_column(default="")
    posts: Mapped[list[Post]] = relationship(back_populates="author")


class Post(db.Model):  # type: ignore[name-defined, misc]
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("user.id"))
    slug: Mapped[str] = mapped_column(unique=True)
    title: Mapped[str]
    body: Mapped[str]
    created: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC))
    likes: Mapped[int] = mapped_column(default=0)
    author: Mapped[User] = relationship(back_populates="posts")
    comments: Mapped[list[Comment]] = relationship(
        back_populates="post", cascade="all, delete-orphan", order_by="Comment.id"
    )
    tags: Mapped[list[Tag]] = relationship(
        secondary=post_tag, back_populates="posts", order_by="Tag.name"
    )


class Comment(db.Model):  # type: ignore[name-defined, misc]
    id: Mapped[int] = mapped_column(primary_key=True)
    post_id: Mapped[int] = mapped_column(ForeignKey("post.id"))
    author_id: Mapped[int] = mapped_column(ForeignKey("user.id"))
    body: Mapped[str]
    post: Mapped[Post] = relationship(back_populates="comments")
    author: Mapped[User] = relationship()


class Tag(db.Model):  # type: ignore[name-defined, misc]
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    posts: Mapped[list[Post]] = relationship(
        secondary=post_tag, back_populates="tags", order_by="Post.id"
    )


TEMPLATES = {
    "layout.html": """<!doctype html><title>{{ title }}</title>
<nav>{% if g.user %}<b>{{ g.user.username }}</b>
{% else %}<a href="/auth/login">Log In</a>{% endif %}</nav>
<h1>{{ title }}</h1>{% block main %}{% endblock %}""",
    "posts.html": """{% extends "layout.html" %}{% block main %}{% for post in posts %}
<article><h2><a href="/posts/{{ post.id }}">{{ post.title }}</a></h2>
<p>by <a href="/authors/{{ post.author.username }}">{{ post.author.username }}</a>
{% for tag in post.tags %}<a href="/tags/{{ tag.name }}">{{ tag.name }}</a>{% endfor %}
{{ post.comments|length }} comments</p></article>{% else %}<p>No posts yet.</p>{% endfor %}
{% if has_next %}<a href="?page={{ page + 1 }}">Older</a>{% endif %}{% endblock %}""",
    "post.html": """{% extends "layout.html" %}{% block main %}
<p>by {{ post.author.username }}, {{ post.likes }} likes</p>{{ post.body }}
{% for tag in post.tags %}<a href="/tags/{{ tag.name }}">{{ tag.name }}</a>{% endfor %}
{% for comment in post.comments %}<p><b>{{ comment.author.username }}</b> {{ comment.body }}</p>
{% else %}<p>Be the first to comment.</p>{% endfor %}{% endblock %}""",
    "author.html": """{% extends "layout.html" %}{% block main %}<p>{{ author.bio }}</p>
{% for post in author.posts %}<li>{{ post.title }}</li>{% endfor %}
{{ comments }} comments{% endblock %}""",
    "counts.html": """{% extends "layout.html" %}{% block main %}
{% for name, count in counts %}<li>{{ name }}: {{ count }}</li>{% endfor %}{% endblock %}""",
    "form.html": """{% extends "layout.html" %}{% block main %}<form method="post">
<input name="username"><input name="password"><input type="submit"></form>{% endblock %}""",
}


def create_app(database: Path) -> Flask:
    app = Flask(__name__)
    app.config.update(
        SECRET_KEY="dev", SQLALCHEMY_DATABASE_URI=f"sqlite:///{database}", TESTING=True
    )
    app.jinja_env.loader = DictLoader(TEMPLATES)
    db.init_app(app)
    _read_pages(app)
    _sign_in(app)
    _write_posts(app)
    _write_about_posts(app)
    with app.app_context():
        db.create_all()
    return app


def _list(query: Any, title: str) -> str:
    query = query.options(
        joinedload(Post.author), selectinload(Post.tags), selectinload(Post.comments)
    )
    page = db.paginate(query, per_page=3, error_out=False)
    return render_template(
        "posts.html", title=title, posts=page.items, has_next=page.has_next, page=page.page
    )


def _read_pages(app: Flask) -> None:
    @app.get("/")
    def index() -> str:
        return _list(select(Post).order_by(Post.id.desc()), "Posts")

    @app.get("/posts/<int:post_id>")
    def post(post_id: int) -> str:
        found = db.get_or_404(Post, post_id)
        return render_template("post.html", title=found.title, post=found)

    @app.get("/p/<slug>")
    def permalink(slug: str) -> Response:
        found = db.first_or_404(select(Post).filter_by(slug=slug))
        return redirect(url_for("post", post_id=found.id), 301)

    @app.get("/authors/")
    def authors() -> str:
        counts = select(User.username, func.count(Post.id)).outerjoin(User.posts)
        rows = db.session.execute(counts.group_by(User.id).order_by(User.username)).all()
        return render_template("counts.html", title="Authors", counts=rows)

    @app.get("/authors/<username>")
    def author(username: str) -> str:
        found = db.one_or_404(select(User).filter_by(username=username))
        comments = db.session.scalar(
            select(func.count()).select_from(Comment).where(Comment.author_id == found.id)
        )
        return render_template("author.html", title=username, author=found, comments=comments)

    @app.get("/tags/")
    def tags() -> str:
        counts = select(Tag.name, func.count(post_tag.c.post_id)).outerjoin(post_tag)
        rows = db.session.execute(counts.group_by(Tag.id).order_by(Tag.name)).all()
        return render_template("counts.html", title="Tags", counts=rows)

    @app.get("/tags/<name>")
    def tag(name: str) -> str:
        found = db.first_or_404(select(Tag).filter_by(name=name))
        return _list(select(Post).where(Post.tags.contains(found)).order_by(Post.id), f"#{name}")

    @app.get("/search/<words>")
    def search(words: str) -> str:
        return _list(select(Post).where(Post.title.contains(words)).order_by(Post.id), words)

    @app.get("/popular")
    def popular() -> str:
        raw = text("SELECT title, likes FROM post WHERE likes > 0 ORDER BY likes DESC, id LIMIT 5")
        return render_template("counts.html", title="Popular", counts=db.session.execute(raw).all())

    @app.get("/figures")
    def figures() -> str:
        kinds: list[Any] = [User, Post, Comment, Tag]
        counts = [
            (kind.__name__, db.session.scalar(select(func.count()).select_from(kind)))
            for kind in kinds
        ]
        return render_template("counts.html", title="Figures", counts=counts)

    @app.get("/about")
    def about() -> str:
        return "<!doctype html><title>About</title>"


def _sign_in(app: Flask) -> None:
    @app.before_request
    def load_user() -> None:
        user_id = session.get("user_id")
        g.user = None if user_id is None else db.session.get(User, user_id)

    @app.route("/auth/register", methods=["GET", "POST"])
    def register() -> Any:
        if request.method == "GET":
            return render_template("form.html", title="Register")
        name, password = request.form["username"], request.form["password"]
        db.session.add(
            User(username=name, password=generate_password_hash(password, "pbkdf2:sha1:1"))
        )
        db.session.commit()
        return redirect(url_for("login"))

    @app.route("/auth/login", methods=["GET", "POST"])
    def login() -> Any:
        if request.method == "GET":
            return render_template("form.html", title="Log In")
        user = db.one_or_404(select(User).filter_by(username=request.form["username"]))
        if not check_password_hash(user.password, request.form["password"]):
            abort(403)
        session.clear()
        session["user_id"] = user.id
        return redirect(url_for("index"))


def _own_post(post_id: int) -> Post:
    post: Post = db.get_or_404(Post, post_id)
    if post.author is not g.user:
        abort(403)
    return post


def _set_tags(post: Post) -> None:
    names = request.form.get("tags", "").split()
    known = {tag.name: tag for tag in db.session.scalars(select(Tag).where(Tag.name.in_(names)))}
    post.tags = [known.get(name) or Tag(name=name) for name in names]


def _write_posts(app: Flask) -> None:
    @app.post("/create")
    def create() -> Response:
        title = request.form["title"]
        slug = title.lower().replace(" ", "-")
        post = Post(title=title, slug=slug, body=request.form["body"], author=g.user)
        db.session.add(post)
        _set_tags(post)
        db.session.commit()
        return redirect(url_for("index"))

    @app.post("/posts/<int:post_id>/update")
    def edit(post_id: int) -> Response:
        post = _own_post(post_id)
        post.title, post.body = request.form["title"], request.form["body"]
        _set_tags(post)
        db.session.commit()
        return redirect(url_for("index"))

    @app.post("/posts/<int:post_id>/delete")
    def delete(post_id: int) -> Response:
        db.session.delete(_own_post(post_id))
        db.session.commit()
        return redirect(url_for("index"))


def _write_about_posts(app: Flask) -> None:
    @app.post("/posts/<int:post_id>/comments")
    def comment(post_id: int) -> Response:
        post = db.get_or_404(Post, post_id)
        post.comments.append(Comment(body=request.form["body"], author=g.user))
        db.session.commit()
        return redirect(url_for("post", post_id=post_id))

    @app.post("/comments/<int:comment_id>/update")
    def edit_comment(comment_id: int) -> Response:
        comment = db.get_or_404(Comment, comment_id)
        comment.body = request.form["body"]
        db.session.commit()
        return redirect(url_for("post", post_id=comment.post_id))

    @app.post("/comments/<int:comment_id>/delete")
    def delete_comment(comment_id: int) -> Response:
        comment = db.get_or_404(Comment, comment_id)
        db.session.delete(comment)
        db.session.commit()
        return redirect(url_for("post", post_id=comment.post_id))

    @app.post("/posts/<int:post_id>/like")
    def like(post_id: int) -> Response:
        liked = update(Post).where(Post.id == post_id).values(likes=Post.likes + 1)
        db.session.execute(liked)
        db.session.commit()
        return redirect(url_for("post", post_id=post_id))

    @app.post("/tags/<name>/rename")
    def rename_tag(name: str) -> Response:
        tag = db.first_or_404(select(Tag).filter_by(name=name))
        tag.name = request.form["name"]
        db.session.commit()
        return redirect(url_for("tags"))

    @app.post("/bio")
    def describe() -> Response:
        g.user.bio = request.form["bio"]
        db.session.commit()
        return redirect(url_for("author", username=g.user.username))


PAGES = [
    *("/", "/?page=2", "/?page=3", "/authors/", "/tags/", "/popular", "/figures", "/about"),
    *("/auth/login", "/auth/register"),
    *(f"/posts/{n}" for n in range(1, 9)),
    *(f"/p/{slug}" for slug in ("one", "two", "three", "four", "five", "six", "late")),
    *(f"/authors/{name}" for name in ("ann", "bob", "cyd", "nobody")),
    *(f"/tags/{name}" for name in ("art", "food", "music", "cooking", "empty", "none")),
    *(f"/search/{words}" for words in ("One", "Two", "Late")),
]


def run(auto_tags: object, directory: Path) -> Report:
    with site(auto_tags=auto_tags) as blog:
        app = create_app(directory / "blog.sqlite3")
        with app.app_context():
            _listen(db.engine, blog)
        face: Any = blog.edge.wsgi(app)
        blog.ask, blog.pages = stranger(face), PAGES
        people = {name: _sign_up(face, name) for name in ("ann", "bob")}
        _fill(people)
        _write(blog, face, people)
        with app.app_context():
            db.engine.dispose()
        return blog.report()


def _listen(engine: Any, blog: Site) -> None:
    @event.listens_for(engine, "before_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, *_: object) -> None:
        blog.note_statement(statement)


def _sign_up(face: Any, name: str) -> Client:
    client = Client(face)
    _post(client, "/auth/register", username=name, password="secret")
    _post(client, "/auth/login", username=name, password="secret")
    return client


def _post(client: Client, path: str, **form: str) -> None:
    response = client.post(path, data=form)
    assert response.status_code == 302, (path, response.status)


def _fill(people: dict[str, Client]) -> None:
    ann, bob = people["ann"], people["bob"]
    for client, title, tags in (
        (ann, "One", "art"),
        (bob, "Two", "art food"),
        (ann, "Three", "food"),
        (bob, "Four", "music"),
        (ann, "Five", "empty"),
        (bob, "Six", ""),
    ):
        _post(client, "/create", title=title, body=f"Of {title}", tags=tags)
    _post(ann, "/posts/5/update", title="Five", body="No tag any more", tags="")
    for n in (1, 1, 2, 4):
        _post(bob, f"/posts/{n}/comments", body=f"On {n}")


def _write(blog: Site, face: Any, people: dict[str, Client]) -> None:
    ann, bob = people["ann"], people["bob"]
    with blog.write("a comment"):
        _post(ann, "/posts/2/comments", body="Well said")
    with blog.write("the first comment of a post"):
        _post(bob, "/posts/3/comments", body="First")
    with blog.write("edit a comment"):
        _post(bob, "/comments/1/update", body="On second thought")
    with blog.write("delete a comment"):
        _post(bob, "/comments/2/delete")
    with blog.write("edit the body of a post"):
        _post(ann, "/posts/1/update", title="One", body="Better", tags="art")
    with blog.write("save a post as it is"):
        _post(ann, "/posts/1/update", title="One", body="Better", tags="art")
    with blog.write("edit the title of a post"):
        _post(bob, "/posts/2/update", title="Two and a half", body="Of Two", tags="art food")
    with blog.write("tag a post"):
        _post(bob, "/posts/6/update", title="Six", body="Of Six", tags="empty")
    with blog.write("tag a post otherwise"):
        _post(bob, "/posts/4/update", title="Four", body="Of Four", tags="art music")
    with blog.write("a post that was not found before"):
        _post(ann, "/create", title="Late", body="At last", tags="food")
    with blog.write("delete a post with comments and tags"):
        _post(ann, "/posts/3/delete")
    with blog.write("like a post (UPDATE of one row)"):
        _post(bob, "/posts/1/like")
    with blog.write("rename a tag"):
        _post(ann, "/tags/food/rename", name="cooking")
    with blog.write("edit what an author says of herself"):
        _post(ann, "/bio", bio="Painter")
    with blog.write("register"):
        _post(Client(face), "/auth/register", username="cyd", password="secret")

"""`"auto_tags": True`: a page is purged by what it has read, although nobody declared its keys."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, stream_with_context
from sqlalchemy import (
    ClauseElement,
    Engine,
    Executable,
    ForeignKey,
    create_engine,
    func,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from grip_edge_middleware import GripEdge, notes
from grip_edge_middleware.rows import Scopes
from tests.recording import DEADLINE_S, RecordingServer

SCOPES = {"scopes": ["author_id"]}


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Post(Base):
    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(ForeignKey(Author.id))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path}/blog.sqlite3")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Author(id=3, name="Ada"), Author(id=4, name="Bob")])
        session.add_all([Post(id=7, title="x", author_id=3), Post(id=8, title="y", author_id=4)])
        session.commit()
    yield engine
    engine.dispose()


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    with RecordingServer() as server:
        yield server


@pytest.fixture
def edge(server: RecordingServer, engine: Engine) -> Iterator[GripEdge]:
    """Made after the engine's rows, which it would tell otherwise."""
    with closing(make_edge(server)) as edge:
        yield edge


def make_edge(server: RecordingServer, auto_tags: object = SCOPES, **topic: Any) -> GripEdge:
    settings = {
        "grip_url": None,
        "cdn": server.url.replace("http", "varnish"),
        "confirm_after": 0,
        "topics": {"pages": {"routes": ["/<path:page>"], "auto_tags": auto_tags, **topic}},
    }
    return GripEdge(settings=settings, environ={})


@pytest.fixture(autouse=True)
def _nothing_was_read_late() -> Iterator[None]:
    notes._read_late.clear()
    yield
    notes._read_late.clear()


View = Callable[[Session], object]


def keys(edge: GripEdge, engine: Engine, view: View) -> set[str]:
    """The keys of what a view has read."""
    response = page(edge, engine, view)
    return {key for key in response.headers["Surrogate-Key"].split() if key.startswith("%row:")}


def page(edge: GripEdge, engine: Engine, view: View) -> Any:
    app = Flask(__name__)

    @app.get("/x")
    def show() -> str:
        with Session(engine) as session:
            return str(view(session))

    app.wsgi_app = edge.wsgi(app.wsgi_app)  # type: ignore[method-assign, assignment]
    return app.test_client().get("/x")


READS: dict[str, tuple[View, set[str]]] = {
    "get": (lambda s: s.get(Post, 7), {"%row:post:7"}),
    "get of a missing row": (lambda s: s.get(Post, 99), {"%row:post:99"}),
    "get by text": (lambda s: s.get(Post, "007"), {"%row:post:7"}),
    "columns of a row": (
        lambda s: s.execute(select(Post.title).where(Post.id == 7)).all(),
        {"%row:post:7"},
    ),
    "rows": (
        lambda s: s.scalars(select(Post).where(Post.id.in_([7, 8]))).all(),
        {"%row:post:7", "%row:post:8"},
    ),
    "list": (lambda s: s.scalars(select(Post)).all(), {"%row:post:%any"}),
    "empty list": (
        lambda s: s.scalars(select(Post).where(Post.title == "?")).all(),
        {"%row:post:%any"},
    ),
    "count": (lambda s: s.scalar(select(func.count()).select_from(Post)), {"%row:post:%any"}),
    "scoped list": (
        lambda s: s.scalars(select(Post).where(Post.author_id == 3)).all(),
        {"%row:post.author_id:3"},
    ),
    "scoped count": (
        lambda s: s.scalar(select(func.count(Post.id)).where(Post.author_id == 3)),
        {"%row:post.author_id:3"},
    ),
    "join": (
        lambda s: s.scalars(select(Post).join(Author, Author.id == Post.author_id)).all(),
        {"%row:post:%any", "%row:author:%any"},
    ),
    "text": (
        lambda s: s.execute(text("SELECT * FROM post WHERE id = :id"), {"id": 7}).all(),
        {"%row:post:7"},
    ),
    "text of all": (lambda s: s.execute(text("SELECT * FROM post")).all(), {"%row:post:%any"}),
    "row again": (
        lambda s: s.scalar(
            select(Post).where(Post.id == 7).execution_options(populate_existing=True)
        ),
        {"%row:post:7"},
    ),
    "nothing": (lambda s: s.execute(text("SELECT 1")).all(), set()),
}


@pytest.mark.parametrize("what", READS)
def test_what_a_view_reads_are_keys_of_its_page(edge: GripEdge, engine: Engine, what: str) -> None:
    view, expected = READS[what]

    types = {f"%row:{key.split(':')[1].split('.')[0]}:%all" for key in expected}
    assert keys(edge, engine, view) == expected | types


def test_without_auto_tags_nothing_is_noted(server: RecordingServer, engine: Engine) -> None:
    with closing(make_edge(server, auto_tags=False)) as edge:
        assert keys(edge, engine, lambda session: session.get(Post, 7)) == set()


WRITES: dict[str, tuple[Callable[[Session], object], set[str]]] = {
    "update": (
        lambda s: setattr(s.get(Post, 7), "title", "new"),
        {"%row:post:7", "%row:post:%any", "%row:post.author_id:3"},
    ),
    "move": (
        lambda s: setattr(s.get(Post, 7), "author_id", 4),
        {"%row:post:7", "%row:post:%any", "%row:post.author_id:3", "%row:post.author_id:4"},
    ),
    "insert": (
        lambda s: s.add(Post(id=99, title="z", author_id=4)),
        {"%row:post:99", "%row:post:%any", "%row:post.author_id:4"},
    ),
    "delete": (
        lambda s: s.delete(s.get(Post, 7)),
        {"%row:post:7", "%row:post:%any", "%row:post.author_id:3"},
    ),
    "bulk": (lambda s: s.execute(update(Post).values(title="new")), {"%row:post:%all"}),
    "text": (lambda s: s.execute(text("DELETE FROM post WHERE id = 7")), {"%row:post:%all"}),
    "nothing": (lambda s: s.execute(text("DELETE FROM post WHERE id = 77")), set()),
}


@pytest.mark.parametrize("what", WRITES)
def test_a_save_purges_what_may_show_it(
    edge: GripEdge, server: RecordingServer, engine: Engine, what: str
) -> None:
    write, expected = WRITES[what]
    with Session(engine) as session:
        write(session)
        session.commit()

    assert edge.flush(DEADLINE_S)
    assert server.purged_keys == expected


def test_a_save_meanwhile_keeps_the_page_out_of_the_cache(edge: GripEdge, engine: Engine) -> None:
    def view(session: Session) -> object:
        post = session.get(Post, 7)
        with Session(engine) as other:
            other.execute(update(Post).values(title="new"))
            other.commit()
        return post

    response = page(edge, engine, view)

    assert response.headers["Cache-Control"] == "private, no-store"


def test_who_reads_what_nobody_can_see_has_an_unclear_page() -> None:
    noted = notes.Notes(scopes=Scopes())

    noted.note_reads("CALL report(1)", (), {})

    assert noted.is_unclear


class Strange(Executable, ClauseElement):
    """Compiles, and does not say of what it consists."""

    inherit_cache = False

    def get_children(self, **_: object) -> Any:
        raise ZeroDivisionError


@compiles(Strange)
def _compile_strange(element: Strange, compiler: Any, **_: Any) -> str:
    return "SELECT 1"


def test_a_statement_that_is_not_understood_breaks_no_view_and_is_not_cached(
    edge: GripEdge, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    response = page(edge, engine, lambda session: session.execute(Strange()))

    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "private, no-store"
    assert "the page is not cached" in caplog.text


# --- late reads -------------------------------------------------------------------------------


def test_a_body_that_reads_while_it_streams_is_logged_once(
    edge: GripEdge, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    app = Flask(__name__)

    @app.get("/x")
    def show() -> Response:
        def body() -> Iterator[str]:
            with Session(engine) as session:
                yield from session.scalars(select(Post.title))

        return Response(stream_with_context(body()))

    app.wsgi_app = edge.wsgi(app.wsgi_app)  # type: ignore[method-assign, assignment]
    for _ in range(2):
        assert app.test_client().get("/x").text == "xy"

    assert caplog.text.count("reads from the database after its headers have left") == 1
    assert "/<path:page>" in caplog.text


def test_what_is_read_after_the_response_is_not_late(
    edge: GripEdge, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    app = Flask(__name__)

    @app.get("/x")
    def show() -> str:
        return "x"

    @app.teardown_request
    def read(_: object) -> None:
        with Session(engine) as session:
            session.get(Post, 7)

    app.wsgi_app = edge.wsgi(app.wsgi_app)  # type: ignore[method-assign, assignment]
    app.test_client().get("/x")

    assert "after its headers" not in caplog.text


# --- async ------------------------------------------------------------------------------------


@pytest.fixture
def async_url(engine: Engine) -> str:
    return str(engine.url).replace("sqlite", "sqlite+aiosqlite", 1)


def starlette(edge: GripEdge, engine: AsyncEngine) -> Any:
    async def get(request: Request) -> PlainTextResponse:
        async with AsyncSession(engine) as session:
            posts, authors = await asyncio.gather(
                session.get(Post, int(request.path_params["id"])), read_in_a_task(engine)
            )
            return PlainTextResponse(f"{posts} {authors}")

    async def stream(request: Request) -> StreamingResponse:
        async def body() -> Any:
            async with AsyncSession(engine) as session:
                for title in await session.scalars(select(Post.title)):
                    yield title

        return StreamingResponse(body())

    async def background(request: Request) -> PlainTextResponse:
        return PlainTextResponse("x", background=BackgroundTask(read_in_a_task, engine))

    routes = [Route("/posts/{id}", get), Route("/stream", stream), Route("/background", background)]
    return edge.asgi(Starlette(routes=routes))


async def read_in_a_task(engine: AsyncEngine) -> object:
    async with AsyncSession(engine) as session:
        return await session.get(Author, 3)


@pytest.fixture
def client(edge: GripEdge, async_url: str) -> Iterator[TestClient]:
    engine = create_async_engine(async_url)
    with TestClient(starlette(edge, engine)) as client:
        yield client
        assert client.portal is not None
        client.portal.call(engine.dispose)


def test_what_an_async_view_and_its_tasks_read_are_keys(client: TestClient) -> None:
    keys = client.get("/posts/7").headers["surrogate-key"].split()

    assert {"%row:post:7", "%row:author:3"} <= set(keys)
    assert "%row:post:%any" not in keys


def test_an_async_body_that_reads_while_it_streams_is_logged(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.get("/stream").text == "xy"

    assert "reads from the database after its headers have left" in caplog.text


def test_what_a_background_task_reads_is_not_late(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        client.get("/background")

    assert "after its headers" not in caplog.text

"""Many requests at a time, each with the keys of what it has read itself: 10,000 responses."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Engine, ForeignKey, create_engine, insert, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from grip_edge_middleware import GripEdge
from tests.sources.databases import Database

REQUESTS_AT_A_TIME = 24
# On each of two databases; those of tasks take longer.
BY_THREADS, BY_TASKS = 3_500, 1_500
ROWS = 500


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)


class Post(Base):
    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey(Author.id))


@pytest.fixture
def edge() -> Iterator[GripEdge]:
    settings = {
        "cdn": "varnish://127.0.0.1:9",
        "topics": {"posts": {"routes": ["/<id>"], "auto_tags": {"scopes": ["author_id"]}}},
    }
    with closing(GripEdge(settings=settings, environ={})) as edge:
        yield edge


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    """An engine with a connection for each thread."""
    Base.metadata.create_all(database.engine)
    with database.engine.begin() as connection:
        connection.execute(insert(Author), [{"id": n} for n in range(ROWS)])
        connection.execute(insert(Post), [{"id": n, "author_id": ROWS - n} for n in range(1, ROWS)])
    engine = create_engine(database.url, pool_size=REQUESTS_AT_A_TIME)
    yield engine
    engine.dispose()


@pytest.fixture
def hurry() -> Iterator[None]:
    """Have threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def expected(number: int) -> set[str]:
    """The keys of a page that shows a post, and how many its author has."""
    return {
        "%all",
        "posts",
        f"%row:post:{number}",
        f"%row:post.author_id:{ROWS - number}",
        "%row:post:%all",
    }


def post_of(number: int) -> int:
    """The post that a request shows: neighbours in time show different ones."""
    return 1 + number * 7 % (ROWS - 1)


def test_no_thread_has_keys_of_another(edge: GripEdge, engine: Engine, hurry: None) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        number = int(environ["PATH_INFO"][1:])
        with Session(engine) as session:
            post = session.get_one(Post, number)
            session.scalars(select(Post.id).where(Post.author_id == post.author_id)).all()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"%d" % number]

    face, seen = edge.wsgi(app), dict[int, tuple[int, set[str]]]()
    begin = threading.Barrier(REQUESTS_AT_A_TIME)

    def work(worker: int) -> None:
        begin.wait()
        for number in range(worker, BY_THREADS, REQUESTS_AT_A_TIME):
            seen[number] = post_of(number), ask_wsgi(face, f"/{post_of(number)}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(REQUESTS_AT_A_TIME)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(seen) == BY_THREADS
    assert [(n, keys) for n, keys in seen.values() if keys != expected(n)] == []


def test_no_task_has_keys_of_another(edge: GripEdge, engine: Engine, database: Database) -> None:
    seen = dict[int, tuple[int, set[str]]]()

    async def main() -> None:
        async with database.async_engine(pool_size=REQUESTS_AT_A_TIME) as engine:

            async def app(scope: Any, receive: Any, send: Any) -> None:
                number = int(scope["path"][1:])
                async with AsyncSession(engine) as session:
                    post = await session.get_one(Post, number)
                    query = select(Post.id).where(Post.author_id == post.author_id)
                    (await session.scalars(query)).all()
                headers = [(b"content-type", b"text/plain")]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": b"%d" % number})

            face = edge.asgi(app)

            async def work(worker: int) -> None:
                for number in range(worker, BY_TASKS, REQUESTS_AT_A_TIME):
                    seen[number] = post_of(number), await ask_asgi(face, f"/{post_of(number)}")

            await asyncio.gather(*(work(worker) for worker in range(REQUESTS_AT_A_TIME)))

    asyncio.run(main())
    assert len(seen) == BY_TASKS
    assert [(n, keys) for n, keys in seen.values() if keys != expected(n)] == []


def ask_wsgi(face: Any, path: str) -> set[str]:
    """Return the keys of the response."""
    started: list[Any] = []
    environ = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": ""}
    body = face(environ, lambda status, headers, *_: started.append(headers))
    b"".join(body)
    if hasattr(body, "close"):
        body.close()
    [headers] = started
    return set(dict(headers)["Surrogate-Key"].split())


async def ask_asgi(face: Any, path: str) -> set[str]:
    messages: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        messages.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "root_path": "",
        "query_string": b"",
        "headers": [],
    }
    await face(scope, receive, send)
    return set(dict(messages[0]["headers"])[b"surrogate-key"].decode().split())

"""An app of live counters, as ours and as fanout/livecounter does it, each behind an edge.

    uvicorn benchmarks.counters:app

Both have the same views, database and edge. Ours is told by the models what changed. The other
says so to Redis, and `benchmarks/livecounter.py` purges and publishes.

Environment: COUNTERS (ours, or livecounter), DATABASE_URL, GRIP_URL, EDGE_CDN, REDIS_URL.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from clients import request
from redis import Redis
from servers import command_server, wait_until_reached
from sqlalchemy import create_engine, event, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.edges import RatedEdge
from benchmarks.livecounter import UPDATES, Update, encode
from grip_edge_middleware import GripEdge
from grip_edge_middleware.types import Receive, Scope, Send
from tests.stores import redis_server

Kind = Literal["ours", "livecounter"]
NAMES = 200


class Base(DeclarativeBase):
    pass


class Counter(Base):
    __tablename__ = "counter"
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(default=0)


def make_app(kind: Kind, environ: dict[str, str]) -> Any:
    """Return the app; `/asked` says how often it was asked for anything else."""
    engine = create_engine(environ["DATABASE_URL"])
    event.listen(engine, "connect", _do_not_wait_for_the_disk)
    redis = Redis.from_url(environ["REDIS_URL"]) if kind == "livecounter" else None
    asked: list[str] = []

    def show(asking: Request) -> Response:
        name = asking.path_params["name"]
        with Session(engine) as session:
            body = encode(session.get_one(Counter, name).value)
        headers = {} if redis is None else held_by_hand(name)
        return Response(body, media_type="text/event-stream", headers=headers)

    def increment(asking: Request) -> Response:
        name = asking.path_params["name"]
        with Session(engine) as session:
            counter = session.get_one(Counter, name)
            counter.value += 1
            value = counter.value
            session.commit()
        committed = time.monotonic()
        if redis is not None:
            redis.publish(UPDATES, Update(name, value).encode())
        return JSONResponse({"value": value, "committed": committed})

    def count(_asking: Request) -> Response:
        return JSONResponse(asked)

    inner = Starlette(
        routes=[
            Route("/counters/{name}", show, methods=["GET"]),
            Route("/counters/{name}", increment, methods=["POST"]),
            Route("/asked", count),
        ]
    )
    wrapped = inner if redis is not None else wrap(inner, environ)

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET" and scope["path"] != "/asked":
            asked.append(scope["path"])
        await wrapped(scope, receive, send)

    return counted


def wrap(app: Any, environ: dict[str, str]) -> Any:
    """Put our middleware around it."""
    settings = {
        "grip_url": environ["GRIP_URL"],
        "cdn": environ["EDGE_CDN"],
        "topics": {
            "counter-{name}": {
                "routes": ["/counters/{name}"],
                "models": [Counter],
                "hold": "stream",
            }
        },
    }
    return GripEdge(settings=settings).asgi(app)


def held_by_hand(name: str) -> dict[str, str]:
    """Return what livecounter's view says, and the key by which this edge purges its URL."""
    return {
        "Cache-Control": "s-maxage=600",
        "Vary": "Accept",
        "Surrogate-Key": f"counter-{name}",
        "Grip-Hold": "stream",
        "Grip-Channel": f"counter-{name}",
    }


def _do_not_wait_for_the_disk(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = WAL")


# --- as the benchmarks see it -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counters:
    """The app, served behind an edge of its own."""

    edge: RatedEdge

    def url(self, name: str) -> str:
        """Return where clients of a counter connect."""
        return f"{self.edge.url}/counters/{name}"

    def increment(self, name: str) -> tuple[int, float]:
        """Commit one more; return the value, and when it was committed, in monotonic seconds."""
        app_url = f"http://127.0.0.1:{self.edge.app_port}/counters/{name}"
        reply = json.loads(request(app_url, method="POST", body=b"").body)
        return int(reply["value"]), float(reply["committed"])

    def asked(self) -> list[str]:
        """Return what the app was asked for over HTTP."""
        reply = request(f"http://127.0.0.1:{self.edge.app_port}/asked")
        return list(json.loads(reply.body))


@contextmanager
def serving(kind: Kind, *, message_rate: int | None = None) -> Iterator[Counters]:
    """Serve the counters `0` to `199`; another has been sent already, as slowly as the first is."""
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory())
        edge = stack.enter_context(RatedEdge(message_rate=message_rate))
        environ = {
            "COUNTERS": kind,
            "DATABASE_URL": f"sqlite:///{fill(Path(folder))}",
            "GRIP_URL": edge.control_url,
            "EDGE_CDN": edge.cdn_url,
        }
        if kind == "livecounter":
            environ["REDIS_URL"] = stack.enter_context(redis_server.running()).url
        command = [sys.executable, "-m", "uvicorn", "benchmarks.counters:app"]
        command += ["--port", str(edge.app_port), "--log-level", "warning"]
        stack.enter_context(command_server(command, edge.app_port, env=environ))
        if kind == "livecounter":
            stack.enter_context(publishing(edge, environ))
        wait_until_reached(f"{edge.cache_url}/counters/0")
        served = Counters(edge)
        served.increment(str(NAMES))
        yield served


def fill(folder: Path) -> Path:
    """Write the database."""
    file = folder / "counters.sqlite3"
    engine = create_engine(f"sqlite:///{file}")
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(
            insert(Counter), [{"name": str(n), "value": 0} for n in range(NAMES + 1)]
        )
    engine.dispose()
    return file


@contextmanager
def publishing(edge: RatedEdge, environ: dict[str, str]) -> Iterator[None]:
    """Run livecounter's publisher, once it listens to Redis."""
    command = [sys.executable, "-m", "benchmarks.livecounter", edge.cache_url, edge.control_url]
    with Redis.from_url(environ["REDIS_URL"]) as redis, running(command, environ):
        deadline = time.monotonic() + 20
        while not dict(redis.pubsub_numsub(UPDATES))[UPDATES.encode()]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield


@contextmanager
def running(command: list[str], environ: dict[str, str]) -> Iterator[None]:
    """Run a process."""
    process = subprocess.Popen(command, env={**os.environ, **environ})
    try:
        yield
    finally:
        process.terminate()
        process.wait()


if "COUNTERS" in os.environ:
    app = make_app(os.environ["COUNTERS"], dict(os.environ))  # type: ignore[arg-type]

"""An app for servers to import: its workers save counters to one database.

`app`, `edge` and `settings`. Every answer names the process that gave it, and so does what is
pushed, so one can tell which of them rendered it. Its orders are in the environment: `harness.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from launch import end_with_parent
from sqlalchemy import Connection, NullPool, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from grip_edge_middleware import GripEdge
from grip_edge_middleware.stores.shared import SharedStore

ORDER = json.loads(os.environ["ORDER"])


class Base(DeclarativeBase):
    pass


class Counter(Base):
    __tablename__ = "counter"
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(default=0)


engine = create_engine(ORDER["database"], poolclass=NullPool, connect_args={"timeout": 20})


@event.listens_for(engine, "connect")
def begin_by_ourselves(connection: Any, _: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA synchronous = OFF")


@event.listens_for(engine, "begin")
def lock_at_once(connection: Connection) -> None:
    """Else two who have read the same number write the same."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


if ORDER["lease_s"] is not None:
    # No setting: who has it set too short sends everything twice.
    SharedStore.__init__.__kwdefaults__["lease_s"] = ORDER["lease_s"]  # type: ignore[index]

settings = {
    **ORDER["settings"],
    "topics": {
        "counter-{name}": {"routes": ["/counters/<name>"], "models": [Counter], "hold": "stream"},
        "said-{name}": {"routes": ["/said/<name>"], "hold": "stream"},
    },
}
edge = GripEdge(settings=settings)


def answer(path: str, text: str) -> tuple[int, object]:
    """Return what any server is to answer: status and content."""
    _, *names = path.split("/")
    match names:
        case ["save", name]:
            return 200, save(name)
        case ["say", name]:
            edge.publish("said-{name}", json.dumps(text), name=name)
            return 200, None
        case ["counters", name]:
            return 200, value_of(name)
        case ["said", _]:
            return 200, None
        case ["fork"]:
            return 200, fork(text)
        case ["flush"]:
            return 200, edge.flush(10)
        case ["health"]:
            return 200, edge.health()
        case ["plain"]:
            return 200, None
    return 404, None


def save(name: str) -> int:
    """Count one up, and return how far it is."""
    with Session(engine, expire_on_commit=False) as session:
        counter = session.get_one(Counter, name)
        counter.value += 1
        session.commit()
        return counter.value


def value_of(name: str) -> int | None:
    with Session(engine, expire_on_commit=False) as session:
        counter = session.get(Counter, name)
        return None if counter is None else counter.value


def fork(name: str) -> int:
    """Save in a child, after this process has used everything; return how it ended."""
    pid = os.fork()
    if not pid:
        save(name)
        os._exit(not edge.flush(10))
    return os.waitpid(pid, 0)[1]


def encode(content: object) -> bytes:
    return b"data: %s\n\n" % json.dumps({"by": os.getpid(), "said": content}).encode()


def bare_wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    status, content = answer(environ["PATH_INFO"], environ["QUERY_STRING"])
    headers = [("Content-Type", "text/event-stream")]
    start_response(f"{status} {HTTPStatus(status).phrase}", headers)
    return [encode(content)]


async def bare_asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await live(receive, send)
        return
    path, text = scope["path"], scope["query_string"].decode()
    if path == "/plain":
        status, content = answer(path, text)  # which shows whether the loop goes on
    else:
        status, content = await asyncio.to_thread(answer, path, text)
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": encode(content)})


async def live(receive: Any, send: Any) -> None:
    for phase in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{phase}.complete"})


app = edge.asgi(bare_asgi) if ORDER["is_asgi"] else edge.wsgi(bare_wsgi)

if ORDER["saves_at_import"]:
    save(ORDER["saves_at_import"])
    edge.flush(10)

# No worker outlives its server, however that ends.
end_with_parent()
os.register_at_fork(after_in_child=end_with_parent)

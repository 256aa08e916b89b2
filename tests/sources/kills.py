"""Processes that commit until they are killed: of which commits does the CDN never hear?

    report = kill("killed_sqlalchemy", database, kills=200, has_outbox=True, seed=1)
    assert report.lost == 0

The CDN is a server of the test's process. Another process, the *zygote*, imports all that is needed
once, and forks a child for each kill: so a child is at work within milliseconds. What is in the
database afterwards is the truth: all of it must have been purged, after its commit.

A program, such as `killed_sqlalchemy.py`, is a module with a class `Program`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from launch import end_with_parent
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from grip_edge_middleware import GripEdge
from tests.recording import DEADLINE_S, Answer, Recorded, RecordingServer, acknowledge
from tests.sources.databases import Database

ROOT = Path(__file__).resolve().parents[2]
# From the fork to the kill: the start, which takes some milliseconds, and dozens of commits.
LONGEST_LIFE_S = 0.15
WARM_UP = 50
GRACE_S = 0.5
# Of the numbers of one child.
ROUND = 1_000_000

Numbers = Iterator[int]
"""Those of the commits of one child: no other has them."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a zygote is to do."""

    program: str
    kind: str
    url: str
    django: dict[str, Any]
    cdn_port: int
    kills: int
    has_outbox: bool
    seed: int

    @property
    def edge(self) -> dict[str, Any]:
        """The settings of the edge, but for the models of `item-{number}` and `lot-{number}`."""
        return {
            "cdn": f"varnish://127.0.0.1:{self.cdn_port}",
            "confirm_after": 0,
            "throttle": 0.0,
            "outbox": {"grace": GRACE_S} if self.has_outbox else None,
        }


class Program(Protocol):
    """Commits in a loop, on one ORM.

    Its model of the table `item` is saved object by object, so that its topics are known one by
    one. That of `lot` is written by statements that tell no more than the table.
    """

    def __init__(self, order: Order) -> None: ...

    def create_tables(self) -> None:
        """Create the tables `item` and `lot`, and that of the outbox."""

    def open_edge(self) -> GripEdge:
        """Begin to listen."""

    def look_after(self, edge: GripEdge) -> None:
        """Have the edge take what was left in the outbox."""

    def commit(self, numbers: Numbers, chance: random.Random) -> None:
        """Write rows in some way, each with another number: negative if it is rolled back."""

    def disconnect(self) -> None:
        """Leave no connection that a child would share."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the commits."""

    order: Order
    commits: int
    """Those whose rows are in the database."""
    left: int
    """Rows of the outbox that a killed process left."""
    remaining: int
    """Rows of the outbox that nobody took."""
    lost: int
    """Commits whose key was not purged after them."""
    untrue: int
    """Keys that were purged of rows that were rolled back."""

    def __str__(self) -> str:
        o = self.order
        outbox = f"{self.left} left and taken" if o.has_outbox else "without"
        return (
            f"{o.program:18} {o.kind:10} {o.kills} kills, {self.commits} commits, "
            f"outbox: {outbox}; lost: {self.lost}"
        )


def kill(program: str, database: Database, *, kills: int, has_outbox: bool, seed: int) -> Report:
    """Kill a program so many times, at moments that follow from the seed."""
    with _CDN(database) as cdn:
        port = cdn.server.port
        order = Order(
            program, database.kind, database.url, database.django, port, kills, has_outbox, seed
        )
        left, remaining = _run_zygote(order)
        return cdn.report(order, left, remaining)


def _run_zygote(order: Order) -> tuple[int, int]:
    zygote = subprocess.run(
        [sys.executable, "-m", "tests.sources.kills", json.dumps(asdict(order))],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            # A folder without any: reading the usual certificates takes half a child's life.
            "SSL_CERT_DIR": str(ROOT),
        },
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=end_with_parent,
    )
    assert zygote.returncode == 0, zygote.stderr[-5_000:]
    left, remaining = json.loads(zygote.stdout)
    return left, remaining


# --- the CDN, in the test's process -------------------------------------------------------------


@dataclass
class _CDN:
    """Notes which rows were purged, all lots that were committed by then among them."""

    database: Database
    server: RecordingServer = field(default_factory=RecordingServer)
    purged: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> _CDN:
        self.server.respond = self._purge
        self.server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()

    def _purge(self, request: Recorded) -> Answer:
        keys = set(request.keys)
        if "lot-%all" in keys:
            keys |= self._in_database("lot")
        with self._lock:
            self.purged |= keys
        return acknowledge(request)

    def report(self, order: Order, left: int, remaining: int) -> Report:
        committed = self._in_database("item") | self._in_database("lot")
        return Report(
            order,
            commits=len(committed),
            left=left,
            remaining=remaining,
            lost=len(committed - self.purged),
            untrue=len({key for key in self.purged if key.startswith("item--")}),
        )

    def _in_database(self, table: str) -> set[str]:
        with self.database.engine.connect() as connection:
            numbers = connection.execute(text(f"SELECT number FROM {table}")).scalars()
            return {f"{table}-{number}" for number in numbers}


# --- the zygote ---------------------------------------------------------------------------------


def main() -> None:
    end_with_parent()
    order = Order(**json.loads(sys.argv[1]))
    program: Program = import_module(f"tests.sources.{order.program}").Program(order)
    program.create_tables()
    _warm_up(program)
    edge = program.open_edge()
    engine = create_engine(order.url, poolclass=NullPool)
    chance = random.Random(order.seed)
    left: set[str] = set()
    for number in range(1, order.kills + 1):
        _kill_one(program, number, chance.uniform(0.0, LONGEST_LIFE_S))
        left |= _outbox(engine)
    if order.has_outbox:
        program.look_after(edge)
        _await_the_end(engine)
    edge.close()
    print(json.dumps([len(left), len(_outbox(engine))]))


def _warm_up(program: Program) -> None:
    """Have what is imported or compiled at first use, so that no child spends its life on it."""
    edge = program.open_edge()
    numbers, chance = count(1), random.Random(0)
    for _ in range(WARM_UP):
        program.commit(numbers, chance)
    edge.close()
    program.disconnect()


def _kill_one(program: Program, number: int, lives_s: float) -> None:
    pid = os.fork()
    if pid == 0:
        _commit_forever(program, number)
    time.sleep(lives_s)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), f"child {number} ended by itself"


def _commit_forever(program: Program, number: int) -> None:
    end_with_parent()
    numbers, chance = count(number * ROUND), random.Random(number)
    try:
        while True:
            program.commit(numbers, chance)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _await_the_end(engine: Engine) -> None:
    """Wait until the outbox is empty, and what the last child had asked of the database is done."""
    deadline = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while (_are_others_at_work(engine) or _outbox(engine)) and time.monotonic() < deadline:
        pause.wait(0.02)


def _are_others_at_work(engine: Engine) -> bool:
    if engine.dialect.name != "postgresql":
        return False
    with engine.connect() as connection:
        others = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND state <> 'idle'"
        )
        return bool(connection.execute(text(others)).scalar())


def _outbox(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return set(connection.execute(text("SELECT id FROM grip_edge_outbox")).scalars())


if __name__ == "__main__":
    main()

"""What it costs a transaction that its changes are seen.

    python -m benchmarks.sources [--rounds 60] [--only commit]

Two processes do the same work in turns, one with an edge and one without, some milliseconds each. A
turn counts by the fastest of its repetitions, since other programs only ever slow it down. Each
pair of turns gives a difference; the table has their median, and the quartiles. `process` is the
same for all processor time, with what the edge's threads spend meanwhile.

The edge sends to nobody, and its topics wait for their windows to end: what is measured is the
app's own thread, until a change is noted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any, Self

from sqlalchemy import Engine, create_engine, insert, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from grip_edge_middleware import GripEdge
from grip_edge_middleware.notes import Notes, current_notes
from grip_edge_middleware.rows import Scopes
from grip_edge_middleware.sources.sqlalchemy import create_outbox

ROOT = Path(__file__).resolve().parents[1]
# Pairs of processes: each has its own luck with memory and hashes.
GENERATIONS = 3
REPETITIONS = 20
ROWS = 20
US = 1e6


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    count: Mapped[int]


create_outbox(Base.metadata)


# --- the work -----------------------------------------------------------------------------------


def commit(engine: Engine) -> int:
    """Commit a row."""
    with Session(engine) as session:
        session.add(Item(name="one", count=1))
        session.commit()
    return 1


def flush(engine: Engine) -> int:
    """Flush 100 rows."""
    with Session(engine) as session:
        session.add_all([Item(name=str(number), count=number) for number in range(100)])
        session.flush()
        session.rollback()
    return 100


def statement(engine: Engine) -> int:
    """Execute Core statements that write."""
    with engine.connect() as connection:
        for number in range(20):
            connection.execute(update(Item).where(Item.id == 1).values(count=number))
        connection.rollback()
    return 20


def statement_committed(engine: Engine) -> int:
    """Commit Core statements that each write another row: what was put off is paid as well."""
    with engine.begin() as connection:
        for number in range(ROWS):
            connection.execute(update(Item).where(Item.id == number + 1).values(count=number))
    return ROWS


def select_by_core(engine: Engine) -> int:
    """Execute Core statements that read."""
    with engine.connect() as connection:
        for _ in range(20):
            connection.execute(select(Item.name).where(Item.id == 1)).all()
    return 20


def select_by_orm(engine: Engine) -> int:
    """Have a session read an object."""
    with Session(engine) as session:
        for _ in range(20):
            session.scalars(select(Item).where(Item.id == 1)).all()
    return 20


WORK: Mapping[str, Callable[[Engine], int]] = {
    work.__name__: work
    for work in (
        commit,
        flush,
        statement,
        statement_committed,
        select_by_core,
        select_by_orm,
    )
}


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table."""

    name: str
    work: str
    budget_us: float | None = None
    tags: bool = False
    outbox: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the edge. It sends to nobody, and topics wait for their windows to end."""
        return {
            "confirm_after": 0,
            "throttle": 3_600.0,
            "flush_timeout": 0.0,
            "outbox": self.outbox or None,
            "topics": {"item-{name}": {"models": [Item], "auto_tags": self.tags or None}},
        }


CASES = [
    Case("commit of one row", "commit", 25.0),
    Case("  automatic tags", "commit", 25.0, tags=True),
    Case("  outbox", "commit", None, outbox=True),
    Case("  automatic tags, outbox", "commit", None, tags=True, outbox=True),
    Case("row of a flush of 100", "flush", 6.0),
    Case("  automatic tags", "flush", 6.0, tags=True),
    Case("Core statement that writes", "statement", 2.0),
    Case("  automatic tags", "statement", 2.0, tags=True),
    Case("  committed, of 20 rows", "statement_committed"),
    Case("  the same, automatic tags", "statement_committed", tags=True),
    Case("Core select", "select_by_core", 0.5),
    Case("  automatic tags", "select_by_core", 2.0, tags=True),
    Case("ORM select", "select_by_orm", 0.5),
    Case("  automatic tags", "select_by_orm", 2.0, tags=True),
]


# --- one of the two processes -------------------------------------------------------------------


def be_worker(case: Case, *, is_hooked: bool, folder: str) -> None:
    engine = _engine(case, folder)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        rows = [{"id": number + 1, "name": "one", "count": 1} for number in range(ROWS)]
        connection.execute(insert(Item), rows)
    with ExitStack() as stack:
        if is_hooked:
            edge = stack.enter_context(closing(GripEdge(settings=case.settings)))
            edge.follow(engine)
        work = WORK[case.work]
        for _ in sys.stdin:
            with _request(case):
                print(json.dumps(_measure(work, engine)), flush=True)


def _engine(case: Case, folder: str) -> Engine:
    if not case.outbox:
        return create_engine("sqlite://", poolclass=StaticPool)
    # The outbox's thread has a connection of its own. Nothing waits for a disk.
    engine = create_engine(f"sqlite:///{folder}/bench.sqlite3")
    with engine.connect() as connection:
        connection.execute(text("PRAGMA journal_mode = WAL"))
    return engine


@contextmanager
def _request(case: Case) -> Iterator[None]:
    """With automatic tags, within a request that wants them."""
    token = current_notes.set(Notes(scopes=Scopes()) if case.tags else None)
    try:
        yield
    finally:
        current_notes.reset(token)


def _measure(work: Callable[[Engine], int], engine: Engine) -> tuple[float, float]:
    """Return the seconds of one unit: by the fastest repetition, and of the process by all."""
    took: list[float] = []
    begun = time.process_time()
    for _ in range(REPETITIONS):
        at = time.perf_counter()
        units = work(engine)
        took.append((time.perf_counter() - at) / units)
    return min(took), (time.process_time() - begun) / units / REPETITIONS


class Worker:
    """A process that works when it is asked to."""

    def __init__(self, case: Case, *, is_hooked: bool, folder: Path) -> None:
        folder.mkdir()
        said = json.dumps([CASES.index(case), is_hooked, str(folder)])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sources", "--worker", said],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def turn(self) -> tuple[float, float]:
        """Have it work once; return what it measured."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        took_s, process_s = json.loads(process.stdout.readline())
        return took_s, process_s


# --- the table ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cost:
    """What hooks add, in microseconds: one number for each pair of turns."""

    plain: list[float]
    added: list[float]
    process: list[float]

    def __str__(self) -> str:
        low, middle, high = quantiles(self.added, n=4)
        return (
            f"{median(self.plain):9.1f} {middle:9.2f} {low:8.2f} to {high:6.2f}"
            f" {median(self.process):10.2f}"
        )


def compare(case: Case, rounds: int) -> Cost:
    """Measure the case with an edge and without one, in turns."""
    cost = Cost([], [], [])
    for _ in range(GENERATIONS):
        with TemporaryDirectory() as name, ExitStack() as stack:
            plain, hooked = (
                stack.enter_context(Worker(case, is_hooked=h, folder=Path(name, str(h))))
                for h in (False, True)
            )
            for number in range(rounds + rounds // 4):
                without, with_edge = plain.turn(), hooked.turn()
                if number >= rounds // 4:  # what came before was to warm up
                    cost.plain.append(without[0] * US)
                    cost.added.append((with_edge[0] - without[0]) * US)
                    cost.process.append((with_edge[1] - without[1]) * US)
    return cost


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what sources cost a transaction.")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--only", default="")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        number, is_hooked, folder = json.loads(options.worker)
        be_worker(CASES[number], is_hooked=is_hooked, folder=folder)
        return
    head = f"{'plain':>9} {'added':>9} {'quartiles':>18} {'process':>10} {'budget':>8}"
    print(f"{'SQLAlchemy, us':30} {head}")
    for case in CASES:
        if options.only in case.work:
            budget = "" if case.budget_us is None else f"{case.budget_us:g}"
            print(f"{case.name:30} {compare(case, options.rounds)} {budget:>8}", flush=True)


if __name__ == "__main__":
    main()

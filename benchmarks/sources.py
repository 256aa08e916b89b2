"""What it costs a transaction that its changes are seen.

    python -m benchmarks.sources [--rounds 60] [--only commit]

Processes do the same work in turns, some milliseconds each: one without an edge, one with an edge,
and for SQLAlchemy one with the *floor*, hooks in the same places that do nothing. A turn counts by
the fastest of its repetitions, since other programs only ever slow it down. Each round gives a
difference; the table has their median, and the quartiles. `process` is the same for all processor
time, with what the edge's threads spend meanwhile.

The edge sends to nobody, and its topics wait for their windows to end: what is measured is the
app's own thread, until a change is noted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, Self

import peewee
from sqlalchemy import Engine, create_engine, event, insert, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Mapper, Session, mapped_column
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

Hooks = Literal["none", "floor", "edge"]
"""What a process does about the writes that it makes."""


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
    orm: Literal["sqlalchemy", "peewee", "django"] = "sqlalchemy"

    def settings(self, model: type) -> dict[str, Any]:
        """Those of the edge. It sends to nobody, and topics wait for their windows to end."""
        return {
            "confirm_after": 0,
            "throttle": 3_600.0,
            "flush_timeout": 0.0,
            "outbox": self.outbox or None,
            "topics": {"item-{name}": {"models": [model], "auto_tags": self.tags or None}},
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
    Case("peewee, a save", "save", orm="peewee"),
    Case("  automatic tags", "save", tags=True, orm="peewee"),
    Case("Django, a save", "save", orm="django"),
    Case("  automatic tags", "save", tags=True, orm="django"),
]


# --- one of the processes -----------------------------------------------------------------------


def be_worker(case: Case, *, hooks: Hooks, folder: str) -> None:
    with ExitStack() as stack:
        work = _WORKS_OF[case.orm](case, hooks, folder, stack)
        for _ in sys.stdin:
            with _request(case):
                print(json.dumps(_measure(work)), flush=True)


def _sqlalchemy(case: Case, hooks: Hooks, folder: str, stack: ExitStack) -> Callable[[], int]:
    engine = _engine(case, folder)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        rows = [{"id": number + 1, "name": "one", "count": 1} for number in range(ROWS)]
        connection.execute(insert(Item), rows)
    if hooks == "edge":
        stack.enter_context(_edge(case, Item)).follow(engine)
    elif hooks == "floor":
        _hook_nothing(engine)
    return partial(WORK[case.work], engine)


def _edge(case: Case, model: type) -> AbstractContextManager[GripEdge]:
    return closing(GripEdge(settings=case.settings(model)))


def _engine(case: Case, folder: str) -> Engine:
    if not case.outbox:
        return create_engine("sqlite://", poolclass=StaticPool)
    # The outbox's thread has a connection of its own. Nothing waits for a disk.
    engine = create_engine(f"sqlite:///{folder}/bench.sqlite3")
    with engine.connect() as connection:
        connection.execute(text("PRAGMA journal_mode = WAL"))
    return engine


def _hook_nothing(engine: Engine) -> None:
    """Be called wherever a source is called, and do nothing there."""

    def ignore(*_: object) -> None:
        pass

    for name in (
        "after_begin",
        "before_flush",
        "after_transaction_create",
        "after_transaction_end",
        "after_flush",
    ):
        event.listen(Session, name, ignore)
    for name in ("before_insert", "before_update", "before_delete"):
        event.listen(Mapper, name, ignore, raw=True, retval=True)
    for name in ("do_commit", "do_rollback", "do_execute", "do_executemany"):
        setattr(engine.dialect, name, _passed_on(getattr(engine.dialect, name)))


def _passed_on(original: Callable[..., None]) -> Callable[..., None]:
    def pass_on(*args: Any) -> None:
        original(*args)

    return pass_on


def _peewee(case: Case, hooks: Hooks, folder: str, stack: ExitStack) -> Callable[[], int]:
    class Saved(peewee.Model):
        name = peewee.CharField()

        class Meta:
            database = peewee.SqliteDatabase(":memory:")

    Saved.create_table()
    if hooks == "edge":
        stack.enter_context(_edge(case, Saved))

    def save() -> int:
        Saved(name="one").save()
        return 1

    return save


def _django(case: Case, hooks: Hooks, folder: str, stack: ExitStack) -> Callable[[], int]:
    # Once it is imported, an edge listens to it.
    import django
    from django.conf import settings
    from django.db import connection, models

    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    settings.configure(DATABASES={"default": database}, USE_TZ=True)
    django.setup()

    class Saved(models.Model):
        name: models.CharField[str, str] = models.CharField(max_length=20)

        class Meta:
            app_label = "bench"

    with connection.schema_editor() as editor:
        editor.create_model(Saved)
    if hooks == "edge":
        stack.enter_context(_edge(case, Saved))

    def save() -> int:
        Saved(name="one").save()
        return 1

    return save


_WORKS_OF: Mapping[str, Callable[[Case, Hooks, str, ExitStack], Callable[[], int]]] = {
    "sqlalchemy": _sqlalchemy,
    "peewee": _peewee,
    "django": _django,
}


@contextmanager
def _request(case: Case) -> Iterator[None]:
    """With automatic tags, within a request that wants them."""
    token = current_notes.set(Notes(scopes=Scopes()) if case.tags else None)
    try:
        yield
    finally:
        current_notes.reset(token)


def _measure(work: Callable[[], int]) -> tuple[float, float]:
    """Return the seconds of one unit: by the fastest repetition, and of the process by all."""
    took: list[float] = []
    begun = time.process_time()
    for _ in range(REPETITIONS):
        at = time.perf_counter()
        units = work()
        took.append((time.perf_counter() - at) / units)
    return min(took), (time.process_time() - begun) / units / REPETITIONS


class Worker:
    """A process that works when it is asked to."""

    def __init__(self, case: Case, *, hooks: Hooks, folder: Path) -> None:
        folder.mkdir()
        said = json.dumps([CASES.index(case), hooks, str(folder)])
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
    """What hooks add to a case, in microseconds: one number for each round."""

    case: Case
    plain: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    added: list[float] = field(default_factory=list)
    process: list[float] = field(default_factory=list)

    @property
    def row(self) -> Row:
        """The line of the table."""
        low, middle, high = quantiles(self.added, n=4)
        floor = median(self.floor) if self.floor else None
        return Row(
            self.case.name,
            median(self.plain),
            floor,
            middle,
            low,
            high,
            median(self.process),
            self.case.budget_us,
        )


class Row(NamedTuple):
    """One line of the table: microseconds."""

    name: str
    plain: float
    floor: float | None
    added: float
    low: float
    high: float
    process: float
    budget: float | None

    def __str__(self) -> str:
        floor = "" if self.floor is None else f"{self.floor:.2f}"
        budget = "" if self.budget is None else f"{self.budget:g}"
        return (
            f"{self.name:30} {self.plain:9.1f} {floor:>9} {self.added:9.2f}"
            f" {self.low:8.2f} to {self.high:6.2f} {self.process:10.2f} {budget:>8}"
        )


def compare(case: Case, rounds: int) -> Cost:
    """Measure the case without an edge, with the floor, and with an edge, in turns."""
    cost = Cost(case)
    all_hooks: Sequence[Hooks] = ("none", "floor", "edge")
    if case.orm != "sqlalchemy":
        all_hooks = ("none", "edge")
    for _ in range(GENERATIONS):
        with TemporaryDirectory() as name, ExitStack() as stack:
            workers = {
                hooks: stack.enter_context(Worker(case, hooks=hooks, folder=Path(name, hooks)))
                for hooks in all_hooks
            }
            for number in range(rounds + rounds // 4):
                took = {hooks: worker.turn() for hooks, worker in workers.items()}
                if number >= rounds // 4:  # what came before was to warm up
                    _note(cost, took)
    return cost


def _note(cost: Cost, took: Mapping[Hooks, tuple[float, float]]) -> None:
    (plain, plain_process), (edge, edge_process) = took["none"], took["edge"]
    cost.plain.append(plain * US)
    cost.added.append((edge - plain) * US)
    cost.process.append((edge_process - plain_process) * US)
    if "floor" in took:
        cost.floor.append((took["floor"][0] - plain) * US)


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description="Measure what sources cost a transaction.")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--only", default="", help="a word in the name of the work, or the ORM")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        number, hooks, folder = json.loads(options.worker)
        be_worker(CASES[number], hooks=hooks, folder=folder)
        return []
    head = f"{'plain':>9} {'floor':>9} {'added':>9} {'quartiles':>18} {'process':>10} {'budget':>8}"
    print(f"{'one row, us':30} {head}")
    rows: list[Row] = []
    for case in CASES:
        if options.only in (case.work, case.orm, ""):
            rows.append(compare(case, options.rounds).row)
            print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()

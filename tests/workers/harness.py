"""Servers with workers, as they run in production, and what they have sent.

    with Site(tmp_path, "sqlite:///...") as site:
        machine = site.start("gunicorn", workers=4)
        machine.save("blue")
        site.wait_until_told("blue")
        print(site.sent("blue"))

The app is `app.py`. The CDN and the GRIP proxy are one server of the test's process. Several
machines are several process groups, each with folders of its own; the database is theirs all.
"""

from __future__ import annotations

import http.client
import json
import os
import signal as signals
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from launch import end_with_parent, free_ports, process_tree
from sqlalchemy import Column, Integer, MetaData, NullPool, String, Table, create_engine

from grip_edge_middleware.grip import CONFIRMED
from grip_edge_middleware.sources.sqlalchemy import create_outbox
from tests.recording import DEADLINE_S, Recorded, RecordingServer

ROOT = Path(__file__).resolve().parents[2]
APP = "tests.workers.app:app"
COMMANDS: dict[str, list[str]] = {
    "gunicorn": ["gunicorn", APP, "--bind=127.0.0.1:{port}", "--workers={workers}"],
    "uvicorn": ["uvicorn", APP, "--port={port}", "--workers={workers}", "--log-level=warning"],
    "dispatch": ["grip_edge_middleware", "dispatch", "tests.workers.app:{of}"],
}
# As many as ask at once, so that no worker is idle when another is asked.
CLIENTS = 8


class Site:
    """What all machines of an app have in common: database, CDN, GRIP proxy and store."""

    def __init__(self, folder: Path, store: object, **settings: object) -> None:
        self.folder = folder
        self.server = RecordingServer()
        self.database = f"sqlite:///{folder / 'database'}"
        self.settings = {
            "cdn": f"varnish://127.0.0.1:{self.server.port}",
            "grip_url": self.server.url,
            "store": store or "memory",
            **settings,
        }
        self.store_kind = kind_of(store)
        self.machines: list[Machine] = []
        self._ports = free_ports()

    def __enter__(self) -> Self:
        self.server.__enter__()
        create_database(self.folder / "database")
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self.machines:
            machine.kill()
        self.server.close()

    def create(self, *names: str) -> None:
        """Create counters, before anybody looks."""
        with closing(sqlite3.connect(self.folder / "database")) as connection:
            connection.executemany("INSERT INTO counter VALUES (?, 0)", [(n,) for n in names])
            connection.commit()

    def start(
        self,
        kind: str,
        *options: str,
        workers: int = 1,
        of: str = "edge",
        lease_s: float | None = None,
        saves_at_import: str = "",
        **settings: object,
    ) -> Machine:
        """Start a server, or `grip-edge dispatch`, with workers who have these settings."""
        folder = self.folder / f"machine-{len(self.machines)}"
        folder.mkdir()
        port = next(self._ports)
        order = {
            "database": self.database,
            "settings": {**self.settings, **settings},
            "is_asgi": kind == "uvicorn",
            "lease_s": lease_s,
            "saves_at_import": saves_at_import,
        }
        command = [part.format(port=port, workers=workers, of=of) for part in COMMANDS[kind]]
        machine = Machine([*command, *options], folder, port, workers, order)
        self.machines.append(machine)
        machine.start()
        return machine

    # --- what was sent ------------------------------------------------------------------------

    def sent(self, name: str) -> Sent:
        """Return what was sent for a counter."""
        return self.sent_for(f"counter-{name}")

    def sent_for(self, topic: str) -> Sent:
        """Return what was sent for any topic."""
        return Sent.of(self.server.requests, topic)

    def wait_until_told(
        self, values: Mapping[str, int], *, within_s: float = DEADLINE_S
    ) -> list[Recorded]:
        """Wait until of each of these counters the last value was published last."""
        wanted = {f"counter-{name}": value for name, value in values.items()}
        return self.server.wait_for(
            lambda seen: {**last_told(seen), **wanted} == last_told(seen), within_s=within_s
        )

    def values(self) -> dict[str, int]:
        """Return what is in the database."""
        with closing(sqlite3.connect(self.folder / "database")) as connection:
            return dict(connection.execute("SELECT name, value FROM counter"))

    def outbox(self) -> int:
        """Return how many rows are in the outbox."""
        with closing(sqlite3.connect(self.folder / "database")) as connection:
            found: int = connection.execute("SELECT count(*) FROM grip_edge_outbox").fetchone()[0]
        return found


def last_told(seen: Sequence[Recorded]) -> dict[str, Any]:
    """Return what each topic's last message said, apart from markers."""
    items = (item for request in seen if request.is_publish for item in request.items)
    return {i["channel"]: Published.of(i).said for i in items if CONFIRMED not in i["id"]}


def kind_of(store: object) -> str:
    url = store["url"] if isinstance(store, dict) else store
    return str(url or "memory").partition(":")[0]


@dataclass(frozen=True, slots=True)
class Published:
    """One item for clients who stream a counter."""

    id: str
    previous: str | None
    by: int
    """The process that rendered it."""
    said: Any

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> Published:
        content = item["formats"]["http-stream"]["content"].removeprefix("data: ")
        page = json.loads(content)
        if not isinstance(page, dict):  # what was told by `publish` names nobody
            page = {"by": 0, "said": page}
        return cls(item["id"], item.get("prev-id"), page["by"], page["said"])


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent for one topic, in order of arrival."""

    purges: int
    """Before the last publish, so without those that confirm it."""
    purges_after: int
    published: list[Published]
    markers: list[str]

    @classmethod
    def of(cls, seen: Sequence[Recorded], topic: str) -> Sent:
        published: list[Published] = []
        markers: list[str] = []
        purges, purges_after = 0, 0
        for request in seen:
            if request.is_purge and topic in request.keys:
                purges_after += 1
            for item in request.items if request.is_publish else ():
                if item["channel"] != topic:
                    continue
                if CONFIRMED in item["id"]:
                    markers.append(item["id"])
                    continue
                published.append(Published.of(item))
                purges, purges_after = purges + purges_after, 0
        return cls(purges, purges_after, published, markers)

    @property
    def versions(self) -> list[int]:
        return [int(item.id) for item in self.published]

    @property
    def is_in_order(self) -> bool:
        """Whether versions grow, and each follows the one before."""
        pairs = list(zip(self.published, self.published[1:], strict=False))
        return all(int(a.id) < int(b.id) and b.previous == a.id for a, b in pairs)

    @property
    def said_again(self) -> int:
        """How many said no more than the one before."""
        pairs = zip(self.published, self.published[1:], strict=False)
        return sum(before.said == after.said for before, after in pairs)

    @property
    def repeated(self) -> int:
        """How many were published more than once."""
        return sum(n - 1 for n in Counter(item.id for item in self.published).values())


# --- machines -----------------------------------------------------------------------------------


@dataclass
class Machine:
    """A server and its workers: a process group with folders of its own."""

    command: list[str]
    folder: Path
    port: int
    workers: int
    order: dict[str, Any]
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """Start it, and wait until each worker answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore::DeprecationWarning", "-m", *self.command],
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples" / "edge")]),
                    "ORDER": json.dumps(self.order),
                    "TMPDIR": str(self.folder),
                },
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        if "dispatch" not in self.command:
            self.pids()

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def pids(self) -> set[int]:
        """Return the processes that answer, when each worker has."""
        found: set[int] = set()

        def ask(_: int) -> int | None:
            with suppress(OSError, http.client.HTTPException):
                return self.ask("/plain").by
            return None

        with ThreadPoolExecutor(CLIENTS) as pool:
            deadline = time.monotonic() + 2 * DEADLINE_S
            while len(found) < self.workers:
                text = self.log.read_text()
                assert self.process.poll() is None, text
                assert time.monotonic() < deadline, f"{found} of {self.workers} answer:\n{text}"
                answers = set(pool.map(ask, range(CLIENTS)))
                found |= {pid for pid in answers if pid is not None}
                if None in answers:
                    threading.Event().wait(0.05)
        return found

    def ask(self, path: str, *, timeout_s: float = DEADLINE_S) -> Answered:
        """Ask for a page on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            begun = time.monotonic()
            connection.request("GET", path)
            response = connection.getresponse()
            headers, body = response.headers, response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise http.client.HTTPException(f"{path}: {response.status}\n{self.log.read_text()}")
        page = json.loads(body.removeprefix(b"data: "))
        return Answered(page["by"], page["said"], headers, time.monotonic() - begun)

    def ask_of(self, pid: int, path: str) -> Answered:
        """Ask until one of the workers has answered. Not for what must happen once."""
        deadline = time.monotonic() + DEADLINE_S
        while (answered := self.ask(path)).by != pid:
            assert time.monotonic() < deadline
        return answered

    def save(self, name: str) -> Answered:
        """Count a counter up by one."""
        return self.ask(f"/save/{name}")

    def pending(self) -> int:
        """Return how much its workers have to send, one asked after the other."""
        return sum(self.ask_of(pid, "/health").said["pending"] for pid in self.pids())

    def signal(self, number: signals.Signals) -> None:
        """Signal the server's first process, which sees to the others."""
        self.process.send_signal(number)

    def stop(self, number: signals.Signals = signals.SIGTERM) -> int:
        """Stop it as it is stopped in production; return how it ended."""
        self.signal(number)
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        """Kill all of its processes at once."""
        if self._process is None or self._process.poll() is not None:
            return
        tree = process_tree(self._process.pid)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signals.SIGKILL)
        for pid in tree:  # of a group of its own
            with suppress(ProcessLookupError):
                os.kill(pid, signals.SIGKILL)
        self._process.wait()


@dataclass(frozen=True, slots=True)
class Answered:
    """What a worker answered."""

    by: int
    said: Any
    headers: http.client.HTTPMessage
    took_s: float


def create_database(path: Path) -> None:
    metadata = MetaData()
    create_outbox(metadata)
    Table("counter", metadata, Column("name", String, primary_key=True), Column("value", Integer))
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    metadata.create_all(engine)


# --- load ---------------------------------------------------------------------------------------


def paced(work: Callable[[int], Any], count: int, seconds: float) -> tuple[list[Any], float]:
    """Do something so often, evenly; return what came of it, and how long it took."""
    begun = time.monotonic()
    clock = threading.Event()

    def do(number: int) -> Any:
        clock.wait(max(0.0, begun + number * seconds / count - time.monotonic()))
        return work(number)

    with ThreadPoolExecutor(CLIENTS) as pool:
        done = list(pool.map(do, range(count)))
    return done, time.monotonic() - begun


def most_sends(took_s: float, throttle_s: float) -> int:
    """The most that one process sends: at once, and at the end of each window that was opened."""
    return 2 + int(took_s / throttle_s)


def numbered(count: int) -> Iterator[str]:
    return (f"n{number}" for number in range(count))

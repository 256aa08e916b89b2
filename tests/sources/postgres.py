"""A PostgreSQL server for tests: on a free port, with a cluster of its own, gone afterwards.

    with running() as postgres, postgres.new_database() as name:
        create_engine(postgres.url("psycopg", name))

Needs the Debian package postgresql. Never touches a server that it did not start.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
from launch import end_with_parent, free_ports

from tests.missing import skip_outside_ci

if TYPE_CHECKING:
    from collections.abc import Iterator

# On no path, a folder for each version.
DEBIAN = Path("/usr/lib/postgresql")
START_TIMEOUT_S = 30.0
# Another program may take a port between the look and the start.
PORTS_TO_TRY = 5


class PostgresFailed(Exception):  # noqa: N818 - a state, as in "edge failed"
    """A program of PostgreSQL failed; the text ends with what it said."""


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server, which trusts the user postgres."""

    port: int
    host: str = "127.0.0.1"
    user: str = "postgres"

    def url(self, driver: str, database: str = "postgres") -> str:
        """A URL for SQLAlchemy, e.g. `url("asyncpg", name)`."""
        return f"postgresql+{driver}://{self.user}@{self.host}:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """Connect in autocommit mode."""
        return psycopg.connect(
            host=self.host, port=self.port, user=self.user, dbname=database, autocommit=True
        )

    @contextmanager
    def new_database(self) -> Iterator[str]:
        """Create an empty database, and drop it afterwards: nobody may be connected then."""
        name = f"test_{uuid4().hex}"
        with self.connect() as connection:
            connection.execute(f"create database {name} template template0")
            yield name
            connection.execute(f"drop database {name}")


@contextmanager
def running() -> Iterator[Postgres]:
    """Run a server; without PostgreSQL fail in CI, else skip."""
    programs = find_programs()
    with TemporaryDirectory(prefix="postgres-") as name:
        cluster = Cluster(programs, Path(name))
        try:
            cluster.initialise()
            yield Postgres(cluster.start())
        finally:
            cluster.stop()


class Cluster:
    """The databases in a folder, and the server of them.

    PostgreSQL refuses to run as root: then it runs as another user, who is given the folder.
    """

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = unprivileged_user()
        if self._owner is not None:
            shutil.chown(folder, self._owner.pw_uid, self._owner.pw_gid)

    def initialise(self) -> None:
        options = ["--no-sync", "-A", "trust", "-U", "postgres", "--locale=C.UTF-8", "-E", "UTF8"]
        if self._run("initdb", *options).wait() != 0:
            raise PostgresFailed(f"initdb failed:\n{self._log.read_text()}")

    def start(self) -> int:
        """Start the server on a free port, and return that once it answers."""
        for port in islice(free_ports(), PORTS_TO_TRY):
            process = self._run("postgres", *self._settings(port))
            if self._answers_in_time(process, port):
                return port
        raise PostgresFailed(f"postgres ended at start:\n{self._log.read_text()}")

    def stop(self) -> None:
        """Stop at once, whoever is connected."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()

    def _settings(self, port: int) -> Iterator[str]:
        for setting in (
            f"port={port}",
            "listen_addresses=127.0.0.1",
            f"unix_socket_directories={self._folder}",
            "fsync=off",
            "max_prepared_transactions=10",
        ):
            yield from ("-c", setting)

    def _run(self, program: str, *options: str) -> subprocess.Popen[bytes]:
        owner = self._owner
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / program, "-D", self._folder / "data", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                user=owner.pw_uid if owner else None,
                group=owner.pw_gid if owner else None,
                extra_groups=[] if owner else None,
                # Its own session: Ctrl-C reaches only the tests, which stop it in order.
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        return self._process

    def _answers_in_time(self, process: subprocess.Popen[bytes], port: int) -> bool:
        """Wait until the server answers; False if it ended."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while process.poll() is None:
            if self._answers(port):
                return True
            if time.monotonic() > deadline:
                raise PostgresFailed(f"postgres is silent:\n{self._log.read_text()}")
            time.sleep(0.02)
        return False

    def _answers(self, port: int) -> bool:
        try:
            # By the socket in its folder: whoever has the port, this is no other server.
            psycopg.connect(host=str(self._folder), port=port, user="postgres").close()
        except psycopg.OperationalError:
            return False
        return True


def find_programs() -> Path:
    """The folder of initdb and postgres: Debian's newest, or the path's."""
    folders = sorted(DEBIAN.glob("*/bin"), key=lambda folder: int(folder.parent.name))
    path = os.pathsep.join([*map(str, reversed(folders)), os.environ.get("PATH", os.defpath)])
    found = shutil.which("postgres", path=path)
    if found is None:
        skip_outside_ci("no PostgreSQL; on Debian and Ubuntu: apt-get install postgresql")
    return Path(found).resolve().parent


def unprivileged_user() -> pwd.struct_passwd | None:
    """Whom the server runs as if not as this user."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None

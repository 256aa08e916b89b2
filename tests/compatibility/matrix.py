"""Which frameworks, servers and properties there are, and how what was found of them is written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Literal

Interface = Literal["wsgi", "asgi"]

ROOT = Path(__file__).resolve().parents[2]
# What the tests found last; `python -m tools.compatibility_page` reads it.
FOUND = ROOT / "build" / "compatibility.json"


@dataclass(frozen=True, slots=True)
class Framework:
    """A framework, and the module below `apps` that has an app of it."""

    title: str
    package: str
    interface: Interface
    module: str
    lacks: frozenset[str] = frozenset()
    """Of the columns: what the framework itself has not."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server, and how it is started for each kind of app that it serves."""

    title: str
    commands: Mapping[Interface, tuple[str, ...]] = field(hash=False)
    lacks: frozenset[tuple[Interface, str]] = frozenset()
    """Of the columns: what it does not do, with the edge or without."""


SYNC, ASYNC = frozenset({"async view"}), frozenset({"sync view"})
FRAMEWORKS = [
    Framework("Flask", "flask", "wsgi", "flask"),
    Framework("Falcon", "falcon", "wsgi", "falcon_wsgi", SYNC),
    Framework("Pyramid", "pyramid", "wsgi", "pyramid", SYNC),
    Framework("Bottle", "bottle", "wsgi", "bottle", SYNC),
    Framework("Django", "django", "wsgi", "django_wsgi"),
    Framework("Quart", "quart", "asgi", "quart"),
    Framework("Starlette", "starlette", "asgi", "starlette"),
    Framework("FastAPI", "fastapi", "asgi", "fastapi"),
    Framework("Litestar", "litestar", "asgi", "litestar"),
    Framework("Falcon", "falcon", "asgi", "falcon_asgi", ASYNC),
    Framework("Django", "django", "asgi", "django_asgi"),
]
SERVERS = [
    Server(
        "gunicorn",
        {
            "wsgi": ("gunicorn", "{app}", "--bind=127.0.0.1:{port}", "--threads=4"),
            "asgi": ("gunicorn", "{app}", "--bind=127.0.0.1:{port}", "--worker-class=asgi"),
        },
    ),
    Server(
        "gunicorn+uvicorn",
        {
            "asgi": (
                *("gunicorn", "{app}", "--bind=127.0.0.1:{port}"),
                "--worker-class=uvicorn.workers.UvicornWorker",
            ),
        },
    ),
    Server("uvicorn", {"asgi": ("uvicorn", "{app}", "--port={port}")}),
    Server(
        "hypercorn",
        {
            "wsgi": ("hypercorn", "wsgi:{app}", "--bind=127.0.0.1:{port}"),
            "asgi": ("hypercorn", "asgi:{app}", "--bind=127.0.0.1:{port}"),
        },
        # It answers 500 where a WSGI app has no chunk of a body: `test_servers.py`.
        frozenset({("wsgi", "304")}),
    ),
    Server(
        "granian",
        {
            "wsgi": (
                *("granian", "{app}", "--port={port}", "--interface=wsgi"),
                "--blocking-threads=4",
            ),
            "asgi": ("granian", "{app}", "--port={port}", "--interface=asgi"),
        },
    ),
]
# Each has a test, and an explanation on the page.
COLUMNS = (
    "headers",
    "streaming",
    "sync view",
    "async view",
    "push",
    "next link",
    "long-poll",
    "304",
    "WebSocket",
    "shutdown",
)


@dataclass(frozen=True, slots=True)
class Pair:
    """An app on a server."""

    framework: Framework
    server: Server

    def __str__(self) -> str:
        return f"{self.framework.module}-{self.server.title}"

    @property
    def lacks(self) -> set[str]:
        """The columns that do not apply."""
        interface = self.framework.interface
        return {
            *self.framework.lacks,
            *(column for of, column in self.server.lacks if of == interface),
        }

    @property
    def command(self) -> list[str]:
        """What serves the app, at a port that is yet to be given."""
        app = f"tests.compatibility.apps.{self.framework.module}:app"
        parts = self.server.commands[self.framework.interface]
        return [part.replace("{app}", app) for part in parts]


PAIRS = [
    Pair(framework, server)
    for framework, server in product(FRAMEWORKS, SERVERS)
    if framework.interface in server.commands
]


@dataclass
class Found:
    """What the tests have found so far: for each pair and column its outcome."""

    outcomes: dict[str, dict[str, str]] = field(default_factory=dict)

    def note(self, pair: Pair, column: str, outcome: str) -> None:
        self.outcomes.setdefault(str(pair), {})[column] = outcome

    @property
    def is_complete(self) -> bool:
        """Whether all was tested."""
        wanted = {str(pair): set(COLUMNS) - pair.lacks for pair in PAIRS}
        return wanted == {pair: set(columns) for pair, columns in self.outcomes.items()}

    def write(self) -> None:
        FOUND.parent.mkdir(exist_ok=True)
        FOUND.write_text(json.dumps(self.outcomes, indent=1))

    @classmethod
    def read(cls) -> Found:
        return cls(json.loads(FOUND.read_text()))


CELLS = {"passed": "yes", "failed": "no", "skipped": "not tested"}


def table(found: Found) -> str:
    """Return the matrix as Markdown."""
    return "\n".join(_lines(found))


def _lines(found: Found) -> Iterator[str]:
    yield _row("framework", "", "server", *COLUMNS)
    yield _row(*["---"] * (3 + len(COLUMNS)))
    for pair in PAIRS:
        outcomes = found.outcomes[str(pair)]
        cells = ("-" if column in pair.lacks else CELLS[outcomes[column]] for column in COLUMNS)
        framework = pair.framework
        yield _row(framework.title, framework.interface.upper(), pair.server.title, *cells)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def versions() -> str:
    """Return of what all of this was found, in words."""
    packages = {f.package: f.title for f in FRAMEWORKS}
    packages |= {name: name for server in SERVERS for name in server.title.split("+")}
    named = [f"{title} {version(package)}" for package, title in packages.items()]
    return f"{', '.join(named[:-1])} and {named[-1]}"

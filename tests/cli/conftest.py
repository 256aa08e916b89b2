"""An app behind the embedded edge, as a module that the command line imports."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from grip_edge_middleware import GripEdge
from grip_edge_middleware.cli import main
from grip_edge_middleware.devedge import DevEdge
from grip_edge_middleware.devedge.server import Running

VERIFY_KEY = "a-verify-key-of-32-random-bytes!"
TOPICS = {
    "counter-{name}": {
        "routes": ["/counters/<name>"],
        "hold": "stream",
        "models": [{"model": "shop.models:Counter", "on": ["update"]}],
    },
    "counters": {"routes": ["/counters/<name>", "/counters/"]},
    "poll-{id}": {"routes": ["/polls/<int:id>/"], "hold": "response"},
    "order-{id}": {"routes": ["/orders/<int:id>"], "hold": "stream", "private": True},
}
# They need a verify key, which not all settings here have.
SOCKETS = {"room-{name}": {"routes": ["/rooms/<name>"], "hold": "ws"}}


@pytest.fixture(scope="module", autouse=True)
def no_edge_of_an_app_is_left() -> Iterator[None]:
    """Close the edges of apps that commands load: they would see other tests' statements."""
    yield
    for edge in [found for found in gc.get_objects() if type(found) is GripEdge]:
        edge.close()


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command printed, and with what it ended."""

    status: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        status = main(arguments)
        return Ended(status, *capsys.readouterr())

    return run


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Write a module that can be imported; return its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(text: str) -> str:
        name = f"app_of_{tmp_path.name}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def shop(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """A page at each path that is a route, and a few that go wrong."""
    path = environ["PATH_INFO"]
    headers = [("Content-Type", "text/event-stream" if "counters" in path else "text/plain")]
    if path.endswith("/cookie"):
        headers.append(("Set-Cookie", "a=b"))
    start_response("404 Not Found" if path.endswith("/gone") else "200 OK", headers)
    return [b"data: 1\n\n"]


@dataclass(frozen=True, slots=True)
class Served:
    """The shop behind the edge; `module` has its `settings`."""

    running: Running
    settings: dict[str, Any]
    module: str

    @property
    def url(self) -> str:
        return self.running.url("clients")

    @property
    def cache_url(self) -> str:
        return self.running.url("cache")


@pytest.fixture(scope="module")
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    face: list[Any] = []
    edge = DevEdge(lambda environ, start: face[0](environ, start), verify_key=VERIFY_KEY)
    with edge.running() as running:
        settings = {
            "grip_url": f"{running.url('control')}?verify-iss=pushpin&verify-key={VERIFY_KEY}",
            "cdn": f"varnish://127.0.0.1:{running.ports['cache']}",
            "secret": "a secret of 32 random characters",
            "topics": {**TOPICS, **SOCKETS},
        }
        module = ModuleType(f"shop_of_{request.module.__name__.rpartition('.')[2]}")
        module.settings = settings  # type: ignore[attr-defined]
        sys.modules[module.__name__] = module
        with closing(GripEdge(settings=settings, environ={})) as grip_edge:
            face.append(grip_edge.wsgi(shop))
            yield Served(running, settings, module.__name__)
        del sys.modules[module.__name__]

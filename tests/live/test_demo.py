"""`make demo`, as a user runs it and ends it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import launch
import pytest
from clients import StreamClient, request
from servers import is_listening
from test_edge_config import eventually

from tests.missing import skip_outside_ci

pytestmark = pytest.mark.live

DEMO = launch.HERE.parent / "demo.py"
PAGES = {"flask": "/counters/coffees/", "starlette": "/auctions/1", "django": "/pages/1/"}
STREAMS = {
    "flask": "/counters/coffees/events",
    "starlette": "/auctions/1/events",
    "django": "/counters/1/",
}
STOP_S = 10.0
# The app, and with the real edge seven more.
PROCESSES = {"embedded": 1, "real": 8}
PORTS = {"embedded": 2, "real": 3}
NOTICE = "the development edge is for development only: never serve the public\n"


@dataclass(frozen=True, slots=True)
class Demo:
    """A demo that said that it is ready, and what it said."""

    process: subprocess.Popen[str]
    text: str
    folder: Path
    began: float

    @property
    def url(self) -> str:
        return re.findall(r"Open +(\S+)", self.text)[0]  # type: ignore[no-any-return]

    @property
    def ports(self) -> list[int]:
        [wiring] = re.findall(r"Wired .*", self.text)
        return [int(port) for port in re.findall(r":(\d+)", wiring)]

    def post(self) -> None:
        """Run the curl that it says to try, without curl."""
        [command] = re.findall(r"curl (-[Xd] .*)", self.text)
        fields = re.findall(r"-d (\S+)", command)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        url = command.split()[-1]
        assert request(url, form, method="POST", body="&".join(fields).encode()).status == 200


@contextmanager
def demo(name: str, folder: Path, kind: str = "embedded") -> Iterator[Demo]:
    """Start it with `folder` for its temporary files; whatever happens, it ends."""
    began = time.monotonic()
    with start(name, kind, env={"TMPDIR": str(folder)}) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "Ctrl-C" in line:
                break
        text = "".join(lines)
        assert "Ctrl-C stops everything" in text, process.communicate()
        yield Demo(process, text, folder, began)


@contextmanager
def start(name: str, kind: str, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(DEMO), name, "--edge", kind],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )
    with process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(params=["embedded", "real"])
def kind(request: pytest.FixtureRequest) -> str:
    """The edge that the demo runs; skipped where it is not installed."""
    kind: str = request.param
    if kind == "real":
        try:
            launch.check_binaries()
        except launch.EdgeMissing as missing:
            skip_outside_ci(str(missing))
    return kind


@pytest.mark.parametrize("name", PAGES)
def test_the_demo_runs_an_example_and_leaves_nothing(name: str, kind: str, tmp_path: Path) -> None:
    with demo(name, tmp_path, kind) as running:
        page = request(running.url)
        assert running.url.endswith(PAGES[name])
        assert page.status == 200
        assert "text/html" in page.headers["Content-Type"]
        assert "curl -N " in running.text
        asyncio.run(post_is_pushed(running, STREAMS[name]))
        pushed_s = time.monotonic() - running.began
        descendants = launch.process_tree(running.process.pid)[1:]
        assert len(descendants) >= PROCESSES[kind]

        interrupted = time.monotonic()
        running.process.send_signal(signal.SIGINT)
        rest, errors = running.process.communicate(timeout=STOP_S)
        took_s = time.monotonic() - interrupted

    assert running.process.returncode == 0
    assert (rest.strip(), errors.removeprefix(NOTICE)) == ("", "")
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in descendants), 5)
    assert len(running.ports) == PORTS[kind]
    assert not any(is_listening(port) for port in running.ports)
    assert list(tmp_path.iterdir()) == []
    print(
        f"\n{name}, {kind}: first pushed value {pushed_s:.1f} s after the start,"
        f" stopped in {took_s:.1f} s"
    )


async def post_is_pushed(running: Demo, stream: str) -> None:
    root = "{0.scheme}://{0.netloc}".format(urlsplit(running.url))
    async with StreamClient(root + stream, {"Accept": "text/event-stream"}) as client:
        first = await client.event(lambda _: True)
        await asyncio.to_thread(running.post)
        pushed = await client.event(differs_from(first.data))
        assert pushed.at > first.at


def differs_from(first: str) -> Callable[[str], bool]:
    def shown(data: str) -> Any:
        found = json.loads(data)
        return {**found, "rendered": None} if isinstance(found, dict) else found

    return lambda data: shown(data) != shown(first)


def test_sigterm_ends_the_demo_as_quietly(kind: str, tmp_path: Path) -> None:
    with demo("flask", tmp_path, kind) as running:
        running.process.terminate()
        _, errors = running.process.communicate(timeout=STOP_S)

    assert running.process.returncode == 0
    assert errors.removeprefix(NOTICE) == ""
    assert list(tmp_path.iterdir()) == []


def test_an_app_that_ends_ends_the_demo_with_what_it_said(tmp_path: Path) -> None:
    with demo("starlette", tmp_path) as running:
        [app] = [pid for pid in launch.process_tree(running.process.pid) if runs(pid, "uvicorn")]
        descendants = launch.process_tree(running.process.pid)[1:]
        os.kill(app, signal.SIGKILL)
        _, errors = running.process.communicate(timeout=STOP_S)

    assert running.process.returncode == 1
    assert "the app ended with -9" in errors
    assert "Traceback" not in errors
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in descendants), 5)


def test_an_app_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "flask_sqlalchemy.py").write_text("raise RuntimeError('not today')")
    with start(
        "flask", "embedded", {"TMPDIR": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    ) as process:
        text, errors = process.communicate(timeout=30)

    assert process.returncode == 1
    assert text == ""
    assert "the app ended with" in errors
    assert "RuntimeError: not today" in errors


def test_missing_programs_are_named_with_their_packages(tmp_path: Path) -> None:
    with start("flask", "real", {"PATH": str(tmp_path)}) as process:
        text, errors = process.communicate(timeout=10)

    assert process.returncode == 1
    assert text == ""
    assert "apt-get install pushpin varnish varnish-modules" in errors
    assert "Traceback" not in errors


def test_a_taken_port_is_left_alone(tmp_path: Path) -> None:
    with demo("flask", tmp_path) as first, demo("flask", tmp_path) as second:
        assert first.ports[0] != second.ports[0]
        assert request(first.url).status == request(second.url).status == 200


def runs(pid: int, module: str) -> bool:
    return module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")

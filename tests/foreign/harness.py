"""Other people's test suites, run twice: as they are, and with their application wrapped.

    outcome = run("httpbin")
    assert outcome.differences == {}

Each application has an environment of its own in `build/foreign/`, with what the package index has
of it, its tests included. It is made once. No file of a suite is touched: the wrapping comes from
outside, by a plugin for pytest.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

ROOT = Path(__file__).resolve().parents[2]
INSIDE = Path(__file__).parent / "inside"
BUILD = ROOT / "build/foreign"
PLUGIN = ("-p", "foreign_outcomes")
TIMEOUT_S = 1500


class SetUpError(Exception):
    """The package index could not be asked, or did not have what is wanted."""


class Application(Protocol):
    """A module in `apps/`."""

    NAME: str
    VERSION: str
    INSTALL: Sequence[str]
    """What its tests need: the application, and other packages."""
    TESTS: Sequence[str]
    """Arguments for pytest."""
    EXPECTED: Mapping[str, str]
    """Tests that cannot end alike, and why."""
    AT_LEAST: Mapping[str, int]
    """How many responses the edge must have seen, changed, tagged, held..."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a suite's tests, without the edge and with it."""

    application: Application
    plain: Mapping[str, str]
    wrapped: Mapping[str, str]
    responses: Mapping[str, int]
    sent: Mapping[str, int]
    logged: Sequence[str]

    @property
    def differences(self) -> dict[str, tuple[str | None, str | None]]:
        """Tests that ended otherwise, each with both outcomes."""
        return {
            test: (self.plain.get(test), self.wrapped.get(test))
            for test in sorted({*self.plain, *self.wrapped})
            if self.plain.get(test) != self.wrapped.get(test)
        }

    @property
    def passed(self) -> int:
        return sum(outcome == "passed" for outcome in self.wrapped.values())

    @property
    def too_few(self) -> dict[str, int]:
        """Counts of responses that are less than they should be."""
        wanted = self.application.AT_LEAST
        return {
            name: self.responses.get(name, 0)
            for name, least in wanted.items()
            if self.responses.get(name, 0) < least
        }


def run(name: str) -> Outcome:
    """Run the suite of an application twice."""
    module = import_module(f"tests.foreign.apps.{name}")
    application, path = cast(Application, module), Path(str(module.__file__))
    home = set_up(application)
    # At the same time: neither has ports or files that the other uses.
    with ThreadPoolExecutor(2) as pool:
        plain = pool.submit(_run, application, home, "plain", {})
        wrapped = pool.submit(_run, application, home, "wrapped", {"FOREIGN_APP": str(path)})
    found = wrapped.result()
    return Outcome(application, plain.result()["outcomes"], found.pop("outcomes"), **found)


def _run(
    application: Application, home: Path, name: str, environ: Mapping[str, str]
) -> dict[str, Any]:
    report = home / f"{name}.json"
    report.unlink(missing_ok=True)
    scratch = home / f"{name}-tmp"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    options = ["-q", "-p", "no:cacheprovider", f"--basetemp={scratch}/pytest"]
    done = subprocess.run(
        [f"{home}/venv/bin/python", "-m", "pytest", *PLUGIN, *options, *application.TESTS],
        cwd=home / "source",
        env={
            **_environ(),
            **environ,
            "FOREIGN_REPORT": str(report),
            "PYTHONPATH": str(INSIDE),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(scratch),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    (home / f"{name}.log").write_text(done.stdout + done.stderr)
    if not report.exists():
        raise AssertionError(f"{name} {application.NAME}:\n{done.stdout}{done.stderr}"[-8000:])
    return cast(dict[str, Any], json.loads(report.read_text()))


def _environ() -> dict[str, str]:
    """Return the environment without what is meant for our own tests."""
    ours = ("PYTEST", "PYTHON", "GRIP_", "FASTLY_", "DJANGO_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def set_up(application: Application) -> Path:
    """Return a folder with the application's source, and an environment with what it needs."""
    wanted = [*application.INSTALL, *_dependencies()]
    source = f"{application.NAME}=={application.VERSION}"
    identity = json.dumps([source, wanted, sys.version])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:12]
    home = BUILD / f"{application.NAME}-{digest}"
    if not (home / "ready").exists():
        for former in BUILD.glob(f"{application.NAME}-{'?' * len(digest)}"):
            shutil.rmtree(former)
        home.mkdir(parents=True)
        _unpack(source, application.NAME, home)
        _install([source, *wanted], home)
        # A suite without settings of its own must not find ours.
        (home / "pytest.ini").write_text("[pytest]\n")
        (home / "ready").touch()
    return home


def _dependencies() -> list[str]:
    """Return what our package needs; itself it is linked, so that it is the one under test."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return list(project["dependencies"])


def _unpack(source: str, name: str, home: Path) -> None:
    options = ("--no-deps", "--no-binary", name, "--dest", home / "index")
    _pip(sys.executable, "download", *options, source)
    [archive] = (home / "index").iterdir()
    with tarfile.open(archive) as packed:
        packed.extractall(home / "unpacked", filter="data")
    [folder] = (home / "unpacked").iterdir()
    folder.rename(home / "source")


def _install(wanted: Iterable[str], home: Path) -> None:
    environment = home / "venv"
    # The installer of whoever runs this installs there too: making one takes seconds.
    venv.create(environment, symlinks=True)
    python = environment / "bin/python"
    _pip(sys.executable, "--python", python, "install", *wanted)
    [packages] = environment.glob("lib/python3*/site-packages")
    (packages / "grip_edge_middleware").symlink_to(ROOT / "grip_edge_middleware")


def _pip(python: str | Path, *arguments: str | Path) -> None:
    command = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, env=_environ(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetUpError(done.stderr[-2000:])


COLUMNS = (
    *("application", "version", "tests", "passed", "expected", "other"),
    *("seen", "changed", "tagged", "by rows", "held", "kept out", "purges", "publishes"),
)


def table(outcomes: Iterable[Outcome]) -> str:
    """Return what became of the suites, side by side."""
    rows = [COLUMNS, *map(_row, outcomes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{c:>{w}}" for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(("\nother people's tests, with the edge and without:", *lines))


def _row(outcome: Outcome) -> tuple[str, ...]:
    application = outcome.application
    expected = len(application.EXPECTED)
    counts = (len(outcome.wrapped), outcome.passed, expected, len(outcome.differences) - expected)
    responses = (outcome.responses.get(name, 0) for name in COLUMNS[6:12])
    sent = (outcome.sent.get(kind, 0) for kind in ("Purged", "Published"))
    return (application.NAME, application.VERSION, *map(str, (*counts, *responses, *sent)))

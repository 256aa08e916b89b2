"""What `--app MODULE:NAME` may name, and what is said of what it may not."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from grip_edge_middleware.cli.named import Chosen, chosen
from grip_edge_middleware.cli.status import OK, WRONG_USE, WrongUse
from tests.cli.conftest import Run

SETTINGS = 'settings = {"grip_url": None, "topics": {"all": {"routes": ["/"]}}}\n'
FLASK = f"""
from flask import Flask
from grip_edge_middleware import GripEdge
{SETTINGS}
app = Flask(__name__)
edge = GripEdge(app, settings=settings)
bare = Flask(__name__)
"""
STARLETTE = f"""
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from grip_edge_middleware import GripEdge, GripEdgeMiddleware
{SETTINGS}
edge = GripEdge(settings=settings)
by_edge = Starlette(middleware=[Middleware(GripEdgeMiddleware, edge=edge)])
by_settings = Starlette(middleware=[Middleware(GripEdgeMiddleware, settings=settings)])
by_position = Starlette(middleware=[Middleware(GripEdgeMiddleware, settings)])
fast = FastAPI()
fast.add_middleware(GripEdgeMiddleware, edge=edge)
around = GripEdgeMiddleware(Starlette(), edge=edge)
bare = Starlette()
"""


def choose(app: str) -> Chosen:
    found = chosen(argparse.Namespace(app=app, app_dir="."))
    found.edge.close()
    return found


@pytest.mark.parametrize("name", ["app", "edge", "settings"])
def test_flasks_are_taken(name: str, write: Callable[[str], str]) -> None:
    found = choose(f"{write(FLASK)}:{name}")

    assert [topic.template.text for topic in found.edge.settings.topics] == ["all"]
    assert (found.wsgi is not None) == (name != "settings")
    assert found.asgi is None


@pytest.mark.parametrize("name", ["by_edge", "by_settings", "by_position", "fast", "around"])
def test_starlettes_are_taken(name: str, write: Callable[[str], str]) -> None:
    module = write(STARLETTE)

    found = choose(f"{module}:{name}")

    assert [topic.template.text for topic in found.edge.settings.topics] == ["all"]
    assert found.asgi is getattr(sys.modules[module], name)


@pytest.mark.parametrize(
    ("text", "said"),
    [(FLASK, "this Flask app has no edge"), (STARLETTE, "there is no GripEdgeMiddleware")],
)
def test_an_app_without_an_edge_is_refused(
    text: str, said: str, write: Callable[[str], str]
) -> None:
    with pytest.raises(WrongUse) as refused:
        choose(f"{write(text)}:bare")

    assert said in str(refused.value)


def test_no_framework_is_imported_for_it(write: Callable[[str], str], tmp_path: Path) -> None:
    module = write(SETTINGS)
    script = f"""
import sys
from grip_edge_middleware.cli import main
main(["routes", "--app", "{module}:settings", "--app-dir", {str(tmp_path)!r}])
assert not {{"flask", "starlette", "fastapi", "django", "uvicorn"}} & set(sys.modules)
"""

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == OK


@pytest.mark.parametrize(
    ("text", "said", "line"),
    [
        ("\n\nraise ValueError('the database is down')\n", "ValueError: the database is down", 3),
        ("import json\njson.loads('{')\n", "JSONDecodeError", 2),
        ("x = 1\nexit(3)\n", "SystemExit: 3", 2),
        ("x = 1\ndef f(:\n", "SyntaxError", 2),
        ("import no_such_library\n", "No module named 'no_such_library'", 1),
        ("from grip_edge_middleware import Nothing\n", "ImportError", 1),
    ],
)
def test_a_module_that_raises_is_told_with_its_line(
    text: str, said: str, line: int, run: Run, write: Callable[[str], str], tmp_path: Path
) -> None:
    module = write(text)

    ended = run("routes", "--app", f"{module}:edge")

    assert ended.status == WRONG_USE
    assert f"importing {module} raised" in ended.err
    assert said in ended.err
    assert ended.err.rstrip().endswith(f"at {tmp_path}/{module}.py, line {line}")


def test_a_module_with_wrong_settings_says_each_mistake(
    run: Run, write: Callable[[str], str]
) -> None:
    text = "from grip_edge_middleware import GripEdge\nedge = GripEdge(settings={'throtle': 1})\n"
    module = write(text)

    ended = run("routes", "--app", f"{module}:edge")

    assert ended.status == WRONG_USE
    assert 'throtle: unknown setting (did you mean "throttle"?)' in ended.err


def test_a_folder_that_is_not_there_is_told(run: Run) -> None:
    ended = run("routes", "--app", "shop:edge", "--app-dir", "/no/such/folder")

    assert ended.status == WRONG_USE
    assert "--app-dir /no/such/folder: there is no such folder" in ended.err


def test_without_rich_people_are_told_and_programs_are_served(
    write: Callable[[str], str], tmp_path: Path
) -> None:
    app = f"{write(SETTINGS)}:settings"
    script = f"""
import sys
sys.modules["rich"] = None
from grip_edge_middleware.cli import main
at = ["--app-dir", {str(tmp_path)!r}]
statuses = [
    main(["routes", "--app", {app!r}, *at]),
    main(["routes", "--app", {app!r}, *at, "--json"]),
    main(["dispatch", {app!r}, *at]),
]
assert statuses == [{WRONG_USE}, {OK}, {WRONG_USE}], statuses
"""

    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stderr
    assert "pip install 'grip-edge-middleware[cli]'" in ended.stderr.splitlines()[0]
    assert ended.stdout.startswith('{"routes"')
    assert "store: other processes do not share this one" in ended.stderr

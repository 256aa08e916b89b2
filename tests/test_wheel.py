"""The wheel, installed into a fresh venv with nothing but its dependencies."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

SCRIPT = """
from importlib.util import find_spec
for name in ("flask", "werkzeug", "starlette", "fastapi", "sqlalchemy"):
    assert find_spec(name) is None, name
import grip_edge_middleware as package
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

edge = package.GripEdge(settings={
    "grip_url": "http://127.0.0.1:9", "cdn": "varnish://127.0.0.1:9",
    "topics": {"counter-{name}": {"routes": ["/counters/<name>/"], "hold": "stream"}},
})
@validator
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"body"]

started = []
environ = {"PATH_INFO": "/counters/blue/", "QUERY_STRING": ""}
setup_testing_defaults(environ)
environ["SCRIPT_NAME"] = ""
body = edge.wsgi(app)(environ, lambda status, headers, *_: started.extend(headers))
assert b"".join(body) == b"body"
body.close()
assert dict(started)["Grip-Channel"].startswith("counter-blue; prev-id="), started
print(package.__version__, package.__file__)
"""


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)
def test_the_wheel_works_without_any_framework(tmp_path: Path) -> None:
    build = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ROOT)
    run(sys.executable, "-m", "pip", *build)
    [wheel] = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel)

    shown = run(python, "-I", "-c", SCRIPT)

    names = zipfile.ZipFile(wheel).namelist()
    assert "grip_edge_middleware/py.typed" in names
    assert "grip_edge_middleware/devedge/page/timeline.js" in names
    for shipped in ("default.vcl", "pushpin.conf", "routes", "fastly/recv.vcl"):  # by init
        assert f"grip_edge_middleware/cli/edge/{shipped}" in names
    assert not [name for name in names if name.startswith(("tests/", "examples/"))]
    assert str(tmp_path) in shown

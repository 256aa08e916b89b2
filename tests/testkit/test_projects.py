"""Projects as users write them, run with the test kit of the wheel that they would install.

The venv has the dependencies of this one, but for the package itself.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
PAGE = ROOT / "docs" / "testing.md"
PROJECTS = ["project_flask", "project_starlette"]


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    ours = ("PYTEST", "PYTHON")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a venv with the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    built = run(*pip, *build)
    assert built.returncode == 0, built.stderr
    [wheel] = folder.glob("*.whl")
    venv.create(folder / "venv")
    python = folder / "venv" / "bin" / "python"
    install = ("install", "--quiet", "--no-deps", "--no-index", wheel)
    installed = run(*pip, "--python", python, *install)
    assert installed.returncode == 0, installed.stderr
    # A path in a .pth file is searched last, and .pth files in there, as the one of an editable
    # install, are not read.
    [site] = (folder / "venv").glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
    return python


def run_tests(python: Path, project: Path) -> subprocess.CompletedProcess[str]:
    (project / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    return run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=project)


def blocks(kind: str) -> list[str]:
    found = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [str(block) for block in found]


def test_the_starlette_project_passes(python: Path, tmp_path: Path) -> None:
    project = shutil.copytree(HERE / "project_starlette", tmp_path / "project")

    done = run_tests(python, project)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout


def test_the_flask_project_passes_but_for_what_is_wrong(python: Path, tmp_path: Path) -> None:
    project = shutil.copytree(HERE / "project_flask", tmp_path / "project")
    [wrong] = (block for block in blocks("python") if block.startswith("def test_wrong"))
    head = (project / "test_shop.py").read_text().partition("\ndef test_")[0]
    (project / "test_wrong.py").write_text(f"{head}\n{wrong}")

    done = run_tests(python, project)

    said = [line.removeprefix("E").strip() for line in done.stdout.splitlines()]
    told = [line.strip() for text in blocks("text") for line in text.splitlines()]
    assert "1 failed, 11 passed" in done.stdout, done.stdout + done.stderr
    assert told == said[(at := said.index(told[0])) : at + len(told)]


def test_the_plugin_imports_nothing_and_says_what_it_lacks(python: Path, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\n\n"
        "def test_nothing_is_imported():\n"
        "    assert 'pytest_grip_edge' in sys.modules\n"
        "    assert 'grip_edge_middleware' not in sys.modules\n\n"
        "def test_no_edge_is_named(recording_edge): ...\n"
    )

    done = run_tests(python, tmp_path)
    where = "import pytest_grip_edge, grip_edge_middleware as g; print(pytest_grip_edge, g)"
    found = run(python, "-c", where, cwd=tmp_path).stdout

    assert "1 passed, 1 error" in done.stdout, done.stdout
    assert "Override the fixture grip_edge, in conftest.py:" in done.stdout
    assert found.count(str(python.parents[1])) == 2


def test_the_pages_programs_are_those_of_the_projects() -> None:
    """But for what is run by itself: the wrong test."""
    texts = [path.read_text() for name in PROJECTS for path in (HERE / name).glob("*.py")]

    shown = blocks("python")

    assert len(shown) > 5
    for block in shown:
        assert block.startswith("def test_wrong") or any(block in text for text in texts), block

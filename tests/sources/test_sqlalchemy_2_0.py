"""The tests of SQLAlchemy again, with its 2.0, which lies beside the newest in `.venv`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.missing import skip_outside_ci

SQLALCHEMY_2_0 = Path(sys.prefix) / "sqlalchemy-2.0"
# One process says its version and runs the tests, so that it is the version of the tests.
SCRIPT = """
import sys
import pytest, sqlalchemy
print(sqlalchemy.__version__, flush=True)
sys.exit(pytest.main(sys.argv[1:]))
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "files",
    ["test_sqlalchemy_matrix.py", pytest.param("test_*sqlalchemy*.py", marks=pytest.mark.lab)],
)
def test_the_sources_work_with_sqlalchemy_2_0(files: str) -> None:
    if not SQLALCHEMY_2_0.exists():
        skip_outside_ci("no SQLAlchemy 2.0; make .venv/.ready installs it")
    here = Path(__file__)
    others = [str(file) for file in here.parent.glob(files) if file.name != here.name]
    options = ["-q", "-p", "no:cacheprovider", *others]
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, *options],
        env={**os.environ, "PYTHONPATH": str(SQLALCHEMY_2_0)},
        capture_output=True,
        text=True,
    )

    assert run.stdout.startswith("2.0."), run.stdout + run.stderr
    assert run.returncode == 0, run.stdout + run.stderr

"""How many instructions something takes, which no other program on the machine changes.

    python -m benchmarks.callgrind benchmarks.faces:instructions

One process under valgrind calls one work after the other. Between two it calls `getppid`, where
callgrind writes what it has counted and begins anew.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measure import Work

ROOT = Path(__file__).resolve().parents[1]
# The specialising interpreter has settled by then, and all caches are warm.
WARM_UP = 100
CALLS = 100


def is_installed() -> bool:
    """Whether valgrind is there: tools/install-system-packages.sh installs it."""
    return shutil.which("valgrind") is not None


def count_instructions(module: str, function: str) -> dict[str, float]:
    """Return the instructions of one call of each work that `module.function()` returns."""
    works: Mapping[str, Work] = getattr(import_module(module), function)()
    with TemporaryDirectory() as folder:
        subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                "--dump-before=getppid",
                f"--callgrind-out-file={folder}/out",
                sys.executable,
                "-m",
                "benchmarks.callgrind",
                f"{module}:{function}",
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            check=True,
            capture_output=True,
        )
        # The last ones: what is imported may call it too.
        dumps = sorted(Path(folder).glob("out.*"), key=lambda dump: int(dump.suffix[1:]))
        loop, *found = map(_total, dumps[-len(works) - 1 :])
    return {name: (total - loop) / CALLS for name, total in zip(works, found, strict=True)}


def _total(dump: Path) -> int:
    match = re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1])


def _run(works: Mapping[str, Work]) -> None:
    for work in works.values():
        _call(work, WARM_UP)
    os.getppid()
    for work in (nothing, *works.values()):
        _call(work, CALLS)
        os.getppid()


def nothing() -> None:
    """Take what the loop takes."""


def _call(work: Work, times: int) -> None:
    for _ in repeat(None, times):
        work()


if __name__ == "__main__":
    module, _, function = sys.argv[1].partition(":")
    _run(getattr(import_module(module), function)())

"""All benchmarks, each in a process of its own, with a table of what they find.

    python -m benchmarks [--quick] [--only NAME] [--output FILE]

What is found goes to `benchmarks/results.json`, from which `python -m benchmarks.page` makes the
tables and plots of `docs/performance.md`. `--quick` looks whether all runs, and keeps its figures
in `build/`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from benchmarks import screen
from benchmarks.catalogue import BENCHMARKS, Benchmark
from benchmarks.machine import PATH, missing
from benchmarks.record import FILE, Record
from benchmarks.results import Found, parse_found

ROOT = Path(__file__).resolve().parents[1]
QUICK_FILE = ROOT / "build" / "benchmarks-quick.json"
# `launch` of the examples, and the servers and crowds of the live tests.
PYTHONPATH = os.pathsep.join(map(str, (ROOT, ROOT / "examples/edge", ROOT / "tests/live")))


def main() -> None:
    """Run what was asked for; the exit code says whether all of it ran."""
    options = parse(sys.argv[1:])
    console = screen.console()
    chosen = [b for b in BENCHMARKS.values() if options.only in b.name]
    if not chosen:
        sys.exit(f"no benchmark is named so; there are {', '.join(BENCHMARKS)}")
    found = run(chosen, console, is_quick=options.quick)
    file = options.output or (QUICK_FILE if options.quick else FILE)
    Record.read(file).with_found(found).write(file)
    console.print(f"{file.relative_to(ROOT) if file.is_relative_to(ROOT) else file}")
    sys.exit(len(found) < len(chosen))


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure, beside the peers.")
    parser.add_argument("--quick", action="store_true", help="few rounds: whether it runs")
    parser.add_argument("--only", default="", help="those with this in their name")
    parser.add_argument("--output", type=Path, help="where the figures go")
    return parser.parse_args(arguments)


def run(benchmarks: list[Benchmark], console: Console, *, is_quick: bool) -> dict[str, list[Found]]:
    """Run the benchmarks; return what those found that ran to their end."""
    all_found: dict[str, list[Found]] = {}
    with screen.progress(console) as progress:
        task = progress.add_task("", total=len(benchmarks))
        for benchmark in benchmarks:
            name = benchmark.name
            found: list[Found] = []

            def show(one: Found, name: str = name, found: list[Found] = found) -> None:
                found.append(one)
                progress.update(task, description=f"{name}: {one.name}")

            progress.update(task, description=name)
            fault = measure(benchmark, show, is_quick=is_quick)
            if found:
                console.print(screen.table(f"{name}: {benchmark.title}", found))
            if fault:
                console.print(f"[red]{name}[/]: {fault}")
            else:
                all_found[name] = found
            progress.advance(task)
    return all_found


def measure(benchmark: Benchmark, show: Callable[[Found], None], *, is_quick: bool) -> str:
    """Run one in a process of its own; return why it did not run, if so."""
    if lacking := missing(benchmark.needs):
        return f"needs {', '.join(lacking)}: tools/install-system-packages.sh"
    command = [sys.executable, "-m", "benchmarks.worker", benchmark.name]
    with subprocess.Popen(
        [*command, "--quick"] if is_quick else command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": PYTHONPATH, "PATH": PATH},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            show(parse_found(json.loads(line)))
    return f"ended with {process.returncode}" if process.returncode else ""


if __name__ == "__main__":
    main()

"""Runs one application, and prints its report as JSON: `python -m tests.applications blog scopes`.

Each is a process of its own: models that share a table's name, and Django's settings, are shared by
all of a process.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory


def main(name: str, by: str) -> None:
    application = import_module(f"tests.applications.{name}")
    auto_tags = {"scopes": application.SCOPES} if by == "scopes" else True
    with TemporaryDirectory() as directory:
        report = application.run(auto_tags, Path(directory))
    print(json.dumps(asdict(report)))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""`grip-edge`, the command line.

Each command is a file of this folder: `add` says how it is called, `run` does it and returns the
status with which the process ends.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from grip_edge_middleware.cli import (
    check,
    dev,
    dispatch,
    explain,
    init,
    publish,
    purge,
    routes,
    watch,
)
from grip_edge_middleware.cli.status import INTERRUPTED, WRONG_USE, WrongUse
from grip_edge_middleware.errors import GripEdgeError

__all__ = ["DESCRIPTION", "add_commands", "main", "run"]

DESCRIPTION = "See, check and drive what an app has its edge do."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the status with which the process ends."""
    parser = argparse.ArgumentParser(prog="grip-edge", description=DESCRIPTION)
    add_commands(parser)
    return run(vars(parser.parse_args(arguments)))


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add all commands to a parser: ours, or that of `manage.py grip_edge`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (check, routes, explain, purge, publish, dev, dispatch, watch, init):
        command.add(commands)


def run(options: Mapping[str, Any]) -> int:
    """Run the command that was chosen; return its status."""
    try:
        status: int = options["run"](argparse.Namespace(**options))
    except (WrongUse, GripEdgeError) as error:
        print(f"grip-edge: {error}", file=sys.stderr)  # noqa: T201
        return WRONG_USE
    except KeyboardInterrupt:
        return INTERRUPTED
    return status

"""`grip-edge`, the command line."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module

from grip_edge_middleware.edge import GripEdge, GripEdgeMiddleware
from grip_edge_middleware.errors import GripEdgeError

WRONG_USE = 2
"""What is returned for what the caller has to mend, as argparse does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the status with which the process ends."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        _dispatch(options.edge, options.app_dir)
    except (_Wrong, GripEdgeError) as error:
        parser.exit(WRONG_USE, f"grip-edge: {options.edge}: {error}\n")
    return 0


class _Wrong(Exception):  # noqa: N818 - never leaves this file
    """What was asked for cannot be done; says why."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="grip-edge", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    dispatch = commands.add_parser(
        "dispatch",
        help="purge and publish what the workers of an app submit",
        description="Purge and publish what the workers of an app submit to the store that they "
        'share, until SIGTERM or SIGINT. With "dispatch": "external" they leave it all to this.',
    )
    dispatch.add_argument(
        "edge",
        metavar="MODULE:NAME",
        help="the GripEdge, or the settings dict; pages are rendered by the app that it wraps, or "
        "by its origin",
    )
    dispatch.add_argument("--app-dir", default=".", help="where the module is (default: here)")
    return parser


def _dispatch(path: str, app_dir: str) -> None:
    sys.path.insert(0, app_dir)
    edge = _edge(_named(path))
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    is_over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: is_over.set())
    edge.dispatch(is_over)


def _named(path: str) -> object:
    module, separator, names = path.partition(":")
    if not separator or not module or not names:
        raise _Wrong('expected MODULE:NAME, as in "app:edge"')
    try:
        found: object = import_module(module)
    except ModuleNotFoundError as error:
        raise _Wrong(f"{error}; is --app-dir where it is?") from error
    for name in names.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise _Wrong(f'there is no "{name}" in {module}') from None
    return found


def _edge(found: object) -> GripEdge:
    match found:
        case GripEdge():
            return found
        case GripEdgeMiddleware():
            return found.edge
        case Mapping():
            return GripEdge(settings=found)
    raise _Wrong(f"expected a GripEdge or a dict of settings, got {type(found).__name__}")

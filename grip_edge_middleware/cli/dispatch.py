"""`grip-edge dispatch`: send what the workers of an app submit."""

from __future__ import annotations

import argparse
import logging
import signal
import threading

from grip_edge_middleware.cli.named import app_options, chosen_edge
from grip_edge_middleware.cli.status import OK


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Say how it is called."""
    parser = commands.add_parser(
        "dispatch",
        parents=[app_options()],
        help="purge and publish what the workers of an app submit",
        description="Purge and publish what the workers of an app submit to the store that they "
        'share, until SIGTERM or SIGINT. With "dispatch": "external" they leave it all to this.',
    )
    parser.add_argument(
        "edge",
        nargs="?",
        metavar="MODULE:NAME",
        help="the same as --app; pages are rendered by the app that the edge wraps, or by its "
        "origin",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Dispatch until a signal comes."""
    options.app = options.edge or options.app
    edge = chosen_edge(options)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    is_over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: is_over.set())
    edge.dispatch(is_over)
    return OK

"""`grip-edge check`: is everything set up, reachable and believed?"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from difflib import get_close_matches

from grip_edge_middleware.changes import Watches
from grip_edge_middleware.cli.findings import Finding, ok, show, warning, wrong
from grip_edge_middleware.cli.limits import limits, workers_of
from grip_edge_middleware.cli.look import checked_url, look_options, page_headers, path_of
from grip_edge_middleware.cli.named import app_options, chosen_edge
from grip_edge_middleware.cli.outboxes import outboxes
from grip_edge_middleware.cli.probe import judge, probe
from grip_edge_middleware.cli.reach import reach
from grip_edge_middleware.cli.screen import Screen, screen_options
from grip_edge_middleware.cli.status import WRONG_USE
from grip_edge_middleware.errors import DeliveryError, SettingsError
from grip_edge_middleware.policy import Policy
from grip_edge_middleware.settings import Settings
from grip_edge_middleware.transport import HttpTransport

EXAMPLES = """\
examples:
  grip-edge check --app shop:edge
  grip-edge check --app shop:app --workers 4 --url http://localhost:7999/counters/a

It ends with 0 if nothing is wrong, with 1 if something is, and with 2 if the settings are.
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Say how it is called."""
    parser = commands.add_parser(
        "check",
        parents=[app_options(), look_options(), screen_options()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="look whether everything is set up, reachable and believed",
        description="Check the settings, ask every CDN and GRIP proxy whether it takes what it is "
        "sent (a purge of a key\nthat nobody has, an item for nobody), and warn of limits that "
        "will bite.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "--url",
        dest="urls",
        metavar="URL",
        action="append",
        default=[],
        help="a page as its clients fetch it: is it cached, held, and purged by its key? It is "
        "purged once; may be given several times",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=_workers,
        help="how many processes serve the app (default: $WEB_CONCURRENCY, $GUNICORN_CMD_ARGS)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Look at everything, and show it."""
    screen = Screen.of(options)
    workers = options.workers or workers_of(os.environ)
    urls = [checked_url(url) for url in options.urls]
    try:
        edge = chosen_edge(options)
        settings = edge.settings
    except SettingsError as error:
        show(screen, [wrong(m.path, m.problem, m.hint) for m in error.mistakes])
        return WRONG_USE
    transport = HttpTransport(timeout_s=options.timeout)
    try:
        findings = [
            *limits(settings, workers=workers),
            *_models(settings),
            *(outboxes() if settings.outbox is not None else ()),
            *reach(settings, transport),
            *(finding for url in urls for finding in _page(url, settings, transport, options)),
        ]
    finally:
        transport.close()
        edge.close()
    return show(screen, findings)


def _models(settings: Settings) -> Iterator[Finding]:
    watches = Watches.of(settings.topics)
    unknown = watches.unknown()
    for path in unknown:
        yield warning(
            "models",
            f"{path} names nothing that is imported with the app, so its saves change nothing",
            "is it written right, and does the module of --app import it?",
        )
    if watches.watches and not unknown:
        yield ok("models", "all are imported")


def _page(
    url: str, settings: Settings, transport: HttpTransport, options: argparse.Namespace
) -> Iterator[Finding]:
    path = path_of(url)
    plan = Policy(settings).match(path)
    if plan is None:
        routes = [route.pattern.text for topic in settings.topics for route in topic.routes]
        nearest = get_close_matches(path, routes, n=1, cutoff=0.0)
        hint = f"the nearest is {nearest[0]}; " if nearest else ""
        yield wrong(url, f"no route is {path}", f"{hint}see grip-edge routes {path}")
        return
    try:
        seen = probe(url, page_headers(options, plan), plan, settings, transport)
    except DeliveryError as error:
        yield wrong(url, error.reason, "is the public edge running there?")
        return
    yield from judge(url, plan, settings, seen)


def _workers(found: str) -> int:
    if not found.isascii() or not found.isdigit() or int(found) < 1:
        raise argparse.ArgumentTypeError(f'expected a number, 1 or more, got "{found}"')
    return int(found)

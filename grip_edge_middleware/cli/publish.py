"""`grip-edge publish`: send something to everybody who watches a channel."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from grip_edge_middleware.changes import Data, encode
from grip_edge_middleware.cli.answers import Answer, ask, build_answers, show
from grip_edge_middleware.cli.named import app_options, chosen_edge
from grip_edge_middleware.cli.screen import Screen, screen_options
from grip_edge_middleware.cli.status import WrongUse
from grip_edge_middleware.cli.values import is_template, parse_values
from grip_edge_middleware.grip import FORMATS, build_stray
from grip_edge_middleware.http import Response
from grip_edge_middleware.policy import find_topic, named_topic
from grip_edge_middleware.publisher import Publisher
from grip_edge_middleware.settings import Settings, TopicSettings
from grip_edge_middleware.topics import escape
from grip_edge_middleware.transport import HttpTransport, Transport
from grip_edge_middleware.types import Hold

EXAMPLES = """\
examples:
  grip-edge publish --app shop:edge prices '{"oil": 71}'
  grip-edge publish --app shop:edge 'counter-{name}' name=blue '{"value": 7}'
  printf 'event: tick\\ndata: 1\\n\\n' | grip-edge publish --app shop:edge ticks -
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Say how it is called."""
    parser = commands.add_parser(
        "publish",
        parents=[app_options(), screen_options()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="send something to everybody who watches a channel",
        description="Publish to a channel at every GRIP proxy of the settings. No page changes by "
        "it.\nEnds with 0 if all acknowledged it, with 1 if one did not.",
        epilog=EXAMPLES,
    )
    parser.add_argument("channel", metavar="CHANNEL", help="a topic's name, or its template")
    parser.add_argument("values", nargs="*", metavar="NAME=VALUE", help="values of the template")
    parser.add_argument(
        "data",
        metavar="DATA",
        help="an object or a list in JSON, which is an event on a stream and a body elsewhere; "
        "anything else goes out as it is; - reads stdin",
    )
    parser.add_argument(
        "--hold",
        action="append",
        choices=FORMATS,
        help="who gets it: stream, response (long-polls) or ws (WebSockets); may be repeated "
        "(default: what the topic's routes hold, or stream)",
    )
    parser.add_argument("--id", help="the version that who gets it has from then on")
    parser.add_argument("--prev-id", help="the version that who gets it must have")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Publish, and show what each GRIP proxy said."""
    screen = Screen.of(options)
    settings = chosen_edge(options).settings
    topic, channel = chosen_channel(settings, options.channel, options.values)
    publishers = list(proxies(settings))
    if not publishers:
        raise WrongUse("there is no GRIP proxy to publish to: set grip_url, or GRIP_URL")
    holds = options.hold or default_holds(topic)
    message = messages(parse_data(_read(options.data)), holds)
    item = build_stray(channel, message, id=options.id, prev_id=options.prev_id)
    warnings = [] if topic is None else list(warn(topic, options.id, options.prev_id))
    transport = HttpTransport(timeout_s=settings.timeout)
    try:
        answers = publish(publishers, item, transport)
    finally:
        transport.close()
    for warning in warnings:
        screen.line(("warning: ", "bold yellow"), warning)
    screen.line("publish ", (channel, "cyan"), f" to {', '.join(message)}")
    told = {"channel": channel, "holds": list(message), "warnings": warnings}
    screen.json({**told, "targets": build_answers(answers)})
    return show(screen, answers)


def chosen_channel(
    settings: Settings, name: str, words: Sequence[str]
) -> tuple[TopicSettings | None, str]:
    """Return a channel, and the topic whose it is, if any is. WrongUse if it can be none."""
    values = parse_values(words)
    if is_template(name):
        declared, topic = named_topic(settings.topics, name, values)
        return declared, topic.name
    if values:
        raise WrongUse(f'"{name}" takes no values; a template has braces, as in "counter-{{name}}"')
    if not name.strip():
        raise WrongUse("the channel is empty; is a variable not set?")
    if re.search(r"[\s,;]", name):
        raise WrongUse(
            f'"{name}": spaces, commas and semicolons end a channel\'s name; '
            f"in a topic, this value is written {escape(name)}"
        )
    found = find_topic(settings.topics, name)
    return found and found[0], name


def default_holds(topic: TopicSettings | None) -> Sequence[Hold]:
    """Return what the topic's routes hold; streams if none is held, or there is no topic."""
    return tuple(topic.held_routes) if topic and topic.held_routes else ("stream",)


def parse_data(said: str | bytes) -> Data:
    """Read an object or a list in JSON; anything else is data as it is."""
    try:
        found = json.loads(said)
    except (ValueError, RecursionError):
        return said
    return found if isinstance(found, dict | list) else said


def messages(data: Data, holds: Sequence[Hold]) -> dict[Hold, Response]:
    """Return what each kind of client gets, each once. WrongUse if it cannot be JSON."""
    try:
        encoded = encode(data)
    except ValueError as error:  # NaN, which Python reads and JSON does not have
        raise WrongUse(f"DATA: {error}") from None
    return {hold: encoded[hold] for hold in FORMATS if hold in holds}


def warn(topic: TopicSettings, id_: str | None, prev_id: str | None) -> Iterator[str]:
    """Yield what comes of an item that is out of order, where clients are kept track of."""
    if not topic.recovers:
        return
    if prev_id is None:
        yield (
            f'who watches "{topic.template.text}" does not get DATA: this topic has recovery, and '
            "without --prev-id clients take it that they missed something, and get what their "
            "route answers"
        )
    elif id_ is None:
        yield (
            f'who gets it is no longer kept track of: "{topic.template.text}" has recovery, and '
            "without --id nobody notices what these clients miss next"
        )


def proxies(settings: Settings) -> Iterator[Publisher]:
    """Yield what publishes to each GRIP proxy."""
    for region in (settings.trunk, *settings.regions):
        for proxy in region.proxies:
            yield Publisher(proxy, region=region.name)


def publish(
    publishers: Sequence[Publisher], item: Mapping[str, Any], transport: Transport
) -> list[Answer]:
    """Give the item to one proxy after the other."""
    now = time.time()
    return [
        ask(
            transport,
            publisher.name,
            (batch.request for batch in publisher.batches([item], now=now)),
            publisher.check,
        )
        for publisher in publishers
    ]


def _read(data: str) -> str | bytes:
    return sys.stdin.buffer.read() if data == "-" else data

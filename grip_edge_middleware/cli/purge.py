"""`grip-edge purge`: have every CDN forget what carries a key."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from grip_edge_middleware.cli.answers import Answer, ask, build_answers, show
from grip_edge_middleware.cli.named import app_options, chosen_edge
from grip_edge_middleware.cli.screen import Screen, screen_options
from grip_edge_middleware.cli.status import WrongUse
from grip_edge_middleware.cli.values import is_template, parse_values
from grip_edge_middleware.edge import make_purger
from grip_edge_middleware.policy import find_topic, named_topic
from grip_edge_middleware.purgers import Purger
from grip_edge_middleware.settings import CDN, Akamai, Fastly, Settings, Varnish
from grip_edge_middleware.topics import SITE_KEY, escape_key
from grip_edge_middleware.transport import HttpTransport, Transport

EXAMPLES = """\
examples:
  grip-edge purge --app shop:edge counters
  grip-edge purge --app shop:edge 'counter-{name}' name=blue
  grip-edge purge --app shop:edge --all
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Say how it is called."""
    parser = commands.add_parser(
        "purge",
        parents=[app_options(), screen_options()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="purge keys at every CDN",
        description="Purge keys at every CDN of the settings, the one nearest to the app first. "
        "The processes of the app\nhear nothing of it. Ends with 0 if all acknowledged it, with 1 "
        "if one did not.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "keys",
        nargs="*",
        metavar="KEY",
        help="a surrogate key, or a topic's template followed by its values, NAME=VALUE",
    )
    parser.add_argument("--all", action="store_true", help="purge every page of the site")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--soft",
        dest="is_soft",
        action="store_const",
        const=True,
        help="keep the pages for when the app is down (default: as the settings say)",
    )
    how.add_argument(
        "--hard", dest="is_soft", action="store_const", const=False, help="remove the pages"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Purge, and show what each CDN said."""
    screen = Screen.of(options)
    settings = chosen_edge(options).settings
    keys = chosen_keys(settings, options.keys, is_all=options.all)
    purgers = list(tiers(settings, is_soft=options.is_soft))
    if not purgers:
        raise WrongUse('there is no CDN to purge: set "cdn" in the settings')
    transport = HttpTransport(timeout_s=settings.timeout)
    try:
        answers = purge(purgers, keys, transport)
    finally:
        transport.close()
    screen.line("purge ", (" ".join(keys), "cyan"))
    screen.json({"keys": keys, "targets": build_answers(answers)})
    return show(screen, answers)


def chosen_keys(settings: Settings, words: Sequence[str], *, is_all: bool) -> list[str]:
    """Return what the words of the command line name, each key once. WrongUse if nothing."""
    keys = [SITE_KEY] if is_all else []
    rest = list(words)
    while rest:
        word, values = rest.pop(0), []
        while is_template(word) and rest and "=" in rest[0]:
            values.append(rest.pop(0))
        keys += _keys(settings, word, values)
    if not keys:
        raise WrongUse("what is to be purged? name a key, or say --all")
    return list(dict.fromkeys(keys))


def _keys(settings: Settings, word: str, values: Sequence[str]) -> tuple[str, ...]:
    if is_template(word):
        declared, topic = named_topic(settings.topics, word, parse_values(values))
        return declared.template.keys(topic)
    key = _key(word)
    # As a change of the topic does: pages of many topics have the key of their kind instead.
    found = find_topic(settings.topics, key)
    return found[0].template.keys(found[1]) if found else (key,)


def _key(word: str) -> str:
    if not word.strip():
        raise WrongUse("a key is empty; is a variable not set?")
    if re.search(r"[\s,]", word):
        raise WrongUse(
            f'"{word}": spaces and commas separate keys, so no key has one; give each key as a '
            f"word of its own, or write {escape_key(word)}, as edge.tag does"
        )
    if "=" in word:
        raise WrongUse(
            f'"{word}" is a value, and there is no topic such as "counter-{{name}}" before it; '
            f"a key with = is written {escape_key(word)}"
        )
    return escape_key(word)


def tiers(settings: Settings, *, is_soft: bool | None = None) -> Iterator[Purger]:
    """Yield what purges each CDN, in the order of the purges; None leaves it to the settings."""
    for region in (settings.trunk, *settings.regions):
        for cdn in region.cdns:
            yield make_purger(cdn if is_soft is None else _chosen(cdn, is_soft), region.name)


def _chosen(cdn: CDN, is_soft: bool) -> CDN:
    """Return the CDN with another kind of purge, if it has two."""
    return replace(cdn, soft=is_soft) if isinstance(cdn, Varnish | Fastly | Akamai) else cdn


def purge(
    purgers: Sequence[Purger],
    keys: Sequence[str],
    transport: Transport,
    *,
    pause: Callable[[float], None] = time.sleep,
) -> list[Answer]:
    """Ask one CDN after the other; each is purged everywhere before the next may refill from it."""
    answers: list[Answer] = []
    for position, purger in enumerate(purgers):
        if position:
            pause(purgers[position - 1].settle_s)
        requests = (batch.request for batch in purger.batches(keys))
        answers.append(ask(transport, purger.name, requests, purger.check))
    return answers

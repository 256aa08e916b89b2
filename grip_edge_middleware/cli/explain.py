"""`grip-edge explain`: what a response says to proxies and caches, and what would purge it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from grip_edge_middleware.cli import direct
from grip_edge_middleware.cli.look import (
    EVENT_STREAM,
    Look,
    cache_headers,
    checked_url,
    look,
    look_options,
    page_headers,
    path_of,
)
from grip_edge_middleware.cli.named import Chosen, app_options, chosen
from grip_edge_middleware.cli.screen import Screen, screen_options
from grip_edge_middleware.cli.status import FOUND_WRONG, OK, WrongUse
from grip_edge_middleware.errors import DeliveryError
from grip_edge_middleware.grip import shown_by
from grip_edge_middleware.policy import Plan, Policy, find_topic
from grip_edge_middleware.rows import template_of
from grip_edge_middleware.settings import Model, Settings, TopicSettings
from grip_edge_middleware.topics import SITE_KEY
from grip_edge_middleware.transport import HttpTransport

EXAMPLES = """\
examples:
  grip-edge explain http://localhost:7999/counters/a
  grip-edge explain --app shop:edge http://localhost:7999/counters/a
  grip-edge explain --app shop:app --direct /counters/a

It ends with 0, or with 1 if nobody answers.
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Say how it is called."""
    parser = commands.add_parser(
        "explain",
        parents=[app_options(), look_options(), screen_options()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="show what a response says to proxies and caches, and what would purge it",
        description="Fetch a page, through the edge or from the app, and show its hold, channels, "
        "versions, keys and age;\nwith --app also what would purge it.",
        epilog=EXAMPLES,
    )
    parser.add_argument("url", metavar="URL", help="the page; with --direct, its path is enough")
    parser.add_argument(
        "--direct",
        action="store_true",
        help="ask the app that --app names, in this process, as a stranger would",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Fetch the page, and show it."""
    screen = Screen.of(options)
    named = _named(options)
    settings = named.edge.settings if named else None
    path = path_of(options.url)
    plan = Policy(settings).match(path) if settings else None
    try:
        seen = (
            _direct(named, path, plan, options)
            if named and options.direct
            else _fetch(options, plan)
        )
    except DeliveryError as error:
        print(f"grip-edge: {error}", file=sys.stderr)  # noqa: T201
        screen.json({"url": options.url, "error": str(error)})
        return FOUND_WRONG
    finally:
        if named:
            named.edge.close()
    show(screen, Explained.of(options.url, seen, settings, plan, is_direct=options.direct))
    return OK


def _named(options: argparse.Namespace) -> Chosen | None:
    if options.direct and not options.app:
        raise WrongUse("--direct: which app? say --app MODULE:NAME")
    if options.direct and options.header:
        raise WrongUse("--direct asks as a stranger would, without --header")
    if not options.direct:
        checked_url(options.url)
    return chosen(options) if options.app else None


def _direct(named: Chosen, path: str, plan: Plan | None, options: argparse.Namespace) -> Look:
    accept = page_headers(options, plan)["Accept"]
    return Look(direct.ask(named, path, accept, timeout_s=options.timeout))


def _fetch(options: argparse.Namespace, plan: Plan | None) -> Look:
    transport = HttpTransport(timeout_s=options.timeout)
    try:
        return look(transport, options.url, page_headers(options, plan))
    finally:
        transport.close()


@dataclass(frozen=True, slots=True)
class Explained:
    """What is known of a response."""

    url: str
    seen: Look
    hold: str | None
    keys: Sequence[tuple[str, str]]
    """Each key, and what purges it."""
    notes: Sequence[str] = field(default=())

    @classmethod
    def of(
        cls,
        url: str,
        seen: Look,
        settings: Settings | None,
        plan: Plan | None,
        *,
        is_direct: bool = False,
    ) -> Explained:
        """Say what the headers and the settings say together."""
        keys = seen.keys or _keys_to_be(plan, is_direct=is_direct)
        hold = seen.response.headers.get("grip-hold")
        if hold is None and seen.is_held:
            hold = "open"
        return cls(
            url,
            seen,
            hold,
            [(key, purged_by(settings, key)) for key in keys],
            list(_notes(seen, settings, plan, is_direct=is_direct)),
        )


def _keys_to_be(plan: Plan | None, *, is_direct: bool) -> Sequence[str]:
    """Return the keys that a cache has taken off. An app's are there, or there are none."""
    return () if plan is None or plan.is_private or is_direct else plan.keys


def _notes(
    seen: Look, settings: Settings | None, plan: Plan | None, *, is_direct: bool
) -> Iterator[str]:
    if settings is not None and plan is None:
        yield "no route of the settings matches it; see grip-edge routes"
    if seen.has_grip_headers and not is_direct:
        yield (
            "its Grip headers are there: it is the app or the cache that answers here, not the "
            "GRIP proxy, which would take them and hold the client"
        )
    if not seen.has_grip_headers and not seen.keys:
        if is_direct:
            yield from _why_bare(seen, plan)
            return
        yield (
            "no Grip headers and no keys: the GRIP proxy and the cache keep them to themselves, or "
            "the app has sent none; ask it: grip-edge explain --app MODULE:APP --direct PATH"
        )
        if _keys_to_be(plan, is_direct=is_direct):
            yield "the keys are those of the settings, without what its view adds"


def _why_bare(seen: Look, plan: Plan | None) -> Iterator[str]:
    if plan is None:
        return
    said = seen.response.headers.get("cache-control", "")
    if plan.is_private:
        yield "it is private: only a GRIP proxy's own requests are held, and nothing is cached"
    elif seen.response.status not in (200, 304):
        yield f"only a 200 is held, and this is {seen.response.status}"
    elif "no-store" in said or "private" in said:
        yield (
            f"it is kept out of caches (Cache-Control: {said}): it is private, sets a cookie, has "
            "more keys than key_budget, or changes just now"
        )


def purged_by(settings: Settings | None, key: str) -> str:
    """Return what purges a page that has this key."""
    if key == SITE_KEY:
        return "a change of more than can be named; grip-edge purge --all"
    if (rows := template_of(key)) is not None:
        return f"writes to the rows of {_table(rows.text)}, seen in SQL"
    if settings is None:
        return "name the settings with --app to see"
    for topic in settings.topics:
        template = topic.template
        if template.params and key == template.type_key:
            return f"more changes of {template.text} than can be named"
        if template.params and key == template.any_key:
            return f"a change of any {template.text}"
    found = find_topic(settings.topics, key)
    if found is None:
        return "only a purge of this key: no topic has this name"
    return f"a change of {found[0].template.text}: {_changes(found[0])}"


def _table(text: str) -> str:
    return text.removeprefix("%row:").partition(":")[0]


def _changes(topic: TopicSettings) -> str:
    models = [f"{_operations(model)} of {_model(model)}" for model in topic.models]
    return "; ".join([*models, "edge.submit and edge.publish"])


def _operations(model: Model) -> str:
    # In this order, as they are in a life.
    return "/".join(o for o in ("insert", "update", "delete") if o in model.on)


def _model(model: Model) -> str:
    kind = model.model
    return kind if isinstance(kind, str) else f"{kind.__module__}:{kind.__qualname__}"


def show(screen: Screen, explained: Explained) -> None:
    """Print it."""
    screen.json(build(explained))
    headers = explained.seen.response.headers
    rows = [(name, value) for name, value in _rows(explained) if value]
    screen.line(
        ("GET ", "bold"), explained.url, "  ", (str(explained.seen.response.status), "bold")
    )
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        screen.line((f"{name:<{width}}  ", "bold"), value)
    for name, version in explained.seen.channels:
        screen.line((f"{'channel':<{width}}  ", "bold"), (name, "cyan"), _version(version))
    if explained.keys:
        screen.line()
        screen.table(["key", "is purged by"], ([(k, "cyan"), why] for k, why in explained.keys))
    for note in explained.notes:
        screen.line()
        screen.line(("note  ", "yellow"), note)
    if headers.get("content-type", "").startswith(EVENT_STREAM) and not explained.hold:
        screen.line()
        screen.line(("note  ", "yellow"), "it is a stream of events that ended: nobody holds it")


def _rows(explained: Explained) -> Iterator[tuple[str, str]]:
    headers = explained.seen.response.headers
    yield "type", headers.get("content-type", "")
    yield "cache", _cache(explained.seen)
    yield "Cache-Control", headers.get("cache-control", "")
    for name in ("Surrogate-Control", "CDN-Cache-Control", "Edge-Control"):
        yield name, headers.get(name.lower(), "")
    yield "Vary", headers.get("vary", "")
    yield "ETag", headers.get("etag", "")
    yield "hold", _hold(explained)
    yield "next link", explained.seen.next_link or ""
    yield "Grip-Timeout", headers.get("grip-timeout", "")
    yield "Grip-Keep-Alive", headers.get("grip-keep-alive", "")


def _cache(seen: Look) -> str:
    headers = cache_headers(seen.response.headers)
    said = ", ".join(f"{name}: {value}" for name, value in headers.items())
    state = "nobody says" if seen.cache == "unknown" else seen.cache
    return f"{state} ({said})" if said else state


def _hold(explained: Explained) -> str:
    if explained.hold == "open":
        return "open: it goes on, so a GRIP proxy holds it, or the app has not ended it"
    return explained.hold or "none"


def _version(version: str | None) -> str:
    if version is None:
        return "  without a version: who misses a message is not told"
    confirms = "" if shown_by(version) == version else f", which confirms {shown_by(version)}"
    return f"  at version {version}{confirms}"


def build(explained: Explained) -> dict[str, Any]:
    """Return it as JSON has it."""
    seen = explained.seen
    headers = seen.response.headers
    return {
        "url": explained.url,
        "status": seen.response.status,
        "content_type": headers.get("content-type"),
        "hold": explained.hold,
        "channels": [{"name": name, "prev_id": version} for name, version in seen.channels],
        "next_link": seen.next_link,
        "keys": [{"key": key, "purged_by": why} for key, why in explained.keys],
        "keys_are_shown": bool(seen.keys),
        "cache": {"state": seen.cache, **cache_headers(headers)},
        "cache_control": headers.get("cache-control"),
        "surrogate_control": headers.get("surrogate-control"),
        "etag": headers.get("etag"),
        "notes": list(explained.notes),
    }

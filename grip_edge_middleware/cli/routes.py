"""`grip-edge routes`: which paths are matched, and what a path is matched by."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

from grip_edge_middleware.cli.look import path_of
from grip_edge_middleware.cli.named import app_options, chosen_edge
from grip_edge_middleware.cli.screen import Said, Screen, screen_options
from grip_edge_middleware.cli.status import FOUND_WRONG, OK
from grip_edge_middleware.grip import MAX_CHANNELS, NEXT_LINK
from grip_edge_middleware.policy import Plan, Policy, Shown
from grip_edge_middleware.routing import Pattern
from grip_edge_middleware.settings import Route, Settings, TopicSettings

EXAMPLES = """\
examples:
  grip-edge routes --app shop:edge
  grip-edge routes --app shop:edge /counters/a
  grip-edge routes --app shop:edge 'https://shop.example/counters/a?page=2'

It ends with 0, or with 1 if no route matches the path.
"""

# Of what does not match, only this much is shown to people.
NEAREST = 5


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Say how it is called."""
    parser = commands.add_parser(
        "routes",
        parents=[app_options(), screen_options()],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        help="show which paths are matched, with which channels and keys",
        description="Show the routes of the settings; or, for a path, which of them match it, with "
        "which values,\nchannels and surrogate keys, and why the nearest others do not.",
        epilog=EXAMPLES,
    )
    parser.add_argument("path", nargs="?", metavar="PATH", help="a path, or a URL")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show all routes, or those of a path."""
    screen = Screen.of(options)
    path = None if options.path is None else path_of(options.path)
    edge = chosen_edge(options)
    settings = edge.settings
    edge.close()
    if path is None:
        return show_all(screen, settings)
    return show_path(screen, settings, path)


def show_all(screen: Screen, settings: Settings) -> int:
    """Print every route."""
    routes = list(_routes(settings))
    columns = ["route", "channel and key", "hold", "at the edge", "in the browser", "besides"]
    screen.table(columns, (_row(topic, route) for topic, route in routes))
    screen.json({"routes": [_build(topic, route) for topic, route in routes]})
    return OK


def show_path(screen: Screen, settings: Settings, path: str) -> int:
    """Print what matches a path, and why others do not."""
    plan = Policy(settings).match(path)
    others = misses(settings, path)
    screen.json(
        {
            "path": path,
            "matches": [_build_shown(shown) for shown in plan.shown] if plan else [],
            "channels": channels(plan),
            "keys": list(plan.keys) if plan else [],
            "misses": [{"route": pattern.text, "why": why} for pattern, why in others],
        }
    )
    if plan is None:
        screen.line((path, "bold"), " is matched by ", ("no route", "bold red"))
        if path.startswith(NEXT_LINK):
            screen.line("it is a next link, which GRIP proxies ask, and which the edge answers")
    else:
        _say_plan(screen, path, plan)
    if others:
        screen.line()
        screen.line("not matched by", "" if len(others) <= NEAREST else f" {len(others)}, such as")
        screen.table(["route", "why not"], ([p.text, why] for p, why in others[:NEAREST]))
    return FOUND_WRONG if plan is None else OK


def channels(plan: Plan | None) -> list[str]:
    """Return the channels of who is held, in order, as many as a proxy takes."""
    if plan is None:
        return []
    held = [shown.topic.name for shown in plan.shown if shown.route.hold]
    return list(dict.fromkeys(held))[:MAX_CHANNELS]


def misses(settings: Settings, path: str) -> list[tuple[Pattern, str]]:
    """Return the routes that do not match a path, and why, the nearest first."""
    patterns = {route.pattern.text: route.pattern for _, route in _routes(settings)}
    missed = [pattern for pattern in patterns.values() if pattern.match(path) is None]
    missed.sort(key=lambda pattern: _likeness(pattern, path), reverse=True)
    return [(pattern, why_not(pattern, path)) for pattern in missed]


def why_not(pattern: Pattern, path: str) -> str:
    """Return why a path is not this route's."""
    if path.endswith("/") and pattern.match(path[:-1]) is not None:
        return "it has no slash at the end"
    if pattern.match(f"{path}/") is not None:
        return "it has a slash at the end"
    if re.fullmatch(pattern.regex.pattern, path, re.DOTALL | re.IGNORECASE):
        return "it differs in upper and lower case"
    if (before := _mount(pattern, path)) is not None:
        return f"the path begins with {before}, where the app is mounted perhaps"
    return _first_difference(pattern, path)


def _first_difference(pattern: Pattern, path: str) -> str:
    for wanted, found in _segments(pattern, path):
        if wanted is None:
            return f'it ends where the path goes on with "/{found}"'
        if found is None:
            return f'it goes on with "/{wanted}" where the path ends'
        if Pattern.parse(f"/{wanted}").match(f"/{found}") is None:
            return _differ(wanted, found)
    return "its converters take other values"


def _differ(wanted: str, found: str) -> str:
    if not wanted:
        return f'it ends with a slash where the path goes on with "{found}"'
    shown = wanted if set(wanted) & set("<{") else f'"{wanted}"'
    return f'"{found}" is not {shown}' if found else f"there is nothing for {shown}"


def _segments(pattern: Pattern, path: str) -> Iterator[tuple[str | None, str | None]]:
    """Yield what is wanted and what is found, segment by segment."""
    wanted, found = pattern.text.split("/")[1:], path.split("/")[1:]
    for position, segment in enumerate(wanted):
        if re.search(r"<path:|:path\}", segment):  # which takes slashes too
            wanted[position:] = ["/".join(wanted[position:])]
            found[position:] = ["/".join(found[position:])]
            break
    yield from zip_longest(wanted, found)


def _mount(pattern: Pattern, path: str) -> str | None:
    """Return what is before the part of a path that the route matches."""
    slashes = [match.start() for match in re.finditer("/", path)][1:]
    return next((path[:at] for at in slashes if pattern.match(path[at:]) is not None), None)


def _likeness(pattern: Pattern, path: str) -> tuple[int, float]:
    same = 0
    for wanted, found in _segments(pattern, path):
        if wanted is None or found is None or not wanted:
            break
        if Pattern.parse(f"/{wanted}").match(f"/{found}") is None:
            break
        same += 1
    return same, SequenceMatcher(None, pattern.text, path).ratio()


def _say_plan(screen: Screen, path: str, plan: Plan) -> None:
    screen.line((path, "bold"), " is matched by")
    screen.table(
        ["route", "topic", "values", "hold", "at the edge"],
        (
            [
                shown.route.pattern.text,
                shown.topic.template,
                " ".join(f"{name}={value}" for name, value in shown.topic.params) or "-",
                _hold(shown.route),
                _at_edge(shown),
            ]
            for shown in plan.shown
        ),
    )
    screen.line()
    screen.line("channels  ", (", ".join(channels(plan)) or "-", "cyan"))
    screen.line("keys      ", (" ".join(plan.keys), "cyan"), "  and what its view adds")


def _row(topic: TopicSettings, route: Route) -> Sequence[Said]:
    besides = [
        *(["private"] if topic.private else []),
        *(["public"] if route.public else []),
        *(["tags rows"] if topic.auto_tags is not None else []),
        *(["refetch"] if topic.refetch else []),
        *([f"only {route.accept}"] if route.accept else []),
    ]
    return [
        route.pattern.text,
        (topic.template.text, "cyan"),
        _hold(route),
        "-" if topic.private else f"{route.edge_ttl} s",
        f"{route.browser_ttl} s",
        ", ".join(besides) or "-",
    ]


def _hold(route: Route) -> str:
    return route.hold or "-"


def _at_edge(shown: Shown) -> str:
    return "never: private" if shown.is_private else f"{shown.route.edge_ttl} s"


def _build(topic: TopicSettings, route: Route) -> dict[str, Any]:
    return {
        "route": route.pattern.text,
        "topic": topic.template.text,
        "keys": [topic.template.type_key, topic.template.text],
        "hold": route.hold,
        "hold_timeout": route.hold_timeout if route.hold == "response" else None,
        "accept": route.accept,
        "edge_ttl": route.edge_ttl,
        "browser_ttl": route.browser_ttl,
        "public": route.public,
        "private": topic.private,
        "auto_tags": topic.auto_tags is not None,
        "refetch": topic.refetch,
    }


def _build_shown(shown: Shown) -> dict[str, Any]:
    return {
        "route": shown.route.pattern.text,
        "topic": shown.topic.template,
        "name": shown.topic.name,
        "values": dict(shown.topic.params),
        "hold": shown.route.hold,
        "accept": shown.route.accept,
        "edge_ttl": shown.route.edge_ttl,
        "private": shown.is_private,
    }


def _routes(settings: Settings) -> Iterator[tuple[TopicSettings, Route]]:
    for topic in settings.topics:
        for route in topic.routes:
            yield topic, route

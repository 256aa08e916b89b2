"""Routes by the names of URLs: `"name:shop:order"` stands for the paths that reverse to it.

Only what can be told exactly counts: a converter of the project's own, or a regular expression
that is more than a path, is a mistake that says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from django.urls import URLPattern, URLResolver, converters, get_resolver
from django.urls.resolvers import LocalePrefixPattern, RoutePattern

from grip_edge_middleware.errors import Mistake
from grip_edge_middleware.routing import Pattern
from grip_edge_middleware.topics import TopicTemplate

PREFIX = "name:"

_CONVERTERS = {
    converters.IntConverter: "int",
    converters.PathConverter: "path",
    converters.SlugConverter: "slug",
    converters.StringConverter: "str",
    converters.UUIDConverter: "uuid",
}
_PARAMETER = re.compile(r"<(?:[^>:]+:)?(?P<name>[^>]+)>")
# What the groups of a regular expression usually are.
_GROUPS = {
    "[^/]+": "str",
    "[^/.]+": "str",
    r"\d+": "int",
    "[0-9]+": "int",
    r"[\w-]+": "slug",
    r"[-\w]+": "slug",
    "[-a-zA-Z0-9_]+": "slug",
    "[a-zA-Z0-9_-]+": "slug",
    ".+": "path",
}
_REGEX = re.compile(
    r"\(\?P<(?P<name>\w+)>(?P<group>(?:\[[^\]]*\]|[^()\[\]])+)\)"
    r"|(?P<literal>[\w/~@:!,;=-])|\\(?P<escaped>[^\w])"
)


class _Untold(Exception):  # noqa: N818 - never leaves this file
    """A URL's paths cannot be told; says why."""


@dataclass(frozen=True, slots=True)
class _Named:
    """A named URL: its patterns from the root on, and the namespaces around it."""

    name: str
    namespaces: tuple[tuple[str, ...], ...]
    """Each by its own name and by that of its app."""
    patterns: tuple[Any, ...]

    @property
    def full_name(self) -> str:
        return ":".join([*(names[0] for names in self.namespaces), self.name])

    def is_named(self, name: str) -> bool:
        *spaces, last = name.split(":")
        return (
            last == self.name
            and len(spaces) == len(self.namespaces)
            and all(s in names for s, names in zip(spaces, self.namespaces, strict=True))
        )


def with_paths(found: object) -> tuple[object, list[Mistake]]:
    """Return the settings dict with paths in place of names, and what is wrong with the names.

    What is no name is left as it is: others judge it.
    """
    topics = found.get("topics") if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping) or not isinstance(topics, Mapping):
        return found, []
    mistakes: list[Mistake] = []
    resolved = {name: _topic(name, topic, mistakes) for name, topic in topics.items()}
    return {**found, "topics": resolved}, mistakes


def _topic(name: object, topic: object, mistakes: list[Mistake]) -> object:
    routes = topic.get("routes") if isinstance(topic, Mapping) else None
    if not isinstance(topic, Mapping) or not isinstance(routes, list | tuple):
        return topic
    resolved: list[object] = []
    for position, route in enumerate(routes):
        url = _name_in(route)
        if url is None:
            resolved.append(route)
            continue
        try:
            paths = _paths(url, _params(name))
        except _Untold as error:
            where = f"topics[{json.dumps(name)}].routes[{position}]"
            mistakes.append(Mistake(where, *error.args))
        else:
            options = route if isinstance(route, Mapping) else {}
            resolved += [{**options, "path": path} for path in paths]
    return {**topic, "routes": resolved}


def _name_in(route: object) -> str | None:
    path = route.get("path") if isinstance(route, Mapping) else route
    is_name = isinstance(path, str) and path.startswith(PREFIX)
    return str(path).removeprefix(PREFIX) if is_name else None


def _params(name: object) -> frozenset[str]:
    """Return the parameters of a topic's name; of one that is none, others will say so."""
    try:
        return frozenset(TopicTemplate.parse(str(name)).params)
    except ValueError:
        return frozenset()


def _paths(url: str, params: frozenset[str]) -> list[str]:
    """Return the paths of a URL; of several, those that have all parameters of the topic's name."""
    known = list(_named(get_resolver(), (), ()))
    paths = [_path(named) for named in known if named.is_named(url)]
    if not paths:
        close = get_close_matches(url, [named.full_name for named in known], n=1)
        hint = f'did you mean "{PREFIX}{close[0]}"?' if close else ""
        raise _Untold(f'no URL is named "{url}"', hint)
    return [path for path in paths if params <= _params_of(path)] or paths


def _params_of(path: str) -> set[str]:
    try:
        return set(Pattern.parse(path).params)
    except ValueError as error:
        raise _Untold(f"{path}: {error}", "name the path instead") from None


def _named(
    resolver: URLResolver, namespaces: tuple[tuple[str, ...], ...], patterns: tuple[Any, ...]
) -> Iterator[_Named]:
    """Walk the URLconf."""
    for found in resolver.url_patterns:
        reached = (*patterns, found.pattern)
        if isinstance(found, URLPattern):
            if found.name:
                yield _Named(found.name, namespaces, reached)
        elif found.namespace:
            own = (found.namespace, *([found.app_name] if found.app_name else []))
            yield from _named(found, (*namespaces, own), reached)
        else:
            yield from _named(found, namespaces, reached)


def _path(named: _Named) -> str:
    """Return a URL's path as `routes` has it."""
    *included, last = named.patterns
    return "/" + "".join([*(_part(p, is_last=False) for p in included), _part(last, is_last=True)])


def _part(pattern: Any, *, is_last: bool) -> str:
    if isinstance(pattern, LocalePrefixPattern):
        raise _Untold(
            "it is below i18n_patterns, so its path begins with a language",
            'name the paths instead, as in "/en/...", with a topic for each language',
        )
    is_route = isinstance(pattern, RoutePattern)
    text = pattern._route if is_route else pattern._regex
    if not isinstance(text, str):
        raise _Untold("its path is translated", "name the paths instead")
    if is_route:
        return _of_route(text, pattern.converters)
    return _of_regex(text, is_last=is_last)


def _of_route(route: str, known: Mapping[str, object]) -> str:
    """Return a `path()`'s route, with the names of converters that mean the same to all."""

    def parameter(match: re.Match[str]) -> str:
        converter = known[match["name"]]
        kind = _CONVERTERS.get(type(converter))
        if kind is None:
            raise _Untold(
                f"{route}: {type(converter).__name__} is a converter of the project's own",
                "name the path instead, with a converter that is known here",
            )
        return f"<{kind}:{match['name']}>"

    return _PARAMETER.sub(parameter, route)


def _of_regex(regex: str, *, is_last: bool) -> str:
    """Return the path of a `re_path()`, if it is made of literals and usual groups."""
    untold = _Untold(f"the regular expression {regex} is no plain path", "name the path instead")
    text = regex.removeprefix("^")
    ends = next((end for end in (r"\Z", r"\z", "$") if text.endswith(end)), "")
    if is_last and not ends:
        raise _Untold(f"the regular expression {regex} has no end", 'end it with "$"')
    text = text.removesuffix(ends)
    path, at = "", 0
    while at < len(text):
        match = _REGEX.match(text, at)
        if match is None:
            raise untold
        if match["name"]:
            if (kind := _GROUPS.get(match["group"])) is None:
                raise untold
            path += f"<{kind}:{match['name']}>"
        else:
            path += match["literal"] or match["escaped"]
        at = match.end()
    return path

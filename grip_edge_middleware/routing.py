"""Which URL paths are configured: patterns in the frameworks' own spellings, and their matcher.

`/counters/<name>/`, `/counters/{name}/`, `/lots/<int:id>/` and `/lots/{id:int}/` are understood.
The matcher walks the path's segments through a tree: its cost follows the path, not the number
of routes.

Pure: no sockets, no clock, no framework.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from types import MappingProxyType
from typing import Any, Generic, Self, TypeVar
from uuid import UUID

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Converter:
    """How one kind of parameter looks in a path, and the one text that stands for its value."""

    regex: str
    normalise: Callable[[str], str] = str


def _plain_integer(value: str) -> str:
    # By text, because int() refuses numbers of more than 4,300 digits.
    sign = "-" if value.startswith("-") else ""
    digits = value.removeprefix("-").lstrip("0")
    return sign + digits if digits else "0"


SEGMENT = Converter("[^/]+")
PATH = Converter(".+")
INT = Converter("[0-9]+", _plain_integer)
FLOAT = Converter(r"[0-9]+(?:\.[0-9]+)?", lambda value: str(float(value)))

# werkzeug's, Starlette's and Django's names. An id of 7 is "7" whether the URL says 7 or 007,
# because that is the value that the view and the model see.
CONVERTERS: Mapping[str, Converter] = {
    "default": SEGMENT,
    "string": SEGMENT,
    "str": SEGMENT,
    "slug": Converter("[-a-zA-Z0-9_]+"),
    "int": INT,
    "float": FLOAT,
    "uuid": Converter(
        "[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}",
        lambda value: str(UUID(value)),
    ),
    "path": PATH,
}

_NAME = "[A-Za-z_][A-Za-z0-9_]*"
_PARAMETER = re.compile(
    rf"""<(?:(?P<kind>\w+)(?:\((?P<args>[^)]*)\))?:)?(?P<name>{_NAME})>
       | \{{(?P<braced>{_NAME})(?::(?P<braced_kind>\w+))?\}}""",
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class _Parameter:
    name: str
    converter: Converter


@dataclass(frozen=True, slots=True)
class Pattern:
    """A route's path, parsed."""

    text: str
    parts: tuple[str | _Parameter, ...]
    regex: re.Pattern[str] = field(repr=False)
    # Those of which one value may be written in several ways.
    normalised: tuple[_Parameter, ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a path with parameters. ValueError says what is wrong with it."""
        if not text.startswith("/"):
            raise ValueError('a path begins with "/"')
        if set(text) & set("?#%"):
            raise ValueError("a path is decoded and has no query: ?, # and % do not stand in it")
        parts = tuple(_parts(text))
        names = [part.name for part in parts if isinstance(part, _Parameter)]
        if len(set(names)) < len(names):
            raise ValueError("a parameter stands twice")
        params = (part for part in parts if isinstance(part, _Parameter))
        normalised = tuple(p for p in params if p.converter.normalise is not str)
        regex = re.compile("".join(map(_regex, parts)), re.DOTALL)
        return cls(text, parts, regex, normalised)

    @property
    def params(self) -> tuple[str, ...]:
        """The names of the parameters, in order."""
        return tuple(part.name for part in self.parts if isinstance(part, _Parameter))

    def match(self, path: str) -> dict[str, str] | None:
        """Return the parameters' values in a decoded path, or None if it is another path."""
        match = self.regex.fullmatch(path)
        if match is None:
            return None
        values: dict[str, str] = match.groupdict()
        for param in self.normalised:
            values[param.name] = param.converter.normalise(values[param.name])
        return values

    def fill(self, values: Mapping[str, str]) -> str | None:
        """Return the path with these values, or None if no such path can match the pattern."""
        path = "".join(p if isinstance(p, str) else values[p.name] for p in self.parts)
        return path if self.regex.fullmatch(path) else None


def _parts(text: str) -> Iterator[str | _Parameter]:
    end = 0
    for match in _PARAMETER.finditer(text):
        if match.start() > end:
            yield _literal(text[end : match.start()])
        name = match["name"] or match["braced"]
        kind = match["kind"] or match["braced_kind"] or "default"
        yield _Parameter(name, _converter(kind, match["args"]))
        end = match.end()
    if end < len(text):
        yield _literal(text[end:])


def _literal(text: str) -> str:
    if stray := set(text) & set("<>{}"):
        raise ValueError(f"{min(stray)!r} is not part of a parameter such as <name> or {{name}}")
    return text


def _converter(kind: str, args: str | None) -> Converter:
    if kind == "any" and args:
        choices = [choice.strip().strip("'\"") for choice in args.split(",")]
        if not all(choices) or any("/" in choice for choice in choices):
            raise ValueError("any(...) takes choices that are not empty and have no slash")
        return Converter("|".join(map(re.escape, choices)))
    if kind not in CONVERTERS:
        known = ", ".join(sorted([*CONVERTERS, "any(...)"]))
        raise ValueError(f"unknown converter {kind!r}; known are {known}")
    converter = CONVERTERS[kind]
    if args and "signed=True" in args.replace(" ", ""):
        return Converter(f"-?(?:{converter.regex})", converter.normalise)
    # <string(length=2):code> and the like narrow a match that the app makes anyway.
    return converter


def _regex(part: str | _Parameter) -> str:
    return re.escape(part) if isinstance(part, str) else f"(?P<{part.name}>{part.converter.regex})"


_FullMatch = Callable[[str], re.Match[str] | None]
_NO_BRANCH: Mapping[str, Any] = MappingProxyType({})


@dataclass(slots=True)
class _Node(Generic[T]):
    """What may come after the segments walked so far."""

    literals: dict[str, _Node[T]] = field(default_factory=dict)
    # By the literal beginning of a segment, so that /a-<x>, /b-<x>, ... are not tried in turn; and
    # first by how long that is.
    dynamic: dict[int, dict[str, dict[str, tuple[_FullMatch, _Node[T]]]]] = field(
        default_factory=dict
    )
    leaves: list[tuple[Pattern, T]] = field(default_factory=list)
    tails: list[tuple[Pattern, T]] = field(default_factory=list)


class Matcher(Generic[T]):
    """Finds everything that is configured for a path.

    Built once from (pattern, value) pairs; a path may match several.
    """

    def __init__(self, entries: Iterable[tuple[Pattern, T]]) -> None:
        self._order: dict[int, int] = {}
        self._root: _Node[T] = _Node()
        for pattern, value in entries:
            self._add(pattern, value)

    def match(self, path: str) -> list[tuple[T, dict[str, str]]]:
        """Return each value whose pattern is this path, with its parameters, in settings order."""
        found: list[tuple[Pattern, T]] = []
        _collect(self._root, path.split("/")[1:], 0, found)
        if len(found) > 1:
            found.sort(key=lambda entry: self._order[id(entry[0])])
        return [
            (value, params)
            for pattern, value in found
            if (params := pattern.match(path)) is not None
        ]

    def _add(self, pattern: Pattern, value: T) -> None:
        self._order.setdefault(id(pattern), len(self._order))
        node = self._root
        for segment in islice(_segments(pattern), 1, None):
            if any(isinstance(p, _Parameter) and p.converter is PATH for p in segment):
                node.tails.append((pattern, value))
                return
            node = _child(node, segment)
        node.leaves.append((pattern, value))


def _segments(pattern: Pattern) -> Iterator[list[str | _Parameter]]:
    """Split the parts at slashes; what is before the first slash is empty."""
    segment: list[str | _Parameter] = []
    for part in pattern.parts:
        if isinstance(part, _Parameter):
            segment.append(part)
            continue
        first, *others = part.split("/")
        segment.append(first)
        for other in others:
            yield [p for p in segment if p]
            segment = [other]
    yield [p for p in segment if p]


def _child(node: _Node[T], segment: list[str | _Parameter]) -> _Node[T]:
    if all(isinstance(part, str) for part in segment):
        return node.literals.setdefault("".join(map(str, segment)), _Node())
    beginning = segment[0] if isinstance(segment[0], str) else ""
    # Unnamed, so that <a> and <b> share a branch.
    source = "".join(
        re.escape(p) if isinstance(p, str) else f"(?:{p.converter.regex})" for p in segment
    )
    branches = node.dynamic.setdefault(len(beginning), {}).setdefault(beginning, {})
    return branches.setdefault(source, (re.compile(source, re.DOTALL).fullmatch, _Node()))[1]


def _collect(node: _Node[T], segments: list[str], at: int, found: list[tuple[Pattern, T]]) -> None:
    end = len(segments)
    while at < end:
        segment = segments[at]
        at += 1
        if node.tails:
            found += node.tails
        for length, branches in node.dynamic.items():
            for fullmatch, branch in branches.get(segment[:length], _NO_BRANCH).values():
                if fullmatch(segment):
                    _collect(branch, segments, at, found)
        if (child := node.literals.get(segment)) is None:
            return
        node = child
    found += node.tails
    found += node.leaves

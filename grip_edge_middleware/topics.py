"""Topics: what clients watch. A topic's name is its GRIP channel and its first surrogate key.

A template such as `counter-{name}` is filled from a URL's parameters on the way out and from a
model's attributes on a save, by the one `fill` below. A value can therefore never name another
topic than its own, split a header, or differ between the two sides.

Pure: no sockets, no clock, no framework.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from hashlib import blake2b
from typing import Self
from urllib.parse import quote, unquote

# Pushpin takes any length, Fastly's keys end at 1,024 bytes and Akamai's at 128; 255 is the
# channel length that GRIP services commonly accept. Longer names are shortened by a digest.
MAX_NAME = 200

# The characters of a template's own text. Space and comma split keys, semicolon ends a channel.
LITERAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._~:/@|-")
# What an escaped value is made of.
VALUE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._~-%")
SEPARATORS = frozenset("._~:/@|-")

# On every page, for when more has changed than can be named. `%al` never arises from `escape`.
SITE_KEY = "%all"

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_DIGEST_LENGTH = 34  # "%h" and 32 hexadecimal digits


def text(value: object) -> str:
    """Return a value as a URL shows it: an enum by its value, anything else by `str`."""
    if type(value) is str:
        return value
    # What `__str__` returns may be of a class that compares as it likes.
    return str.__str__(str(value.value if isinstance(value, Enum) else value))


def escape(value: str, also: frozenset[str] = frozenset()) -> str:
    """Percent-encode all but `[A-Za-z0-9._~-]`, and of these the characters in `also`."""
    if value.isalnum() and value.isascii():
        return value
    escaped = quote(value, safe="", errors="surrogatepass")
    for character in also:
        escaped = escaped.replace(character, f"%{ord(character):02X}")
    return escaped


def shorten(name: str) -> str:
    """Return the name, or for a long one its beginning and a digest of all of it.

    `%h` never arises from `escape`, so no shorter name can be mistaken for a shortened one.
    """
    if len(name) <= MAX_NAME:
        return name
    digest = blake2b(name.encode(), digest_size=16).hexdigest()
    return f"{name[: MAX_NAME - _DIGEST_LENGTH]}%h{digest}"


def escape_key(key: str) -> str:
    """Make any text one surrogate key. Names of topics come back as they are."""
    return shorten(quote(key, safe=":/@|%", errors="surrogatepass"))


@dataclass(frozen=True, slots=True)
class Topic:
    """One thing that clients watch.

    `name` is its channel and surrogate key; `template` the text that declares it in the settings;
    `params` the template's parameters with their values, not escaped.
    """

    name: str
    template: str = field(compare=False)
    params: tuple[tuple[str, str], ...] = field(compare=False, default=())

    @property
    def is_shortened(self) -> bool:
        """Whether the name ends in a digest, so that the values cannot be read from it."""
        return "%h" in self.name


@dataclass(frozen=True, slots=True)
class TopicTemplate:
    """A topic's name with `{parameters}`, parsed."""

    text: str
    literals: tuple[str, ...]
    """The text before, between and after the parameters: always one more than these."""
    params: tuple[str, ...]
    also: frozenset[str] = frozenset()
    """What separates the parameters; escaped in values, so that a name has only one reading."""
    any_key: str = field(init=False, compare=False)
    """The key of a page that shows more of these topics than its header can name.

    It is purged with each of them. `%a` never arises from `escape` (`%A` does).
    """

    _after: tuple[tuple[str, str], ...] = field(init=False, compare=False, repr=False)
    """Each parameter, and the text after it."""

    def __post_init__(self) -> None:
        any_key = shorten("%any".join(self.literals)) if self.params else self.text
        object.__setattr__(self, "any_key", any_key)
        after = tuple(zip(self.params, self.literals[1:], strict=True))
        object.__setattr__(self, "_after", after)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a template. ValueError says what is wrong with it."""
        pieces = _PARAMETER.split(text)
        literals, params = tuple(pieces[::2]), tuple(pieces[1::2])
        if not text:
            raise ValueError("a topic needs a name")
        for literal in literals:
            _check_literal(literal)
        if len(set(params)) < len(params):
            raise ValueError("a parameter stands twice")
        also = frozenset(_separator(literal) for literal in literals[1:-1])
        return cls(text, literals, params, also)

    @property
    def type_key(self) -> str:
        """The key of every page that shows a topic of this template.

        It is purged when more of them have changed than can be remembered.
        """
        return shorten("%all".join(self.literals)) if self.params else self.text

    def keys(self, topic: Topic) -> tuple[str, ...]:
        """Return what a change of the topic purges: its own key, and that of pages of many."""
        name, any_key = topic.name, self.any_key
        return (name,) if name == any_key else (name, any_key)

    def fill(self, values: Mapping[str, object]) -> Topic:
        """Return the topic for these values.

        KeyError names a parameter that is missing, ValueError one that is empty: without it, the
        name could be another topic's.
        """
        params, name = [], self.literals[0]
        for param, literal in self._after:
            value = text(values[param])
            if not value:
                raise ValueError(f"{param} is empty")
            params.append((param, value))
            name += escape(value, self.also) + literal
        return Topic(shorten(name), self.text, tuple(params))

    def read(self, name: str) -> Topic | None:
        """Return the topic that has this name, if this template can have produced it."""
        match = self._pattern().fullmatch(name)
        if match is None:
            return None
        topic = self.fill({param: unquote(match[param]) for param in self.params})
        return topic if topic.name == name else None

    def _pattern(self) -> re.Pattern[str]:
        value = f"[{''.join(map(re.escape, sorted(VALUE - self.also)))}]+"
        groups = [f"(?P<{param}>{value})" for param in self.params]
        return re.compile("".join(_interleave(tuple(map(re.escape, self.literals)), groups)))


def overlap(one: TopicTemplate, other: TopicTemplate) -> str | None:
    """Return a name that both templates can produce, or None.

    Two such topics would share a channel: a subscriber of one would get what is meant for the
    other. Walks both templates side by side, character by character.
    """
    steps_one, steps_other = list(_steps(one)), list(_steps(other))
    seen = {(0, 0)}
    queue = deque([((0, 0), "")])
    while queue:
        (i, j), name = queue.popleft()
        if i == len(steps_one) and j == len(steps_other):
            return name
        for (next_i, first), (next_j, second) in (
            (a, b) for a in _moves(steps_one, i) for b in _moves(steps_other, j)
        ):
            common = first & second
            if common and (next_i, next_j) not in seen:
                seen.add((next_i, next_j))
                queue.append(((next_i, next_j), name + _readable(common)))
        for state in _skips(steps_one, steps_other, i, j):
            if state not in seen:
                seen.add(state)
                queue.append((state, name))
    return None


@dataclass(frozen=True, slots=True)
class _Step:
    """One character of a name: which ones may stand here, and whether it may be repeated."""

    characters: frozenset[str]
    repeats: bool = False


def _steps(template: TopicTemplate) -> Iterator[_Step]:
    for position, literal in enumerate(template.literals):
        for character in literal:
            yield _Step(frozenset(character))
        if position < len(template.params):
            value = VALUE - template.also
            yield _Step(value)
            yield _Step(value, repeats=True)


def _moves(steps: list[_Step], at: int) -> Iterator[tuple[int, frozenset[str]]]:
    if at < len(steps):
        step = steps[at]
        yield (at if step.repeats else at + 1), step.characters


def _skips(one: list[_Step], other: list[_Step], i: int, j: int) -> Iterator[tuple[int, int]]:
    if i < len(one) and one[i].repeats:
        yield i + 1, j
    if j < len(other) and other[j].repeats:
        yield i, j + 1


def _readable(characters: frozenset[str]) -> str:
    return "x" if "x" in characters else min(characters - {"%"}, default="%")


def _check_literal(literal: str) -> None:
    for character in literal:
        if character not in LITERAL:
            raise ValueError(
                f"{character!r} cannot stand in a topic's name; "
                "use letters, digits and . _ ~ : / @ | - around {parameters}"
            )


def _separator(literal: str) -> str:
    for character in literal:
        if character in SEPARATORS:
            return character
    raise ValueError('two parameters need one of . _ ~ : / @ | - between them, as in "{a}:{b}"')


def _interleave(literals: tuple[str, ...], values: list[str]) -> Iterator[str]:
    for literal, value in zip(literals, [*values, ""], strict=True):
        yield literal
        yield value

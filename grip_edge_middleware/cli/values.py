"""A topic on the command line: its name, or its template and then its values, `NAME=VALUE`."""

from __future__ import annotations

from collections.abc import Sequence

from grip_edge_middleware.cli.status import WrongUse


def is_template(word: str) -> bool:
    """Whether a word is a topic's template with parameters, as in "counter-{name}"."""
    return "{" in word


def parse_values(words: Sequence[str]) -> dict[str, str]:
    """Read `NAME=VALUE` words. WrongUse says which is none."""
    values: dict[str, str] = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not separator or not name:
            raise WrongUse(f'"{word}": expected NAME=VALUE; does something lack its quotes?')
        if name in values:
            raise WrongUse(f'"{name}" has two values')
        values[name] = value
    return values

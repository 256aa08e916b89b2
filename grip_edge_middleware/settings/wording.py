"""How a mistake in the settings is worded: what was found, what was expected, no secret."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, NoReturn


class Wrong(Exception):  # noqa: N818 - never leaves this file
    """A value cannot be used. Caught where its path is known."""

    def __init__(self, problem: str, hint: str = "") -> None:
        self.mistake = (problem, hint)


def show(found: object) -> str:
    """Return what was found as an error shows it."""
    if isinstance(found, str):
        return json.dumps(found if len(found) <= 60 else f"{found[:57]}...")
    is_plain = found is None or isinstance(found, bool | int | float | type)
    return repr(found)[:60] if is_plain else kind(found)


def kind(found: object) -> str:
    """Return the kind of what was found, which is all that may be shown of a secret."""
    return "None" if found is None else f"{type(found).__name__}"


def nearest(name: object, known: Iterable[str]) -> str:
    """Ask for the valid name that is most like this one."""
    close = get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f'did you mean "{close[0]}"?' if close else ""


def expected(what: str, found: object, hint: str = "") -> NoReturn:
    """Say what was expected, and what was found."""
    raise Wrong(f"expected {what}, got {show(found)}", hint)


def only_names(found: Mapping[Any, Any], *known: str) -> None:
    """Refuse what is not a known name."""
    for name in found:
        if name not in known:
            hint = nearest(name, known) or f"known are {', '.join(known)}"
            raise Wrong(f"unknown setting {show(name)}", hint)


def without_secrets(found: object) -> object:
    """Return what was found, unless a part of it may be a secret."""
    if not isinstance(found, str) or re.fullmatch(r"(\w*://)?[\w.-]*(:\d+)?/*", found):
        return found
    scheme, separator, _ = found.partition("://")
    return f"{scheme}{separator}..." if separator else "a text without ://"

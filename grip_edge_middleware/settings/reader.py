"""Walks the settings dict and collects mistakes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

from grip_edge_middleware.errors import Mistake
from grip_edge_middleware.settings.checks import CHECKS
from grip_edge_middleware.settings.wording import Wrong, nearest, show

T = TypeVar("T")


class Reader:
    """Reads what is in a dict, key by key, and goes on after a mistake."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.mistakes: list[Mistake] = []
        self.is_in_region = False

    def names(self, path: str, found: Mapping[Any, Any], known: Iterable[str]) -> None:
        """Note what is not a known name."""
        known = tuple(known)
        for name in found:
            if name not in known:
                hint = nearest(name, known) or f"known are {', '.join(sorted(known))}"
                self.wrong(f"{path}.{name}".lstrip("."), "unknown setting", hint)

    def values(
        self, path: str, found: Mapping[Any, Any], defaults: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return each value, or its default."""
        return {
            name: default
            if name not in found
            else self.attempt(f"{path}.{name}".lstrip("."), CHECKS[name], found[name], default)
            for name, default in defaults.items()
        }

    def many(self, path: str, found: object, read: Callable[[str, Any], T | None]) -> tuple[T, ...]:
        """Read each item of a list with `read(path, item)`."""
        if isinstance(found, str | bytes | Mapping) or not isinstance(found, Iterable):
            self.wrong(path, f"expected a list, got {show(found)}")
            return ()
        values = [
            self.attempt(at, partial(read, at), item)
            for at, item in ((f"{path}[{position}]", item) for position, item in enumerate(found))
        ]
        return tuple(value for value in values if value is not None)

    def attempt(
        self, path: str, read: Callable[[Any], T], found: object, default: T | None = None
    ) -> T | None:
        """Return what `read` makes of it, the default if it is wrong."""
        try:
            return read(found)
        except Wrong as wrong:
            self.wrong(path, *wrong.mistake)
        except ValueError as error:
            self.wrong(path, str(error))
        return default

    def credential(
        self,
        path: str,
        options: Mapping[Any, Any],
        name: str,
        variable: str,
        about: str = "",
    ) -> str | None:
        """Return a secret, or what comes with it, from the options or the environment.

        `about` says where it is made.
        """
        value = options.get(name) or self.environ.get(variable)
        if isinstance(value, str) and re.fullmatch(r"[!-~]+", value):
            return value
        # What was found is not repeated: it may be most of a secret.
        problem = "expected printable ASCII without spaces" if value else "missing"
        hint = f"set it or {variable} in the environment"
        if self.is_in_region:
            hint = f"set it; {variable} in the environment is for the cdn in no region"
        self.wrong(f"{path}.{name}", problem, f"{hint}; {about}" if about else hint)
        return None

    def wrong(self, path: str, problem: str, hint: str = "") -> None:
        """Note a mistake."""
        self.mistakes.append(Mistake(path, problem, hint))
